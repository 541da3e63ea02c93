# SPDX-License-Identifier: Apache-2.0
"""Choose the true continuation among four: an exam made from the user's own test text."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from lect.artefacts import Document
from lect.method import Range, knobs
from lect.ops.scoring import Reader, Tick
from lect.stages.evaluate.kinds import Exam, Question, shuffled, size_of, windows, words

CARD = {
    "title": "Choose the true continuation among four",
    "paper": "arXiv:2306.13651",
    "claim": "a model that knows the text is right always, one that knows nothing in a quarter of the questions",
    "differs": [
        "the paper compares a model's outputs before and after a text is changed; here the change is to put another "
        "text's continuation in place of the true one, and the true one must stay the likelier",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

POOL = 4000
ALIKE = 0.5


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A beginning and how it goes on, cut from one document."""

    document: str
    source: str
    place: int
    prompt: str
    follows: str
    bag: frozenset[str]


@knobs
class Choice(Exam):
    """Shows how often each model holds the true continuation of your text for the likeliest of four.

    A beginning is followed by its own continuation and by those of the three beginnings most like it in the test
    text (rare words shared, same folder first). All four have about the same bytes; the likeliest by log-probability
    per byte, given the beginning, is the model's choice. Nothing depends on the tokenizer: all tokens after those
    that the four strings share are counted.
    """

    name: ClassVar[str] = "choice"
    prompt_bytes: Annotated[int, Range(at_least=16, at_most=100000)] = 96
    """Bytes of the beginning."""
    follow_bytes: Annotated[int, Range(at_least=8, at_most=100000)] = 48
    """Bytes of a continuation."""

    def count(self, material: Sequence[Question]) -> int:
        """Four readings for each question."""
        return 4 * len(material)

    def reads(self) -> tuple[float, bool]:
        """The beginning, once with each of four continuations."""
        return 4.0 * self.items * (self.prompt_bytes + self.follow_bytes), False

    def questions(self, documents: Sequence[Document], seed: int) -> Iterator[Question]:
        """Yield one question for every excerpt that has three others to be told from."""
        excerpts = [e for d in documents for e in self.excerpts(d)]
        order = shuffled(seed, (f"{e.document}\0{e.place}" for e in excerpts))[:POOL]
        excerpts = [excerpts[i] for i in order]
        for one, others in zip(excerpts, _others(excerpts), strict=True):
            if len(others) == 3:
                yield Question(document=one.document, prompt=one.prompt, answer=one.follows, others=others)

    def excerpts(self, document: Document) -> Iterator[Excerpt]:
        """Cut a document into beginnings and continuations."""
        for place, piece in enumerate(windows(document.text, self.prompt_bytes + self.follow_bytes)):
            piece = piece.strip()
            least = size_of(piece) - self.follow_bytes
            if least < self.prompt_bytes // 2:
                continue
            cut = next((i for i in _spaces(piece) if size_of(piece[:i]) >= least), None)
            if cut is None or size_of(piece[cut:]) < self.follow_bytes // 2:
                continue
            prompt, follows = piece[:cut], " " + " ".join(piece[cut:].split())
            bag = frozenset(prompt[a:b].casefold() for a, b in words(prompt))
            folder = os.path.dirname(document.source)
            yield Excerpt(document=document.id, source=folder, place=place, prompt=prompt, follows=follows, bag=bag)

    def answers(self, reader: Reader, questions: Sequence[Question], tick: Tick) -> list[bool]:
        """Whether the true continuation costs the fewest bits a byte."""
        costs = self.costs(reader, questions, tick)
        return [chosen(row, q.prompt) == 0 for row, q in zip(costs, questions, strict=True)]

    def costs(self, reader: Reader, questions: Sequence[Question], tick: Tick) -> NDArray[np.float64]:
        """Bits a byte of the four continuations of each question, the true one first."""
        texts = [q.prompt + end for q in questions for end in (q.answer, *q.others)]
        ids, start = reader.encode(texts), reader.start
        prompts = reader.encode([q.prompt for q in questions])
        firsts: list[int] = []
        for i, prompt in enumerate(prompts):
            firsts += [len(start) + _shared([prompt, *ids[4 * i : 4 * i + 4]])] * 4
        bits = reader.bits([start + one for one in ids], firsts, tick)
        sizes = [size_of(end) for q in questions for end in (q.answer, *q.others)]
        per_byte: NDArray[np.float64] = np.array([b.sum() for b in bits]) / np.array(sizes)
        return per_byte.reshape(-1, 4)


def chosen(cost_per_byte: NDArray[np.float64], prompt: str) -> int:
    """The cheapest; among equals one that depends on the prompt alone, so that ignorance earns a quarter."""
    equals = np.flatnonzero(cost_per_byte == cost_per_byte.min()).tolist()
    return int(equals[shuffled(0, (f"{i}{prompt}" for i in equals))[0]])


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many items all sequences have in common at their start."""
    return next(
        (i for i, items in enumerate(zip(*sequences, strict=False)) if len(set(items)) > 1), min(map(len, sequences))
    )


def _spaces(text: str) -> Iterator[int]:
    """Yield the places of white space that a word follows; where there is none at all, every place."""
    found = [i for i in range(1, len(text)) if text[i].isspace() and not text[i - 1].isspace()]
    yield from found or range(1, len(text))


def _others(excerpts: Sequence[Excerpt]) -> Iterator[tuple[str, ...]]:
    """For each excerpt the continuations of the three most like it, from other documents where there are enough."""
    holders: dict[str, list[int]] = defaultdict(list)
    for i, excerpt in enumerate(excerpts):
        for word in excerpt.bag:
            holders[word].append(i)
    rarity = {word: math.log(len(excerpts) / len(at)) for word, at in holders.items()}
    folders = Counter(e.source for e in excerpts)
    numbers = {folder: n for n, folder in enumerate(folders)}
    folder = np.array([numbers[e.source] for e in excerpts])
    ends = [frozenset(e.follows.casefold().split()) for e in excerpts]
    for i, excerpt in enumerate(excerpts):
        likeness = (folder == folder[i]) * 0.5
        for word in sorted(excerpt.bag):
            likeness[holders[word]] += rarity[word]
        order = np.argsort(-likeness, kind="stable").tolist()
        picked: list[int] = []
        for foreign in (True, False):
            for j in order:
                if len(picked) == 3:
                    break
                if (excerpts[j].document != excerpt.document) != foreign or not _apart(excerpt, excerpts[j]):
                    continue
                taken = [ends[i], *(ends[k] for k in picked)]
                if all(len(ends[j] & t) <= ALIKE * min(len(ends[j]), len(t)) for t in taken):
                    picked.append(j)
        yield tuple(excerpts[j].follows for j in picked)


def _apart(one: Excerpt, other: Excerpt) -> bool:
    """False for the excerpt itself and its neighbours, whose text may well go on from it."""
    return one.document != other.document or abs(one.place - other.place) > 1
