# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch

from lect.parts.init.gaussian import Gaussian


def skewed(v: int = 12, d: int = 8) -> torch.Tensor:
    """A table whose dimensions differ in mean and spread, the last two of them nearly equal."""
    table_vd = torch.randn(v, d, generator=torch.Generator().manual_seed(1)) * torch.arange(1, d + 1)
    table_vd[:, -1] = table_vd[:, -2] + 0.01 * table_vd[:, -1]
    return table_vd + torch.arange(d)


def test_each_dimension_has_the_mean_and_variance_of_the_table(many):
    """Against a plain loop over the table; 40,000 draws, five standard errors."""
    table_vd, count = skewed(), 40_000
    rows_md = Gaussian().rows(table_vd, many(count)).numpy()
    assert rows_md.dtype == np.float32
    for j in range(table_vd.shape[1]):
        values = table_vd[:, j].tolist()
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        assert abs(rows_md[:, j].mean() - mean) < 5 * (variance / count) ** 0.5
        assert abs(rows_md[:, j].var() / variance - 1) < 5 * (2 / count) ** 0.5


def test_dimensions_are_drawn_apart_where_the_table_ties_them(many):
    table_vd = skewed()
    correlation = np.corrcoef(Gaussian().rows(table_vd, many(40_000)).numpy().T)
    assert np.corrcoef(table_vd.numpy().T)[-1, -2] > 0.99
    assert np.abs(correlation - np.eye(len(correlation))).max() < 5 / 40_000**0.5


def test_the_scale_multiplies_the_variance(many):
    table_vd = skewed()
    mean_d = table_vd.mean(0)
    wide, narrow = (Gaussian(scale=s).rows(table_vd, many(10)) - mean_d for s in (1.0, 0.25))
    torch.testing.assert_close(2 * narrow, wide, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(Gaussian(scale=0).rows(table_vd, many(3)), mean_d.expand(3, -1))
