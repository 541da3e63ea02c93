# SPDX-License-Identifier: Apache-2.0
"""What a packing does: lay pieces of documents into batches of a fixed room."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lect.method import PartMethod, knobs

Sequence = tuple[int, ...]
"""The pieces that see each other: one position count, one causal attention."""


@knobs
class Packing(PartMethod):
    """Lays pieces of documents into batches; an author writes ``pack``, and ``cut`` where pieces are other."""

    lead: ClassVar[bool] = True
    """Whether every sequence begins with the tokenizer's own first tokens."""

    def cut(self, lengths: NDArray[np.int64], longest: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Pieces of at most ``longest`` tokens: rows of document, first token, token behind the last.

        A long document is cut into the fewest pieces, all nearly equally long.
        """
        parts = -(-lengths // longest)
        document = np.repeat(np.arange(len(lengths)), parts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
        start = number * lengths[document] // parts[document]
        stop = (number + 1) * lengths[document] // parts[document]
        return np.stack([document, start, stop], axis=1)

    def pack(self, lengths: NDArray[np.int64], room: int, rng: np.random.Generator) -> list[list[Sequence]]:
        """One epoch: every piece once, in batches of sequences whose lengths add up to at most ``room``.

        ``lengths`` are the pieces' lengths with what leads them; ``rng`` is made from the seed and the epoch.
        """
        raise NotImplementedError
