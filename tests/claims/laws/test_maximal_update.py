# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from lect.engine.optimizer import AdamW, Group
from lect.errors import UserError
from lect.laws import maximal_update as law


@pytest.mark.parametrize(("width", "wider"), [(128, 0.5), (256, 1), (512, 2), (1024, 4), (1536, 6)])
def test_widths_of_the_power_scheduler(width: int, wider: float) -> None:
    """Tables 2 and 4 of arXiv:2408.13359: width multipliers of its models; sec. 3.2 divides the rate by them."""
    assert law.width_multiplier(width) == wider
    assert law.rates(0.02, width) == (0.02 / wider, 0.02, 0.0)


def moved(width: int, rate: float) -> float:
    """How far one update of AdamW moves what a matrix of ``width`` inputs computes, a coordinate (fp64 sums)."""
    draw = torch.Generator().manual_seed(width)
    matrix = torch.nn.Parameter(torch.randn(64, width, generator=draw) / math.sqrt(width))
    input_d = torch.randn(width, generator=draw)
    before = matrix.detach().double() @ input_d.double()
    group = Group(names=("m",), parameters=(matrix,), learning_rate=rate, weight_decay=0.0)
    optimizer = AdamW([group], beta1=0.9, beta2=0.95, epsilon=1e-12, clip=0.0)
    (matrix @ input_d).sum().backward()
    assert matrix.grad is not None
    optimizer.step(1, [1.0], {"m": matrix.grad}, 1.0)
    after = matrix.detach().double() @ input_d.double()
    return float((after - before).abs().mean())


def test_an_update_moves_matrices_of_all_widths_alike() -> None:
    """The point of the rule: without it a matrix 16 times as wide moves 16 times as far."""
    widths = (256, 1024, 4096)
    ruled = [moved(width, law.rates(1e-3, width).matrices) for width in widths]
    plain = [moved(width, 1e-3) for width in widths]
    assert max(ruled) < 1.1 * min(ruled)
    assert plain[2] == pytest.approx(16 * plain[0], rel=0.1)


def test_what_an_update_takes_off_stays_the_same() -> None:
    found = law.rates(1e-2, 2048, 256, weight_decay=0.1)
    assert found.matrices * found.weight_decay == pytest.approx(1e-2 * 0.1)
    assert found.others == 1e-2


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf])
def test_bad_numbers_are_refused(wrong: float) -> None:
    for call in (lambda: law.rates(0.01, wrong), lambda: law.rates(wrong, 256), lambda: law.width_multiplier(1, wrong)):
        with pytest.raises(UserError, match="maximal update"):
            call()
