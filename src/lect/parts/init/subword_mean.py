# SPDX-License-Identifier: Apache-2.0
"""A new token starts as the mean of the tokens that used to spell it."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lect.method import OneOf, Range, knobs
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "Mean of the old subwords",
    "paper": "arXiv:2210.07111",
    "claim": "each new row is the weighted mean of the rows of its old segmentation",
    "differs": [
        "the paper takes the uniform mean; weights by length and by rarity, and the norm correction, are options here",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class SubwordMean(Init):
    """New rows that are means of the rows of the tokens which spelled the same text before."""

    weight: Annotated[str, OneOf("uniform", "length", "rarity", "last")] = "uniform"
    """What each old token counts: the same, its characters, the inverse root of its frequency, or only the last."""
    norm: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """How far the length of the row is moved from the mean's own (0) to the mean length of its old rows (1)."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is sum_i w_i E[p_i] / sum_i w_i over the old tokens p_1 .. p_k of new token n."""
        weight_v = self.weights(table_vd, new)
        rows = []
        for pieces in new.pieces:
            ids_k = torch.tensor(pieces[-1:] if self.weight == "last" else pieces)
            old_kd, weight_k = table_vd[ids_k], weight_v[ids_k]
            row_d = (weight_k[:, None] * old_kd).sum(0) / weight_k.sum()
            length = row_d.norm().clamp(min=1e-12)
            rows.append(row_d * ((1 - self.norm) + self.norm * old_kd.norm(dim=1).mean() / length))
        return torch.stack(rows)

    def weights(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """The weight of each old token, (v,)."""
        rows = len(table_vd)
        if self.weight == "length":
            lengths = {i: float(max(1, len(new.old.surface(token)))) for i, token in new.old.strings.items()}
            return torch.tensor([lengths.get(i, 1.0) for i in range(rows)])
        if self.weight == "rarity":
            return (1 + new.old_counts(rows)).rsqrt()
        return torch.ones(rows)
