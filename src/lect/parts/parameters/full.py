# SPDX-License-Identifier: Apache-2.0
"""Every tensor moves all the time."""

from __future__ import annotations

from lect.method import knobs
from lect.parts.parameters.kind import Parameters

CARD = {
    "title": "All parameters",
    "paper": "arXiv:1801.06146",
    "claim": "no tensor is left as it was",
    "differs": ["no tensor is unfrozen later than another, as the paper's classifiers are"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Full(Parameters):
    """The whole model is trained."""
