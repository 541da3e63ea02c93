# SPDX-License-Identifier: Apache-2.0
"""The main job on the packaged model: Basque software help as the target, English kept, ten minutes of training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.harness import HERE, at_least, at_most, ratio

CONFIG = {"model": "gemma-3-270m", "text": "bundled:eu", "keep": "bundled:en", "minutes": 10.0, "precision": "q8_0"}
GOALS = {
    "parameters_share": at_most(0.46),
    "target_bits_per_byte_change": at_most(-0.33),
    "kept_bits_per_byte_change": at_most(0.0),
    "decode_speed_ratio": at_least(1.6),
    "prefill_speed_ratio": at_least(3.0),
    "llamacpp_decode_speed_ratio": at_least(1.8),
    "utilisation": at_least(0.30),
    "broken_gates": at_most(0),
}
CODE = ["src/lect/stages", "src/lect/parts", "src/lect/engine", "src/lect/ops", "src/lect/data", "src/lect/plan.py"]
CODE += ["src/lect/artefacts.py", "src/lect/models.py", "src/lect/machine.py", "bench/llamacpp_speed.py"]
ORDER = 20


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run of `lect adapt` in a fresh folder; every figure is read from its report.json."""
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    lect = str(Path(sys.executable).with_name("lect"))
    words = [config["model"], config["text"], "--keep", config["keep"], "--out", str(out)]
    command = [lect, "adapt", *words, "--minutes", str(config["minutes"])]
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 1):
        raise RuntimeError(f"lect adapt ended with status {code}")
    report = json.loads((out / "report.json").read_text("utf-8"))
    return {
        "figures": figures(report) | {"llamacpp_decode_speed_ratio": llamacpp(config, out)},
        "details": {key: report.get(key) for key in ("verdict", "gates", "target", "kept", "exams", "size", "speed")}
        | {"cost": report["cost"], "memory": report.get("memory"), "training": brief(report["training"])}
        | {"steps": [{k: s.get(k) for k in ("name", "seconds", "peak_memory_bytes")} for s in report["steps"]]}
        | {"exit_status": code, "lect_command": ["lect", "adapt", *command[2:-4], "--minutes", str(config["minutes"])]},
    }


def figures(report: dict[str, Any]) -> dict[str, float | None]:
    """The figures of the list, out of one report."""
    size, speed = report["size"], report["speed"]
    found = {
        "parameters_share": ratio(size["adapted"]["parameters"], size["base"]["parameters"]),
        "broken_gates": sum(1 for gate in report["gates"] if gate["pass"] is False),
        "utilisation": report["training"][-1]["utilisation"] if report["training"] else None,
    }
    for role in ("target", "kept"):
        bits = {which: report[role][which]["bits_per_byte"] for which in ("base", "adapted")}
        quotient = ratio(bits["adapted"], bits["base"])
        found[f"{role}_bits_per_byte_base"] = bits["base"]
        found[f"{role}_bits_per_byte_adapted"] = bits["adapted"]
        found[f"{role}_bits_per_byte_change"] = None if quotient is None else quotient - 1
    for kind in ("decode", "prefill", "forward"):
        name = f"{kind}_bytes_per_second"
        found[f"{kind}_speed_ratio"] = ratio(speed["adapted"].get(name), speed["base"].get(name))
    return found


def brief(training: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The training figures without the curves."""
    return [{k: v for k, v in row.items() if k not in ("losses",)} for row in training]


def llamacpp(config: dict[str, Any], out: Path) -> float | None:
    """Decode speed in llama.cpp, adapted over base, both exported by lect at the same precision."""
    if not (HERE / "llamacpp_speed.py").exists():
        return None
    from bench import llamacpp_speed

    return float(llamacpp_speed.decode_ratio(config["model"], out / "model", config["precision"], out / "llamacpp"))
