# SPDX-License-Identifier: Apache-2.0
"""Terms of the field are filled in as well as other words, and mistakes in them cost more."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lect.method import OneOf, Range, knobs
from lect.parts.objective.kind import Masking, Texts

CARD = {
    "title": "Mask-specific losses for terms and generic words",
    "paper": "arXiv:2403.18025",
    "claim": "terms of the field that were masked are predicted better than after uniform masking of as many tokens",
    "differs": [
        "the paper takes its terms from the labels of named-entity data, and tunes a tagger at the same time; here "
        "they are a user's list, or are found in the text (SemRe-Rank, arXiv:1711.03373, as in lect.ops.terms)",
        "the authors' code masks the share of the terms of each sequence, rounded down; here each occurrence is drawn "
        "by itself, so that a sequence with one term has it masked at times",
        "the weights are those of the authors' code (1 + softmax of the shares of both kinds of mask, the larger share "
        "for terms, at least a half), taken over a batch instead of the whole data; a knob sets them by hand",
        "the code also counts tokens that are in sight, and sequences by their number of masks; both are left out",
        "formulas were taken from the authors' code, since the text of the paper was not at hand",
    ],
    "version": 1,
    "off": None,
    "needs": ["lect[languages]"],
    "xfail": {},
}
WHO = "objective/masked_terms"


@knobs
class MaskedTerms(Masking):
    """Whole terms masked together, generic tokens one by one; the loss weighs the mistakes of both kinds.

    Word vectors (``lect[languages]``) are needed only where terms are found in the text.
    """

    masked = 1.0
    random = 0.0
    listed = True

    terms: str | None = None
    """File of terms, one a line, UTF-8, compared by their words without case; null finds them in the target text."""
    count: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 500
    """How many terms are taken from the text, the best ones; of no use with a file."""
    base: Annotated[str, OneOf("tf_idf", "c_value", "weirdness")] = "tf_idf"
    """Score of candidates that is raised by related words; weirdness compares with the kept text."""
    term_share: Annotated[float, Range(at_least=0, at_most=1)] = 0.25
    """Share of the occurrences of terms that are masked, in (0, 1)."""
    word_share: Annotated[float, Range(at_least=0, below=1)] = 0.15
    """Share of the other tokens that are masked, those of terms left in sight included, in (0, 1)."""
    weight: Annotated[float | None, Range(above=0, at_most=1000)] = None
    """How many times as much a token of a term counts as a generic one; null takes the authors' rule (1.0 to 1.2)."""

    def listing(self, texts: Texts) -> dict[str, int]:
        """Class 1 for each term."""
        from lect.ops.terms import ranked, read

        if self.terms is not None:
            return dict.fromkeys(read(self.terms, WHO), 1)
        found = ranked(texts.target, texts.kept, how=self.base, count=self.count, seed=texts.seed, who=WHO)
        return dict.fromkeys(found, 1)

    def counts(
        self, class_t: NDArray[np.int8], first_t: NDArray[np.bool_], draw_t: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The weights of masked terms and of masked generic tokens.

        The draw of a term's first token decides on the whole term; what is left of it decides on that token alone.
        """
        term_t = class_t == 1
        unit_t = np.cumsum(first_t) - 1
        chosen_u = (draw_t[first_t] < self.term_share) & term_t[first_t]
        whole_t = chosen_u[unit_t]
        rest_t = np.where(term_t & first_t & ~whole_t, (draw_t - self.term_share) / (1 - self.term_share or 1), draw_t)
        single_t = ~whole_t & (rest_t < self.word_share)
        term, word = self.weights(int(whole_t.sum()), int(single_t.sum()))
        return np.where(whole_t, term, np.where(single_t, word, 0.0))

    def weights(self, terms: int, words: int) -> tuple[float, float]:
        """What a masked token of a term and a generic one count, from how many there are of each."""
        if self.weight is not None:
            return self.weight, 1.0
        share = terms / max(1, terms + words)
        power = np.exp([max(0.5, share), min(0.5, share)])
        term, word = 1 + power / power.sum()
        return float(term), float(word)
