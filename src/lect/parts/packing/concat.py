# SPDX-License-Identifier: Apache-2.0
"""All documents behind one another, cut into chunks of one length: the usual baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lect.method import knobs
from lect.parts.packing.kind import Chunks

CARD = {
    "title": "Concatenate and chunk",
    "paper": "arXiv:2005.14165",
    "claim": "no room is left over but in the last chunk; documents are cut wherever a chunk ends",
    "differs": [
        "pieces of a chunk cannot see each other unless isolate is false, which is what the paper does (app. B)",
        "the last, short chunk is kept and padded, so no token is dropped",
        "every piece begins with the tokenizer's own first tokens, also where a chunk begins within a document",
        "a chunk ends early where what is left of it has no place for a token with what leads and closes it",
    ],
    "version": 2,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Concat(Chunks):
    """Chunks of the longest length, cut out of the shuffled documents as if they were one text."""

    def order(self, documents: int, known: Any, rng: np.random.Generator) -> NDArray[np.int64]:
        """Another order in each epoch."""
        return rng.permutation(documents)
