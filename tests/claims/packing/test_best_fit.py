# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.parts.packing.best_fit import BestFit, best_fit
from lect.parts.packing.concat import Concat
from lect.parts.packing.kind import Frame
from lect.parts.packing.one_document import OneDocument
from packed_text import FAMILIES, check_epochs, packed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", [BestFit(), BestFit(isolate=False)])
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=10))
def test_every_token_once_through_the_engine(part: BestFit, family: str, texts: list[str]) -> None:
    check_epochs(part, family, texts, room=48, longest=24)


def contents(sizes: list[int], room: int) -> list[list[int]]:
    return sorted([sizes[item] for item in found] for found in best_fit(np.array(sizes), room, 0))


def test_worked_examples() -> None:
    """Fig. 1: documents of 14, 7, 5, 2 and 3 tokens, the first cut to 8 and 6; app. B: 3 goes to 4, not to a 6."""
    assert contents([8, 6, 7, 5, 2, 3], 8) == [[5, 3], [6, 2], [7], [8]]
    assert contents([8, 6, 6, 4, 3], 8) == [[4, 3], [6], [6], [8]]
    pieces = BestFit().cut(np.array([13, 6]), Frame(8, 8))
    assert pieces.tolist() == [[0, 0, 8], [0, 8, 13], [1, 0, 6]], "13 and 6 tokens, and the end of each"


def naive(sizes: list[int], room: int, between: int) -> list[int]:
    """Sec. 3.1: longest first, into the open sequence with the least room that is enough; the rooms left."""
    left: list[int] = []
    for size in sorted(sizes, reverse=True):
        enough = [n for n, free in enumerate(left) if free >= size + between]
        if enough:
            left[min(enough, key=lambda n: left[n])] -= size + between
        else:
            left.append(room - size)
    return sorted(left)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 90), st.integers(0, 1))
def test_equals_a_plain_loop(sizes: list[int], room: int, between: int) -> None:
    bins = best_fit(np.array(sizes, dtype=np.int64), room, between)
    assert sorted(item for found in bins for item in found) == list(range(len(sizes)))
    used = [sum(sizes[item] for item in found) + between * (len(found) - 1) for found in bins]
    assert sorted(room - u for u in used) == naive(sizes, room, between)


def test_fewer_documents_are_cut_in_as_many_rows() -> None:
    frame = Frame(512, 512)
    for seed in range(5):
        lengths = np.random.default_rng(seed).lognormal(5.2, 0.9, 2000).astype(np.int64) + 1
        pieces, sizes, rows = packed(BestFit(), lengths, frame)
        chunks, _, chunk_rows = packed(Concat(), lengths, frame)
        _, _, shuffled_rows = packed(OneDocument(), lengths, frame)
        assert sizes.sum() > 0.99 * len(rows) * 512
        assert len(rows) <= 1.01 * len(chunk_rows)
        assert len(rows) < len(shuffled_rows)
        cut = np.bincount(pieces[:, 0]) > 1
        assert (cut == (lengths > 511)).all(), "only what is too long for any sequence is cut"
        assert (np.bincount(chunks[:, 0]) > 1)[lengths <= 511].mean() > 0.25, "where chunks cut what would fit"


@pytest.mark.parametrize(("lead", "tail", "unread"), [(1, 1, 1), (0, 1, 1), (0, 0, 1), (2, 1, 1), (2, 0, 0)])
def test_joined_sequences_hold_whole_documents_and_keep_to_their_length(lead: int, tail: int, unread: int) -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 1000)
    frame = Frame(128, 512, lead, tail, unread)
    pieces, _, batches = packed(BestFit(isolate=False), lengths, frame)
    assert pieces[:, 0].tolist() == list(range(1000))
    sequences = [s for batch in batches for s in batch]
    assert sorted(p for s in sequences for p in s) == list(range(1000))
    places = [lengths[list(s)].sum() + len(s) * (lead + tail) - unread for s in sequences]
    assert max(places) <= 128
    assert np.mean(places) > 0.99 * 128, "whatever the tokenizer adds, no room is left over"
    assert np.mean([len(batch) for batch in batches]) > 3.9
    at = np.cumsum([0, *map(len, batches)]).tolist()
    assert max(sum(places[low:high]) for low, high in pairwise(at)) <= 512


def test_the_order_depends_on_the_seed_alone() -> None:
    one, same, other = (packed(BestFit(), np.arange(1, 200), Frame(256, 256), seed)[2] for seed in (1, 1, 2))
    assert one == same != other
