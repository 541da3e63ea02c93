# SPDX-License-Identifier: Apache-2.0
"""A fixed share of the rows is text that the model knows already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from lect.method import Range, knobs
from lect.parts.mixture.kind import Feedback, Mixture

CARD = {
    "title": "Replay of kept text at a fixed share",
    "paper": "arXiv:2403.08763",
    "claim": "at any time the kept text has had its share of the rows, to within one row",
    "differs": [
        "replayed text is the user's kept text, not a sample of what the model was first trained on",
        "the paper's share of a weak shift is 5 %, of a strong one 25 %, which is the default here",
    ],
    "version": 1,
    "off": {"share": 0.0},
    "needs": [],
    "xfail": {},
}


@knobs
class Replay(Mixture):
    """Rows of target text with an evenly spread share of rows of kept text (section 3.2)."""

    share: Annotated[float, Range(at_least=0, below=1)] = 0.25
    """Share of the rows that hold kept text, in (0, 1); 0 replays nothing."""

    def shares(self, tokens: Mapping[str, int], progress: float, feedback: Feedback) -> Mapping[str, float]:
        """The same all the time."""
        return {"target": 1 - self.share, "kept": self.share}
