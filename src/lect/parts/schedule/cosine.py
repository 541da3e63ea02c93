# SPDX-License-Identifier: Apache-2.0
"""Rise, then half a cosine down."""

from __future__ import annotations

from typing import Annotated

from lect.method import Range, knobs
from lect.ops.curves import warmed_cosine
from lect.parts.schedule.kind import Moment, Schedule

CARD = {
    "title": "Warm-up and cosine",
    "paper": "arXiv:1608.03983",
    "claim": "falls along half a cosine from the peak to the floor, without a kink at either end",
    "differs": ["one cycle, no restarts", "a linear warm-up comes first"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Cosine(Schedule):
    """A learning rate that rises and then falls along half a cosine."""

    warmup: Annotated[float, Range(at_least=0, at_most=0.5)] = 0.1
    """Share of the run over which the rate rises from near zero, in (0, 1)."""
    floor: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Rate at the end, as a share of the peak."""

    def rate(self, at: Moment) -> float:
        """Linear rise, then eq. 5 of the paper with one cycle."""
        return warmed_cosine(at.progress, 0.0, self.warmup, self.floor)
