# SPDX-License-Identifier: Apache-2.0
"""Equation against a loop, invariants of it, and an effect on pico models: the small language is learnt better."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.errors import UserError
from lect.parts.mixture.kind import Feedback
from lect.parts.mixture.temperature import Temperature
from lect.testing import pico
from lect.testing.new_tokens import documents

SIZES = st.dictionaries(st.text(min_size=1).map("target {}".format), st.integers(1, 10**12), min_size=1, max_size=6)


@settings(deadline=None)
@given(SIZES, st.floats(0, 1), st.floats(0, 0.99))
def test_equation(sizes: dict[str, int], alpha: float, kept_share: float) -> None:
    """q_i = p_i^alpha / sum_j p_j^alpha with p_i = n_i / sum_k n_k; kept text takes its share of all first."""
    found = Temperature(alpha=alpha, kept_share=kept_share).shares(sizes | {"kept": 7}, 0.5, Feedback())
    total = 0
    for n in sizes.values():
        total += n
    below = 0.0
    for n in sizes.values():
        below += (n / total) ** alpha
    for name, n in sizes.items():
        assert found[name] == pytest.approx((1 - kept_share) * (n / total) ** alpha / below)
    assert found["kept"] == kept_share
    assert sum(found.values()) == pytest.approx(1)


@settings(deadline=None)
@given(SIZES, st.floats(0, 1))
def test_no_order_is_turned_and_the_smallest_never_loses(sizes: dict[str, int], alpha: float) -> None:
    found = Temperature(alpha=alpha, kept_share=0).shares(sizes, 0.0, Feedback())
    names = sorted(sizes, key=lambda name: sizes[name])
    assert all(found[a] <= found[b] * (1 + 1e-9) for a, b in pairwise(names))
    total = sum(sizes.values())
    assert found[names[0]] >= sizes[names[0]] / total * (1 - 1e-9)
    assert found[names[-1]] <= sizes[names[-1]] / total * (1 + 1e-9)


def test_texts_below_the_least_have_no_share() -> None:
    found = Temperature(least=50, alpha=0).shares(
        {"target eu": 50, "target es": 49, "target fr": 90, "kept": 3}, 0.0, Feedback()
    )
    assert found == {"target eu": 0.375, "target fr": 0.375, "kept": 0.25}
    with pytest.raises(UserError, match=r"temperature\.least: no text of the target has 91 tokens; lower it"):
        Temperature(least=91).shares({"target eu": 50, "kept": 300}, 0.0, Feedback())


@settings(deadline=None)
@given(SIZES, st.integers(1, 10**12), st.floats(0, 1))
def test_text_of_unknown_language_is_read_by_size(sizes: dict[str, int], unknown: int, alpha: float) -> None:
    """A few documents that no identifier is sure of do not get the share of a small language."""
    method = Temperature(alpha=alpha, kept_share=0.25)
    found = method.shares(sizes | {"target": unknown, "kept": 7}, 0.5, Feedback())
    part = unknown / (unknown + sum(sizes.values()))
    assert found["target"] == pytest.approx(0.75 * part)
    for name, share in method.shares(sizes, 0.5, Feedback()).items():
        assert found[name] == pytest.approx(share if name == "kept" else share * (1 - part))
    assert method.shares({"target": unknown}, 0.5, Feedback()) == {"target": 0.75, "kept": 0.25}


@settings(deadline=None)
@given(st.text() | st.just("und"), st.text() | st.just("und"), st.sampled_from(["target", "kept"]))
def test_groups(language: str, source: str, role: str) -> None:
    """The target's texts are told apart by the one or the other; none of them can be taken for kept text."""
    document = Document(id="1", text="a", language=language, source=source, role=role)
    for by, value in (("language", language), ("source", source)):
        name = Temperature(by=by).group(document)
        known = "" if by == "language" and value == "und" else value
        assert name == ("kept" if role == "kept" else f"target {known}".strip())


def two_languages() -> Iterator[Document]:
    """Much Spanish, little Basque, and kept English; what is measured of the target is Basque alone."""
    for document in documents():
        if document.role == "kept" or document.split == "train":
            yield document
    for document in pico.documents():
        if document.role == "target":
            name = hashlib.sha256(document.text.encode()).hexdigest()
            yield replace(document, id=name, source="basque.txt")


def spec(**knobs) -> dict:
    return {"use": "temperature", "with": knobs}


@pytest.mark.parametrize("by", ["language", "source"])
def test_a_trained_model_reads_languages_at_their_shares(by: str, trained) -> None:
    made = trained(spec(by=by, alpha=0.0, kept_share=0.2), rows=20, documents=two_languages())
    for language, share in (("es", 0.4), ("eu", 0.4), ("en", 0.2)):
        for number in range(1, 21):
            had = number * made.share(0, number, lambda document, own=language: document.language == own)
            assert abs(had - share * number) <= 1 + 1e-9


def test_a_text_too_small_for_a_row_is_named_or_left_out(trained) -> None:
    stray = Document(id="0" * 64, text="Ave.", language="la", split="train")
    with pytest.raises(UserError, match=r"the target la text for training has \d+ tokens, fewer than one batch"):
        trained(spec(), rows=4, documents=[*two_languages(), stray])
    made = trained(spec(least=64), rows=8, documents=[*two_languages(), stray])
    assert {document.language for row in made.rows for document in row} == {"es", "eu", "en"}


@pytest.mark.parametrize("seed", range(3))
def test_the_small_language_is_learnt_better(seed: int, trained) -> None:
    """With twice the rows that it would have by size."""
    by_size, flatter = (
        trained(spec(alpha=alpha), rows=30, seed=seed, documents=two_languages()) for alpha in (1.0, 0.3)
    )
    assert flatter.bits["target"] < by_size.bits["target"] - 0.1
