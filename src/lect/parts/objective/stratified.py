# SPDX-License-Identifier: Apache-2.0
"""The commoner a word, the more seldom it has to be filled in."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lect.method import Range, knobs
from lect.parts.objective.kind import Masking, Texts

CARD = {
    "title": "Stratified masking",
    "paper": "arXiv:2410.03884",
    "claim": "words of the audience or the field, which are masked most often, are learnt better than with one rate",
    "differs": [
        "the paper's strata are English stop words, the Dale-Chall list of easy words, and all other words; here the "
        "first two are a user's lists, or else the most frequent words of the text, by their share of running words",
        "all other words are the rarest stratum, as in the paper; terms, of a user's list or found in the text "
        "(SemRe-Rank, arXiv:1711.03373, as in lect.ops.terms), may be added to it, however frequent they are",
        "rates are those of the authors' model card; that tokens of a word are drawn each by itself, and that "
        "punctuation has the rate of the commonest words, could not be compared with the paper or with code",
    ],
    "version": 1,
    "off": None,
    "needs": ["lect[languages]"],
    "xfail": {},
}
WHO = "objective/stratified"
COMMON, EASY, TERM = 1, 2, 3


@knobs
class Stratified(Masking):
    """Tokens to fill in, with a rate for common words, one for easy words and one for all others."""

    listed = True

    common: str | None = None
    """File of the commonest words, one a line, UTF-8; null takes the most frequent words of all the text."""
    easy: str | None = None
    """File of easy words; null takes the next most frequent words of all the text."""
    terms: str | None = None
    """File of words and terms that belong to the rarest stratum, however frequent they are; null finds ``count``."""
    count: Annotated[int, Range(at_least=0, at_most=1_000_000)] = 0
    """How many terms are taken from the text, the best ones (needs lect[languages]); of no use with a file."""
    common_running: Annotated[float, Range(at_least=0, at_most=1)] = 0.4
    """Share of the running words that the commonest words make up, where no file lists them, in (0, 1)."""
    easy_running: Annotated[float, Range(at_least=0, at_most=1)] = 0.35
    """Share of the running words that the easy words make up, where no file lists them, in (0, 1)."""
    common_share: Annotated[float, Range(at_least=0, below=1)] = 0.15
    """Share of the tokens of the commonest words to fill in, in (0, 1)."""
    easy_share: Annotated[float, Range(at_least=0, below=1)] = 0.2
    """Share of the tokens of easy words to fill in, in (0, 1)."""
    other_share: Annotated[float, Range(at_least=0, below=1)] = 0.25
    """Share of the tokens of all other words to fill in, in (0, 1)."""

    def listing(self, texts: Texts) -> dict[str, int]:
        """The commonest and the easy words, and the terms; a word in several lists is in the rarest of them."""
        from lect.ops.terms import frequent, ranked, read, words

        counts = words([*texts.target, *texts.kept])
        common = read(self.common, WHO) if self.common is not None else frequent(counts, self.common_running)
        left = {w: c for w, c in counts.items() if w not in set(common)}
        if self.easy is not None:
            easy = read(self.easy, WHO)
        else:
            easy = frequent(left, self.easy_running * sum(counts.values()) / max(1, sum(left.values())))
        terms = read(self.terms, WHO) if self.terms is not None else []
        if self.terms is None and self.count:
            terms = [*ranked(texts.target, texts.kept, count=self.count, seed=texts.seed, who=WHO)]
        return dict.fromkeys(common, COMMON) | dict.fromkeys(easy, EASY) | dict.fromkeys(terms, TERM)

    def counts(
        self, class_t: NDArray[np.int8], first_t: NDArray[np.bool_], draw_t: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """One for each token whose draw is below the rate of its stratum."""
        rates = np.asarray([self.other_share, self.common_share, self.easy_share, self.other_share, self.common_share])
        return (draw_t < rates[class_t]).astype(np.float64)  # -1, outside of words, is the last
