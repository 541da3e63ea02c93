# SPDX-License-Identifier: Apache-2.0
"""Numbers for people: right digits, right units, a sign only where there is something to sign."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.report import words


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (words.count(0), "0"),
        (words.count(9412), "9,412"),
        (words.count(901_120), "901,120"),
        (words.count(268_098_176), "268 million"),
        (words.count(999_999_999), "1.00 billion"),
        (words.size(0), "0 bytes"),
        (words.size(999), "999 bytes"),
        (words.size(999_999), "1.00 MB"),
        (words.size(569_580_920), "570 MB"),
        (words.duration(0.0214), "21 ms"),
        (words.duration(0.9999), "1.0 s"),
        (words.duration(9.96), "10 s"),
        (words.duration(59.97), "1 min"),
        (words.duration(791.2), "13 min 11 s"),
        (words.duration(3599.7), "1 h"),
        (words.duration(5430), "1 h 30 min"),
        (words.rate(38.6, "bytes"), "38.6 bytes/s"),
        (words.rate(6214.9, "bytes"), "6,215 bytes/s"),
        (words.rate(4_500_000, "bytes"), "4.50 million bytes/s"),
        (words.share(0.5376), "53.8 %"),
        (words.share(1), "100 %"),
        (words.change(-0.33914), "-33.9 %"),
        (words.change(0.004), "+0.40 %"),
        (words.change(-0.00001), "0 %"),
        (words.change(2.25), "+225 %"),
        (words.significant(0.9996, 3), "1.00"),
        (words.significant(2.412, 4), "2.412"),
        (words.significant(-1234567), "-1,234,567"),
        (words.significant(3.8e-6), "3.8\N{MULTIPLICATION SIGN}10⁻⁶"),
    ],
)
def test_worked_examples(made: str, expected: str) -> None:
    assert plain(made) == expected


@pytest.mark.parametrize("word", [words.count, words.size, words.duration, words.share, words.change])
def test_what_is_missing_is_said(word: object) -> None:
    assert callable(word)
    assert word(None) == words.MISSING


@given(st.floats(min_value=1e-3, max_value=1e15))
def test_three_digits_are_within_half_a_percent(value: float) -> None:
    shown = float(plain(words.significant(value)).replace(",", ""))
    assert abs(shown - value) <= 0.0051 * value


@given(st.floats(min_value=-1e300, max_value=1e300))
def test_no_number_is_too_odd(value: float) -> None:
    for word in (words.count, words.size, words.duration, words.share, words.change, words.significant):
        assert re.search(r"\d", word(value))


@given(st.floats(min_value=-0.99, max_value=10))
def test_the_sign_is_that_of_the_change(value: float) -> None:
    text = plain(words.change(value))
    assert text[0] in "+-0"
    assert {"+": value > 0, "-": value < 0, "0": abs(value) < 5e-5 + 1e-12}[text[0]]


def test_a_ratio_needs_both_ends() -> None:
    assert words.ratio(2.0, 3.0) == 1.5
    assert words.ratio(0.0, 3.0) is None
    assert words.ratio(None, 3.0) is None
    assert words.ratio(1e-300, 1e300) is None
    assert words.relative(2.0, 1.0) == -0.5


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (None, "tokens", "\N{EN DASH}"),
        (257_271.7, "tokens", "257,272"),
        (9.1e-5, "rate", "9.1\N{MULTIPLICATION SIGN}10\u207b\u2075"),
        (0.0, "rate", "0"),
        (0.2, "rate", "0.200"),
        (0.33, "share", "33.0\N{NO-BREAK SPACE}%"),
        (1.23456, "bits", "1.235"),
        (238e6, "bits", "238\N{NO-BREAK SPACE}Mbit"),
        (90.0, "seconds", "1\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}30\N{NO-BREAK SPACE}s"),
        (2e9, "bytes", "2.00\N{NO-BREAK SPACE}GB"),
    ],
)
def test_quantities_in_their_units(value, unit, said):
    assert words.quantity(value, unit) == said
    assert words.span(value, None, None, unit) == said
    if value is not None:
        assert words.span(value, value, value, unit) == f"{said} to {said}"
