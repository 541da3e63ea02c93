# SPDX-License-Identifier: Apache-2.0
"""The two ways in which a run ends for a reason that the user can act on."""

from __future__ import annotations


class UserError(Exception):
    """Something outside lect is wrong: the message says what, where, and what to do. Exit status 2."""


class BrokenGate(Exception):
    """A measured quantity left its budget; what was built stays on disk. Exit status 1."""
