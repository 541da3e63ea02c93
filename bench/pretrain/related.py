# SPDX-License-Identifier: Apache-2.0
"""A little Basque beside another language: the closer of two, the farther one, and none (`mixture/related_languages`).

Basque training text is cut to its first documents, some 1,500 tokens, which a run by itself reads about ten times. The
others are Khmer and one half of the English text; the other half is the kept text. How close each is is counted from
the text, as the paper's words are: the logarithm of one more than the tokens that both texts use. No language that is
close to Basque is bundled, so what is tested is the order of two far ones, and whether the closer of them pays. Equal
tokens, three seeds, bits per byte of Basque test text, paired by seed. The paper promises less loss with the closer
language than with the farther one and than with none; the verdict is that of the weaker of the two.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.pretrain import languages
from bench.pretrain.claims import ROLES, SHARED, changed, named, trained, verdict
from bench.vocab.place import Place

CONFIG: dict[str, Any] = {
    **SHARED,
    **languages.TEXT,
    "smaller": None,
    "own": "eu",
    "own_bytes": 5_000,
    "counted_bytes": 400_000,
    "relatives": 0.5,
}
WAYS = ("closer", "farther", "alone")
GOALS: dict[str, Any] = {}
CODE = [*languages.CODE, "bench/pretrain/languages.py", "src/lect/parts/mixture/related_languages.py"]
CODE += ["src/lect/laws/related_languages.py"]
ORDER = 85


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Three ways from each seed, and what the closer language changes against the two others."""
    from lect import artefacts, models
    from lect.artefacts import Corpus

    base = artefacts.Model(models.resolve(config["model"]))
    model, text = languages.start(config, base)
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    words = shared_words(model, text, config)
    (place.folder / "text").mkdir(parents=True)
    given = {"base": base, "model": model, "corpus": Corpus.write(place.folder / "text", scarce(text, config))}
    before = place.bits(model, given["corpus"], config["max_bytes"])
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for seed in config["seeds"]:
        for way in WAYS:
            told = {"mixture": {"use": "related_languages", "with": mixture(way, words, config)}}
            runs[way].append({"seed": seed, **trained(place, f"{way}-{seed}", config, told, seed, **given)})
            print(way, runs[way][-1], flush=True)
    return {**judged(runs), "details": {"words": words, "before": before, "runs": runs}}


def shared_words(model: Any, text: Any, config: dict[str, Any]) -> dict[str, float]:
    """How close the other languages' training text is to the small one's, by the tokens that both use."""
    from lect.laws.related_languages import lexical_similarity

    tokenizer = model.tokenizer()
    used: dict[str, set[str]] = {}
    for language in config["languages"]:
        whole = "\n".join(sorted(d.text for d in text.documents(split="train") if d.language == language))
        used[language] = set(tokenizer.tokenize(whole.encode()[: config["counted_bytes"]].decode(errors="ignore")))
    own = used.pop(config["own"])
    return {language: lexical_similarity(own, other) for language, other in used.items()}


def mixture(way: str, words: dict[str, float], config: dict[str, Any]) -> dict[str, Any]:
    """Knobs of the mixture; the farther language is the one whose likeness counts the other way round."""
    order = {name: -value for name, value in words.items()} if way == "farther" else words
    return {"words": order, "most": 1, "relatives": 0.0 if way == "alone" else config["relatives"]}


def scarce(text: Any, config: dict[str, Any]) -> Iterator[Any]:
    """A few documents of the small language, the others to learn from, and held-out text of the small one alone."""
    left, odd = config["own_bytes"], False
    for document in sorted(text.documents(), key=lambda d: d.id):
        if document.language == config["own"]:
            if document.split == "train":
                if left <= 0:
                    continue
                left -= len(document.text.encode())
            yield document
        elif document.split == "train":
            odd = odd != (document.role == "kept")
            yield replace(document, role="target") if odd else document
        elif document.role == "kept":
            yield document


def judged(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means of all ways, the closer language's changes against the two others, and the verdict on the target."""
    figures = {f"{way}_{role}": statistics.fmean(run[role] for run in runs[way]) for way in WAYS for role in ROLES}
    promised = []
    for other in WAYS[1:]:
        changes = changed(runs["closer"], runs[other])
        promised.append(changes["target"])
        figures |= {f"{name}_from_{other}": value for name, value in named(changes).items()}
    mean, _, high = max(promised, key=lambda change: change[2])
    return {"figures": figures, "verdict": verdict(mean, high, 0.0)}
