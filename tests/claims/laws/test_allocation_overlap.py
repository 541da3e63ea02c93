# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.errors import UserError
from lect.laws import allocation_overlap as law

counts = st.dictionaries(st.integers(0, 20), st.integers(0, 10**6), min_size=1).filter(lambda c: any(c.values()))


def naive_divergence(left: dict[int, int], right: dict[int, int]) -> float:
    """Eq. 6 and 7 over the whole vocabulary, as an entropy: H(m) - (H(p) + H(q)) / 2."""
    vocabulary = range(21)
    p = [left.get(v, 0) / sum(left.values()) for v in vocabulary]
    q = [right.get(v, 0) / sum(right.values()) for v in vocabulary]

    def entropy(shares: list[float]) -> float:
        return -sum(s * math.log2(s) for s in shares if s > 0)

    return entropy([(a + b) / 2 for a, b in zip(p, q, strict=True)]) - (entropy(p) + entropy(q)) / 2


def test_by_hand() -> None:
    """The words la casa la and the casa: 2/3 and 1/3 against 1/2 and 1/2; only casa is shared."""
    spanish = law.count(["la casa", "la"], str.split)
    english = law.count(["the casa"], str.split)
    assert spanish.counts == {"la": 2, "casa": 1} and spanish.characters == 9
    assert law.average_rank(spanish.counts) == pytest.approx(1 * 2 / 3 + 2 * 1 / 3)
    assert law.characters_per_token(spanish) == 9 / 3
    shared = 1 / 3 * math.log2((1 / 3) / (5 / 12)) + 1 / 2 * math.log2((1 / 2) / (5 / 12))
    assert law.divergence(spanish.counts, english.counts) == pytest.approx((2 / 3 + 1 / 2 + shared) / 2)
    assert law.divergence(spanish.counts, english.counts) == pytest.approx(0.59544, abs=1e-5)


@given(counts, counts)
def test_divergence_is_equation_6(left: dict[int, int], right: dict[int, int]) -> None:
    assert law.divergence(left, right) == pytest.approx(naive_divergence(left, right), abs=1e-9)


@given(counts, counts)
def test_divergence_is_symmetric_and_a_share(left: dict[int, int], right: dict[int, int]) -> None:
    assert law.divergence(left, right) == law.divergence(right, left)
    assert 0 <= law.divergence(left, right) <= 1


@given(counts, st.integers(1, 1000))
def test_divergence_is_0_for_equal_shares_and_1_for_none_in_common(one: dict[int, int], times: int) -> None:
    assert law.divergence(one, one) == 0
    assert law.divergence(one, {v: n * times for v, n in one.items()}) == pytest.approx(0, abs=1e-12)
    assert law.divergence(one, {v + 100: n for v, n in one.items()}) == pytest.approx(1, abs=1e-12)


@given(counts)
def test_average_rank_is_equation_4(one: dict[int, int]) -> None:
    order = sorted(one.values(), reverse=True)
    expected = sum((place + 1) * order[place] / sum(order) for place in range(len(order)))
    assert law.average_rank(one) == pytest.approx(expected)
    assert 1 <= law.average_rank(one) <= (sum(n > 0 for n in one.values()) + 1) / 2 + 1e-9


@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_average_rank_of_equally_frequent_tokens(tokens: int) -> None:
    assert law.average_rank(dict.fromkeys(range(tokens), 3)) == pytest.approx((tokens + 1) / 2)


@given(st.lists(st.text(), min_size=1).filter(any))
def test_any_text_in_bytes_and_in_characters(texts: list[str]) -> None:
    """One token a character gives 1; one a UTF-8 byte gives the characters per byte; the division of texts is free."""
    characters = law.count(texts, list)
    assert law.characters_per_token(characters) == 1
    as_bytes = law.count(texts, lambda text: text.encode("utf-8", "surrogatepass"))
    joined = "".join(texts)
    assert law.characters_per_token(as_bytes) == len(joined) / len(joined.encode("utf-8", "surrogatepass"))
    assert law.count([joined], list) == characters


def test_signs_of_the_correlations_are_the_conclusions() -> None:
    """Sec. 7: overlap hurts tags and dependency labels, helps sentence tasks; entities are not significant."""
    assert [law.overlap_helps(task) for task in law.DIVERGENCE_HELPS] == [None, False, False, True, True]
    words = ("entities", "tagging", "dependencies")
    assert all(law.ALLOCATION_HELPS[task][1] > 0.65 for task in words), "sec. 5.2: r > 0.65"
    assert law.ALLOCATION_HELPS["masked prediction"][1] < -0.9, "sec. 5.2: r < -0.9"


@pytest.mark.parametrize("wrong", [{}, {1: 0}, {1: -1, 2: 5}])
def test_counts_without_a_token_are_refused(wrong: dict[int, int]) -> None:
    for measure in (law.average_rank, lambda c: law.divergence(c, {1: 1}), lambda c: law.divergence({1: 1}, c)):
        with pytest.raises(UserError, match="token counts"):
            measure(wrong)
    with pytest.raises(UserError, match="token counts"):
        law.characters_per_token(law.Tokenised(wrong, 3))


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'tagging'"):
        law.overlap_helps("taging")
