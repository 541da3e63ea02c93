# SPDX-License-Identifier: Apache-2.0
"""How soon lect is as good on the target text as plain `transformers.Trainer` is after twenty minutes.

The Trainer trains the untrimmed model with its usual settings. lect trains the trimmed one with the step's defaults for
a tenth of the time that this took, then for more of it until bits per byte of the same test text are no higher. Neither
the reading nor the writing of the model counts; lect's getting ready and compiling do, and so does its last checkpoint.
The share is of seconds measured on both sides.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bench.harness import at_most, ratio
from bench.pretrain.claims import SHARED, start
from bench.trainer_baseline import evaluate, probe_and_train
from bench.vocab.place import Place

CONFIG: dict[str, Any] = {
    **{name: SHARED[name] for name in ("model", "text", "keep")},
    "shares": [0.1, 0.12, 0.15, 0.2],
    "trainer": {"minutes": 20.0, "block": 1024, "batch": 2, "learning_rate": 5e-5, "kept_share": 0.25, "seed": 0},
}
GOALS = {"minutes_share": at_most(0.1)}
CODE = ["bench/pretrain/claims.py", "bench/trainer_baseline.py", "bench/vocab/place.py", "src/lect/engine"]
CODE += ["src/lect/stages/pretrain", "src/lect/stages/vocab/trim.py"]
ORDER = 95


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The Trainer's bits per byte, and the first of the minutes at which lect's are no higher."""
    from lect import artefacts, models

    base = artefacts.Model(models.resolve(config["model"]))
    trimmed, read = start(config, base)
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    place.folder.mkdir(parents=True)
    paths = {
        "model": str(base.folder),
        "corpus": str(read.folder),
        "scratch": str(folder),
        "save": str(folder / "plain"),
    }
    plain = probe_and_train(folder, "plain", config["trainer"] | paths)
    wanted = bits(evaluate(base.folder, folder / "plain", read.folder, place.folder / "plain"))
    tried = []
    for share in config["shares"]:
        told = {"minutes": share * plain["seconds"] / 60, "evaluations": 1, "evaluation_tokens": 512}
        given = {"base": base, "model": trimmed, "corpus": read}
        made, facts = place.step(f"train-{share}", "pretrain/continue", told, **given)
        found = bits(evaluate(base.folder, made.folder, read.folder, place.folder / f"bits-{share}"))
        shutil.rmtree(made.folder)
        kept = ("ready_seconds", "seconds", "compile_seconds", "trained_tokens", "trained_bytes", "tokens_per_second")
        tried.append({**told, **found, **{name: facts[name] for name in kept}})
        print(wanted, tried[-1], flush=True)
        if found["target"] <= wanted["target"]:
            break
    figures = {f"trainer_{role}": value for role, value in wanted.items()}
    figures |= {f"lect_{role}_at_a_tenth": tried[0][role] for role in ("target", "kept")}
    took = tried[-1]["ready_seconds"] + tried[-1]["seconds"]
    reached = tried[-1]["target"] <= wanted["target"]
    figures["minutes_share"] = ratio(took, plain["seconds"]) if reached else None
    return {"figures": figures, "details": {"trainer": plain, "tried": tried}}


def bits(report: dict[str, Any]) -> dict[str, float]:
    """Bits per byte of the judged model, by role."""
    return {role: report[role]["adapted"]["bits_per_byte"] for role in ("target", "kept")}
