# SPDX-License-Identifier: Apache-2.0
"""Documents for exams, and a reader that knows them by heart."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from lect.artefacts import Document
from lect.ops.scoring import Reader
from lect.testing import pico

NAMES = ["Arantza", "Beñat", "Garazi", "Haizea", "Iker", "Jone", "Koldo", "Leire", "Maite", "Nahia", "Oihan", "Peru"]
THINGS = ["kutxa", "liburu", "mendi", "itsaso", "zubi", "etxe", "baso", "ibai", "hodei", "elur"]
FILL = ["oso", "ondo", "gaur", "bihar", "hemen", "han", "ikusi", "entzun", "joan", "etorri", "jan", "edan"]
FILL += ["lo", "egin", "esan", "gogoratu", "ahaztu", "berri", "zahar", "on"]


@pytest.fixture
def documents():
    draw = random.Random(0)
    made = []
    for n in range(40):
        name, thing = NAMES[n % 12], THINGS[n % 10]
        lines = [f"Atzo goizean {name} etorri zen gure herrira eta {thing} handi bat ekarri zuen {n} lagunentzat."]
        lines += [" ".join(draw.choices(FILL, k=9)).capitalize() + f" {thing} {k}." for k in range(3)]
        lines.append(f"Azkenean esan genuen ez dela inor hain ona nola {name}.")
        lines.append(" ".join(draw.choices(FILL, k=12)).capitalize() + ".")
        made.append(Document(id=f"doc{n}", text=" ".join(lines), source=f"folder{n % 3}/file{n}", split="test"))
    return made


class Oracle(Reader):
    """Knows its texts by heart: a token that goes on as one of them does costs nothing, any other twenty bits."""

    texts: tuple[str, ...] = ()

    def bits(self, sequences, firsts, tick=lambda _: None):
        result = []
        for ids, first in zip(sequences, firsts, strict=True):
            known = [self._known(self.decode(ids[: t + 1])) for t in range(first, len(ids))]
            result.append(np.where(known, 0.0, 20.0))
            tick(1)
        return result

    def _known(self, text):
        return any(text in one for one in self.texts)

    def greedy(self, prompts, done, tokens, batch=16, tick=lambda _: None):
        made = []
        for i, prompt in enumerate(prompts):
            rest = next(one.split(prompt, 1)[1] for one in self.texts if prompt in one)
            stop = next((n for n in range(1, len(rest)) if done(i, rest[:n])), len(rest))
            made.append(rest[:stop])
            tick(1)
        return made


class Ignorant(Reader):
    """Holds every token for equally likely, and writes the same word always."""

    def bits(self, sequences, firsts, tick=lambda _: None):
        return [np.full(len(ids) - first, math.log2(self.rows)) for ids, first in zip(sequences, firsts, strict=True)]

    def greedy(self, prompts, done, tokens, batch=16, tick=lambda _: None):
        return [" eta gero" for _ in prompts]


@pytest.fixture(params=["gpt2", "llama"])
def oracle(request, documents):
    live, tokenizer = pico.build(request.param)
    reader = Oracle(live=live, tokenizer=tokenizer)
    reader.texts = tuple(" ".join(d.text.split()) for d in documents)
    return reader


@pytest.fixture(params=["gpt2", "llama"])
def ignorant(request):
    live, tokenizer = pico.build(request.param)
    return Ignorant(live=live, tokenizer=tokenizer)
