# SPDX-License-Identifier: Apache-2.0
"""More of the target text at the end of the run, where it is remembered best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from lect.method import Range, knobs
from lect.parts.mixture.kind import Feedback, Mixture

CARD = {
    "title": "Domain upsampling at the end of training",
    "paper": "arXiv:2406.03476",
    "claim": "beats the base mixture on the target text, and the whole run on the late mixture on kept text",
    "differs": [
        "general text falls by the paper's ratio, from 71 % to 30 % of the tokens (Tables 2 and 4), but from the share "
        "that replay has here, since the model is trained already: 25 % to 10 %",
        "all target text rises alike; the paper drops one part of its general text and keeps the other",
        "the paper compares with the base mixture; the same rows of target text, spread evenly over the run, serve the "
        "target no worse on pico models",
        "tables were checked against published notes on the paper",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class UpsampleLate(Mixture):
    """Two mixtures, one after the other: a base share of kept text, and a smaller one in the last phase (sec. 3.2).

    What is read while the learning rate is next to zero leaves little: the schedule should fall late.
    """

    duration: Annotated[float, Range(above=0, at_most=1)] = 0.2
    """Share of the run, at its end, with the late mixture, in (0, 1]; 0.1 to 0.2 traded off best (sec. 3.3)."""
    kept_before: Annotated[float, Range(at_least=0, below=1)] = 0.25
    """Share of the rows that hold kept text before the last phase, in (0, 1)."""
    kept_late: Annotated[float, Range(at_least=0, below=1)] = 0.1
    """The same in the last phase, in (0, 1); some should stay, so that the text does not shift all at once."""

    def shares(self, tokens: Mapping[str, int], progress: float, feedback: Feedback) -> Mapping[str, float]:
        """A step at ``1 - duration``."""
        kept = self.kept_before if progress < 1 - self.duration else self.kept_late
        return {"target": 1 - kept, "kept": kept}
