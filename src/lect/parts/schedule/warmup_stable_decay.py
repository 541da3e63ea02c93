# SPDX-License-Identifier: Apache-2.0
"""Rise, hold, fall."""

from __future__ import annotations

from typing import Annotated

from lect.method import Range, knobs
from lect.parts.schedule.kind import Moment, Schedule

CARD = {
    "title": "Warm-up, stable, decay",
    "paper": "arXiv:2405.18392",
    "claim": "reaches cosine's final loss with a constant rate and a short decay at the end",
    "differs": ["lengths are shares of the run, not steps", "the fall may be to a floor above zero"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class WarmupStableDecay(Schedule):
    """A learning rate that rises, holds, and falls at the end of the run."""

    warmup: Annotated[float, Range(at_least=0, at_most=0.5)] = 0.1
    """Share of the run over which the rate rises from near zero, in (0, 1)."""
    decay: Annotated[float, Range(at_least=0, at_most=1)] = 0.5
    """Share of the run, at its end, over which the rate falls (sec. 4.1)."""
    shape: Annotated[float, Range(above=0, at_most=4)] = 1.0
    """Power of the fall: 1 is linear; 0.5 is the paper's 1 - sqrt (eq. 2)."""
    floor: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Rate at the end, as a share of the peak."""

    def rate(self, at: Moment) -> float:
        """Linear rise, constant, then ``1 - x ** shape`` over the decay."""
        progress = at.progress
        if progress < self.warmup:
            return progress / self.warmup
        start = max(self.warmup, 1 - self.decay)
        if progress <= start:
            return 1.0
        share = min(1.0, (progress - start) / (1 - start))
        return self.floor + (1 - self.floor) * float(1 - share**self.shape)
