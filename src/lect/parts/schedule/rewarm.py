# SPDX-License-Identifier: Apache-2.0
"""Rise again from the rate that the model was left with, then half a cosine down to it."""

from __future__ import annotations

from typing import Annotated

from lect.method import Range, knobs
from lect.ops.curves import warmed_cosine
from lect.parts.schedule.kind import Moment, Schedule

CARD = {
    "title": "Re-warming",
    "paper": "arXiv:2308.04014",
    "claim": "raising the rate again helps on the new text in the long run, at the price of a passing loss on both;"
    " how long the rise takes matters little, how high it goes decides between learning and forgetting",
    "differs": [
        "the rise begins at the rate the model was left with; at which rate the paper's begins could not be verified,"
        " and the code base it uses begins at zero (start 0)",
        "defaults are a rise over 1 % of the tokens (the paper tries 0, 0.5, 1 and 2 %), and a tenth of the peak at"
        " either end, which is how that code base's models end",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Rewarm(Schedule):
    """A learning rate that goes on from a finished model's last one, up to a new peak and down again."""

    start: Annotated[float, Range(at_least=0, at_most=1)] = 0.1
    """Rate that the model was left with, as a share of the new peak."""
    warmup: Annotated[float, Range(at_least=0, at_most=0.5)] = 0.01
    """Share of the run over which the rate rises, in (0, 1); 0 begins at the peak."""
    floor: Annotated[float, Range(at_least=0, at_most=1)] = 0.1
    """Rate at the end, as a share of the peak."""

    def rate(self, at: Moment) -> float:
        """Linear rise from ``start`` to the peak, then half a cosine to ``floor``."""
        return warmed_cosine(at.progress, self.start, self.warmup, self.floor)
