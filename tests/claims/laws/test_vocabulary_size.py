# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.errors import UserError
from lect.laws import vocabulary_size as law

BILLION = 10**9
TABLE_1 = {  # non-vocabulary parameters in billions: thousands of tokens by the three ways, and FLOPs
    3: (39, 43, 37, 1.3e21),
    7: (62, 67, 60, 7.1e21),
    13: (83, 91, 81, 2.4e22),
    30: (142, 154, 142, 1.3e23),
    70: (212, 231, 218, 7.1e23),
}
sizes = st.floats(3e7, 3e11)


@pytest.mark.parametrize("billions", TABLE_1)
def test_table_1(billions: int) -> None:
    *thousands, flops = TABLE_1[billions]
    found = law.predict(billions * BILLION)
    assert [round((v or 0) / 1000) for v in (found.isoflops, found.derivative, found.loss)] == thousands
    assert float(f"{found.flops:.1e}") == flops
    assert law.predict(flops=found.flops) == law.predict(law.optimal_non_vocabulary(found.flops))


def test_the_last_row_of_table_1() -> None:
    """The paper prints 356, 389 and 383 thousand for 300 billion; the last is 383.66, rounded down."""
    found = law.predict(300 * BILLION)
    assert [v // 1000 for v in (found.isoflops or 0, found.derivative or 0, found.loss)] == [355, 389, 383]
    assert found.isoflops == pytest.approx(356_000, abs=500)


def test_llama2_70b_has_seven_times_too_few() -> None:
    """The abstract: at least 216 thousand, 7 times 32 thousand."""
    found = law.predict(70 * BILLION, width=8192)
    assert found.loss >= 216_000
    assert all(v is not None and 6.5 <= v / 32_000 <= 7.5 for v in (found.isoflops, found.derivative, found.loss))


@pytest.mark.parametrize(("flops", "thousands"), [(2.8e20, 24), (1.2e21, 35)])
def test_tables_2_and_3(flops: float, thousands: int) -> None:
    """The vocabularies that the paper chose for 2.87 billion parameters, with too little and with enough text."""
    assert round(law.by_loss(2.87e9, flops) / 1000) == thousands
    assert law.predict(2.87e9, flops).isoflops is None


def test_figure_7() -> None:
    """At 302 million the best of six vocabularies moves from 16K to 10K with little text and to 24K with much."""
    right = law.optimal_flops(302e6)
    tried = (8, 10, 16, 24, 32, 48)
    nearest = [min(tried, key=lambda k: abs(math.log(k * 1024 / law.by_loss(302e6, f * right)))) for f in (0.2, 1, 6)]
    assert nearest == [10, 16, 24]


@pytest.mark.parametrize(
    ("thousands", "tokens", "characters", "flops"),
    [
        (32, 15.7, 62.2, 2.8e20),
        (24, 15.8, 60.8, 2.8e20),
        (32, 67.3, 266.6, 1.2e21),
        (35, 67.1, 268.2, 1.2e21),
        (32, 128.5, 509.1, 2.3e21),
        (43, 127.0, 517.5, 2.3e21),
    ],
)
def test_the_budgets_of_tables_2_and_3(thousands: int, tokens: float, characters: float, flops: float) -> None:
    """Tokens and characters in billions at 2.87 billion parameters; the paper rounds the budget to two digits."""
    vocabulary = thousands * 1000
    assert law.tokens_per_character(vocabulary) == pytest.approx(tokens / characters, rel=3e-3)
    assert law.training_flops(2.87e9, vocabulary, characters * 1e9) == pytest.approx(flops, rel=0.02)
    assert law.affordable_characters(2.87e9, vocabulary, flops) / 1e9 == pytest.approx(characters, rel=0.02)


def naive_loss(non_vocabulary: float, vocabulary: float, flops: float, width: int) -> float:
    """Eq. 8 as it is printed, N in millions and D in billions."""
    tokens = flops / (6 * (non_vocabulary + vocabulary * width))
    return (
        -5.533
        + 1.831 / (non_vocabulary / 1e6) ** 0.447
        + 0.19584 / (vocabulary * width / 1e6) ** 0.67074
        + 2.12411 / (tokens / 1e9) ** 0.44661
    )


@given(sizes, st.floats(0.1, 10), st.sampled_from([256, 640, 4096]))
def test_the_third_way_has_the_least_loss(size: float, share: float, width: int) -> None:
    flops = share * law.optimal_flops(size)
    best = law.by_loss(size, flops, width)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert naive_loss(size, best, flops, width) < naive_loss(size, best * factor, flops, width)


@given(st.floats(3e7, 3e9), st.sampled_from([512, 768, 2048]))
def test_the_cheapest_vocabulary_is_cheapest(size: float, width: int) -> None:
    best = law.cheapest(size, width)
    costs = {v: law.training_flops(size, v, 1.0, width) for v in (best * 0.9, best, min(best * 1.1, 200_000.0))}
    assert costs[best] == min(costs.values())


def test_the_exponent_of_the_second_way_follows_from_the_cheapest_vocabularies() -> None:
    """Sec. 4.2: gamma, fitted anew over the seven sizes by absolute errors (theirs are Huber's, linear from 0.001)."""
    models = [33e6, 85e6, 151e6, 302e6, 631e6, 1130e6, 2870e6]
    parameters = [law.cheapest(n) * law.width_of(n) for n in models]
    growth = [math.log(v / parameters[0]) for v in parameters[1:]]
    span = [math.log(n / models[0]) for n in models[1:]]
    errors = {
        g: sum(abs(y - g * x) for x, y in zip(span, growth, strict=True)) for g in [k / 10_000 for k in range(10_001)]
    }
    assert min(errors, key=errors.__getitem__) == pytest.approx(law.GAMMA, abs=2e-4)


@given(sizes, st.floats(1.01, 10))
def test_vocabulary_parameters_grow_slower_than_the_rest(size: float, factor: float) -> None:
    for way in (law.by_isoflops, law.by_derivative, law.by_loss):
        small, large = way(size, width=64), way(size * factor, width=64)
        assert small < large < small * factor


@given(sizes, st.floats(1.1, 10))
def test_more_text_asks_for_more_tokens(size: float, factor: float) -> None:
    right = law.optimal_flops(size)
    assert law.by_loss(size, right / factor) < law.by_loss(size) < law.by_loss(size, right * factor)


@pytest.mark.parametrize(
    "wrong", [{}, {"flops": 0.0}, {"non_vocabulary": -1.0}, {"non_vocabulary": math.nan}, {"flops": 1e20, "width": 0}]
)
def test_bad_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"vocabulary size: .*give"):
        law.predict(**wrong)  # type: ignore[arg-type]
