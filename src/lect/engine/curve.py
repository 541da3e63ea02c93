# SPDX-License-Identifier: Apache-2.0
"""Where a curve of bits per byte goes on to: a falling power through what was measured, without outside constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

FEWEST = 3
SHIFTS = (1e-3, 1e2)
"""Least and greatest shift tried, in units of the smallest and of the largest number of tokens measured."""


def extrapolate(points: Sequence[tuple[float, float]], tokens: float) -> float | None:
    """Bits per byte after ``tokens`` of training, from ``points`` of (tokens, bits per byte).

    The curve is a (D + d)^-b, the power law of training with the tokens that the model's earlier training was worth
    on this text, d, as a third constant: least squares of the logarithm, d by search. None for fewer than three
    different numbers of tokens, for bits that are not positive, or where the curve does not fall. What a falling
    learning rate still gains is not in it, so that it tends to promise too little.
    """
    sizes = sorted({size for size, _ in points})
    if len(sizes) < FEWEST or sizes[0] < 0 or not all(0 < bits < math.inf for _, bits in points):
        return None
    logs = [math.log(bits) for _, bits in points]

    def fitted(shift: float) -> tuple[float, float, float]:
        """Squared error, power and logarithm of the factor for a given d."""
        places = [math.log(size + shift) for size, _ in points]
        middle, mean = fmean(places), fmean(logs)
        spread = sum((x - middle) ** 2 for x in places)
        power = -sum((x - middle) * (y - mean) for x, y in zip(places, logs, strict=True)) / spread
        factor = mean + power * middle
        error = sum((factor - power * x - y) ** 2 for x, y in zip(places, logs, strict=True))
        return error, power, factor

    ends = math.log(SHIFTS[0] * sizes[1]), math.log(SHIFTS[1] * sizes[-1])
    grid = [math.exp(ends[0] + (ends[1] - ends[0]) * k / 2000) for k in range(2001)]
    shift = min(grid, key=lambda d: fitted(d)[0])
    _, power, factor = fitted(shift)
    return math.exp(factor - power * math.log(tokens + shift)) if power > 0 else None
