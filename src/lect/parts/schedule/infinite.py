# SPDX-License-Identifier: Apache-2.0
"""Rise, cool down to a constant that later texts go on from, and fall where the run is to end."""

from __future__ import annotations

import math
from typing import Annotated

from lect.errors import UserError
from lect.method import OneOf, Range, knobs
from lect.ops.curves import half_cosine
from lect.parts.schedule.kind import Moment, Schedule

CARD = {
    "title": "Infinite schedules",
    "paper": "arXiv:2403.08763",
    "claim": "training goes on from the constant with new text and no second warm-up, and so forgets less, and reaches"
    " cosine's final loss",
    "differs": [
        "lengths are shares of the run, and the constant and the floor are shares of the peak",
        "formulas are those of the authors' code (gpt-neox, pull request 1194); the default shares and levels are not"
        " taken from the paper's tables, which could not be read",
        "a run that goes on from a constant sets warmup and cooldown to 0 and the step's learning rate and constant so"
        " that their product is the rate it left off with",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Infinite(Schedule):
    """A learning rate that rises, cools down, holds, and falls only where the run ends for good."""

    shape: Annotated[str, OneOf("cosine", "inverse_sqrt")] = "cosine"
    """How the rate cools down from the peak to the constant."""
    warmup: Annotated[float, Range(at_least=0, at_most=0.5)] = 0.01
    """Share of the run over which the rate rises from near zero, in (0, 1)."""
    cooldown: Annotated[float, Range(at_least=0, at_most=1)] = 0.5
    """Share of the run, behind the warm-up, over which the rate falls to the constant."""
    anneal: Annotated[float, Range(at_least=0, at_most=1)] = 0.15
    """Share of the run, at its end, over which the rate falls to the floor; 0 leaves the constant for a next run."""
    constant: Annotated[float, Range(above=0, at_most=1)] = 0.55
    """Rate between cooldown and annealing, as a share of the peak."""
    floor: Annotated[float, Range(above=0, at_most=1)] = 0.1
    """Rate at the end, as a share of the peak, at most the constant."""
    steepness: Annotated[float, Range(above=0, at_most=1_000_000)] = 10.0
    """How early the inverse square root falls; the more, the earlier."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup + self.cooldown + self.anneal > 1 + 1e-9:
            raise UserError("schedule infinite: warmup, cooldown and anneal add up to more than 1; lower one of them")
        if self.floor > self.constant:
            raise UserError(f"schedule infinite: floor {self.floor:g} is above constant {self.constant:g}; lower it")

    def rate(self, at: Moment) -> float:
        """Linear rise; cosine or shifted inverse square root; constant; exponential fall."""
        progress = at.progress
        if progress < self.warmup:
            return progress / self.warmup
        if progress < self.warmup + self.cooldown:
            return self.constant + (1 - self.constant) * self._above((progress - self.warmup) / self.cooldown)
        start = 1 - self.anneal
        if progress <= start:
            return self.constant
        share = min(1.0, (progress - start) / self.anneal)
        return float(self.constant * (self.floor / self.constant) ** share)

    def _above(self, share: float) -> float:
        """How much of the way from the constant to the peak is left at ``share`` (0 to 1) of the cooldown."""
        if self.shape == "cosine":
            return half_cosine(share)
        fall, whole = (1 / math.sqrt(1 + self.steepness * x) - 1 for x in (share, 1.0))
        return 1 - fall / whole
