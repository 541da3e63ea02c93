# SPDX-License-Identifier: Apache-2.0
"""A new token starts as a draw around the mean of the old table, with the table's own covariance."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lect.method import Range, knobs
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "Multivariate Gaussian of the old table",
    "paper": "https://nlp.stanford.edu/~johnhew/vocab-expansion.html",
    "claim": "draws have the mean and the scaled covariance of the old table, also with fewer rows than columns",
    "differs": [
        "a covariance without full rank is sampled where it lies; transformers falls back to the plain mean there",
        "the scale is 1e-5 as in arXiv:2407.05841; transformers takes 1e-9",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Multivariate(Init):
    """New rows near the mean of the old ones, apart from each other in the directions in which old rows are."""

    scale: Annotated[float, Range(at_least=0, at_most=100)] = 1e-5
    """What the covariance of the old table is multiplied by; 0 gives the mean, 1 draws as wide as the table is."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is mu + sqrt(scale) S z_n, where S S is the covariance (d, d) over the v old rows.

        S is the symmetric root from the eigenvectors, in fp64, with eigenvalues below zero (rounding) set to zero: it
        exists for every table, and does not hang on the signs that a library gives to eigenvectors.
        """
        mean_d = table_vd.double().mean(0)
        apart_vd = table_vd.double() - mean_d
        value_d, vector_dd = torch.linalg.eigh(apart_vd.T @ apart_vd / len(table_vd))
        root_dd = (vector_dd * value_d.clamp(min=0).sqrt()) @ vector_dd.T
        noise_md = torch.randn(len(new.ids), len(mean_d), generator=new.generator(), dtype=torch.float64)
        rows_md: Tensor = mean_d + self.scale**0.5 * noise_md @ root_dd
        return rows_md.float()
