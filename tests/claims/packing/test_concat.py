# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.parts.packing.concat import Concat
from lect.parts.packing.kind import Frame
from packed_text import FAMILIES, check_epochs, packed

LENGTHS = st.lists(st.integers(0, 200), min_size=1, max_size=40)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", [Concat(), Concat(isolate=False)])
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=10))
def test_every_token_once_through_the_engine(part: Concat, family: str, texts: list[str]) -> None:
    check_epochs(part, family, texts, room=48, longest=24)


@settings(deadline=None)
@given(LENGTHS, st.integers(8, 64))
def test_chunks_are_those_of_one_long_text(lengths: list[int], chunk: int) -> None:
    """A plain loop over every token, the end of a document being one, says in which chunk the token stands."""
    pieces = Concat().cut(np.array(lengths), Frame(chunk, chunk))
    text = [(d, place) for d in range(len(lengths)) for place in range(lengths[d])]
    assert [(d, place) for d, start, stop in pieces.tolist() for place in range(start, stop)] == text
    place = 0
    for document, start, stop in pieces.tolist():
        takes = stop - start + (stop == lengths[document])
        if place % chunk and (place % chunk) + takes > chunk:
            assert place % chunk == chunk - 1, "a chunk ends early by one place at most: a token and the end need two"
            place += 1
        assert place // chunk == (place + takes - 1) // chunk, "no piece crosses the end of a chunk"
        if stop < lengths[document]:
            assert (place + takes) % chunk in (0, chunk - 1), "cut only where a chunk ends"
        place += takes


@pytest.mark.parametrize("isolate", [True, False])
@settings(deadline=None, max_examples=50)
@given(LENGTHS, st.integers(12, 64), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))
def test_chunks_are_full_whatever_the_tokenizer_adds(
    isolate: bool, lengths: list[int], chunk: int, lead: int, tail: int, unread: int
) -> None:
    """A plain loop that tries every number of tokens for the next piece, and takes the most that can stand there."""

    def places(tokens: int, ends: bool, joins: bool) -> int:
        return tokens + lead + (tail if ends else 0) - (0 if joins and not isolate else unread)

    wanted, left = [], chunk
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            rest = length - start
            standing = [
                n
                for n in range(1, rest + 1)
                if places(n, n == rest, left < chunk) <= left
                and places(n, n == rest, False) > 0
                and (n == rest or places(rest - n, True, False) > 0)
            ]
            if not standing and left < chunk and places(rest, True, False) > 0:
                left = chunk
                continue
            taken = max(standing, default=rest)
            wanted.append([document, start, start + taken])
            left -= places(taken, taken == rest, left < chunk)
            start += taken
    assert Concat(isolate=isolate).cut(np.array(lengths), Frame(chunk, chunk, lead, tail, unread)).tolist() == wanted


@pytest.mark.parametrize(("lead", "tail", "unread"), [(1, 1, 1), (0, 1, 1), (0, 0, 1), (2, 1, 1), (2, 0, 0)])
def test_joined_chunks_hold_several_documents_and_fill_the_rows(lead: int, tail: int, unread: int) -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 500)
    pieces, _, batches = packed(Concat(isolate=False), lengths, Frame(64, 128, lead, tail, unread))
    tokens = pieces[:, 2] - pieces[:, 1] + lead + np.where(pieces[:, 2] == lengths[pieces[:, 0]], tail, 0)
    joined = np.array([tokens[list(s)].sum() - unread for batch in batches for s in batch])
    assert max(joined) <= 64
    assert np.mean(joined[:-1] >= 64 - max(1, lead + tail)) == 1, "all chunks are of one length but the last"
    assert sum(len(s) for batch in batches for s in batch) > 2 * len(joined)
    assert [len(batch) for batch in batches[:-1]] == [2] * (len(batches) - 1)
    alone = packed(Concat(), lengths, Frame(64, 128, lead, tail, unread))[2]
    assert all(len(s) == 1 for batch in alone for s in batch)


def test_isolated_chunks_fill_the_row_that_one_document_a_sequence_leaves_open() -> None:
    lengths = np.random.default_rng(0).integers(200, 400, 200)
    pieces, sizes, batches = packed(Concat(), lengths, Frame(512, 512))
    assert sizes.sum() / (512 * len(batches)) > 0.99
    cut = [len(list(own)) for _, own in groupby(pieces[:, 0].tolist())]
    assert np.mean(np.array(cut) > 1) > 0.4, "and documents are cut for it"


def test_each_epoch_has_another_order_and_the_seed_decides_it() -> None:
    one, same, other = (Concat().order(100, None, np.random.default_rng(s)).tolist() for s in (1, 1, 2))
    assert one == same != other
    assert sorted(one) == sorted(other) == list(range(100))
