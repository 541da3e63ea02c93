# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lect.engine.curve import extrapolate

MEASURED = [(0, 1.7146), (48715, 1.4056), (97167, 1.3194), (145113, 1.2232), (191934, 1.1529), (236285, 1.1099)]
"""The main job, as bench/results/adapt.json had it when this was written."""


@pytest.mark.parametrize(("a", "shift", "b"), [(5.0, 8000.0, 0.104), (2.0, 300.0, 0.02), (90.0, 60000.0, 0.35)])
def test_a_shifted_power_is_found_again(a, shift, b):
    curve = [(size, a * (size + shift) ** -b) for size in (0, 20_000, 40_000, 60_000)]
    expected = a * (400_000 + shift) ** -b
    assert extrapolate(curve, 400_000) == pytest.approx(expected, rel=1e-3)
    assert extrapolate(curve[:3], 400_000) == pytest.approx(expected, rel=1e-3)


def test_a_measured_run_is_foretold_better_the_more_of_it_is_known():
    end = MEASURED[-1]
    errors = [extrapolate(MEASURED[:known], end[0]) / end[1] - 1 for known in (3, 4, 5)]
    assert 0.1 > errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0, 2.0), (10, 1.5)],
        [(0, 2.0), (10, 1.5), (10, 1.4)],
        [(0, 1.0), (10, 1.5), (20, 2.0)],
        [(0, 1.0), (10, 1.0), (20, 1.0)],
        [(0, 2.0), (10, float("nan")), (20, 1.0)],
        [(0, 2.0), (10, 0.0), (20, 1.0)],
    ],
)
def test_what_does_not_fall_or_is_too_little_foretells_nothing(points):
    assert extrapolate(points, 100) is None
