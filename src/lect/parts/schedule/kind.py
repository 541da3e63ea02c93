# SPDX-License-Identifier: Apache-2.0
"""What a schedule does: the learning rate as a share of its peak, over the course of a run."""

from __future__ import annotations

from lect.method import PartMethod, knobs


@knobs
class Schedule(PartMethod):
    """Says how high the learning rate is; an author writes ``rate``."""

    def rate(self, progress: float) -> float:
        """The multiplier of the peak learning rate when ``progress`` (0 to 1) of the run's tokens are behind."""
        raise NotImplementedError
