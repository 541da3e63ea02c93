# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lect.parts.packing.concat import Concat
from lect.parts.packing.decompose import Decompose
from lect.parts.packing.kind import Frame
from packed_text import FAMILIES, check_epochs, packed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", [Decompose(), Decompose(smallest=4, cycles=2), Decompose(smallest=8, growth=1.0)])
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=10))
def test_every_token_once_through_the_engine(part: Decompose, family: str, texts: list[str]) -> None:
    check_epochs(part, family, texts, room=64, longest=32)


def digits(total: int, top: int, least: int) -> list[int]:
    """Sec. 2.1: the powers of two that add up to ``total``, the longest first; what is below ``least`` together."""
    found = [2**top] * (total // 2**top)
    found += [2**i for i in reversed(range(top)) if total % 2**top & 2**i and 2**i >= least]
    short = total - sum(found)
    if short == 1:
        found[-1] -= 1
        short = 2
    return [*found, short] if short else found


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=20),
    st.integers(4, 200),
    st.integers(2, 40),
)
def test_pieces_are_the_binary_digits_of_a_document_and_its_end(
    lengths: list[int], longest: int, smallest: int
) -> None:
    pieces = Decompose(smallest=smallest).cut(np.array(lengths), Frame(longest, longest))
    top = int(np.log2(longest))
    least = 2 ** min(int(np.log2(smallest)), top)
    for document, length in enumerate(lengths):
        own = pieces[pieces[:, 0] == document]
        sizes = own[:, 2] - own[:, 1] + (own[:, 2] == length)
        assert sizes.tolist() == (digits(length + 1, top, least) if length else [])


@settings(deadline=None)
@given(st.integers(2, 3000), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))
def test_sequences_are_powers_of_two_whatever_the_tokenizer_adds(
    length: int, lead: int, tail: int, unread: int
) -> None:
    frame = Frame(512, 512, lead, tail, unread)
    pieces, sizes, _ = packed(Decompose(smallest=32), np.array([length]), frame)
    assert pieces[0, 1] == 0
    assert pieces[-1, 2] == length
    assert pieces[1:, 1].tolist() == pieces[:-1, 2].tolist()
    assert (np.diff(sizes) <= 0).all(), "longest first"
    *whole, last = sizes.tolist()
    full = [size for size in whole if size & (size - 1)]
    assert len(full) <= 1, "one gives the tokens that the last piece lacks"
    assert all(size > 2 ** np.ceil(np.log2(size)) - 4 for size in full)
    assert last <= 512


def test_the_longest_length_is_the_limit() -> None:
    pieces = Decompose().cut(np.array([1300, 511]), Frame(512, 512))
    assert pieces.tolist()[:2] == [[0, 0, 512], [0, 512, 1024]]
    assert pieces.tolist()[-1] == [1, 0, 511]
    assert Decompose().cut(np.array([1300]), Frame(511, 511)).tolist()[0] == [0, 0, 256]


ROW = Frame(256, 256)


def powers(rows: dict[int, int], room: int) -> NDArray[np.int64]:
    """Pieces for so many full rows of each length."""
    return np.concatenate([np.full(n * room // length, length) for length, n in rows.items()])


def test_a_batch_has_one_length_and_is_full() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.choice([32, 64, 128, 256, 512], 3000)
    batches = Decompose().pack(lengths, Frame(512, 1024), rng)
    assert sorted(p for batch in batches for (p,) in batch) == list(range(3000))
    assert sum(sum(lengths[p] for (p,) in batch) < 1024 for batch in batches) <= 1, "all rows are full but one"
    mixed = [len({int(lengths[p]) for (p,) in batch}) > 1 for batch in batches]
    assert sum(mixed) <= 5, "one for each bucket at most"
    assert sum(mixed) < 0.02 * len(mixed)


def drawn(share: dict[int, int], growth: float, rng: random.Random) -> list[int]:
    """The authors' sampler: bucket by odds times size, the odds staying as they are until a bucket is empty."""
    weights = {length: n * growth ** np.log2(max(share) / length) for length, n in share.items()}
    left, order = dict(share), []
    while left:
        length = rng.choices(list(left), [weights[k] for k in left])[0]
        order.append(length)
        left[length] -= 1
        if not left[length]:
            del left[length]
    return order


@pytest.mark.parametrize("growth", [0.5, 1.0, 2.0, 100.0])
def test_buckets_are_drawn_by_odds_times_size(growth: float) -> None:
    share = {32: 12, 64: 4, 128: 8}
    lengths = powers(share, 128)
    part = Decompose(growth=growth, cycles=1)
    ours = np.array(
        [
            [lengths[b[0][0]] for b in part.pack(lengths, Frame(128, 128), np.random.default_rng(seed))]
            for seed in range(300)
        ]
    )
    naive = np.array([drawn(share, growth, random.Random(seed)) for seed in range(300)])
    for length, rows in share.items():
        assert (ours == length).sum() == 300 * rows
        for part_of_cycle in (slice(0, 6), slice(6, 12), slice(12, 24)):
            a, b = ((order[:, part_of_cycle] == length).mean() for order in (ours, naive))
            assert a == pytest.approx(b, abs=0.05)


def test_each_cycle_goes_from_short_to_long_and_holds_its_share_of_every_bucket() -> None:
    share = {32: 40, 64: 40, 128: 40, 256: 40}
    lengths = powers(share, 256)
    for seed in range(5):
        batches = Decompose(cycles=4).pack(lengths, ROW, np.random.default_rng(seed))
        order = np.log2([lengths[b[0][0]] for b in batches]).reshape(4, 40)
        for cycle in order:
            assert np.unique(cycle, return_counts=True)[1].tolist() == [10] * 4
            assert cycle[20:].mean() > cycle[:20].mean() + 0.5
        flat = Decompose(cycles=4, growth=1.0).pack(lengths, ROW, np.random.default_rng(seed))
        first, second = np.log2([lengths[b[0][0]] for b in flat]).reshape(4, 2, 20).mean(axis=(0, 2))
        assert abs(second - first) < 0.5, "no curriculum, no growth"


def test_attention_costs_less_than_over_chunks_of_many_documents() -> None:
    """The paper's sec. 2: what a token attends to is its own document, not what stands before it in a chunk."""
    for seed in range(3):
        lengths = np.random.default_rng(seed).lognormal(5, 1, 2000).astype(np.int64) + 2
        cost = {}
        frame = Frame(512, 2048)
        for part in (Decompose(), Concat(isolate=False)):
            _, sizes, batches = packed(part, lengths, frame, seed)
            cost[part] = sum(frame.joined(sizes[list(s)]) ** 2 for batch in batches for s in batch)
        ours, chunks = cost.values()
        assert ours < 0.6 * chunks


def test_the_order_depends_on_the_seed_alone() -> None:
    lengths = powers({32: 9, 64: 5}, 256)
    one, same, other = (Decompose().pack(lengths, ROW, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert Decompose().pack(lengths[:0], ROW, np.random.default_rng(0)) == []
