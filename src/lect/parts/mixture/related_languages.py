# SPDX-License-Identifier: Apache-2.0
"""Text of a small language together with text of the languages that are closest to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from lect.errors import UserError
from lect.laws.related_languages import SMALL, combined_similarity, most_similar, published
from lect.method import OneOf, Range, knobs, nearest
from lect.parts.mixture.kind import Feedback, Mixture

if TYPE_CHECKING:
    from lect.artefacts import Document

CARD = {
    "title": "The closest languages, as much of each",
    "paper": "arXiv:2311.09205",
    "claim": "reads the languages with the greatest mean of standardised similarities, as much of each, and none of "
    "them beside so much own text that they harm; little text is learnt better with a close language than with a far "
    "one, and than alone where a run reads it eleven times",
    "differs": [
        "continues a trained model; the paper trains from random weights, up to 45 million parameters",
        "similarities are given, in any unit, and standardised over the languages that are named, not over all pairs "
        "of 252; the paper takes syntax and geography from lang2vec, whose package (CC BY-SA) is of 2019 and does not "
        "run beside present setuptools, and the logarithm of one more than the tokens that two vocabularies share",
        "the share of all relatives together is yours: the code reads small text 20 times and the relatives once, "
        "83 to 98 % of the tokens where they gain, in runs much longer than the text",
        "on pico models relatives cost more than they give while the run reads the text about three times",
        "rows, not tokens, are the same for each relative; a smaller one is repeated",
        "above 316 million tokens of own text, next to the paper's billion, relatives are left out; below its million "
        "they are taken as at a million",
        "selection and amounts were checked against the authors' code, not the paper's text",
    ],
    "version": 1,
    "off": {"relatives": 0.0},
    "needs": [],
    "xfail": {},
}
OWN = "target"
STUDIED = (1e6, 1e9)


@knobs
class RelatedLanguages(Mixture):
    """Own text, and equal shares of the ``most`` languages that are closest to it (section 5).

    Relatives are the texts of the target that ``syntax``, ``geography`` or ``words`` name; all other target text is
    own, so a language that no identifier knows needs no name. ``corpus/language`` names several languages where its
    knob ``own_share`` says so. Syntax matters most, and words hardly beside it. Give held-out text of your language
    alone: what is measured of the target is all of it. Raises UserError for a name that no target text has.
    """

    by: Annotated[str, OneOf("language", "source")] = "language"
    """What the names are: languages of documents, or the files that they come from."""
    syntax: dict[str, float] | None = None
    """How alike each relative's syntax is, such as the cosine of lang2vec's ``syntax_knn`` vectors; more is closer."""
    geography: dict[str, float] | None = None
    """How near it is spoken, such as the cosine of lang2vec's ``geo`` vectors."""
    words: dict[str, float] | None = None
    """How many words or tokens both have, as ``lexical_similarity`` of the law counts them."""
    most: Annotated[int, Range(at_least=1, at_most=1000)] = 10
    """How many relatives are read; the paper takes ten."""
    relatives: Annotated[float, Range(at_least=0, below=1)] = 0.5
    """Share of all relatives in the rows of target text; more pays where the run repeats your text often."""
    kept_share: Annotated[float, Range(at_least=0, below=1)] = 0.25
    """Share of the rows that hold kept text, in (0, 1)."""

    @cached_property
    def closest(self) -> list[str]:
        """The relatives that are read, the closest first; a similarity that is not given counts as the average."""
        measures = [measure for measure in (self.syntax, self.geography, self.words) if measure]
        names = sorted({name for measure in measures for name in measure})
        if not names:
            return []
        pairs = [{frozenset({OWN, f"{OWN} {n}"}): m.get(n) for n in names} for m in measures]
        return most_similar(OWN, combined_similarity(*pairs), self.most)

    def group(self, document: Document) -> str:
        """``kept``, ``target`` for own text, or the relative's name behind it."""
        name = str(getattr(document, self.by))
        named = any(name in (measure or {}) for measure in (self.syntax, self.geography, self.words))
        return f"{OWN} {name}" if document.role == OWN and named else document.role

    def shares(self, tokens: Mapping[str, int], progress: float, feedback: Feedback) -> Mapping[str, float]:
        """The same all the time; own text has what kept text and relatives leave."""
        if OWN not in tokens:
            raise UserError("related_languages: every language of the target is named as a relative; leave yours out")
        found = published(min(max(tokens[OWN], STUDIED[0]), STUDIED[1]), SMALL)
        pays = bool(self.closest) and not (found and found.effect == "loss")
        theirs = (1 - self.kept_share) * self.relatives if pays else 0.0
        shares = {OWN: 1 - self.kept_share - theirs, "kept": self.kept_share}
        for name in self.closest if theirs else ():
            if name not in tokens:
                sought = name.removeprefix(f"{OWN} ")
                texts = [text.removeprefix(f"{OWN} ") for text in tokens if text.startswith(f"{OWN} ")]
                raise UserError(
                    f"related_languages: no target text for training has the {self.by} {sought!r}."
                    f"{nearest(sought, texts)} Named and found: {', '.join(texts) or 'none'}"
                )
            shares[name] = theirs / len(self.closest)
        return shares
