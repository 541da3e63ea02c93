# SPDX-License-Identifier: Apache-2.0
"""Find the language of each role's text and drop documents that are surely in another."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Annotated

import numpy as np
import numpy.typing as npt

from lect.artefacts import Corpus
from lect.method import Range, Run, knobs
from lect.ops.documents import likeliest_language
from lect.stages.corpus.kinds import CorpusFilter, Verdict

CARD = {
    "title": "Language identification that spares small languages",
    "paper": "doi:10.18653/v1/P12-3005",
    "claim": "Drops documents in another language; a text in a language unknown to the identifier loses nothing.",
    "differs": ["the identifier's word is not enough: the document must also be unlike the role's own text"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

TABLE = 1 << 18
EXCERPT = 4000  # characters of a document whose trigrams are counted
NAMED = 1500  # characters that the identifier reads
SAMPLE = 5000  # so many documents say how surprising the role's own text is
LEAST_SPREAD = 0.1  # bits; texts of one mould are not foreign for a breath of difference
NAMELESS = ("und", "zxx", "")


def trigrams(text: str) -> npt.NDArray[np.int64]:
    """The hashed byte trigrams of a text, as places in a table."""
    data = np.frombuffer(text[:EXCERPT].casefold().encode(), dtype=np.uint8).astype(np.uint64)
    if len(data) < 3:
        return np.zeros(0, dtype=np.int64)
    mixed = (data[:-2] * np.uint64(65_537) + data[1:-1] * np.uint64(257) + data[2:]) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(46)).astype(np.int64)


class Profile:
    """How surprising a text is, in bits per trigram, to someone who has read the role's own texts."""

    def __init__(self) -> None:
        self.count = np.zeros(TABLE)
        self.total = 0

    def learn(self, text: str) -> None:
        """Read one text."""
        places = trigrams(text)
        np.add.at(self.count, places, 1)
        self.total += len(places)

    def surprise(self, text: str, learned: bool = False) -> float:
        """Mean bits per trigram, add-one smoothed; a text that was learned is judged by all the others."""
        places = trigrams(text)
        if not len(places):
            return 0.0
        known, total = self.count[places], self.total
        if learned:
            _, inverse, count = np.unique(places, return_inverse=True, return_counts=True)
            known, total = known - count[inverse], total - len(places)
        return float(np.mean(math.log2(total + TABLE) - np.log2(known + 1)))


@knobs
class Language(CorpusFilter):
    """Each role in its own language: documents surely in another are dropped, and every document gets its language.

    The identifier (py3langid, after Lui and Baldwin 2012) names the language of every document it is sure of, and
    the language with most bytes is the role's, if it has at least ``majority`` of them. If none has, the role's
    language is one that the identifier does not know, or many: everything is kept, and the facts say ``scattered``.
    A document is dropped (``language:xx``) only if the identifier is sure of another language, the document has
    ``least_bytes``, and its byte trigrams surprise a model of the role's own texts more than ``deviations`` standard
    deviations (1.4826 median absolute deviations) above these texts' median: a dialect that the identifier takes
    for a neighbour language reads like the rest and stays. What is unsure or short stays with language ``und``.

    With ``own_share`` a role may have several languages: all that have this share of its bytes. Their documents stay
    and keep their languages, which mixtures by language go by; a document surely in another language must surprise the
    models of all of them, else it gets the language that it surprises least.
    """

    confidence: Annotated[float, Range(above=0, below=1)] = 0.95
    """How likely a language must be to be called sure."""
    least_bytes: Annotated[int, Range(at_least=1)] = 100
    """Shorter documents, in UTF-8 bytes, are never dropped."""
    majority: Annotated[float, Range(above=0, at_most=1)] = 0.5
    """Share of a role's bytes that must be surely in one language for it to be the role's."""
    deviations: Annotated[float, Range(above=0)] = 4.0
    """How far, in standard deviations, a document must read unlike the role's own text."""
    own_share: Annotated[float | None, Range(above=0, at_most=1)] = None
    """Share of a role's bytes that makes every language that has it the role's own; null leaves one language a role."""

    def verdicts(self, run: Run, corpus: Corpus) -> Iterator[Verdict]:
        """Name every document's language; drop ``language:xx``."""
        names = [self.sure(d.text) for d in corpus.documents()]
        sizes: dict[str, Counter[str]] = defaultdict(Counter)
        for document, name in zip(corpus.documents(), names, strict=True):
            sizes[document.role][name] += len(document.text.encode())
        own = {role: self.own(size) for role, size in sizes.items()}
        for role, size in sorted(sizes.items()):
            shares = {name: round(n / sum(size.values()), 4) for name, n in size.most_common(8)}
            run.fact(**{f"language_{role}": {"language": " ".join(own[role]) or "scattered", "shares": shares}})
            if not own[role]:
                run.say(f"{role}: no language has {self.least_share:.0%} of the text; every document is kept")
        profiles = {
            role: {name: self.profile(corpus, names, role, name) for name in mine} for role, mine in own.items()
        }
        for document, name in zip(corpus.documents(), names, strict=True):
            mine = own[document.role]
            if mine and name not in (*mine, "und"):
                known = profiles[document.role]
                excess = {one: profile.surprise(document.text) - limit for one, (profile, limit) in known.items()}
                nearest = min(mine, key=lambda one: excess[one])
                if excess[nearest] > 0:
                    yield replace(document, language=name), f"language:{name}"
                    continue
                name = nearest
            yield replace(document, language=name if mine else "und"), None

    def sure(self, text: str) -> str:
        """The language of a text, or ``und`` where the identifier is unsure or the text is short."""
        if len(text.encode()) < self.least_bytes:
            return "und"
        name, likelihood = likeliest_language(text[:NAMED])
        return "und" if likelihood < self.confidence or name in NAMELESS else name

    @property
    def least_share(self) -> float:
        """The share of a role's bytes that its own language has at least."""
        return self.majority if self.own_share is None else self.own_share

    def own(self, size: Counter[str]) -> list[str]:
        """The languages with enough bytes, the largest first; without ``own_share`` one at most."""
        most = sorted((name for name in size if name != "und"), key=lambda name: -size[name])
        own = [name for name in most if size[name] >= self.least_share * sum(size.values())]
        return own[:1] if self.own_share is None else own

    def profile(self, corpus: Corpus, names: list[str], role: str, own: str) -> tuple[Profile, float]:
        """A model of the role's texts in its own language, and the surprise past which a text is foreign."""
        profile = Profile()
        for document, name in zip(corpus.documents(), names, strict=True):
            if document.role == role and name == own:
                profile.learn(document.text)
        documents = zip(corpus.documents(), names, strict=True)
        mine = (d.text for d, name in documents if d.role == role and name == own)
        bits = np.array([profile.surprise(text, learned=True) for text in islice(mine, SAMPLE)])
        middle = float(np.median(bits))
        spread = 1.4826 * float(np.median(np.abs(bits - middle)))
        return profile, middle + self.deviations * max(spread, LEAST_SPREAD)
