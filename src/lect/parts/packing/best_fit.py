# SPDX-License-Identifier: Apache-2.0
"""Whole documents, laid where they leave the least room, over all of an epoch."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

from lect.method import knobs
from lect.parts.packing.kind import Frame, Joining, Sequence

CARD = {
    "title": "Best-fit packing",
    "paper": "arXiv:2404.10830",
    "claim": "as few rows as concatenation needs, within 1 %, and no document is cut that fits into a sequence",
    "differs": [
        "documents in one sequence cannot see each other unless isolate is false, which concatenates them as the paper"
        " does; isolated ones fill whole rows, which then are what the paper calls a sequence",
        "the place of an open sequence is found in a sorted list of the rooms left, not in a segment tree",
        "documents of equal length change places from epoch to epoch, and batches are shuffled; documents of rare"
        " lengths meet the same neighbours again (one_document's window avoids that)",
        "whether the paper's models see across the documents of a sequence could not be verified; it names no mask",
    ],
    "version": 2,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class BestFit(Joining):
    """Rows with next to no padding, in which only documents above the longest length are cut."""

    def cut(self, lengths: NDArray[np.int64], frame: Frame) -> NDArray[np.int64]:
        """Long documents as pieces of the greatest length and a rest (sec. 3.1, step 1)."""
        pieces: list[tuple[int, int, int]] = []
        for document, length in enumerate(lengths.tolist()):
            start = 0
            while start < length:
                stop = start + (frame.take(length - start, frame.longest) or length - start)
                pieces.append((document, start, stop))
                start = stop
        return np.array(pieces, dtype=np.int64).reshape(-1, 3)

    def pack(self, sizes: NDArray[np.int64], frame: Frame, rng: np.random.Generator) -> list[list[Sequence]]:
        """Best-fit-decreasing over all pieces (sec. 3.1, step 2); joined sequences are laid into batches alike."""
        order = rng.permutation(len(sizes))
        if self.isolate:
            rows = [[(int(order[p]),) for p in row] for row in best_fit(sizes[order], frame.room, 0)]
        else:
            joined = [order[row] for row in best_fit(sizes[order], frame.longest, frame.unread)]
            places = np.array([frame.joined(sizes[members]) for members in joined], dtype=np.int64)
            rows = [[tuple(joined[n].tolist()) for n in row] for row in best_fit(places, frame.room, 0)]
        return [rows[n] for n in rng.permutation(len(rows))]


def best_fit(sizes: NDArray[np.int64], room: int, between: int) -> list[list[int]]:
    """Bins of numbers of items, each item, the longest first, where it leaves the least room.

    ``between`` is what an item costs beyond its size where it is not the first of its bin.
    """
    bins: list[list[int]] = []
    rooms: list[int] = []
    bins_with: dict[int, list[int]] = {}
    for item in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[item])
        at = bisect_left(rooms, size + between)
        if at < len(rooms):
            found = rooms[at]
            chosen = bins_with[found].pop()
            if not bins_with[found]:
                del bins_with[rooms.pop(at)]
            left = found - size - between
        else:
            chosen, left = len(bins), room - size
            bins.append([])
        bins[chosen].append(item)
        if left not in bins_with:
            insort(rooms, left)
        bins_with.setdefault(left, []).append(chosen)
    return bins
