# SPDX-License-Identifier: Apache-2.0
"""The choice against plain loops, the law's cap, and an effect on pico models: a close language helps little text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.errors import UserError
from lect.parts.mixture.kind import Feedback
from lect.parts.mixture.related_languages import RelatedLanguages
from lect.testing import pico
from lect.testing.new_tokens import documents

NAMES = [f"l{n}" for n in range(6)]
SHARE = st.just(0.0) | st.floats(0.01, 0.99)
MEASURE = st.dictionaries(st.sampled_from(NAMES), st.integers(-9, 9).map(float), min_size=1)


@settings(deadline=None)
@given(MEASURE, st.none() | MEASURE, st.none() | MEASURE, st.integers(1, 7), SHARE, SHARE)
def test_the_closest_have_as_much_of_each(
    syntax: Any, geography: Any, words: Any, most: int, relatives: float, kept: float
) -> None:
    """Section 5 in plain loops: standardise each measure, unknown ones are 0, take the greatest means."""
    measures = [measure for measure in (syntax, geography, words) if measure]
    named = sorted({name for measure in measures for name in measure})
    mean = {}
    for name in named:
        values = []
        for measure in measures:
            spread = pstdev(measure.values())
            values.append((measure[name] - fmean(measure.values())) / spread if name in measure and spread else 0.0)
        mean[name] = fmean(values)
    mixture = RelatedLanguages(
        syntax=syntax, geography=geography, words=words, most=most, relatives=relatives, kept_share=kept
    )
    sizes = {"target": 1000, "kept": 50} | {f"target {name}": 7 * (n + 1) for n, name in enumerate(named)}
    found = dict(mixture.shares(sizes, 0.4, Feedback()))
    assert sum(found.values()) == pytest.approx(1)
    assert found.pop("kept") == kept
    assert found.pop("target") == pytest.approx((1 - kept) * (1 - relatives))
    assert len(found) == (min(most, len(named)) if relatives else 0)
    for share in found.values():
        assert share == pytest.approx((1 - kept) * relatives / len(found))
    out = [name for name in named if f"target {name}" not in found]
    for text in found:
        assert all(mean[text.removeprefix("target ")] >= mean[name] - 1e-9 for name in out)


@pytest.mark.parametrize(("own", "share"), [(100, 0.3), (3 * 10**8, 0.3), (4 * 10**8, 0.0), (10**12, 0.0)])
def test_beside_a_billion_tokens_they_have_no_share(own: int, share: float) -> None:
    """The boundary lies between the paper's sizes of 100 million and a billion, where it found losses alone."""
    mixture = RelatedLanguages(syntax={"es": 1.0}, relatives=0.4)
    found = mixture.shares({"target": own, "target es": 10**9, "kept": 9}, 0.0, Feedback())
    assert found.get("target es", 0.0) == pytest.approx(share)
    assert sum(found.values()) == pytest.approx(1)


def test_without_names_all_of_the_target_is_own() -> None:
    assert RelatedLanguages().shares({"target": 9, "kept": 9}, 0.0, Feedback()) == {"target": 0.75, "kept": 0.25}


def test_groups() -> None:
    mixture = RelatedLanguages(syntax={"es": 1.0}, words={"fr": 1.0})
    for language, role, group in [
        ("es", "target", "target es"),
        ("fr", "target", "target fr"),
        ("eu", "target", "target"),
        ("und", "target", "target"),
        ("es", "kept", "kept"),
    ]:
        assert mixture.group(Document(id="1", text="a", language=language, role=role)) == group
    by_source = RelatedLanguages(by="source", syntax={"neighbour.txt": 1.0})
    assert by_source.group(Document(id="1", text="a", source="neighbour.txt")) == "target neighbour.txt"


def test_names_that_no_text_has() -> None:
    with pytest.raises(UserError, match=r"no target text for training has the language 'ess'\. Did you mean 'es'\?"):
        RelatedLanguages(syntax={"es": 1, "ess": 2}).shares({"target": 9, "target es": 9}, 0.0, Feedback())
    with pytest.raises(UserError, match="every language of the target is named as a relative; leave yours out"):
        RelatedLanguages(syntax={"es": 1}).shares({"target es": 9, "kept": 9}, 0.0, Feedback())


def languages(own: int) -> Iterator[Document]:
    """A few documents of Spanish, much of a sister of it that spells otherwise, much Basque, and kept English."""
    spanish = 0
    for document in documents():
        if document.role == "kept":
            yield document
            continue
        spanish += document.split == "train"
        if document.split != "train" or spanish <= own:
            yield document
        else:
            text = document.text.replace("ca", "ka").replace("que", "ke").replace("ll", "y").replace("v", "b")
            yield replace(document, id=hashlib.sha256(text.encode()).hexdigest(), text=text, language="sister")
    for document in pico.documents():
        if document.role == "target":
            yield replace(document, split="train")


CLOSE = {"syntax": {"sister": 0.9, "eu": 0.2}, "most": 1}
FAR = {"syntax": {"sister": 0.2, "eu": 0.9}, "most": 1}


def both(trained: Any, rows: int, own: int, seed: int, *ways: dict[str, Any]) -> list[Any]:
    """Runs on so many rows, with so many documents of its own; what is measured is held-out text of the language."""
    specs = ({"use": "related_languages", "with": knobs} for knobs in ways)
    return [trained(spec, rows=rows, seed=seed, documents=languages(own)) for spec in specs]


@pytest.mark.parametrize("seed", range(3))
def test_a_close_language_is_worth_more_than_a_far_one(seed: int, trained) -> None:
    close, far = both(trained, 40, 4, seed, CLOSE, FAR)
    assert {d.language for row in close.rows for d in row} == {"es", "sister", "en"}
    assert close.bits["target"] < far.bits["target"] - 0.2


@pytest.mark.parametrize("seed", range(3))
def test_a_close_language_is_worth_more_than_reading_little_text_again_and_again(seed: int, trained) -> None:
    """At equal rows; alone, two documents are read eleven times."""
    close, alone = both(trained, 120, 2, seed, CLOSE, CLOSE | {"relatives": 0.0})
    assert alone.facts["epochs"]["target"] > 10 > 6 > close.facts["epochs"]["target"]
    assert close.bits["target"] < alone.bits["target"] - 0.15
