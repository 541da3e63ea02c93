# SPDX-License-Identifier: Apache-2.0
"""What packings are worth at a length of 2,048 on the real model: each against concatenating and chunking.

The packaged model after its trim reads as many tokens of the bundled text with the packing as with chunks in which all
documents see each other, from three seeds. The two take turns, so the ratio of bytes a second is one inside of a round;
the figure is the median of the rounds. Bits per byte of test text are paired by seed, with a 95 % interval of the mean.
Decomposition promises 1.3 times the bytes a second and no more bits; the others promise no more bits.

After the main job's corpus steps, the Basque training text has 1,952 documents of 1,005,158 tokens: a tenth of the
documents up to 98 tokens, half up to 301, nine tenths up to 1,185, 4 % above 2,048. Half of the tokens are in documents
of up to 875, 30 % in those of up to 512. The English text has 650 documents of 282,640 tokens: half up to 239, nine
tenths up to 1,023, 1 % above 2,048. So in chunks a token has 1,024 others before it on average and, where a layer sees
512, 448; after decomposition 352 and 235. With 15 of 18 layers of that kind, this saves 0.06 of 0.83 GFLOP a token:
fewer operations alone make decomposition 1.08 times as fast.

A run has 20 updates. Decomposition goes from short to long 32 times in an epoch, which is once in a run.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.harness import Goal, at_least, at_most, ratio
from bench.pretrain.claims import ROLES, SHARED, changed, interval, named, start, trained, verdict
from bench.vocab.place import Place

BASELINE = {"use": "concat", "with": {"isolate": False}}
LENGTH = {"tokens": 40_960, "batch_tokens": 2048, "max_length": 2048}
PACKINGS: dict[str, dict[str, Any]] = {
    "decompose": {"packing": {"use": "decompose", "with": {"cycles": 32}}, "faster": 1.3},
    "best_fit": {"packing": {"use": "best_fit", "with": {"isolate": False}}, "faster": None},
    "related": {"packing": {"use": "related"}, "faster": None},
    "one_document": {"packing": {"use": "one_document"}, "faster": None},
}
CODE = ["src/lect/engine", "src/lect/stages/vocab/trim.py", "src/lect/parts/packing/kind.py"]
CODE += ["src/lect/parts/packing/concat.py", "bench/pretrain/claims.py", "bench/vocab/place.py"]
ORDER = 85


def variants() -> dict[str, ModuleType]:
    """One comparison for each packing."""
    return {name: variant(name, told) for name, told in PACKINGS.items()}


def variant(name: str, told: dict[str, Any]) -> ModuleType:
    """The comparison of one packing, with all that the harness asks of a module."""
    made: Any = ModuleType(f"bench.pretrain.packing_{name}")
    goals: dict[str, Goal] = {"target_change": at_most(0.0)}
    if told["faster"]:
        goals["bytes_per_second_ratio"] = at_least(told["faster"])
    made.__file__, made.measure, made.GOALS, made.ORDER = __file__, measure, goals, ORDER
    made.__doc__ = f"packing/{name} against concatenating and chunking at a length of 2,048."
    made.CONFIG = {**SHARED, **told, "baseline": BASELINE, "knobs": {**SHARED["knobs"], **LENGTH}}
    made.CODE = [*CODE, f"src/lect/parts/packing/{name}.py"]
    return made  # type: ignore[no-any-return]


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One round for each seed: both packings; which of them goes first changes from round to round."""
    from lect import artefacts, models

    base = artefacts.Model(models.resolve(config["model"]))
    given = dict(zip(("model", "corpus"), start(config, base), strict=True))
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    rounds = []
    for number, seed in enumerate(config["seeds"]):
        found: dict[str, Any] = {}
        for which in ("packing", "baseline")[:: 1 if number % 2 else -1]:
            told = {"packing": config[which]}
            found[which] = trained(place, f"{which}-{seed}", config, told, seed, base=base, **given)
            print(seed, which, found[which], flush=True)
        rounds.append({"seed": seed, **found})
    return {**judged(rounds, config["faster"]), "details": {"rounds": rounds}}


def judged(rounds: list[dict[str, Any]], faster: float | None) -> dict[str, Any]:
    """Figures and verdict of the rounds: of the bits alone, or of bits and speed where speed is promised."""
    runs = {which: [found[which] for found in rounds] for which in ("packing", "baseline")}
    figures: dict[str, float | None] = {
        f"{which}_{name}": statistics.fmean(run[name] for run in some)
        for which, some in runs.items()
        for name in (*ROLES, "bytes_per_second")
    }
    changes = changed(*runs.values())
    mean, _, high = changes["target"]
    verdicts = [verdict(mean, high, 0.0)]
    speeds = zip(*([run["bytes_per_second"] for run in some] for some in runs.values()), strict=True)
    ratios = [float(ratio(ours, theirs) or 0.0) for ours, theirs in speeds]
    middle, (_, low, top) = statistics.median(ratios), interval(ratios)
    found = {"": middle, "_low": low, "_high": top}
    figures |= named(changes) | {f"bytes_per_second_ratio{end}": value for end, value in found.items()}
    if faster:
        verdicts.append(verdict(-middle, -low, -faster))
    worst = next(v for v in ("does not hold here", "holds weakly", "holds") if v in verdicts)
    return {"figures": figures, "verdict": worst}
