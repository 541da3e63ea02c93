# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.errors import UserError
from lect.laws import related_languages as law

SIZES = (1e6, 1e7, 1e8, 1e9)
curves = st.builds(law.Curve, st.floats(0.5, 500), st.floats(0.1, 5), st.floats(-5, 5))


def naive_score(curve: law.Curve, tokens: float) -> float:
    """Sec. 4.3 as it is printed."""
    return -curve.a * math.log(tokens, 10) ** (-curve.b) + curve.c


@given(curves, st.floats(1e4, 1e10))
def test_the_curve_and_its_inverse(curve: law.Curve, tokens: float) -> None:
    score = law.curve_score(curve, tokens)
    assert score == pytest.approx(naive_score(curve, tokens), abs=1e-9)
    assert law.equivalent_tokens(curve, score) == pytest.approx(tokens, rel=1e-4)
    assert law.gain(curve, score, tokens) == pytest.approx(0, abs=1e-4)


def test_figure_3() -> None:
    """A small model with 1M tokens and 1B of similar languages stands where 1.2M tokens alone would: a gain of 0.2."""
    alone = {n: 3 - 60 * math.log10(n) ** -1.7 for n in SIZES}
    curve = law.fit_curve(list(alone), list(alone.values()))
    multilingual = 3 - 60 * math.log10(1.2e6) ** -1.7
    assert law.equivalent_tokens(curve, multilingual) == pytest.approx(1.2e6, rel=1e-4)
    assert law.gain(curve, multilingual, 1e6) == pytest.approx(0.2, abs=1e-3)
    assert law.gain(curve, 3 - 60 * math.log10(0.37e9) ** -1.7, 1e9) == pytest.approx(-0.63, abs=1e-3)


def test_equation_1_by_hand() -> None:
    """Half a bit better a token is a perplexity lower by the square root of two."""
    probabilities, baseline = [1 / 8, 1 / 2, 1 / 4, 1 / 4], [1 / 16, 1 / 4, 1 / 4, 1 / 4]
    bits = [-sum(map(math.log2, p)) / len(p) for p in (probabilities, baseline)]
    assert law.relative_score(*bits) == 0.5
    perplexities = [math.prod(p) ** (-1 / len(p)) for p in (probabilities, baseline)]
    assert perplexities[1] / perplexities[0] == pytest.approx(2 ** law.relative_score(*bits))


@given(curves, st.integers(3, 4))
def test_a_fit_finds_the_curve_that_made_the_scores(curve: law.Curve, sizes: int) -> None:
    scores = [naive_score(curve, n) for n in SIZES[:sizes]]
    found = law.fit_curve(SIZES[:sizes], scores)
    for tokens in (1.3e6, 5e6, 9e7):
        worth = law.equivalent_tokens(found, naive_score(curve, tokens))
        assert worth == pytest.approx(tokens, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_fit_to_noisy_scores_has_the_least_squares(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.02, 4)
    scores = [naive_score(law.Curve(60, 1.7, 3), n) + e for n, e in zip(SIZES, noise, strict=True)]
    found = law.fit_curve(SIZES, scores)

    def errors(curve: law.Curve) -> float:
        return sum((naive_score(curve, n) - s) ** 2 for n, s in zip(SIZES, scores, strict=True))

    for change in (0.99, 1.01):
        for name, value in found._asdict().items():
            assert errors(found) < errors(found._replace(**{name: value * change}))
        steeper = (found.b * change, np.array([[-(math.log10(n) ** -(found.b * change)), 1] for n in SIZES]))
        a, c = np.linalg.lstsq(steeper[1], np.array(scores), rcond=None)[0]
        assert errors(found) <= errors(law.Curve(a, steeper[0], c)) + 1e-15


@given(st.floats(10, 100), st.floats(0.1, 3), st.floats(-2, 2), st.floats(0.05, 4))
def test_two_sizes_and_the_a_of_other_languages(a: float, b: float, c: float, other: float) -> None:
    """Appendix A.4: a is the others'; b is on the side of theirs, where the curve goes through both scores."""
    like = law.Curve(a, other, 0.0)
    scores = [naive_score(law.Curve(a, b, c), n) for n in SIZES[:2]]
    found = law.fit_curve(SIZES[:2], scores, like)
    assert found.a == a
    assert [naive_score(found, n) for n in SIZES[:2]] == pytest.approx(scores, abs=1e-7)
    peak = math.log(math.log(7) / math.log(6)) / math.log(7 / 6)  # the rise from 1M to 10M is greatest there
    if (b - peak) * (other - peak) > 0 and abs(b - peak) > 0.01:
        assert found.b == pytest.approx(b, abs=1e-3)


def test_one_size_takes_the_shape_of_other_languages() -> None:
    like = law.median_curve([law.Curve(50, 1.5, 2), law.Curve(60, 1.7, 9), law.Curve(90, 1.6, 3)])
    assert like == (60, 1.6, 3)
    found = law.fit_curve([1e6], [0.25], like)
    assert found[:2] == like[:2] and naive_score(found, 1e6) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("tokens", "scores", "like", "why"),
    [
        ([1e6, 1e7], [0, 1], None, "three or more"),
        ([], [], law.Curve(60, 1.7, 3), "three or more"),
        ([1e6, 1e6, 1e7], [0, 1, 2], None, "all must differ"),
        ([1e6, 1e7, 1e8], [2, 1, 0], None, "does not grow"),
        ([1e6, 1e7, 1e8], [0, 1, 5], None, "level off"),
        (SIZES, [0, -5, -6, 1], None, "level off"),
        ([1e6, 1e7], [0, 9], law.Curve(1, 1.7, 3), "more than its a allows"),
        ([1, 1e7, 1e8], [0, 1, 2], None, "above 1"),
    ],
)
def test_scores_that_no_curve_has_are_refused(
    tokens: Sequence[float], scores: list[float], like: law.Curve | None, why: str
) -> None:
    with pytest.raises(UserError, match=why):
        law.fit_curve(tokens, scores, like)


@pytest.mark.parametrize("score", [3.0, 4.0, 2.9999, math.nan, -math.inf])
def test_a_score_beyond_the_curve_is_refused(score: float) -> None:
    with pytest.raises(UserError, match="no amount of text"):
        law.equivalent_tokens(law.Curve(60, 1.7, 3.0), score)


def test_published_figures() -> None:
    """Sec. 6.1: 33 % more, 22 % if dissimilar, 12 % in the tiny model; sec. 6.2: 63 % less, 88 % in the tiny model."""

    def change(*sizes: float, similar: bool = True, added: float | None = None) -> float | None:
        found = law.published(*sizes, similar=similar, added_tokens=added)
        return found.change if found else None

    assert change(1e6, 29.5e6) == 0.33 == max(f.change or 0 for f in law.FINDINGS)
    assert change(1e6, 29.5e6, similar=False) == 0.22
    assert change(1e6, 4.6e6) == 0.12
    assert change(2e6, 45e6, added=8e8) == 0.22, "figure 1, at the nearest sizes"
    assert change(1e9, 29.5e6, added=1e9) == -0.63
    assert change(1e9, 4.6e6, added=1e9) == -0.88


@pytest.mark.parametrize("parameters", [4.6e6, 11.6e6, 29.5e6])
def test_published_effects(parameters: float) -> None:
    def effect(target: float, added: float | None, similar: bool) -> str | None:
        found = law.published(target, parameters, similar, added)
        return found.effect if found else None

    for similar in (True, False):
        assert [effect(1e6, added, similar) for added in (1e7, 1e8, 1e9)] == ["none", "gain", "gain"]
        assert effect(1e9, 1e9, similar) == effect(1e9, None, similar) == "loss"
        assert effect(1e7, 1e9, similar) == (None if parameters == 29.5e6 else "loss")
        assert effect(1e8, 1e9, similar) is None, "not in the text"
    assert all((f.change or 0) * {"gain": 1, "none": 0, "loss": -1}[f.effect] >= 0 for f in law.FINDINGS)


@pytest.mark.parametrize("sizes", [(1e5, 1e7, None), (1e6, 2.7e8, None), (1e6, 1e7, 1e12), (math.nan, 1e7, None)])
def test_sizes_that_were_not_studied_are_refused(sizes: tuple[float, float, float | None]) -> None:
    with pytest.raises(UserError, match="was not studied"):
        law.published(sizes[0], sizes[1], True, sizes[2])


def test_similarity_is_the_mean_of_standard_scores() -> None:
    languages = ["eng", "eus", "nld", "spa", "swe"]
    pairs = [frozenset(pair) for pair in combinations(languages, 2)]
    rng = np.random.default_rng(3)
    columns = [rng.normal(5, 9, len(pairs)), rng.uniform(0, 1, len(pairs)), rng.exponential(3, len(pairs))]
    measures: list[dict[frozenset[str], float | None]] = [dict(zip(pairs, c.tolist(), strict=True)) for c in columns]
    measures[0][pairs[4]] = None
    columns[0][4] = np.nan
    standard = [np.nan_to_num((c - np.nanmean(c)) / np.nanstd(c)) for c in columns]
    found = law.combined_similarity(*measures)
    assert [found[p] for p in pairs] == pytest.approx(np.mean(standard, axis=0).tolist())
    others = sorted((found[frozenset({"eng", o})], o) for o in languages[1:])
    assert law.most_similar("eng", found, 3) == [o for _, o in reversed(others)][:3]
    assert law.lexical_similarity({"a", "b", "c"}, {"b", "c", "d"}) == math.log(3)


def test_a_similarity_that_says_nothing_changes_nothing() -> None:
    one: dict[frozenset[str], float | None] = {frozenset("ab"): 1.0, frozenset("ac"): 3.0, frozenset("bc"): 2.0}
    flat: dict[frozenset[str], float | None] = dict.fromkeys(one, 7.0)
    assert law.most_similar("a", law.combined_similarity(one, flat)) == ["c", "b"]
    with pytest.raises(UserError, match="every pair"):
        law.combined_similarity(one, {frozenset("ab"): 1.0})
    with pytest.raises(UserError, match="no pair with 'z'"):
        law.most_similar("z", law.combined_similarity(one))
