# SPDX-License-Identifier: Apache-2.0
"""What published ways to train are worth on the real model: each against plain continued pretraining, on equal tokens.

The packaged model after its trim reads the same number of tokens of the bundled text with every method, from three
seeds. What is compared are bits per byte of test text, paired by seed: the mean of the relative differences and its
95 % interval by Student's t. The verdict is on the quantity that the method's paper promises: ``holds`` when the whole
interval is inside of the bound, ``holds weakly`` when its middle is, else ``does not hold here``.

The key of a result holds the method and the comparison, not the engine: as far as the engine is right, its changes
move all of them alike, and when the baseline is measured again they all are stale.
"""

from __future__ import annotations

import math
import shutil
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.harness import stored, work_folder
from bench.pretrain.methods import CLAIMS
from bench.vocab.place import Place, corpus

PREFIX = "pretrain_claims_"
ROLES = ("target", "kept")
FACTS = ("trained_tokens", "trained_bytes", "steps", "bytes_per_second", "tokens_per_second", "filled")
SHARED: dict[str, Any] = {
    "model": "gemma-3-270m",
    "text": "bundled:eu",
    "keep": "bundled:en",
    "seeds": [0, 1, 2],
    "max_bytes": 24_000,
    "knobs": {
        "tokens": 20_480,
        "batch_tokens": 512,
        "max_length": 512,
        "learning_rate": 5e-5,
        "embedding_learning_rate": 5e-5,
        "weight_decay": 0.0,
        "beta1": 0.9,
        "beta2": 0.95,
        "clip": 1.0,
        "precision": "bf16",
        "evaluations": 1,
        "evaluation_tokens": 512,
    },
}
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""The 97.5 % point of Student's t, by degrees of freedom."""
CODE = ["src/lect/stages/vocab/trim.py", "bench/vocab/place.py"]
ORDER = 80


def variants() -> dict[str, ModuleType]:
    """One comparison for each claim."""
    return {name: variant(name, told) for name, told in CLAIMS.items()}


def variant(name: str, told: dict[str, Any]) -> ModuleType:
    """The comparison of one claim, with all that the harness asks of a module."""
    made: Any = ModuleType(f"bench.pretrain.claims_{name}")
    against = told["against"]
    made.__file__ = __file__
    made.__doc__ = f"{told['part']} as promised." if against else "Plain continued pretraining, three seeds."
    made.CONFIG = {**SHARED, **told, "knobs": {**SHARED["knobs"], **told["knobs"]}}
    made.GOALS = {}
    made.CODE = CODE + ([f"src/lect/parts/{told['part']}.py"] if told["part"] else [])
    made.NEEDS = [PREFIX + against] if against else []
    made.ORDER = ORDER + bool(against)
    made.measure = measure
    return made  # type: ignore[no-any-return]


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One training for each seed, and bits per byte of both roles; then the differences from the baseline."""
    from lect import artefacts, models

    base = artefacts.Model(models.resolve(config["model"]))
    given = dict(zip(("model", "corpus"), start(config, base), strict=True))
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    runs = []
    for seed in config["seeds"]:
        runs.append({"seed": seed, **trained(place, f"seed-{seed}", config, config["with"], seed, base=base, **given)})
        print(runs[-1], flush=True)
    figures: dict[str, float | None] = {role: statistics.fmean(r[role] for r in runs) for role in ROLES}
    if not config["against"]:
        return {"figures": figures, "details": {"runs": runs}}
    changes = changed(runs, stored(PREFIX + config["against"])["details"]["runs"])
    mean, _, high = changes[config["on"]]
    told = {"details": {"runs": runs}, "verdict": verdict(mean, high, config["bound"])}
    return {"figures": figures | named(changes), **told}


def trained(
    place: Place, label: str, config: dict[str, Any], told: dict[str, Any], seed: int, **given: Any
) -> dict[str, Any]:
    """One training with the knobs ``told`` beside those of all: bits per byte of both roles, and what was read."""
    made, facts = place.step(label, "pretrain/continue", {**config["knobs"], **told}, seed, **given)
    found = place.bits(made, given["corpus"], config["max_bytes"])
    shutil.rmtree(made.folder)
    return {**found, **{name: facts[name] for name in FACTS}}


def changed(runs: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """For each role the relative change of bits per byte, paired in order: mean and ends of the interval."""
    pairs = list(zip(runs, others, strict=True))
    return {role: interval([ours[role] / theirs[role] - 1 for ours, theirs in pairs]) for role in ROLES}


def named(changes: dict[str, tuple[float, float, float]]) -> dict[str, float]:
    """The changes as figures."""
    ends = ("change", "change_low", "change_high")
    return {f"{role}_{end}": value for role, found in changes.items() for end, value in zip(ends, found, strict=True)}


def start(config: dict[str, Any], base: Any) -> tuple[Any, Any]:
    """The trimmed model and the corpus, made once for all comparisons of the same code."""
    from bench.harness import key
    from lect import artefacts

    said: Any = ModuleType("start")
    said.__file__, said.CODE = __file__, [*CODE, "src/lect/stages/corpus", "src/lect/data", "src/lect/models.py"]
    words = {name: config[name] for name in ("model", "text", "keep")}
    folder = work_folder("pretrain_claims") / key(words, said)[:12]
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        place = Place(folder)
        place.step("trim", "vocab/trim", {}, model=base, corpus=corpus(place, config["text"], config["keep"]))
        (folder / "done").touch()
    return artefacts.Model(folder / "trim" / "out"), artefacts.Corpus(folder / "split" / "out")


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean, lower and upper end of the 95 % interval of the mean."""
    mean = statistics.fmean(values)
    reach = STUDENT[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - reach, mean + reach


def verdict(mean: float, high: float, bound: float) -> str:
    """In words, whether a promise is kept."""
    return "holds" if high <= bound else "holds weakly" if mean <= bound else "does not hold here"
