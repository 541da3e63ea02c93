# SPDX-License-Identifier: Apache-2.0
"""A new token starts as noise, as the model's own untrained rows did."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lect.method import Range, knobs
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "Normal noise of the model's own initialisation",
    "paper": "https://nlp.stanford.edu/~johnhew/vocab-expansion.html",
    "claim": "each value is drawn from a normal distribution with mean 0 and the deviation of the configuration",
    "differs": ["the baseline that the paper argues against; here to measure the others against"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}
FALLBACK = 0.02  # what most published configurations say


@knobs
class Random(Init):
    """New rows of noise around zero: a baseline, and nearly always a bad start."""

    deviation: Annotated[float | None, Range(at_least=0, at_most=100)] = None
    """Standard deviation of each value; by default ``initializer_range`` of the configuration, or 0.02."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Rows of independent values from N(0, deviation^2)."""
        deviation = self.deviation
        if deviation is None:
            written = getattr(new.live.config.get_text_config(), "initializer_range", None)
            deviation = float(written) if isinstance(written, int | float) else FALLBACK
        return deviation * torch.randn(len(new.ids), table_vd.shape[1], generator=new.generator())
