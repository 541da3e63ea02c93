# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.parts.schedule.warmup_stable_decay import WarmupStableDecay
from moments import at


def equation(step: float, total: float, warmup: float, decay: float, power: float) -> float:
    """Sec. 4.1, eq. 1 and 2: n / N_warmup, then 1, then 1 - ((n - (N - N_decay)) / N_decay) ** power."""
    if step < warmup:
        return step / warmup
    if step <= total - decay:
        return 1.0
    return 1.0 - ((step - (total - decay)) / decay) ** power


@given(st.integers(0, 1000), st.integers(1, 300), st.integers(1, 600), st.sampled_from([0.5, 1.0, 2.0]))
def test_equation(step: int, warmup: int, decay: int, power: float) -> None:
    part = WarmupStableDecay(warmup=warmup / 1000, decay=decay / 1000, shape=power)
    assert part.rate(at(step / 1000)) == pytest.approx(equation(step, 1000, warmup, decay, power), abs=1e-6)


def test_rises_holds_and_ends_at_the_floor() -> None:
    part = WarmupStableDecay(warmup=0.1, decay=0.4, floor=0.25)
    assert part.rate(at(0.05)) == pytest.approx(0.5)
    assert part.rate(at(0.3)) == part.rate(at(0.6)) == 1.0
    assert part.rate(at(1.0)) == pytest.approx(0.25)
    assert WarmupStableDecay(warmup=0.0).rate(at(0.0)) == 1.0
    assert WarmupStableDecay(warmup=0.5, decay=1.0).rate(at(0.5)) == 1.0, "the decay begins where the warm-up ends"
