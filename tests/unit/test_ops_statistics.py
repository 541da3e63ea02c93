# SPDX-License-Identifier: Apache-2.0
"""Intervals: known values, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.ops import statistics as s


@pytest.mark.parametrize(
    ("p", "freedom", "value"),
    # Printed tables of Student's t.
    [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.95, 10, 1.812), (0.995, 7, 3.499), (0.975, 999, 1.962)],
)
def test_student_table(p, freedom, value):
    assert s.student_quantile(p, freedom) == pytest.approx(value, abs=6e-4)


def test_wilson_printed_values():
    # 10 of 20 and 0 of 10, as printed for the score interval without continuity correction.
    half = s.wilson(10, 20)
    assert (half.low, half.high) == (pytest.approx(0.2993, abs=5e-5), pytest.approx(0.7007, abs=5e-5))
    none = s.wilson(0, 10)
    assert none.low == 0.0 and none.high == pytest.approx(0.2775, abs=5e-5)


@given(st.integers(1, 400), st.data())
def test_wilson_holds_the_share(items, data):
    right = data.draw(st.integers(0, items))
    interval = s.wilson(right, items)
    assert 0.0 <= interval.low <= interval.mean <= interval.high <= 1.0
    assert interval.low < interval.high


def test_wilson_refuses_nonsense():
    for right, items in ((0, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError):
            s.wilson(right, items)


def test_cluster_sums_keep_first_order():
    assert s.cluster_sums(np.array([1.0, 2.0, 4.0, 8.0]), ["b", "a", "b", "c"]).tolist() == [5.0, 2.0, 8.0]


def _mean(total, count):
    return total / count


@pytest.mark.parametrize("clusters", [8, 40])
def test_coverage_of_clustered_data(clusters):
    """Of 95 % intervals about that many hold the truth, although units of a cluster are nearly copies."""
    rng = np.random.default_rng(0)
    trials, held, naive = 300, 0, 0
    units = 4
    names = np.repeat(np.arange(clusters), units)
    for trial in range(trials):
        values = np.repeat(rng.normal(1.0, 1.0, clusters), units) + rng.normal(0, 0.1, clusters * units)
        ones = np.ones_like(values)
        interval = s.cluster_interval(_mean, [values, ones], names.tolist(), seed=trial, resamples=500)
        held += interval.low <= 1.0 <= interval.high
        flat = s.cluster_interval(_mean, [values, ones], list(range(len(values))), seed=trial, resamples=200)
        naive += flat.low <= 1.0 <= flat.high
    assert 0.91 <= held / trials <= 0.985
    assert naive / trials < 0.8


def test_ratio_and_small_samples():
    bits, size = np.array([3.0, 5.0]), np.array([2.0, 2.0])
    one = s.cluster_interval(_mean, [bits[:1], size[:1]], ["a"], seed=0)
    assert one == s.Interval(1.5, 1.5, 1.5)
    # One document: its windows are drawn instead.
    both = s.cluster_interval(_mean, [bits, size], ["a", "a"], seed=0)
    assert both.mean == 2.0 and both.low == 1.5 and both.high == 2.5


def test_paired_difference_is_narrower_than_unpaired():
    rng = np.random.default_rng(1)
    base = rng.normal(5, 2, 200)
    adapted = 0.9 * base + rng.normal(0, 0.05, 200)
    ones = np.ones(200)
    names = list(range(200))
    paired = s.cluster_interval(lambda a, b, n: (b - a) / n, [base, adapted, ones], names, seed=0)
    single = s.cluster_interval(_mean, [adapted, ones], names, seed=0)
    assert paired.high - paired.low < 0.2 * (single.high - single.low)


def test_same_seed_same_interval():
    values, ones = np.arange(50.0), np.ones(50)
    first = s.cluster_interval(_mean, [values, ones], list(range(50)), seed=3)
    assert first == s.cluster_interval(_mean, [values, ones], list(range(50)), seed=3)
    assert first != s.cluster_interval(_mean, [values, ones], list(range(50)), seed=4)
