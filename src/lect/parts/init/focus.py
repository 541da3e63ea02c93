# SPDX-License-Identifier: Apache-2.0
"""A new token starts as a mix of those old tokens of the text whose static vectors are most alike."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from lect.method import Range, knobs
from lect.ops.word_vectors import normal, train, unit
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "FOCUS: sparse mixes of overlapping tokens",
    "paper": "arXiv:2305.14481",
    "claim": "each new row is a convex combination of the rows of overlapping tokens, with sparsemax weights over the "
    "cosines of static token vectors",
    "differs": [
        "fastText vectors are trained by gensim, on one thread, with as many buckets as the text's n-grams need",
        "the authors' code counts a token as overlapping that differs from an old one in spelling alone where two "
        "tokenizers write spaces differently; here the tokens of the old vocabulary that were kept overlap",
        "the authors train for 3 passes, on much more text than one user has; the default here is 10",
    ],
    "version": 1,
    "off": None,
    "needs": ["lect[languages]"],
    "xfail": {},
}
BATCH = 256


@knobs
class Focus(Init):
    """New rows that are sparse mixes of old rows, by how alike the tokens are used and spelled in the target text.

    A token is overlapping when it is old and stands in the text. A new token that the text does not hold often
    enough for a vector is drawn with the mean and deviation of each dimension of the old table, as in the paper.
    """

    vector_dim: Annotated[int, Range(at_least=1, at_most=10_000)] = 100
    """Dimensions of the static token vectors."""
    epochs: Annotated[int, Range(at_least=1, at_most=1000)] = 10
    """Passes over the text when they are trained."""
    least: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 10
    """Fewest times that a token must stand in the text to get a vector."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is sum_o w_no E[o] with w_n = sparsemax_o cos(x_n, x_o), for overlapping tokens o (section 3)."""
        strings = new.new.strings
        lines = [[strings[int(i)] for i in text] for text in new.new_text]
        vectors = train(
            lines, size=self.vector_dim, epochs=self.epochs, least=self.least, seed=new.seed, who="init/focus"
        )
        rows_md = normal(table_vd, len(new.ids), new.generator())
        both = [n for n, i in enumerate(new.origin) if i >= 0 and strings.get(n) in vectors.rows]
        fresh = [m for m, n in enumerate(new.ids) if strings[n] in vectors.rows]
        if not both:
            return rows_md

        def units(ids: list[int]) -> Tensor:
            return torch.from_numpy(unit(np.stack([vectors.table[vectors.rows[strings[n]]] for n in ids])))

        old_od, vector_oe = table_vd[[new.origin[n] for n in both]], units(both)
        for start in range(0, len(fresh), BATCH):
            some = fresh[start : start + BATCH]
            cosine_mo = units([new.ids[m] for m in some]) @ vector_oe.T
            rows_md[some] = sparsemax(cosine_mo) @ old_od
        return rows_md


def sparsemax(score_mo: Tensor) -> Tensor:
    """The point of the probability simplex nearest to each row of scores, (m, o); most of its weights are 0.

    Martins and Astudillo, arXiv:1602.02068, algorithm 1.
    """
    sorted_mo = score_mo.sort(dim=1, descending=True).values
    rank_o = torch.arange(1, score_mo.shape[1] + 1)
    sum_mo = sorted_mo.cumsum(1)
    size_m1 = (1 + rank_o * sorted_mo > sum_mo).sum(1, keepdim=True)
    threshold_m1 = (sum_mo.gather(1, size_m1 - 1) - 1) / size_m1
    return (score_mo - threshold_m1).clamp(min=0)
