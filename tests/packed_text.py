# SPDX-License-Identifier: Apache-2.0
"""What every packing must keep: each token of a text once an epoch, laid into rows by the engine itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lect.artefacts import Document
from lect.engine.data import Encoded, Ends, Stream
from lect.parts.packing.kind import Frame, Packing, Sequence
from lect.testing import pico

FAMILIES = ("gemma3", "gpt2", "bare", "two")
"""One that begins and ends every text with a token, one that only ends it, none of both, and two of each."""


def check_epochs(packing: Packing, family: str, texts: list[str], *, room: int, longest: int, epochs: int = 2) -> None:
    """Read whole epochs back out of the engine's rows and compare them with what was encoded."""
    _, tokenizer = pico.build(family if family in ("gemma3", "gpt2") else "gpt2")
    encoded = Encoded.of(tokenizer, [Document(id=str(n), text=text) for n, text in enumerate(texts)])
    ends = {"bare": Ends((), ()), "two": Ends((1, 2), (3, 4))}.get(family, Ends.of(tokenizer))
    made = Stream(encoded, packing, ends, longest=longest, room=room, seed=0, device="cpu")
    first = 0
    for epoch in range(epochs):
        pieces, batches = made.epoch(epoch)
        found: dict[int, list[tuple[int, list[int]]]] = {}
        for number, batch in enumerate(batches):
            row = made.batch(first + number)
            borders = row.row.offsets.tolist()
            assert len(borders) - 1 - len(batch) in (0, 1), "sequences, and padding where there is some"
            for members, low, high in zip(batch, borders, borders[1:], strict=False):
                assert high - low <= longest, "no sequence is longer than the step allows"
                assert row.row.positions_t[low:high].tolist() == list(range(high - low))
                laid = [*row.row.ids_t[low:high].tolist(), int(row.target_t[high - 1])]
                for document, start, stop in pieces[list(members)].tolist():
                    assert tuple(laid[: len(ends.lead)]) == ends.lead
                    laid = laid[len(ends.lead) :]
                    found.setdefault(document, []).append((start, laid[: stop - start]))
                    laid = laid[stop - start :]
                    if encoded.starts[document] + stop == encoded.starts[document + 1]:
                        assert tuple(laid[: len(ends.tail)]) == ends.tail
                        laid = laid[len(ends.tail) :]
                assert not laid
        for document, (low, high) in enumerate(zip(encoded.starts, encoded.starts[1:], strict=False)):
            whole = [i for _, part in sorted(found.get(document, [])) for i in part]
            alone = high - low == 1 and not (ends.lead or ends.tail)
            assert whole == ([] if alone else encoded.ids[low:high].tolist()), "each token once that has a place"
        first += len(batches)


def packed(
    packing: Packing, lengths: NDArray[np.int64], frame: Frame, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[list[Sequence]]]:
    """Pieces of the documents in their order, the places of each, and the batches of one epoch."""
    pieces = packing.cut(lengths, frame)
    sizes = frame.sizes(pieces, lengths)
    return pieces, sizes, packing.pack(sizes, frame, np.random.default_rng(seed))
