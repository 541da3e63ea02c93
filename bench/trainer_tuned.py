# SPDX-License-Identifier: Apache-2.0
"""lect against `transformers.Trainer` with a learning rate and a batch chosen for this machine and these minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.harness import at_least, at_most
from bench.trainer_baseline import corpus_folder, evaluate, probe_and_train
from bench.trainer_usual import compare

# Small batches: many steps in few minutes, and the least memory. The rate is chosen by short runs, on calibration text.
CONFIG = {
    "model": "gemma-3-270m",
    "minutes": 10.0,
    "block": 512,
    "batch": 2,
    "learning_rates": [5e-5, 1e-4, 2e-4],
    "sweep_minutes": 2.0,
    "judge": 40,
    "kept_share": 0.25,
    "seed": 0,
}
GOALS = {
    "trained_bytes_ratio": at_least(6),
    "trained_bytes_per_second_ratio": at_least(6),
    "peak_memory_ratio": at_most(0.5),
    "target_bits_per_byte_difference": at_most(0),
}
NEEDS = ["adapt"]
CODE = ["bench/trainer_baseline.py", "bench/trainer_usual.py", "src/lect/stages/corpus", "src/lect/stages/evaluate"]
CODE += ["src/lect/models.py"]
ORDER = 40


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The best rate of a short sweep, then the full minutes with it."""
    from lect import models

    base, corpus = models.resolve(config["model"]), corpus_folder()
    job = config | {"model": str(base), "corpus": str(corpus), "scratch": str(folder), "save": None}
    sweep = {}
    for rate in config["learning_rates"]:
        short = job | {"learning_rate": rate, "minutes": config["sweep_minutes"]}
        sweep[rate] = probe_and_train(folder, f"rate-{rate:g}", short)["calibration_loss"]
    best = min(sweep, key=lambda rate: sweep[rate])
    final = job | {"learning_rate": best, "save": str(folder / "trained")}
    trained = probe_and_train(folder, "tuned", final) | {
        "learning_rate": best,
        "sweep": {f"{r:g}": v for r, v in sweep.items()},
    }
    return compare(trained, evaluate(base, folder / "trained", corpus, folder / "evaluation"))
