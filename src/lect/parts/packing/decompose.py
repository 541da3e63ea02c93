# SPDX-License-Identifier: Apache-2.0
"""Pieces whose lengths are powers of two, batches of one length each, short ones first in every cycle."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lect.method import Range, knobs
from lect.parts.packing.kind import Frame, Packing, Sequence, in_turn

CARD = {
    "title": "Dataset decomposition with a curriculum of lengths",
    "paper": "arXiv:2405.13226",
    "claim": "no sequence holds two documents and no room is padded, and starting each cycle with short sequences"
    " reaches the accuracy of concatenation with a fraction of the compute",
    "differs": [
        "nothing is dropped: what the paper leaves out below the smallest length stands in the bucket of that length",
        "the last, unfilled batches of all buckets are laid into common ones, which the authors' code drops",
        "pieces above the longest length are as long as it; the authors' code draws shorter lengths too by default",
        "cycles are counted per epoch of the text, because a packing does not know how long the run will be",
        "the odds are those of the authors' code and its documentation: growth 1 is their uniform curriculum and 2 is"
        " Grow-P2; Grow-Linear, which is no power, is left out",
    ],
    "version": 2,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Decompose(Packing):
    """Every document as the powers of two that add up to it; take powers of two for max_length and batch_tokens."""

    smallest: Annotated[int, Range(at_least=2, at_most=65_536)] = 32
    """Length of the shortest bucket in tokens, rounded down to a power of two; shorter pieces are in it as well."""
    growth: Annotated[float, Range(above=0, at_most=1000)] = 2.0
    """How much likelier a batch of the next shorter bucket is drawn, as a ratio; 1 is no curriculum."""
    cycles: Annotated[int, Range(at_least=1, at_most=10_000)] = 8
    """How often an epoch goes from short to long; each cycle has an equal share of every bucket."""

    def cut(self, lengths: NDArray[np.int64], frame: Frame) -> NDArray[np.int64]:
        """The binary decomposition of each document's places, longest pieces first (sec. 2.1).

        A last piece that would hold no token of the text takes one from the piece before.
        """
        top = frame.longest.bit_length() - 1
        least = 1 << min(self.smallest.bit_length() - 1, top)
        pieces: list[tuple[int, int, int]] = []
        for document, length in enumerate(lengths.tolist()):
            start = 0
            while start < length:
                rest = length - start
                power = 1 << min(max(1, frame.places(rest, True)).bit_length() - 1, top)
                stop = start + ((frame.take(rest, power) if power >= least else rest) or rest)
                pieces.append((document, start, stop))
                start = stop
        return np.array(pieces, dtype=np.int64).reshape(-1, 3)

    def pack(self, sizes: NDArray[np.int64], frame: Frame, rng: np.random.Generator) -> list[list[Sequence]]:
        """Batches of one bucket each, drawn cycle by cycle (sec. 2.2)."""
        if not len(sizes):
            return []
        low = self.smallest.bit_length() - 1
        powers = np.maximum(np.rint(np.log2(sizes)).astype(np.int64), low)
        order = rng.permutation(len(sizes))
        buckets: dict[int, list[list[Sequence]]] = {}
        rests: list[int] = []
        for power in np.unique(powers)[::-1].tolist():
            members = order[powers[order] == power]
            rows = [members[row] for row in in_turn(sizes[members], frame.room)]
            if frame.room - sizes[rows[-1]].sum() >= 1 << power:
                rests += rows.pop().tolist()
            buckets[power] = [[(piece,) for piece in row.tolist()] for row in rows]
        for row in _first_fit(rests, sizes, frame.room):
            buckets[int(powers[row[0]])].append([(piece,) for piece in row])
        for rows_of_bucket in buckets.values():
            rng.shuffle(rows_of_bucket)
        return [batch for cycle in range(self.cycles) for batch in self._cycle(cycle, buckets, rng)]

    def _cycle(
        self, cycle: int, buckets: dict[int, list[list[Sequence]]], rng: np.random.Generator
    ) -> list[list[Sequence]]:
        """The cycle's share of every bucket; each draw is by odds times the bucket's share, until a bucket is empty."""
        longest = max(buckets)
        shares: list[list[list[Sequence]]] = []
        weights: list[float] = []
        for power, rows in buckets.items():
            share = rows[len(rows) * cycle // self.cycles : len(rows) * (cycle + 1) // self.cycles]
            if share:
                shares.append(share)
                weights.append(len(share) * self.growth ** (longest - power))
        batches: list[list[Sequence]] = []
        while shares:
            odds = np.array(weights)
            bucket = int(rng.choice(len(odds), p=odds / odds.sum()))
            batches.append(shares[bucket].pop())
            if not shares[bucket]:
                del shares[bucket], weights[bucket]
        return batches


def _first_fit(pieces: list[int], sizes: NDArray[np.int64], room: int) -> list[list[int]]:
    """Rows in which each piece, in its order, stands in the first that has room for it."""
    rows: list[list[int]] = []
    left: list[int] = []
    for piece in pieces:
        size = int(sizes[piece])
        row = next((n for n, free in enumerate(left) if free >= size), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(piece)
        left[row] -= size
    return rows
