# SPDX-License-Identifier: Apache-2.0
"""Complete the last word of a passage: an exam made from the user's own test text."""

from __future__ import annotations

import bisect
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from lect.artefacts import Document
from lect.method import Range, knobs
from lect.ops.scoring import Reader, Tick
from lect.stages.evaluate.kinds import JOINERS, Exam, Question, shuffled, size_of, words

CARD = {
    "title": "Complete the last word of a passage that determines it",
    "paper": "arXiv:2402.12969",
    "claim": "the share of last words given exactly is 1 for a model that knows the text and 0 for one that guesses",
    "differs": [
        "passages come from the user's test text and nobody reads them; CALAME-PT's were written or checked by hand",
        "that the passage determines its last word is put as: the word stands in an earlier sentence of the passage, "
        "not in the last one, and is not among the commonest words (as most answers of LAMBADA, arXiv 1606.06031)",
        "scripts without spaces between words give few questions or none",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

ENDS = ".!?\u2026\u0964\u06d4\u1362\u0589\u061f"


@knobs
class Cloze(Exam):
    """Shows how often each model finds the word that a passage of your text leads to.

    The model gets the passage as a string without the last word and without the space before it, and continues
    greedily until a word is complete; the word must be the passage's own, letter by letter. Questions are chosen
    by counting words alone: no model has a say, so none is favoured.
    """

    name: ClassVar[str] = "cloze"
    context_bytes: Annotated[int, Range(at_least=32, at_most=100000)] = 384
    """Most bytes of the passage that stand before the word."""
    letters: Annotated[int, Range(at_least=1, at_most=40)] = 4
    """Fewest characters of a word that is asked for."""
    common: Annotated[float, Range(at_least=0, below=1)] = 0.3
    """Share of the running text made up by the commonest words, which are not asked for."""

    def reads(self) -> tuple[float, bool]:
        """The passages; the words themselves are short."""
        return float(self.items * self.context_bytes), False

    def questions(self, documents: Sequence[Document], seed: int) -> Iterator[Question]:
        """Yield the passages that end in a word seen earlier in them."""
        texts = [unicodedata.normalize("NFC", d.text) for d in documents]
        places = [list(words(text)) for text in texts]
        counts = Counter(t[a:b].casefold() for t, spans in zip(texts, places, strict=True) for a, b in spans)
        frequent = commonest(counts, self.common)
        found = [
            Question(document=d.id, prompt=text[left : spans[i][0]].rstrip(), answer=text[slice(*spans[i])])
            for d, text, spans in zip(documents, texts, places, strict=True)
            for left, i in self.passages(text, spans, frequent)
        ]
        for i in shuffled(seed, (f"{q.document}\0{q.prompt}" for q in found)):
            yield found[i]

    def passages(self, text: str, spans: Sequence[tuple[int, int]], frequent: set[str]) -> list[tuple[int, int]]:
        """Where each passage starts in the text, and the number of the word that it ends in."""
        found: list[tuple[int, int]] = []
        sentence = 0
        folded = [text[a:b].casefold() for a, b in spans]
        for i, (start, end) in enumerate(spans):
            between = text[spans[i - 1][1] : start] if i else ""
            if any(c in ENDS or c == "\n" for c in between):
                sentence = i
            after = text[end : end + 2]
            closes = not after or after[0] == "\n" or (after[0] in ENDS and not after[1:].strip())
            asked = folded[i] not in frequent and len(folded[i]) >= self.letters and folded[i].isalpha()
            if not (closes and asked and between == " " and i - sentence >= 3 and folded[i] not in folded[sentence:i]):
                continue
            first = bisect.bisect_left(spans, (self._left(text, start), 0))
            if folded[i] in folded[first:sentence]:
                found.append((spans[first][0], i))
        return found

    def _left(self, text: str, end: int) -> int:
        """The leftmost place from which at most ``context_bytes`` bytes lead to ``end``."""
        left, used = end, 0
        while left > 0 and used + size_of(text[left - 1]) <= self.context_bytes:
            left -= 1
            used += size_of(text[left])
        return left

    def answers(self, reader: Reader, questions: Sequence[Question], tick: Tick) -> list[bool]:
        """Whether the first word of the greedy continuation is the answer."""
        if not questions:
            return []
        tokens = max(size_of(q.answer) for q in questions) + 4
        made = reader.greedy(
            [q.prompt for q in questions], lambda i, text: settled(text, questions[i].answer), tokens, tick=tick
        )
        return [first_word(text) == q.answer for text, q in zip(made, questions, strict=True)]


def commonest(counts: Counter[str], share: float) -> set[str]:
    """The most frequent words that make up at most ``share`` of the running text together."""
    room = math.floor(share * counts.total())
    chosen: set[str] = set()
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        room -= count
        if room < 0:
            break
        chosen.add(word)
    return chosen


def first_word(text: str) -> str:
    """The word at the start of ``text``, white space aside; empty where something else stands there."""
    text = unicodedata.normalize("NFC", text).lstrip()
    span = next(words(text), None)
    return text[: span[1]] if span is not None and span[0] == 0 else ""


def settled(text: str, answer: str) -> bool:
    """True once more text cannot change whether the first word is the answer."""
    text = unicodedata.normalize("NFC", text).lstrip()
    if not text:
        return False
    word = first_word(text)
    rest = text[len(word) :]
    # A joiner belongs to the word only if a letter follows it.
    ended = bool(rest) and (rest[0] not in JOINERS or len(rest) > 1)
    return not word or not answer.startswith(word) or ended
