# SPDX-License-Identifier: Apache-2.0
"""What a packing does: lay pieces of documents into batches of a fixed room.

For each text the engine calls ``study`` once, and then for each epoch ``order``, ``cut`` on the lengths in that order,
and ``pack`` on the places of the pieces. All are pure functions, so a resumed run sees the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lect.method import PartMethod, knobs

Sequence = tuple[int, ...]
"""The pieces that see each other: one position count, one causal attention."""


@dataclass(frozen=True)
class Frame:
    """What a sequence and a batch hold, in places (tokens that the model reads), and what a tokenizer adds.

    A piece of n tokens has ``lead`` tokens before it and, at the end of its document, ``tail`` tokens behind it. The
    last ``unread`` tokens of a sequence are targets alone: 1 where the next token is predicted, 0 for a masked model.
    """

    longest: int
    room: int
    lead: int = 1
    tail: int = 1
    unread: int = 1

    @property
    def most(self) -> int:
        """Tokens that a piece may have wherever it stands in its document; 1 at least."""
        return max(1, self.longest - self.places(0, True))

    def places(self, tokens: int, ends: bool) -> int:
        """Places of a sequence that is one piece; ``ends`` says whether its document ends with it."""
        return tokens + self.lead - self.unread + (self.tail if ends else 0)

    def take(self, rest: int, places: int) -> int:
        """How many of a document's ``rest`` tokens go into so many places.

        All of them where what closes the document goes in too; else as many as do, with enough left over for another
        piece. 0 where no piece has a place.
        """
        if self.places(rest, True) <= places:
            return rest
        tokens = min(places - self.places(0, False), rest - max(1, 1 - self.places(0, True)))
        return tokens if tokens >= max(1, 1 - self.places(0, False)) else 0

    def sizes(self, pieces: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of each piece (document, start, stop) as a sequence of its own."""
        ends = pieces[:, 2] == lengths[pieces[:, 0]]
        return pieces[:, 2] - pieces[:, 1] + self.places(0, False) + np.where(ends, self.tail, 0)

    def joined(self, sizes: NDArray[np.int64]) -> int:
        """The places of one sequence of pieces of such sizes."""
        return int(sizes.sum()) + self.unread * (len(sizes) - 1)


@knobs
class Packing(PartMethod):
    """Lays pieces of documents into batches; an author writes ``pack``, and the others where they differ."""

    def study(self, ids: NDArray[np.int32], starts: NDArray[np.int64]) -> Any:
        """What ``order`` has to know: of all documents the tokens, and where each starts (and the last one ends)."""

    def order(self, documents: int, known: Any, rng: np.random.Generator) -> NDArray[np.int64]:
        """An epoch's order of the documents' numbers, for ``cut``; ``known`` is what ``study`` gave."""
        return np.arange(documents)

    def cut(self, lengths: NDArray[np.int64], frame: Frame) -> NDArray[np.int64]:
        """Pieces of the documents: rows of document, first token, token behind the last.

        A long document is cut into the fewest pieces, all nearly equally long.
        """
        parts = -(-lengths // frame.most)
        document = np.repeat(np.arange(len(lengths)), parts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
        start = number * lengths[document] // parts[document]
        stop = (number + 1) * lengths[document] // parts[document]
        return np.stack([document, start, stop], axis=1)

    def pack(self, sizes: NDArray[np.int64], frame: Frame, rng: np.random.Generator) -> list[list[Sequence]]:
        """One epoch: every piece once, in batches of sequences whose places add up to the room at most.

        ``sizes`` are the places of the pieces as sequences of their own; ``rng`` comes from the seed and the epoch, and
        the order was drawn from it first.
        """
        raise NotImplementedError


@knobs
class Joining(Packing):
    """Packings that lay several documents together, as one sequence or as several."""

    isolate: bool = True
    """Whether documents laid together are sequences of their own; false joins them, so that they see each other."""


@knobs
class Chunks(Joining):
    """Chunks of the longest length, cut out of the documents in their order as if they were one text."""

    def cut(self, lengths: NDArray[np.int64], frame: Frame) -> NDArray[np.int64]:
        """Pieces in the order of the text; a document is cut where a chunk is full."""
        between = 0 if self.isolate else frame.unread
        pieces: list[tuple[int, int, int]] = []
        left = frame.longest
        for document, length in enumerate(lengths.tolist()):
            start = 0
            while start < length:
                fresh = left == frame.longest
                here = left if fresh else left - between
                taken = frame.take(length - start, here)
                if not taken and not fresh:
                    left = frame.longest
                    continue
                stop = start + (taken or length - start)
                pieces.append((document, start, stop))
                left = here - frame.places(stop - start, stop == length)
                start = stop
        return np.array(pieces, dtype=np.int64).reshape(-1, 3)

    def pack(self, sizes: NDArray[np.int64], frame: Frame, rng: np.random.Generator) -> list[list[Sequence]]:
        """Lay the pieces into batches in their order, joined to whole chunks first unless they are isolated."""
        if self.isolate:
            return [[(piece,) for piece in row] for row in in_turn(sizes, frame.room)]
        chunks = [tuple(row) for row in in_turn(sizes, frame.longest, frame.unread)]
        places = np.array([frame.joined(sizes[list(chunk)]) for chunk in chunks], dtype=np.int64)
        return [[chunks[n] for n in row] for row in in_turn(places, frame.room)]


def in_turn(sizes: NDArray[np.int64], room: int, between: int = 0) -> list[list[int]]:
    """Rows of numbers of items in their order, a new row where the next item does not fit.

    ``between`` is what an item costs beyond its size where it is not the first of its row.
    """
    rows: list[list[int]] = []
    left = 0
    for item, size in enumerate(sizes.tolist()):
        if rows and size + between <= left:
            rows[-1].append(item)
            left -= size + between
        else:
            rows.append([item])
            left = room - size
    return rows
