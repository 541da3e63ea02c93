# SPDX-License-Identifier: Apache-2.0
"""What a schedule does: the learning rate as a share of its peak, over the tokens of a run."""

from __future__ import annotations

from dataclasses import dataclass

from lect.method import PartMethod, knobs


@dataclass(frozen=True)
class Moment:
    """Where a run stands, in tokens; the middle of an update stands for it, and padding counts as tokens."""

    seen: float
    """Tokens behind."""
    total: float
    """Tokens of the whole run."""
    batch: float
    """Tokens of one update."""

    @property
    def progress(self) -> float:
        """The share of the run that is behind, 0 to 1."""
        return self.seen / self.total

    def after(self, share: float) -> Moment:
        """The same moment for what begins behind a ``share`` (below 1) of the run; below zero it has not begun."""
        return Moment(self.seen - share * self.total, self.total * (1 - share), self.batch)


@knobs
class Schedule(PartMethod):
    """Says how high the learning rate is; an author writes ``rate``."""

    def rate(self, at: Moment) -> float:
        """The multiplier of the peak learning rate at a moment; of nothing else, so that a killed run can go on."""
        raise NotImplementedError
