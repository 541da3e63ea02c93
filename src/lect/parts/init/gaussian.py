# SPDX-License-Identifier: Apache-2.0
"""A new token starts as a draw around the mean of the old table, each dimension by itself."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lect.method import Range, knobs
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "Univariate Gaussian of the old table",
    "paper": "arXiv:2407.05841",
    "claim": "each dimension is drawn with the mean and the variance that it has in the old table, uncorrelated",
    "differs": ["the variance can be scaled"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Gaussian(Init):
    """New rows that look like old ones dimension by dimension, but keep none of what ties dimensions together."""

    scale: Annotated[float, Range(at_least=0, at_most=100)] = 1.0
    """What the variance of the old table is multiplied by; 0 gives the mean."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is mu + sqrt(scale) sigma z_n, with mu and sigma (d,) over the v old rows and z_n standard normal."""
        variance_d, mean_d = torch.var_mean(table_vd.double(), dim=0, correction=0)
        noise_md = torch.randn(len(new.ids), len(mean_d), generator=new.generator(), dtype=torch.float64)
        return (mean_d + (self.scale * variance_d).sqrt() * noise_md).float()
