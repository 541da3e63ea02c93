# SPDX-License-Identifier: Apache-2.0
"""Divide the text once into what is trained on, what is calibrated on, and what is tested on."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated

from lect.artefacts import Corpus, Document
from lect.errors import UserError
from lect.method import Range, knobs
from lect.stages.corpus.kinds import Assign

CARD = {
    "title": "Split by document hash",
    "paper": "",
    "claim": "A text's place on the line from 0 to 1 depends on the text alone, so no text is ever in two splits.",
    "differs": [],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

FEWEST = 3


def place(text: str) -> float:
    """A number from 0 to 1 (not 1) that depends on the text alone: from the first 8 bytes of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") // 2048 / 2**53


@dataclass(frozen=True)
class Borders:
    """Where test ends, where calibration ends, and the places that another role's borders decide."""

    test: float
    calibration: float
    elsewhere: frozenset[float] = frozenset()


@knobs
class Split(Assign):
    """Train, calibration and test text that never overlap, the same for the same texts in any order.

    Every text has a place on the line from 0 to 1, a hash of the text: below the first border it is test, below the
    second calibration, else train. The borders are the shares asked for. Only where a role is so small that a split
    would hold fewer than ``least_bytes``, its border moves up to the place at which it does, or at which it holds
    ``most`` of the role's bytes. Why 100 kB: a difference in bits per byte over 100 windows of 1 kB, whose standard
    deviation from window to window is about a tenth, is known to about one percent. A kept text that equals a
    target text goes where the target text goes. Raises UserError for a role of fewer than three different texts.
    """

    test: Annotated[float, Range(above=0, at_most=1)] = 0.05
    """Share of the documents that is tested on; 1 makes all text test text, where nothing is trained."""
    calibration: Annotated[float, Range(above=0, below=0.4)] = 0.05
    """Share of the documents that is calibrated on."""
    least_bytes: Annotated[int, Range(at_least=0)] = 100_000
    """Bytes that test and calibration text should each hold at least."""
    most: Annotated[float, Range(above=0, below=0.4)] = 0.15
    """Greatest share of a role's bytes that least_bytes may claim for each of the two."""

    def borders(self, corpus: Corpus) -> dict[str, Borders]:
        """The borders of each role."""
        sizes: dict[str, dict[float, int]] = {}
        for document in corpus.documents():
            sizes.setdefault(document.role, {})[place(document.text)] = len(document.text.encode())
        target = frozenset(sizes.get("target", {}))
        found = {}
        for role, own in sorted(sizes.items()):
            elsewhere = frozenset() if role == "target" else target & own.keys()
            first, second = self.divide(role, {p: n for p, n in own.items() if p not in elsewhere})
            found[role] = Borders(first, second, elsewhere)
        return found

    def divide(self, role: str, sizes: dict[float, int]) -> tuple[float, float]:
        """The two borders of texts at these places, each with its bytes; all three splits hold a text."""
        if self.test == 1:
            return 1.0, 1.0
        if len(sizes) < FEWEST:
            raise UserError(
                f"corpus/split: corpus smaller than {FEWEST} different {role} texts (it has {len(sizes)});"
                " give more text, or lower corpus/read's max_document_bytes"
            )
        least = max(1, min(self.least_bytes, int(self.most * sum(sizes.values()))))
        places = sorted(sizes)
        first = min(raised(places, sizes, self.test, least), places[-2])
        rest = [p for p in places if p >= first]
        return first, min(raised(rest, sizes, first + self.calibration, least), places[-1])

    def split(self, document: Document, borders: dict[str, Borders]) -> str:
        """test, calibration or train."""
        where, own = place(document.text), borders[document.role]
        own = borders["target"] if where in own.elsewhere else own
        return "test" if where < own.test else "calibration" if where < own.calibration else "train"


def raised(places: list[float], sizes: dict[float, int], border: float, least: int) -> float:
    """``border``, moved up past as many of the sorted ``places`` as make those below it hold ``least`` bytes."""
    held = 0
    for p in places:
        if p >= border:
            if held >= least:
                break
            border = math.nextafter(p, 1.0)
        held += sizes[p]
    return border
