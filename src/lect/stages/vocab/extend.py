# SPDX-License-Identifier: Apache-2.0
"""Add tokens that the text needs: byte-pair merges go on, on the user's text, where the old tokenizer stops."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import numpy as np

from lect.errors import UserError
from lect.method import Range, Run, Sizes, knobs
from lect.ops.growth import add, merges, words
from lect.ops.text import encode
from lect.ops.tokenizer import Cut, Vocabulary
from lect.stages.vocab.kinds import Survey, VocabNew, rebuilt

CARD = {
    "title": "Vocabulary extension by continued merges",
    "paper": "arXiv:2406.14670",
    "claim": "fewer tokens for the same text; every old token and row stays, and every new token is reached",
    "differs": [
        "the paper unites the vocabulary with that of a BPE trained apart; here merging goes on from the old "
        "tokenizer's own segmentation, so that no new token is out of reach",
        "new tokens that the text does not use in the end are dropped again",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
    "pico": {"tokens": 40, "least": 2, "multiple": 1},
}


@knobs
class Extend(VocabNew):
    """A model with further tokens for the target text, and shorter sequences there."""

    tokens: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 4096
    """New tokens, at most; fewer where the text does not hold as many."""
    least: Annotated[int, Range(at_least=1, at_most=1_000_000_000)] = 16
    """Fewest times that a pair must stand in the training text to become a token."""
    longest: Annotated[int, Range(at_least=2, at_most=1000)] = 24
    """Longest new token, in characters."""
    multiple: Annotated[int, Range(at_least=1, at_most=4096)] = 64
    """Rows in all are brought to a multiple of this by leaving out the last new tokens (fast matrix products)."""

    def rows_after(self, sizes: Sizes) -> int:
        """As many more as are asked for."""
        return sizes.rows + self.tokens

    def surgery(self, survey: Survey, run: Run) -> Cut:
        """Merge on, add, and drop what the text then does not use."""
        old = survey.vocabulary
        counted = words(survey.tokenizer, old, survey.texts["target"])
        made = merges(counted, old, count=self.tokens, least=self.least, longest=self.longest)
        base = old.cut(old.ancestors(survey.usable))
        fresh = sum(token not in old.ids for _, _, token in made)
        spare = (len(base.origin) + len(survey.nameless) + fresh) % self.multiple
        while spare > 0 and made:
            spare -= made.pop()[2] not in old.ids
        if not any(token not in old.ids for _, _, token in made):
            raise UserError(
                f"vocab/extend: the target text holds no pair of tokens {self.least} times inside a word; lower least, "
                "raise tokens, lower multiple, or give more text"
            )
        cut = self.used(add(base, made, _frequency(made, counted, survey)), survey)
        new = sum(i < 0 for i in cut.origin)
        run.fact(new={"tokens": new, "asked": self.tokens, "unreached": fresh - new})
        run.say(f"vocab/extend: {new:,} new tokens")
        return cut

    def used(self, grown: Cut, survey: Survey) -> Cut:
        """The cut without new tokens that the training text does not use and no used token is made of."""
        new = Vocabulary(grown.data)
        tokenizer = rebuilt(survey.tokenizer, grown.data)
        seen = {int(i) for ids in encode(tokenizer, survey.texts["target"]) for i in np.unique(ids)}
        old = {n for n, i in enumerate(grown.origin) if i >= 0}
        again = new.cut(new.ancestors(seen | old))
        return Cut(again.data, [grown.origin[n] for n in again.origin])


def _frequency(made: list[tuple[str, str, str]], counted: Counter[tuple[int, ...]], survey: Survey) -> dict[str, int]:
    """How often each new spelling stands in the words of the text; under the empty string, all tokens."""
    strings = survey.vocabulary.strings
    fresh = {token for _, _, token in made if token not in survey.vocabulary.ids}
    times: Counter[str] = Counter()
    for word, n in counted.items():
        text = "".join(strings[i].removeprefix(survey.vocabulary.prefix) for i in word)
        for token in fresh & {text[a:b] for a in range(len(text)) for b in range(a + 1, len(text) + 1)}:
            times[token] += n
    return {"": sum(map(len, survey.train["target"])), **times}
