# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from lect.parts.init.multivariate import Multivariate


def tables():
    """Tables with more rows than columns, fewer, one row alone, and equal rows."""
    noise = torch.Generator().manual_seed(1)
    mix_dd = torch.randn(12, 12, generator=noise)
    yield pytest.param(torch.randn(300, 12, generator=noise) @ mix_dd + 3, id="v>d")
    yield pytest.param(torch.randn(5, 12, generator=noise) @ mix_dd + 3, id="v<d")
    yield pytest.param(torch.randn(1, 12, generator=noise), id="v=1")
    yield pytest.param(torch.ones(40, 12), id="equal")


def moments(table_vd):
    """Mean (d,) and covariance (d, d) by a plain loop over the rows."""
    rows = table_vd.double().numpy()
    mean_d = sum(rows) / len(rows)
    return mean_d, sum(np.outer(row - mean_d, row - mean_d) for row in rows) / len(rows)


@pytest.mark.parametrize("table_vd", tables())
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_draws_have_the_mean_and_the_scaled_covariance(many, table_vd, scale):
    """60,000 draws, five standard errors of each entry (normal draws: var of s_ij is (s_ii s_jj + s_ij^2) / n)."""
    count = 60_000
    mean_d, covariance_dd = moments(table_vd)
    covariance_dd = scale * covariance_dd
    rows_md = Multivariate(scale=scale).rows(table_vd, many(count)).double().numpy()
    diagonal = np.diag(covariance_dd)
    assert (np.abs(rows_md.mean(0) - mean_d) <= 5 * (diagonal / count) ** 0.5 + 1e-6).all()
    error_dd = 5 * ((np.outer(diagonal, diagonal) + covariance_dd**2) / count) ** 0.5
    apart = rows_md - mean_d
    assert (np.abs(apart.T @ apart / count - covariance_dd) <= error_dd + 1e-6).all()


def test_draws_stay_in_the_plane_of_a_small_table(many):
    """Five rows span four directions around their mean: no draw leaves them."""
    table_vd = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    rows_md = Multivariate(scale=1).rows(table_vd, many(100))
    apart_md = (rows_md - table_vd.mean(0)).double()
    value = torch.linalg.svdvals(apart_md)
    assert value[3] > 1 and value[4] < 1e-4


def test_every_draw_agrees_with_the_density_of_torch(many):
    """Squared distances by the covariance of ``MultivariateNormal`` follow chi-square: mean d, variance 2d."""
    table_vd = torch.randn(300, 12, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 13)
    mean_d, covariance_dd = (torch.from_numpy(part) for part in moments(table_vd))
    normal = torch.distributions.MultivariateNormal(mean_d, covariance_matrix=1e-2 * covariance_dd)
    rows_md = Multivariate(scale=1e-2).rows(table_vd, many(20_000)).double()
    constant = normal.log_prob(mean_d)
    distance_m = 2 * (constant - normal.log_prob(rows_md))
    assert distance_m.mean().item() == pytest.approx(12, rel=0.02)
    assert distance_m.var().item() == pytest.approx(24, rel=0.06)


def test_scale_zero_is_the_mean(many):
    table_vd = torch.randn(30, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(Multivariate(scale=0).rows(table_vd, many(3)), table_vd.mean(0).expand(3, -1))
