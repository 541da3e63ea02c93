# SPDX-License-Identifier: Apache-2.0
"""One sequence holds one document; a batch holds as many sequences as fit."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lect.method import Range, knobs
from lect.parts.packing.kind import Frame, Packing, Sequence

CARD = {
    "title": "One document per sequence, batches filled by best fit",
    "paper": "arXiv:2404.10830",
    "claim": "every piece stands whole in one sequence, and padding is under 3 % of the room",
    "differs": [
        "sequences lie end to end in one row and cannot see each other, where the paper concatenates them",
        "best fit runs inside a window of the shuffled pieces, so that batches stay random",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class OneDocument(Packing):
    """Sequences that hold (part of) one document each, laid into batches with little room left over."""

    window: Annotated[int, Range(at_least=1, at_most=100_000)] = 256
    """How many shuffled pieces best fit may choose from, in pieces; 1 keeps the shuffled order exactly."""

    def pack(self, sizes: NDArray[np.int64], frame: Frame, rng: np.random.Generator) -> list[list[Sequence]]:
        """Fill each batch from the oldest waiting piece, then with the longest that still fits (sec. 3.1)."""
        order = rng.permutation(len(sizes)).tolist()
        places: list[int] = sizes.tolist()
        coming = iter(order)
        waiting = [piece for _, piece in zip(range(self.window), coming, strict=False)]
        batches: list[list[Sequence]] = []
        while waiting:
            piece = waiting.pop(0)
            batch: list[Sequence] = [(piece,)]
            left = frame.room - places[piece]
            waiting.extend(p for _, p in zip(range(1), coming, strict=False))
            while fitting := [i for i, p in enumerate(waiting) if places[p] <= left]:
                piece = waiting.pop(max(fitting, key=lambda i: places[waiting[i]]))
                batch.append((piece,))
                left -= places[piece]
                waiting.extend(p for _, p in zip(range(1), coming, strict=False))
            batches.append(batch)
        return batches
