# SPDX-License-Identifier: Apache-2.0
"""Knobs, ranges and gates."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.errors import UserError
from lect.method import Gate, Knob, Method, OneOf, Range, knob_of, knobs, nearest


@knobs
class Some(Method):
    """A method."""

    share: Annotated[float, Range(above=0, at_most=1)] = 0.5
    count: Annotated[int | None, Range(at_least=1)] = None
    word: Annotated[str, OneOf("a", "b")] = "a"
    flag: bool = False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("share", 0),
        ("share", 1.01),
        ("share", float("nan")),
        ("share", True),
        ("count", 0),
        ("count", 1.5),
        ("count", float("inf")),
        ("word", "c"),
        ("word", 1),
        ("flag", 1),
        ("flag", None),
    ],
)
def test_a_value_outside_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"Some\.{name}: "):
        Some(**{name: value})


def test_values_come_in_their_own_type() -> None:
    made = Some(share="1e-1", count=3.0, flag=True)
    assert made == Some(share=0.1, count=3, flag=True)
    assert type(made.count) is int
    with pytest.raises(AttributeError):
        made.share = 1.0


@given(st.floats(), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_range_is_its_words(value: float, low: float, high: float) -> None:
    inside = low < value <= high
    assert Range(above=low, at_most=high).admits(value) is inside


def test_annotation_and_source_say_the_same() -> None:
    from lect.registry import methods

    for info in methods().values():
        cls = info.load()
        for knob in info.knobs.values():
            default = getattr(cls(), knob.name)
            if knob.type != "part":
                assert default == knob.default, f"{info.name}.{knob.name}"
    assert knob_of("x", Annotated[int | None, Range(at_least=1)]) == Knob(
        name="x", type="int", optional=True, bound=Range(at_least=1)
    )


def test_gate_fails_on_nan() -> None:
    assert Gate(name="x", limit=0.0, value=0.0).passed
    assert not Gate(name="x", limit=0.0, value=float("nan")).passed


def test_nearest() -> None:
    assert nearest("trimm", ["trim", "extend"]) == " Did you mean 'trim'?"
    assert nearest("zzz", ["trim"]) == ""
