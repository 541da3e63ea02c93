# SPDX-License-Identifier: Apache-2.0
"""Every new token starts as the mean of the old table."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lect.errors import UserError
from lect.method import OneOf, knobs
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "Mean of the old table",
    "paper": "https://nlp.stanford.edu/~johnhew/vocab-expansion.html",
    "claim": "as output rows, m new tokens raise no log-partition by more than log(1 + m/v)",
    "differs": ["the mean over the rows that the text uses is an option here; the bound then does not hold"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Mean(Init):
    """New rows that are all the same: the mean of the old ones."""

    over: Annotated[str, OneOf("all", "used")] = "all"
    """Which old rows count: all of them, or those of tokens that the text uses."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """The mean row, m times; UserError where the text uses no token."""
        rows_ud = table_vd
        if self.over == "used":
            rows_ud = table_vd[new.old_counts(len(table_vd)) > 0]
            if not len(rows_ud):
                raise UserError("init/mean: the text uses no token of the old table; set over: all, or give more text")
        return rows_ud.double().mean(0).float().repeat(len(new.ids), 1)
