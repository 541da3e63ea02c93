# SPDX-License-Identifier: Apache-2.0
"""Moments of a run for the tests of schedules."""

from __future__ import annotations

from lect.parts.schedule.kind import Moment


def at(share: float, total: float = 1.0, batch: float = 1.0) -> Moment:
    """The moment when ``share`` (0 to 1) of a run is behind."""
    return Moment(share * total, total, batch)
