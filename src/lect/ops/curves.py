# SPDX-License-Identifier: Apache-2.0
"""Curves that learning rates follow."""

from __future__ import annotations

import math

__all__ = ["half_cosine", "warmed_cosine"]


def half_cosine(share: float) -> float:
    """How much of the way down is left at ``share`` (0 to 1, beyond it 0) of a fall along half a cosine: 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def warmed_cosine(progress: float, start: float, warmup: float, floor: float) -> float:
    """A line from ``start`` to 1 over the share ``warmup``, then half a cosine to ``floor`` (arXiv:1608.03983)."""
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return floor + (1 - floor) * half_cosine((progress - warmup) / (1 - warmup))
