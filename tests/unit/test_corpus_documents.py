# SPDX-License-Identifier: Apache-2.0
"""Units, n-grams, shingles and languages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.ops.documents import (
    jaccard,
    language_evidence,
    likeliest_language,
    ngram_hashes,
    shingles,
    unit_hashes,
    units,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Kaixo, mundua! 2. aldiz", ["kaixo", "mundua", "2", "aldiz"]),
        ("昨天下雨。abc", ["昨", "天", "下", "雨", "abc"]),
        ("ฝนตก", list("ฝนตก")),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("«Straße»—x", ["strasse", "x"]),
        ("?! ...", []),
    ],
)
def test_units(text: str, expected: list[str]) -> None:
    assert units(text) == expected


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(1, 6))
def test_ngrams_are_equal_exactly_where_their_units_are(words: list[str], n: int) -> None:
    found = ngram_hashes(unit_hashes(words), n).tolist()
    grams = [tuple(words[i : i + n]) for i in range(max(0, len(words) - n + 1))]
    assert len(found) == len(grams)
    assert len(set(zip(found, grams, strict=True))) == len(set(found)) == len(set(grams))


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_jaccard_is_that_of_the_sets(left: list[str], right: list[str]) -> None:
    def grams(words: list[str]) -> set[tuple[str, ...]]:
        n = min(2, len(words))
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} if words else set()

    a, b = grams(left), grams(right)
    expected = len(a & b) / max(1, len(a | b))
    assert jaccard(shingles(" ".join(left), 2), shingles(" ".join(right), 2)) == pytest.approx(expected)


def test_hashes_are_the_same_in_every_process() -> None:
    assert unit_hashes(["kaixo"]).tolist() == [3_602_341_567]
    assert shingles("a b a b", 2).dtype == np.uint64 and len(shingles("a b a b", 2)) == 2


def test_languages() -> None:
    assert (
        likeliest_language("Egunean zehar pilotan aritu ziren haurrak, eta arratsean etxera itzuli ziren.")[0] == "eu"
    )
    first, power = language_evidence("The children played all day and went home in the evening.")
    assert first > 0.9 and power > 1
