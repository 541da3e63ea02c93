# SPDX-License-Identifier: Apache-2.0
"""A small teacher at first (objective/distil_small) against none, at equal tokens, on the real model.

The teacher is half of the packaged model after its trim: nine of its eighteen layers, evenly spread, first and last
among them. What is left after such a cut predicts little, so it reads six times the student's tokens of the same text
first, at a rate that was the best of 1e-4, 3e-4 and 1e-3 after a sixth of them; its own bits per byte are figures.
Then the whole model reads the student's tokens with the teacher and without, from three seeds. The two take turns, so
that the ratio of their tokens a second is one inside of a round.

The promise is on bits per byte of the target: no more with the teacher, paired by seed, with a 95 % interval. The
engine's changes move both alike and are not in the key.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

from bench.harness import at_most
from bench.pretrain.claims import ROLES, SHARED, changed, named, start, trained, verdict
from bench.vocab.place import Place

CONFIG: dict[str, Any] = {
    **SHARED,
    "layers": [0, 2, 4, 6, 8, 11, 13, 15, 17],
    "teacher": {"seed": 3, "tokens": 122_880, "learning_rate": 3e-4},
    "arms": {"plain": None, "taught": {}},
}
GOALS = {"target_change": at_most(0.0)}
CODE = ["src/lect/stages/vocab/trim.py", "src/lect/parts/objective/distil_small.py"]
CODE += ["bench/pretrain/claims.py", "bench/vocab/place.py"]
ORDER = 86


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The teacher; then one round for each seed; which of the two goes first changes from round to round."""
    from lect import artefacts, models

    base = artefacts.Model(models.resolve(config["model"]))
    given = dict(zip(("model", "corpus"), start(config, base), strict=True))
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    student = place.bits(given["model"], given["corpus"], config["max_bytes"])
    cut = fewer(given["model"], config["layers"], place.folder / "cut" / "out")
    seed, tokens, rate = (config["teacher"][name] for name in ("seed", "tokens", "learning_rate"))
    knobs = {**config["knobs"], "tokens": tokens, "learning_rate": rate, "embedding_learning_rate": rate}
    teacher, _ = place.step("teacher", "pretrain/continue", knobs, seed, base=base, model=cut, corpus=given["corpus"])
    before, after = (place.bits(model, given["corpus"], config["max_bytes"]) for model in (cut, teacher))
    print({"student": student, "cut": before, "teacher": after}, flush=True)
    rounds = []
    for number, seed in enumerate(config["seeds"]):
        found: dict[str, Any] = {}
        for which in [*config["arms"]][:: 1 if number % 2 else -1]:
            arm = config["arms"][which]
            told = {} if arm is None else {"objective": salt(teacher, arm)}
            found[which] = trained(place, f"{which}-{seed}", config, told, seed, base=base, **given)
            print(seed, which, found[which], flush=True)
        rounds.append({"seed": seed, **found})
    figures: dict[str, float | None] = {f"student_before_{role}": student[role] for role in ROLES}
    figures |= {f"teacher_{role}": after[role] for role in ROLES}
    return {**judged(rounds, figures), "details": {"rounds": rounds, "teacher_before": before}}


def salt(teacher: Any, knobs: dict[str, Any]) -> dict[str, Any]:
    """The objective with this teacher."""
    return {"use": "distil_small", "with": {"model": str(teacher.folder), **knobs}}


def fewer(model: Any, layers: list[int], folder: Path) -> Any:
    """The model with these of its layers alone, as a folder."""
    from torch import nn

    from lect.artefacts import Model

    live = model.load()
    live.model.layers = nn.ModuleList(live.model.layers[n] for n in layers)
    live.config.layer_types = [live.config.layer_types[n] for n in layers]
    live.config.num_hidden_layers = len(layers)
    return Model.write(folder, live, model.tokenizer(), dtype=model.dtype)


def judged(rounds: list[dict[str, Any]], figures: dict[str, float | None]) -> dict[str, Any]:
    """Figures and verdict of the rounds, beside the figures that are there already."""
    arms = {which: [found[which] for found in rounds] for which in rounds[0] if which != "seed"}
    for which, runs in arms.items():
        figures |= {f"{which}_{role}": statistics.fmean(run[role] for run in runs) for role in ROLES}
    changes = changed(arms["taught"], arms["plain"])
    figures |= named(changes)
    pairs = zip(arms["plain"], arms["taught"], strict=True)
    figures["seconds_ratio"] = statistics.median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs)
    mean, _, high = changes["target"]
    return {"figures": figures, "verdict": verdict(mean, high, 0.0)}
