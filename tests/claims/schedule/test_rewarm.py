# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from itertools import pairwise

import pytest

from lect.parts.schedule.rewarm import Rewarm
from moments import at


@pytest.mark.parametrize("now", [0, 1, 9, 10, 11, 400, 999, 1000])
def test_equation(now: int) -> None:
    """Linear from the old model's rate to the new peak, then half a cosine to the least rate, in rates."""
    old, peak, least = 3e-5, 3e-4, 6e-5
    expected = old + (peak - old) * now / 10
    if now >= 10:
        expected = least + (peak - least) * (1 + math.cos(math.pi * (now - 10) / 990)) / 2
    part = Rewarm(start=old / peak, warmup=0.01, floor=least / peak)
    assert part.rate(at(now / 1000)) * peak == pytest.approx(expected)


def test_begins_where_the_model_was_left_and_moves_without_a_step() -> None:
    part = Rewarm(start=0.3, warmup=0.2, floor=0.1)
    rates = [part.rate(at(n / 1000)) for n in range(1001)]
    assert rates[0] == 0.3
    assert max(rates) == pytest.approx(rates[200]) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.005
    assert Rewarm(warmup=0.0).rate(at(0.0)) == 1.0, "no rise at all is one of the paper's settings"
