# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.parts.packing.kind import Frame, in_turn

FRAMES = st.builds(
    Frame, st.just(64), st.just(64), lead=st.integers(0, 3), tail=st.integers(0, 3), unread=st.integers(0, 1)
)


@given(FRAMES, st.integers(1, 60), st.integers(0, 64))
def test_takes_the_most_tokens_that_leave_a_piece_with_a_place(frame: Frame, rest: int, places: int) -> None:
    def fits(tokens: int) -> bool:
        if tokens == rest:
            return tokens + frame.lead + frame.tail - frame.unread <= places
        stands = 0 < tokens + frame.lead - frame.unread <= places
        return stands and rest - tokens + frame.lead + frame.tail - frame.unread > 0

    assert frame.take(rest, places) == max(filter(fits, range(1, rest + 1)), default=0)


@given(FRAMES, st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=6))
def test_places_are_those_of_the_tokens_laid_end_to_end(frame: Frame, cut: list[tuple[int, bool]]) -> None:
    """Documents of which the first tokens are the piece; ``True`` where that is all of it."""
    lengths = np.array([n if ends else n + 1 for n, ends in cut])
    pieces = np.array([[document, 0, n] for document, (n, _) in enumerate(cut)])
    laid = [["lead"] * frame.lead + ["text"] * n + ["tail"] * frame.tail * ends for n, ends in cut]
    sizes = frame.sizes(pieces, lengths)
    assert sizes.tolist() == [len(tokens) - frame.unread for tokens in laid]
    assert frame.joined(sizes) == sum(map(len, laid)) - frame.unread
    assert frame.most + frame.lead + frame.tail - frame.unread == frame.longest


def test_rows_in_turn() -> None:
    assert in_turn(np.array([4, 3, 5, 9, 1]), 8) == [[0, 1], [2], [3], [4]]
    assert in_turn(np.array([4, 3, 4, 4]), 8, between=1) == [[0, 1], [2], [3]]
    assert in_turn(np.array([4, 4]), 8) == [[0, 1]]
    assert in_turn(np.array([], dtype=np.int64), 8) == []


@pytest.mark.parametrize(("lead", "tail", "unread", "most"), [(1, 1, 1, 31), (0, 1, 1, 32), (2, 0, 0, 30)])
def test_most_is_what_goes_into_any_sequence(lead: int, tail: int, unread: int, most: int) -> None:
    assert Frame(32, 64, lead, tail, unread).most == most
