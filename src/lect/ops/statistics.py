# SPDX-License-Identifier: Apache-2.0
"""Means, ratios and shares with honest intervals: what was measured on a sample says how far it may be off.

Text units of one document resemble each other, so documents are resampled whole (a cluster bootstrap). Few
clusters make the plain percentile interval too narrow; its ends are moved out as in Hesterberg, "What Teachers
Should Know about the Bootstrap" (arXiv 1411.5279, section 4), by Student's t and sqrt(n / (n - 1)).

Shapes: n clusters, r resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "cluster_interval", "cluster_sums", "wilson"]

Numbers = NDArray[np.float64]
RESAMPLES = 2000
BLOCK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with the two ends of its interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """The interval as the report shows it."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def cluster_sums(values: Numbers, clusters: Sequence[Hashable]) -> Numbers:
    """The sum of ``values`` in each cluster, in the order in which the clusters first appear."""
    order: dict[Hashable, int] = {}
    index = [order.setdefault(c, len(order)) for c in clusters]
    sums = np.zeros(len(order))
    np.add.at(sums, np.asarray(index, dtype=np.int64), values)
    return sums


def cluster_interval(
    statistic: Callable[..., Numbers],
    columns: Sequence[Numbers],
    clusters: Sequence[Hashable],
    seed: int,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """The interval of a function of sums, when whole clusters are drawn anew with replacement.

    ``columns`` hold one number per unit; ``statistic`` takes the total of every column (arrays of equal shape)
    and returns the quantity, e.g. ``lambda bits, size: bits / size``. With fewer than two clusters the units
    themselves are drawn; with fewer than two units both ends are the estimate.
    """
    groups: Sequence[Hashable] = clusters if len(set(clusters)) > 1 else range(len(clusters))
    sums_cn = np.stack([cluster_sums(column, groups) for column in columns])
    n = sums_cn.shape[1]
    mean = float(statistic(*sums_cn.sum(axis=1, keepdims=True))[0])
    if n < 2:
        return Interval(mean, mean, mean)
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // n)
    drawn = [
        statistic(*(sums_cn @ rng.multinomial(n, np.full(n, 1 / n), size=min(rows, resamples - at)).T))
        for at in range(0, resamples, rows)
    ]
    tail = expanded_tail((1 - confidence) / 2, n)
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def expanded_tail(tail: float, n: int) -> float:
    """The share to cut off each end of ``n`` clusters' bootstrap so that ``tail`` is left out (section 4)."""
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(1 - tail, n - 1))


def student_quantile(p: float, freedom: int) -> float:
    """The value that Student's t with ``freedom`` degrees stays under with probability ``p`` (0.5 <= p < 1)."""
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < p else (low, middle)
    return high


def _student_cdf(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0 by the finite series in the angle atan(t / sqrt(freedom)); exact for whole degrees."""
    if freedom > 2000:
        return NormalDist().cdf(t)
    angle = math.atan2(t, math.sqrt(freedom))
    cosine2 = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine2 * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 0.5 + inside / 2


def wilson(right: int, items: int, confidence: float = 0.95) -> Interval:
    """The share ``right / items`` with Wilson's score interval, which holds also near 0 and 1."""
    if not 0 <= right <= items or items == 0:
        raise ValueError(f"{right} right of {items} items is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / items
    middle = (share + z * z / (2 * items)) / (1 + z * z / items)
    half = z / (1 + z * z / items) * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))
