# SPDX-License-Identifier: Apache-2.0
"""lect against plain `transformers.Trainer` with its usual settings, for the same minutes on the same text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.harness import at_least, at_most, ratio, stored
from bench.trainer_baseline import corpus_folder, evaluate, probe_and_train

# Blocks of 1024 and a learning rate of 5e-5 are what the library's language-modelling example and TrainingArguments use
# when nothing is said. Their batch of 8 takes 26 GB for the logits alone (8 x 1024 x 262144, in bf16 and fp32, with
# gradients), so it is halved until it fits into 24 GB, the usual answer to running out of memory: 4 takes about 20 GB
# and leaves too little for the rest of the system, 2 fits.
CONFIG = {
    "model": "gemma-3-270m",
    "minutes": 10.0,
    "block": 1024,
    "batch": 2,
    "learning_rate": 5e-5,
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
CODE = ["bench/trainer_baseline.py", "src/lect/stages/corpus", "src/lect/stages/evaluate", "src/lect/models.py"]
ORDER = 30


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run of the Trainer, its model judged as lect's own, and both side by side."""
    from lect import models

    base, corpus = models.resolve(config["model"]), corpus_folder()
    paths = {"model": str(base), "corpus": str(corpus), "scratch": str(folder), "save": str(folder / "trained")}
    trained = probe_and_train(folder, "usual", config | paths)
    return compare(trained, evaluate(base, folder / "trained", corpus, folder / "evaluation"))


def compare(trained: dict[str, Any], judged: dict[str, Any]) -> dict[str, Any]:
    """Figures of the Trainer, and lect's over them, lect's from ``bench/results/adapt.json``.

    ``trained_bytes_ratio`` is over the whole minutes: lect's hold compiling and its evaluations too, the Trainer's only
    its steps. The ratio per second is over the steps of both, each without its first.
    """
    ours = stored("adapt")
    training = ours["details"]["training"][-1]
    bits = {role: judged[role]["adapted"]["bits_per_byte"] for role in ("target", "kept")}
    return {
        "figures": {
            "trained_bytes_per_second": trained["trained_bytes_per_second"],
            "peak_memory_bytes": trained["peak_memory_bytes"],
            "target_bits_per_byte": bits["target"],
            "kept_bits_per_byte": bits["kept"],
            "trained_bytes_ratio": ratio(training["trained_bytes"], trained["trained_bytes"]),
            "trained_bytes_per_second_ratio": ratio(training["bytes_per_second"], trained["trained_bytes_per_second"]),
            "peak_memory_ratio": ratio(training["peak_memory_bytes"], trained["peak_memory_bytes"]),
            "target_bits_per_byte_difference": ours["details"]["target"]["adapted"]["bits_per_byte"] - bits["target"],
            "kept_bits_per_byte_difference": ours["details"]["kept"]["adapted"]["bits_per_byte"] - bits["kept"],
        },
        "details": {"trainer": trained, "evaluation": judged, "adapt": {"key": ours["key"], "commit": ours["commit"]}},
    }
