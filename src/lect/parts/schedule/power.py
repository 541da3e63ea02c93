# SPDX-License-Identifier: Apache-2.0
"""A rate that falls with a power of the tokens seen, whatever the run's length."""

from __future__ import annotations

import math
from typing import Annotated

from lect.method import Range, knobs
from lect.parts.schedule.kind import Moment, Schedule

CARD = {
    "title": "Power scheduler",
    "paper": "arXiv:2408.13359",
    "claim": "one set of constants gives a good learning rate for every batch size and every number of tokens",
    "differs": [
        "the law's rates are absolute; here the law divided by the knob highest is the multiplier of the step's"
        " learning rates. With a learning rate equal to highest the law holds as it stands; any other one scales it",
        "the batch is counted in tokens and divided by the 4096 of the paper's sequences",
        "tokens that the model has read before the run can be counted in; the paper trains from the start",
        "the decay falls exponentially to zero in the form of the authors' code, because the paper leaves it open",
        "the constants were found with maximal update parametrization at a width of 256; its transfer to a model's"
        " width is laws/maximal_update, whose two rates are to be the step's learning_rate and embedding_learning_rate."
        " The multipliers and first weights of table 1 are left out: a trained model has its own",
    ],
    "version": 2,
    "off": None,
    "needs": [],
    "xfail": {},
}

SEQUENCE_TOKENS = 4096
"""Tokens in one sequence of the paper's experiments (tables 2 to 4), in which it counts its batches."""


@knobs
class Power(Schedule):
    """A learning rate that falls as the tokens add up, and at the end to zero."""

    before: Annotated[int, Range(at_least=0)] = 0
    """Tokens that the model has read before this run and that the law is to count."""
    amplitude: Annotated[float, Range(above=0, at_most=1_000_000)] = 4.0
    """Rate at one token and a batch of one sequence, a in eq. 7."""
    exponent: Annotated[float, Range(at_least=-2, at_most=0)] = -0.51
    """Power of the tokens, b in eq. 7."""
    highest: Annotated[float, Range(above=0, at_most=1)] = 0.02
    """Greatest rate, the maximum in eq. 7, per update; it stands for the step's learning rate."""
    warmup: Annotated[float, Range(at_least=0, at_most=0.5)] = 0.01
    """Share of the run over which the rate rises from near zero, in (0, 1)."""
    decay: Annotated[float, Range(at_least=0, at_most=1)] = 0.1
    """Share of the run, at its end, over which the rate falls to zero."""

    def rate(self, at: Moment) -> float:
        """Eq. 8: linear rise to the law, the law, and an exponential fall from where it stands."""
        start = max(self.warmup, 1 - self.decay)
        if at.progress < self.warmup:
            return at.progress / self.warmup * self.law(self.warmup * at.total, at.batch)
        if at.progress <= start:
            return self.law(at.seen, at.batch)
        share = min(1.0, (at.progress - start) / (1 - start))
        return self.law(start * at.total, at.batch) * math.expm1(1 - share) / math.expm1(1)

    def law(self, seen: float, batch: float) -> float:
        """Eq. 7 as a share of its maximum, ``seen`` tokens into the run and with ``batch`` tokens an update."""
        read = max(1.0, self.before + seen)
        return min(1.0, batch / SEQUENCE_TOKENS * self.amplitude * float(read**self.exponent) / self.highest)
