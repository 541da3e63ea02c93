# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lect.parts.packing.kind import Frame
from lect.parts.packing.one_document import OneDocument

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 100))
def test_pieces_cover_every_document_once_and_are_nearly_equal(lengths: list[int], longest: int) -> None:
    pieces = OneDocument().cut(np.array(lengths), Frame(longest + 1, longest + 1))
    for document, length in enumerate(lengths):
        own = pieces[pieces[:, 0] == document]
        assert own[0, 1] == 0
        assert own[-1, 2] == length
        assert (own[1:, 1] == own[:-1, 2]).all()
        sizes = own[:, 2] - own[:, 1]
        assert len(own) == -(-length // longest), "the fewest pieces"
        assert sizes.max() <= longest
        assert sizes.max() - sizes.min() <= 1


@given(LENGTHS, st.integers(1, 50), st.integers(0, 5))
def test_every_piece_once_one_document_a_sequence_and_nothing_over_the_room(
    lengths: list[int], window: int, seed: int
) -> None:
    batches = OneDocument(window=window).pack(np.array(lengths), Frame(300, 300), np.random.default_rng(seed))
    assert sorted(p for batch in batches for sequence in batch for p in sequence) == list(range(len(lengths)))
    assert all(len(sequence) == 1 for batch in batches for sequence in batch)
    assert all(sum(lengths[p] for sequence in batch for p in sequence) <= 300 for batch in batches)


def test_padding_is_under_three_percent_on_lengths_like_those_of_help_pages() -> None:
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(5.2, 0.9, 2000).astype(np.int64), 8, 512)
    batches = OneDocument().pack(lengths, Frame(512, 1024), rng)
    assert lengths.sum() / (len(batches) * 1024) > 0.97
    naive = OneDocument(window=1).pack(lengths, Frame(512, 1024), np.random.default_rng(1))
    assert len(batches) < 0.9 * len(naive), "best fit must need fewer rows than taking pieces as they come"


def test_the_order_depends_on_the_seed_alone() -> None:
    lengths = np.arange(1, 200)
    one, same, other = (OneDocument().pack(lengths, Frame(256, 256), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
