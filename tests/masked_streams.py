# SPDX-License-Identifier: Apache-2.0
"""Masked training for tests: batches of a pico BERT's tokenizer, and steps that are applied to a folder."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lect.artefacts import Corpus, Document, Model
from lect.engine.data import Encoded
from lect.engine.masked import Classes, MaskedSettings, MaskedStream
from lect.method import Run
from lect.parts.objective.kind import Texts
from lect.registry import build_part, build_step
from lect.testing import pico

KNOBS = {
    "tokens": 64 * 12,
    "batch_tokens": 64,
    "max_length": 48,
    "evaluation_tokens": 2000,
    "evaluations": 2,
    "precision": "fp32",
}


class Killed(Exception):
    pass


class Killer:
    """A listener that stops the run after so many steps."""

    def __init__(self, step: float = math.inf) -> None:
        self.step = step

    def say(self, text: str) -> None:
        pass

    gate = say

    def progress(self, done: float, total: float, unit: str, values: Any) -> None:
        if done >= self.step and "loss" in values:
            raise Killed


def applied(
    step: str, place: Path, base: Model, corpus: Corpus, seed: int = 0, stop: float = math.inf, **knobs: Any
) -> Run:
    (place / "out").mkdir(parents=True, exist_ok=True)
    (place / "scratch").mkdir(exist_ok=True)
    run = Run(folder=place / "out", scratch=place / "scratch", seed=seed, listener=Killer(stop))
    build_step(step, KNOBS | knobs).apply(run, base=base, model=base, corpus=corpus)
    return run


def stream(
    tokenizer: Any,
    documents: list[Document],
    objective: Any = "masked_tokens",
    listing: Mapping[str, int] | None = None,
    room: int = 64,
    seed: int = 0,
    packing: Any = "one_document",
) -> MaskedStream:
    """Batches of the documents; two tags whose names go round by twos and by threes."""
    settings = MaskedSettings(
        **dict.fromkeys(("minutes", "tokens", "learning_rate", "tag_learning_rate", "batch_tokens", "max_length"), 1),
        **dict.fromkeys(("weight_decay", "beta1", "beta2", "epsilon", "clip", "checkpoint_seconds"), 0.0),
        objective=build_part("objective", objective),
        packing=build_part("packing", packing),
        schedule=build_part("schedule", "cosine"),
        precision="fp32",
        moments="fp32",
        evaluations=1,
        evaluation_tokens=1,
    )
    names = np.asarray([[n % 2 for n in range(len(documents))], [n % 3 for n in range(len(documents))]])
    encoded = Encoded.of(tokenizer, documents)
    classes = Classes.of(tokenizer, documents, listing, encoded.tokens)
    return MaskedStream(encoded, classes, names, settings, tokenizer, longest=40, room=room, seed=seed, device="cpu")


def field(seed: int = 0) -> Texts:
    """Texts of ten words that are everywhere, the target ones with a term of the field each."""
    draw, words = random.Random(seed), [f"w{chr(97 + n)}" for n in range(10)]
    kept, target = ([draw.choices(words, k=20) for _ in range(20)] for _ in range(2))
    for n, text in enumerate(target):
        text[n % 15] = "cell" if n % 2 else "Pivot table"
    return Texts(target=[", ".join(t) for t in target], kept=[", ".join(t) for t in kept], seed=seed)


def english() -> list[Document]:
    """The documents of the pico corpus whose words are tokens."""
    return [d for d in pico.documents() if d.role == "kept" and d.text.isascii()]


def whole(data: MaskedStream) -> list[list[int]]:
    """Every piece of every document."""
    pieces = data.packing.cut(np.diff(data.encoded.starts), data.frame)
    starts = data.encoded.starts
    return [data.encoded.ids[starts[d] + a : starts[d] + b].tolist() for d, a, b in pieces.tolist()]
