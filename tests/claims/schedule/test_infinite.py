# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.errors import UserError
from lect.parts.schedule.infinite import Infinite
from moments import at


def equation(step: float, ends: tuple[float, float, float], levels: tuple[float, float, float], kind: str) -> float:
    """Rates at ``step`` of 1000: phases end at ``ends``; peak, constant and least rate are ``levels``."""
    warm, cool, hold = ends
    peak, constant, least = levels
    if step < warm:
        return peak * step / warm
    if step < cool:
        x = (step - warm) / (cool - warm)
        if kind == "cosine":
            return constant + (peak - constant) / 2 * (math.cos(math.pi * x) + 1)

        def root(y: float) -> float:
            return 1 / math.sqrt(1 + 10 * y) - 1

        return peak + (constant - peak) / root(1) * root(x)
    if step <= hold:
        return constant
    return constant * math.exp(math.log(least / constant) * (step - hold) / (1000 - hold))


@settings(deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(1, 200),
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from(["cosine", "inverse_sqrt"]),
)
def test_equation(step: int, warmup: int, cooldown: int, anneal: int, kind: str) -> None:
    part = Infinite(
        shape=kind, warmup=warmup / 1000, cooldown=cooldown / 1000, anneal=anneal / 1000, constant=0.55, floor=0.1
    )
    expected = equation(step, (warmup, warmup + cooldown, 1000 - anneal), (3e-4, 1.65e-4, 3e-5), kind)
    assert part.rate(at(step / 1000)) * 3e-4 == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["cosine", "inverse_sqrt"])
def test_moves_without_a_step_and_never_rises_again(kind: str) -> None:
    part = Infinite(shape=kind, warmup=0.1, cooldown=0.3, anneal=0.2, constant=0.5, floor=0.1)
    rates = [part.rate(at(n / 1000)) for n in range(1001)]
    assert rates[0] == 0.0
    assert max(rates) == rates[100] == 1.0
    assert all(b <= a + 1e-12 for a, b in pairwise(rates[100:]))
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.02
    assert set(rates[401:800]) == {0.5}
    assert rates[900] == pytest.approx(math.sqrt(0.5 * 0.1)), "an exponential's middle is the geometric mean"
    assert rates[-1] == pytest.approx(0.1)


def test_the_inverse_square_root_falls_earlier() -> None:
    cosine, root = (Infinite(shape=kind, warmup=0.0, cooldown=0.5) for kind in ("cosine", "inverse_sqrt"))
    assert all(root.rate(at(n / 100)) < cosine.rate(at(n / 100)) - 0.1 for n in range(3, 26)), "over the first half"


def test_a_next_run_goes_on_from_the_constant() -> None:
    first = Infinite(anneal=0.0, constant=0.5)
    second = Infinite(warmup=0.0, cooldown=0.0, anneal=0.2, constant=1.0, floor=0.1)
    assert first.rate(at(1.0)) == 0.5 * second.rate(at(0.0)) == 0.5 * second.rate(at(0.8))
    assert second.rate(at(1.0)) == pytest.approx(0.1)


def test_refuses_phases_that_do_not_fit_into_a_run_and_a_floor_above_the_constant() -> None:
    assert Infinite(warmup=0.1, cooldown=0.7, anneal=0.2).rate(at(0.8)) == pytest.approx(0.55)
    with pytest.raises(UserError, match="more than 1"):
        Infinite(warmup=0.1, cooldown=0.8, anneal=0.2)
    with pytest.raises(UserError, match="floor"):
        Infinite(constant=0.2, floor=0.3)
