# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.errors import UserError
from lect.stages.corpus.kinds import document_id
from lect.stages.corpus.split import Split


def documents(role: str, texts: list[str]) -> list[Document]:
    return [Document(document_id(role, t), t, role=role) for t in texts]


def test_shares_within_binomial_bounds(apply) -> None:
    """invariant: of 20000 texts the shares are those asked for, within four standard deviations."""
    given = documents("target", [f"text {i} " + "a" * 100 for i in range(20_000)])
    found, _ = apply(Split(test=0.05, calibration=0.1), given)
    count = Counter(d.split for d in found)
    for split, share in (("test", 0.05), ("calibration", 0.1), ("train", 0.85)):
        assert abs(count[split] - 20_000 * share) < 4 * (20_000 * share * (1 - share)) ** 0.5


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 30), min_size=3, max_size=60).filter(lambda n: len(set(n)) >= 3),
    st.lists(st.integers(0, 60), max_size=60),
    st.integers(0, 3000),
    st.randoms(use_true_random=False),
)
def test_one_text_one_split_in_any_order(apply, target, kept, least: int, rng: random.Random) -> None:
    """invariant: equal texts, in both roles too, share a split; order does not matter; no split of a role is empty."""
    given = documents("target", [f"{n}" * (1 + n % 7) for n in target])
    own = {d.text for d in given}
    others = documents("kept", [f"{n}" * (1 + n % 7) for n in kept])
    if 0 < len({d.text for d in others} - own) < 3 or (others and not {d.text for d in others} - own):
        others = []
    step = Split(least_bytes=least)
    first, _ = apply(step, given + others)
    again = given + others
    rng.shuffle(again)
    second, _ = apply(step, again)
    splits: dict[str, set[str]] = {}
    for d in first + second:
        splits.setdefault(d.text, set()).add(d.split)
    assert all(len(s) == 1 for s in splits.values())
    assert {d.split for d in first if d.role == "target"} == {"train", "calibration", "test"}
    assert [(d.id, d.text) for d in first] == [(d.id, d.text) for d in given + others]


def test_a_text_keeps_its_split_when_others_come(apply) -> None:
    """invariant: where no border had to move, more documents move none of the old ones."""
    few = documents("target", [f"text {i}" for i in range(500)])
    many = few + documents("target", [f"further {i}" for i in range(500)])
    step = Split(least_bytes=0)
    first = {d.text: d.split for d in apply(step, few)[0]}
    second = {d.text: d.split for d in apply(step, many)[0]}
    assert all(second[text] == split for text, split in first.items())


def test_small_corpora_get_a_test_that_means_something(apply) -> None:
    """worked example: 200 texts of 1 kB give test and calibration 15 % of the bytes each, not 5 %."""
    found, _ = apply(Split(), documents("target", [f"{i:04} " + "a" * 1019 for i in range(200)]))
    count = Counter(d.split for d in found)
    assert 30 <= count["test"] <= 31 and 30 <= count["calibration"] <= 31


def test_too_small_is_named(apply) -> None:
    """worked example: two texts cannot be three splits."""
    with pytest.raises(UserError, match="corpus smaller than 3 different target texts"):
        apply(Split(), documents("target", ["a", "b", "b"]))
