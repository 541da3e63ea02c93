# SPDX-License-Identifier: Apache-2.0
"""The main job with longer tokens, recipes/faster.yaml: 4,096 new tokens after the trim, five minutes of training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import adapt
from bench.harness import ROOT, at_least, at_most, ratio, stored

CONFIG = {"model": "gemma-3-270m", "recipe": "recipes/faster.yaml", "minutes": 5.0, "precision": "q8_0"}
GOALS = {
    "parameters_share": at_most(0.46),
    "target_bits_per_byte_change": at_most(-0.33),
    "kept_bits_per_byte_change": at_most(0.0),
    "decode_speed_ratio": at_least(1.6),
    "forward_speed_ratio": at_least(3.0),
    "llamacpp_decode_speed_ratio": at_least(1.8),
    "trained_bytes_per_second_ratio": at_least(6),
    "broken_gates": at_most(0),
}
NEEDS = ["trainer_usual"]
CODE = [*adapt.CODE, "recipes/faster.yaml"]
ORDER = 35


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run of the recipe in a fresh folder, beside the stored speed of the Trainer."""
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    lect = str(Path(sys.executable).with_name("lect"))
    command = [lect, "run", str(ROOT / config["recipe"]), "--out", str(out)]
    code = subprocess.run([*command, "--set", f"continue.minutes={config['minutes']}"], check=False).returncode
    if code not in (0, 1):
        raise RuntimeError(f"lect run ended with status {code}")
    report = json.loads((out / "report.json").read_text("utf-8"))
    training, trainer = report["training"][-1], stored("trainer_usual")
    speed = trainer["figures"]["trained_bytes_per_second"]["value"]
    figures = adapt.figures(report) | {
        "llamacpp_decode_speed_ratio": adapt.llamacpp(config, out),
        "trained_bytes_per_second_ratio": ratio(training["bytes_per_second"], speed),
    }
    return {
        "figures": figures,
        "details": {key: report.get(key) for key in ("verdict", "gates", "target", "kept", "exams", "size", "speed")}
        | {"cost": report["cost"], "memory": report.get("memory"), "training": adapt.brief(report["training"])}
        | {"trainer_usual": trainer["key"], "exit_status": code},
    }
