# SPDX-License-Identifier: Apache-2.0
"""What mixtures by language are worth on the real model: Basque and Khmer are the target together, English is kept.

The packaged model after its trim is trained with the mixture and with what it is set against, from three seeds. What is
compared are bits per byte of a fixed sample of each language's test text, paired by seed, and `mean`: bits per token,
averaged over the languages, which is the loss that `mixture/skill_it` shares rows by. All ways have one vocabulary.

- ``temperature``: Basque training text is cut to a tenth, so that the target has a small and a large language: 0.1 and
  0.7 million tokens. Against sampling by size, Basque is promised to be learnt better; kept text has a quarter of the
  rows either way.
- ``skill_it``: all of the text, against equal shares of the three languages. The laps read three times five steps
  before the run and their weights are thrown away, so equal shares get 28,160 tokens: as many as laps and run have
  together. The forward passes over calibration text that the method asks for are not counted, which is in its favour.
  It promises a mean no worse.

Documents that the identifier is unsure of (0.6 % of the English text, 0.1 % of the other) are left out: mixtures by
language take them for a text of its own.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.harness import key, work_folder
from bench.pretrain.claims import FACTS, SHARED, interval, named, verdict
from bench.vocab.place import Place, corpus

LAP_STEPS = 5
LAPS = 3 * LAP_STEPS * SHARED["knobs"]["batch_tokens"]
TEXT: dict[str, Any] = {"text": ["bundled:eu", "bundled:km"], "languages": ["eu", "km", "en"], "own_share": 0.2}
COMPARISONS: dict[str, dict[str, Any]] = {
    "temperature": {
        "method": {"mixture": {"use": "temperature", "with": {"alpha": 0.3}}},
        "baseline": {"mixture": {"use": "temperature", "with": {"alpha": 1.0}}},
        "smaller": "eu",
        "on": "eu",
    },
    "skill_it": {
        "method": {
            "mixture": {"use": "skill_it", "with": {"lap_steps": LAP_STEPS, "measurements": 4}},
            "evaluation_tokens": 1024,
        },
        "baseline": {
            "mixture": {"use": "fixed", "with": {"by": "language"}},
            "tokens": SHARED["knobs"]["tokens"] + LAPS,
        },
        "smaller": None,
        "on": "mean",
    },
}
WAYS = ("method", "baseline")
START = ["src/lect/stages/vocab/trim.py", "bench/vocab/place.py"]
CODE = [*START, "src/lect/parts/mixture/kind.py", "bench/pretrain/claims.py"]
ORDER = 85


def variants() -> dict[str, ModuleType]:
    """One comparison for each mixture and text."""
    return {name: variant(name, told) for name, told in COMPARISONS.items()}


def variant(name: str, told: dict[str, Any]) -> ModuleType:
    """The comparison of one mixture, with all that the harness asks of a module."""
    made: Any = ModuleType(f"bench.pretrain.languages_{name}")
    parts = {told[way]["mixture"]["use"] for way in WAYS}
    made.__file__, made.measure, made.GOALS, made.ORDER = __file__, measure, {}, ORDER
    made.__doc__ = f"mixture/{name} by language: Basque and Khmer as the target, English kept."
    made.CONFIG = {**SHARED, **TEXT, **told, "max_bytes": 12_000}
    made.CODE = [*CODE, *(f"src/lect/parts/mixture/{part}.py" for part in sorted(parts))]
    return made  # type: ignore[no-any-return]


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One training for each seed and way, and bits per byte of each language after it."""
    from lect import artefacts, models

    base = artefacts.Model(models.resolve(config["model"]))
    model, text = start(config, base)
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    tests = {language: alone(place, text, language) for language in config["languages"]}
    before = bits(place, model, tests, config["max_bytes"])
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for seed in config["seeds"]:
        for way in WAYS:
            knobs = {**config["knobs"], **config[way]}
            made, facts = place.step(
                f"{way}-{seed}", "pretrain/continue", knobs, seed, base=base, model=model, corpus=text
            )
            found = bits(place, made, tests, config["max_bytes"])
            shutil.rmtree(made.folder)
            read = {name: facts[name] for name in (*FACTS, "epochs", "laps", "measurements") if name in facts}
            runs[way].append({"seed": seed, **found, **read})
            print(way, runs[way][-1], flush=True)
    return {**judged(runs, config["on"]), "details": {"before": before, "runs": runs}}


def judged(runs: dict[str, list[dict[str, Any]]], on: str) -> dict[str, Any]:
    """Means of both ways, the method's changes, and the verdict on what is promised."""
    names = [*TEXT["languages"], "mean"]
    figures = {f"{way}_{n}": statistics.fmean(run[n] for run in runs[way]) for way in WAYS for n in names}
    pairs = list(zip(*(runs[way] for way in WAYS), strict=True))
    changes = {name: interval([ours[name] / theirs[name] - 1 for ours, theirs in pairs]) for name in names}
    mean, _, high = changes[on]
    return {"figures": figures | named(changes), "verdict": verdict(mean, high, 0.0)}


def bits(place: Place, model: Any, tests: dict[str, Any], max_bytes: int) -> dict[str, float]:
    """Bits per byte of each language, and the mean of their bits per token."""
    found, tokens = {}, []
    for language, text in tests.items():
        label = f"bits-{model.folder.parent.name}-{language}"
        knobs = {"max_bytes": max_bytes}
        report, _ = place.step(label, "evaluate/bits_per_byte", knobs, base=model, model=model, corpus=text)
        read = report.data["target"]["base"]
        found[language] = read["bits_per_byte"]
        tokens.append(read["bits_per_byte"] * read["bytes_per_token"])
    return {**found, "mean": statistics.fmean(tokens)}


def alone(place: Place, text: Any, language: str) -> Any:
    """The test text of one language, as a target of its own."""
    from lect.artefacts import Corpus

    folder = place.folder / f"test-{language}"
    folder.mkdir(parents=True)
    return Corpus.write(
        folder, (replace(d, role="target") for d in text.documents(split="test") if d.language == language)
    )


def thinned(text: Any, languages: list[str], smaller: str | None) -> Iterator[Any]:
    """The documents of the languages; of the smaller one's training documents every tenth, by their names' order."""
    train = sorted(d.id for d in text.documents(split="train") if d.language == smaller)
    left = set(train) - set(train[::10])
    return (d for d in text.documents() if d.language in languages and d.id not in left)


def start(config: dict[str, Any], base: Any) -> tuple[Any, Any]:
    """The trimmed model and the corpus, made once for each text."""
    from lect.artefacts import Corpus, Model

    said: Any = ModuleType("start")
    said.__file__, said.CODE = __file__, [*START, "src/lect/stages/corpus", "src/lect/data", "src/lect/models.py"]
    words = {name: config[name] for name in ("model", "text", "keep", "own_share", "languages", "smaller")}
    folder = work_folder("pretrain_languages") / key(words, said)[:12]
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        place = Place(folder)
        whole = corpus(place, config["text"], config["keep"], own_share=config["own_share"])
        (folder / "text").mkdir()
        text = Corpus.write(folder / "text", thinned(whole, config["languages"], config["smaller"]))
        place.step("trim", "vocab/trim", {}, model=base, corpus=text)
        (folder / "done").touch()
    return Model(folder / "trim" / "out"), Corpus(folder / "text")
