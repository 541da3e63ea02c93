# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from itertools import pairwise

import pytest

from lect.parts.schedule.cosine import Cosine
from moments import at


@pytest.mark.parametrize("now", [0, 7, 50, 99, 100])
def test_equation_5(now: int) -> None:
    """Eq. 5: least + (most - least) * (1 + cos(pi * T_cur / T)) / 2."""
    expected = 0.1 + 0.5 * (1 - 0.1) * (1 + math.cos(now / 100 * math.pi))
    assert Cosine(warmup=0.0, floor=0.1).rate(at(now / 100)) == pytest.approx(expected)


def test_warms_up_and_falls_without_a_step() -> None:
    part = Cosine(warmup=0.2)
    rates = [part.rate(at(n / 1000)) for n in range(1001)]
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.006
