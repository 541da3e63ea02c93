# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.parts.schedule.power import Power
from moments import at


def test_worked_example() -> None:
    """Sec. 3.2: with eq. 5, 10 trillion tokens in batches of 1024 sequences have 0.0011 for their best rate."""
    part = Power(amplitude=4.6, highest=0.02, warmup=0.0, decay=0.0)
    assert part.rate(at(1.0, 10**13, 1024 * 4096)) * 0.02 == pytest.approx(0.0011, abs=5e-5)


def equation(n: float, total: float, warm: float, decay: float, batch: float) -> float:
    """Eq. 7 and 8 in tokens and rates, with the constants of sec. 4 and the exponential of the authors' code."""

    def law(seen: float) -> float:
        return min(0.02, batch * 4 * seen**-0.51)

    if n < warm:
        return n / warm * law(warm)
    if n <= total - decay:
        return law(n)
    share = (n - (total - decay)) / decay
    return law(total - decay) * (math.exp(1 - share) - 1) / (math.e - 1)


@settings(deadline=None)
@given(
    st.integers(1, 1000),
    st.integers(20, 300),
    st.integers(1, 600),
    st.sampled_from([10**6, 10**9, 10**12]),
    st.sampled_from([1 / 8, 32, 1024]),
)
def test_equation(step: int, warmup: int, decay: int, total: int, batch: float) -> None:
    part = Power(warmup=warmup / 1000, decay=decay / 1000)
    expected = equation(step / 1000 * total, total, warmup / 1000 * total, decay / 1000 * total, batch)
    assert part.rate(at(step / 1000, total, batch * 4096)) * 0.02 == pytest.approx(expected, rel=1e-6, abs=1e-12)


@settings(deadline=None)
@given(st.floats(0.1, 0.9))
def test_the_rate_at_a_token_does_not_depend_on_how_long_the_run_is(progress: float) -> None:
    """The paper's point: behind the warm-up and before the decay only the tokens read so far count."""
    long = Power(warmup=0.01, decay=0.0)
    part = Power(warmup=0.04, decay=0.1)
    there = long.rate(at(progress / 4, 1e8, 512))
    assert part.rate(at(progress, 2.5e7, 512)) == pytest.approx(there)
    second = Power(before=25_000_000, warmup=0.0, decay=0.0)
    expected = long.rate(at(0.25 + 0.75 * progress, 1e8, 512))
    assert second.rate(at(progress, 7.5e7, 512)) == pytest.approx(expected)
    assert expected < 0.99 * there


def test_a_batch_twice_as_large_has_twice_the_rate_up_to_the_highest() -> None:
    small, large = (Power().rate(at(0.5, 1e9, n)) for n in (512, 1024))
    assert large == pytest.approx(2 * small)
    assert Power().rate(at(0.5, 1e9, 2**30)) == 1.0


def test_rises_and_falls_without_a_step_and_ends_at_zero() -> None:
    part = Power(warmup=0.2, decay=0.3)
    rates = [part.rate(at(n / 1000, 1e7, 512)) for n in range(1001)]
    assert rates[0] == rates[-1] == 0.0
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.01 * max(rates)
    assert all(a > b for a, b in pairwise(rates[200:]))
    assert 0 < Power(warmup=0.0).rate(at(0.0, 1e7, 512)) <= 1.0
