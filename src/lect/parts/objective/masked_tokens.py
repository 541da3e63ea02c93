# SPDX-License-Identifier: Apache-2.0
"""Any token may have to be filled in, each with the same chance."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lect.method import Range, knobs
from lect.parts.objective.kind import Masking

CARD = {
    "title": "Masked-token prediction",
    "paper": "arXiv:1810.04805",
    "claim": "15 % of the tokens are to be filled in: 80 % of these are masked, 10 % random, 10 % as they were",
    "differs": [
        "each token is chosen by itself, so that the share varies from batch to batch, and is drawn anew each time "
        "that it is read; the paper draws before training",
        "the paper's second objective, which sentence follows, is left out",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class MaskedTokens(Masking):
    """Tokens to fill in, chosen alike over the whole text (section 3.1, task 1)."""

    share: Annotated[float, Range(above=0, below=1)] = 0.15
    """Share of the tokens to fill in, in (0, 1)."""

    def counts(
        self, class_t: NDArray[np.int8], first_t: NDArray[np.bool_], draw_t: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """One for each token whose draw is below the share."""
        return (draw_t < self.share).astype(np.float64)
