# SPDX-License-Identifier: Apache-2.0
"""Which tokens a step sees: a pure function of the text, the seed and the step's number.

A row is T input tokens: sequences end to end, each one shorter than its tokens by one, because its last token is only
a target. So every place in a row has a target, except the padding at its end, whose weight is zero.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lect.engine.body import Row
from lect.ops.text import byte_count, encode
from lect.parts.mixture.kind import Feedback
from lect.parts.packing.kind import Frame

if TYPE_CHECKING:
    from lect.artefacts import Document
    from lect.parts.mixture.kind import Mixture
    from lect.parts.packing.kind import Packing

CHUNK = 2000


@dataclass(frozen=True)
class Chunk:
    """Some documents as tokens: ids, bytes and name of each."""

    ids: list[NDArray[np.int32]]
    bytes: list[int]
    names: list[str]


def encoded_chunks(tokenizer: Any, documents: Iterable[Document]) -> Iterator[Chunk]:
    """Documents as tokens, in their order and ``CHUNK`` at a time."""
    rest = iter(documents)
    while some := list(islice(rest, CHUNK)):
        ids = [np.asarray(found, dtype=np.int32) for found in encode(tokenizer, [d.text for d in some])]
        yield Chunk(ids, [byte_count([d.text]) for d in some], [d.id for d in some])


@dataclass(frozen=True)
class Encoded:
    """Documents as tokens: all ids in one array, where each document starts, its bytes, its name."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    bytes: NDArray[np.int64]
    names: list[str]

    @classmethod
    def of(cls, tokenizer: Any, documents: Iterable[Document]) -> Encoded:
        """Encode documents in their order; special tokens are neither added nor read out of the text."""
        chunks = list(encoded_chunks(tokenizer, documents))
        ids = [found for chunk in chunks for found in chunk.ids]
        starts = np.concatenate([[0], np.cumsum([len(i) for i in ids], dtype=np.int64)]).astype(np.int64)
        flat = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32)
        sizes = np.asarray([size for chunk in chunks for size in chunk.bytes], dtype=np.int64)
        return cls(flat, starts, sizes, [name for chunk in chunks for name in chunk.names])

    @property
    def tokens(self) -> int:
        """All tokens of all documents."""
        return len(self.ids)


@dataclass(frozen=True)
class Ends:
    """What the model wants before a sequence and behind a whole document: lists of ids, either may be empty."""

    lead: tuple[int, ...]
    tail: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Ends:
        """The tokenizer's own first tokens, and its end-of-text token unless that is also its first one."""
        empty = list(tokenizer("", add_special_tokens=True)["input_ids"])
        end = tokenizer.eos_token_id
        while empty and empty[-1] == end:
            empty.pop()
        return cls(tuple(empty), () if end is None else (int(end),))


@dataclass(frozen=True)
class Batch:
    """One row with its targets: T ids to predict, their weights (1, or 0 in the padding), and what it holds."""

    row: Row
    target_t: Tensor
    weight_t: Tensor
    tokens: int
    bytes: float
    documents: tuple[str, ...]

    @property
    def attended(self) -> float:
        """Sum of the squared lengths of the sequences: what attention costs."""
        return float((self.row.offsets.diff().double() ** 2).sum())


def lay(sequences: Sequence[list[int]], room: int, bytes_: float, names: tuple[str, ...], device: str) -> Batch:
    """A batch of exactly ``room`` places from sequences of tokens; the rest is padding of its own."""
    inputs = [s[:-1] for s in sequences]
    targets = [i for s in sequences for i in s[1:]]
    rest = room - len(targets)
    if rest < 0:
        raise ValueError(f"sequences of {len(targets)} places do not fit into a room of {room}")
    row = Row.of([*inputs, [0] * rest] if rest else inputs, device)
    target_t = torch.tensor(targets + [0] * rest, device=device)
    weight_t = torch.tensor([1.0] * len(targets) + [0.0] * rest, device=device)
    return Batch(row, target_t, weight_t, len(targets), bytes_, names)


class Epochs:
    """Endless text: epoch after epoch, each packed anew from the seed and its own number."""

    def __init__(self, encoded: Encoded, packing: Packing, frame: Frame, seed: tuple[int, ...]) -> None:
        self.encoded, self.packing, self.frame, self._seed = encoded, packing, frame, seed
        self._firsts = [0]
        self._current: tuple[int, NDArray[np.int64], list[list[tuple[int, ...]]]] = (-1, np.zeros((0, 3), np.int64), [])

    @cached_property
    def known(self) -> Any:
        """What the packing has to know of the documents."""
        return self.packing.study(self.encoded.ids, self.encoded.starts)

    def epoch(self, number: int) -> tuple[NDArray[np.int64], list[list[tuple[int, ...]]]]:
        """Pieces (document, start, stop) of one epoch, and its batches: sequences of numbers of pieces.

        A piece with no token to predict, such as a document of one token without any ends, is left out.
        """
        rng = np.random.default_rng([*self._seed, number])
        lengths = np.diff(self.encoded.starts)
        order = self.packing.order(len(lengths), self.known, rng)
        pieces = self.packing.cut(lengths[order], self.frame)
        pieces[:, 0] = order[pieces[:, 0]]
        sizes = self.frame.sizes(pieces, lengths)
        pieces, sizes = pieces[sizes > 0], sizes[sizes > 0]
        return pieces, self.packing.pack(sizes, self.frame, rng)

    def begin(self, rows: int) -> None:
        """Nothing hangs on how many rows a run has."""

    def find(self, number: int) -> tuple[NDArray[np.int64], list[tuple[int, ...]]]:
        """The pieces of the epoch that batch ``number`` (from 0) falls into, and the sequences of the batch."""
        while number >= self._firsts[-1]:
            self._turn_to(len(self._firsts) - 1)
            self._firsts.append(self._firsts[-1] + len(self._current[2]))
        epoch = bisect_right(self._firsts, number) - 1
        self._turn_to(epoch)
        return self._current[1], self._current[2][number - self._firsts[epoch]]

    def passed(self, count: int) -> float:
        """How many epochs the first ``count`` batches are."""
        if count == 0:
            return 0.0
        self.find(count - 1)
        epoch = bisect_right(self._firsts, count - 1) - 1
        low, high = self._firsts[epoch : epoch + 2]
        return epoch + (count - low) / (high - low)

    def _turn_to(self, epoch: int) -> None:
        """Make ``epoch`` the one in memory."""
        if self._current[0] != epoch:
            self._current = (epoch, *self.epoch(epoch))


class Stream(Epochs):
    """Endless batches of one text for next-token training."""

    def __init__(
        self, encoded: Encoded, packing: Packing, ends: Ends, *, longest: int, room: int, seed: int, device: str
    ) -> None:
        frame = Frame(min(longest, room), room, lead=len(ends.lead), tail=len(ends.tail))
        super().__init__(encoded, packing, frame, (seed,))
        self.ends, self.device = ends, device

    def sequence(self, document: int, start: int, stop: int) -> list[int]:
        """The tokens of a piece with what leads it and, at the end of its document, what closes it."""
        low, high = self.encoded.starts[document : document + 2]
        ids = [*self.ends.lead, *self.encoded.ids[low + start : low + stop].tolist()]
        return ids + list(self.ends.tail) if low + stop == high else ids

    def batch(self, number: int) -> Batch:
        """Batch ``number`` (from 0) of the endless stream."""
        pieces, chosen = self.find(number)
        names: list[str] = []
        size = 0.0
        sequences = []
        for members in chosen:
            tokens: list[int] = []
            for document, start, stop in pieces[list(members)].tolist():
                tokens += self.sequence(document, start, stop)
                names.append(self.encoded.names[document])
                length = int(self.encoded.starts[document + 1] - self.encoded.starts[document])
                size += float(self.encoded.bytes[document]) * (stop - start) / length
            sequences.append(tokens)
        return lay(sequences, self.frame.room, size, tuple(names), self.device)


class Mixed:
    """Rows of several texts, laid so that each has had its share at any time, to within one row.

    The order is a pure function of the mixture, the texts' sizes, the number of rows of the run, and what was measured
    at which row.
    """

    def __init__(self, streams: Mapping[str, Stream], mixture: Mixture) -> None:
        self.streams, self.mixture = dict(streams), mixture
        self.tokens = {name: stream.encoded.tokens for name, stream in self.streams.items()}
        self.begin(0)

    def begin(self, rows: int, laps: Mapping[str, Mapping[str, float]] | None = None) -> None:
        """Lay the rows for a run of so many, after these laps; 0 is a run that does not get ahead, as a warm-up."""
        self.rows, self.laps = rows, laps or {}
        self.losses: list[Mapping[str, float]] = []
        self.order: list[tuple[str, int]] = []
        self._due = dict.fromkeys(self.streams, 0.0)
        self._drawn = dict.fromkeys(self.streams, 0)

    def learn(self, row: int, losses: Mapping[str, float]) -> None:
        """Lay the rows from ``row`` on with these losses, too; those before are laid without them."""
        if row:
            self.place(row - 1)
        if len(self.order) != row:
            raise ValueError(f"row {row} was laid before what is to be known of it")
        self.losses.append(losses)

    def shares(self) -> dict[str, float]:
        """The shares of the texts in the next row to be laid; they add up to 1."""
        progress = min(1.0, len(self.order) / max(1, self.rows))
        found = self.mixture.shares(self.tokens, progress, Feedback(tuple(self.losses), self.laps))
        total = sum(found.get(name, 0.0) for name in self.streams)
        return {name: found.get(name, 0.0) / total for name in self.streams}

    def place(self, number: int) -> tuple[str, int]:
        """The text that row ``number`` (from 0) is taken from, and which of its own rows it is."""
        while len(self.order) <= number:
            for name, share in self.shares().items():
                self._due[name] += share
            longest = max(reversed(self.streams), key=lambda name: self._due[name])
            self._due[longest] -= 1
            self.order.append((longest, self._drawn[longest]))
            self._drawn[longest] += 1
        return self.order[number]

    def epochs(self, rows: int) -> dict[str, float]:
        """How often each text has been read when ``rows`` rows of the run are behind."""
        drawn = Counter(self.place(number)[0] for number in range(rows))
        return {name: stream.passed(drawn[name]) for name, stream in self.streams.items()}

    def batch(self, number: int) -> Batch:
        """Row ``number`` (from 0) of the run."""
        name, own = self.place(number)
        return self.streams[name].batch(own)


def sample(tokenizer: Any, documents: Iterable[Document], ends: Ends, *, longest: int, tokens: int) -> list[Document]:
    """A fixed sample of about ``tokens`` tokens: documents by their names' order, cut to ``longest`` tokens each."""
    from dataclasses import replace

    longest -= len(ends.lead)
    found: list[Document] = []
    total = 0
    for document in sorted(documents, key=lambda d: d.id):
        text = document.text
        while (length := len(encode(tokenizer, [text])[0])) > longest:
            text = text[: max(1, min(len(text) - 1, len(text) * longest // length))]
        found.append(replace(document, text=text))
        total += length
        if total >= tokens:
            break
    return found


def sample_batches(
    encoded: Encoded, tokenizer: Any, ends: Ends, *, room: int, device: str
) -> tuple[list[Batch], float]:
    """Batches that hold the sample's documents in order, and the bytes that their tokens stand for.

    Without lead tokens the first token of a document is not predicted, and its bytes are not counted.
    """
    batches: list[Batch] = []
    waiting: list[list[int]] = []
    total = float(encoded.bytes.sum())
    used = 0
    for low, high in zip(encoded.starts, encoded.starts[1:], strict=False):
        tokens = [*ends.lead, *encoded.ids[low:high].tolist()]
        if not ends.lead and tokens:
            total -= byte_count([tokenizer.decode(tokens[:1])])
        if len(tokens) < 2:
            continue
        if used + len(tokens) - 1 > room:
            batches.append(lay(waiting, room, 0.0, (), device))
            waiting, used = [], 0
        waiting.append(tokens)
        used += len(tokens) - 1
    if waiting:
        batches.append(lay(waiting, room, 0.0, (), device))
    return batches, total
