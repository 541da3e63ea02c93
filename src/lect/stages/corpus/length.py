# SPDX-License-Identifier: Apache-2.0
"""Drop texts that are far too short among their own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import numpy as np

from lect.method import Range, knobs
from lect.stages.corpus.kinds import DocFilter

CARD = {
    "title": "Minimum length, fitted on the text",
    "paper": "arXiv:2112.11446",
    "claim": "At most the lower tail of the text's own lengths is dropped, whatever the language.",
    "differs": ["the least length is fitted on each role's own texts; the paper's 50 words (appendix A1) are English"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

FEWEST = 20  # with fewer texts nothing is fitted


@knobs
class Length(DocFilter):
    """No stubs: texts without a letter or digit, and texts far shorter than the others of their role, are dropped.

    Lengths are in UTF-8 bytes, on a log scale. Fitted on each role: the least length is the median divided by
    ``exp(deviations * s)``, where s is 1.4826 times the median absolute deviation of the log lengths (the standard
    deviation, if they are normal), and at least log 1.5, so that texts of nearly one length are not cut at the
    middle. It is never above ``always_keep``. With fewer than 20 texts nothing is fitted. Reasons:
    ``no_letters``, ``short``. After Rae et al. 2021 (arXiv:2112.11446), appendix A1.
    """

    deviations: Annotated[float, Range(above=0)] = 3.0
    """How many standard deviations of the log length below the median a text may lie."""
    always_keep: Annotated[int, Range(at_least=0)] = 200
    """Texts of this many bytes or more are never dropped as short."""

    def fit(self, texts: Iterable[str]) -> dict[str, float]:
        """The least length in bytes."""
        logs = np.log([max(1, len(text.encode())) for text in texts])
        if len(logs) < FEWEST:
            return {"least_bytes": 0.0, "median_bytes": float(np.exp(np.median(logs))) if len(logs) else 0.0}
        middle = float(np.median(logs))
        spread = max(math.log(1.5), 1.4826 * float(np.median(np.abs(logs - middle))))
        least = min(float(self.always_keep), math.exp(middle - self.deviations * spread))
        return {"least_bytes": least, "median_bytes": math.exp(middle)}

    def drop(self, text: str, fitted: dict[str, float]) -> str | None:
        """``no_letters``, ``short`` or None."""
        if not any(c.isalnum() for c in text):
            return "no_letters"
        return "short" if len(text.encode()) < fitted["least_bytes"] else None
