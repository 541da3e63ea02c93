# SPDX-License-Identifier: Apache-2.0
"""Invariant, of the rows as they are laid and as a pico model reads them; a name that no text has is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.engine.data import Mixed
from lect.errors import UserError
from lect.parts.mixture.fixed import Fixed
from lect.parts.mixture.kind import Feedback
from lect.registry import build_part, check_part
from lect.testing import pico
from lect.testing.new_tokens import documents

STREAM = SimpleNamespace(encoded=SimpleNamespace(tokens=100))
RATIO = st.dictionaries(st.text(min_size=1), st.floats(0.01, 100), min_size=1, max_size=5)


@settings(deadline=None)
@given(RATIO, st.integers(1, 200))
def test_no_text_is_a_whole_row_ahead(ratio: dict[str, float], rows: int) -> None:
    data = Mixed(dict.fromkeys(ratio, STREAM), Fixed(ratio=ratio))
    data.begin(rows)
    had = dict.fromkeys(ratio, 0)
    for number in range(rows):
        had[data.place(number)[0]] += 1
        for name, share in ratio.items():
            assert had[name] < share / sum(ratio.values()) * (number + 1) + 1 + 1e-9


def spec(**knobs) -> dict:
    return {"use": "fixed", "with": knobs}


def texts() -> list[Document]:
    """Basque, Spanish and kept English."""
    return [*documents(), *(d for d in pico.documents() if d.role == "target")]


@pytest.mark.parametrize(
    ("by", "ratio", "shares"),
    [
        ("language", {"eu": 5, "es": 3, "en": 2}, {"eu": 0.5, "es": 0.3, "en": 0.2}),
        ("role", {"target": 1.0, "kept": 3.0}, {"en": 0.75}),
        ("role", None, {"en": 0.5}),
        ("language", {"eu": 1, "es": 0}, {"eu": 1.0, "es": 0.0, "en": 0.0}),
    ],
)
def test_a_trained_model_reads_texts_at_their_shares(by: str, ratio, shares: dict[str, float], trained) -> None:
    made = trained(spec(by=by, ratio=ratio), rows=20, documents=texts())
    for language, share in shares.items():
        assert made.share(0, 20, lambda d, own=language: d.language == own) == pytest.approx(share)
    unread = [line for line in made.said if "has no share of the mixture and is not read" in line]
    assert len(unread) == (2 if ratio == {"eu": 1, "es": 0} else 0)


def test_a_name_that_no_text_has_is_refused_with_those_there_are(trained) -> None:
    with pytest.raises(UserError) as caught:
        trained(spec(by="language", ratio={"eu": 1, "ess": 1}), rows=4, documents=texts())
    assert str(caught.value) == (
        "fixed.ratio: no text for training has the language 'ess'. Did you mean 'es'? There are: es, eu, en"
    )
    with pytest.raises(UserError, match=r"fixed\.ratio: every share is 0"):
        Fixed(ratio={"eu": 0.0}).shares({"eu": 9}, 0.0, Feedback())


@pytest.mark.parametrize("ratio", [{"eu": -1}, {"eu": float("nan")}, {"eu": "much"}, {}, {3: 1}, [1], "eu=1"])
def test_shares_that_are_none_are_refused_before_anything_runs(ratio) -> None:
    with pytest.raises(UserError, match=r"ratio: .* it takes a mapping of names to numbers at least 0 or null"):
        check_part("mixture", spec(ratio=ratio), "mixture")


def test_a_recipe_may_hold_it() -> None:
    made = build_part("mixture", check_part("mixture", spec(by="source", ratio={"a.txt": 1, "b.txt": "3"}), "x"))
    assert made.ratio == {"a.txt": 1.0, "b.txt": 3.0}
    assert made.group(Document(id="1", text="a", source="a.txt")) == "a.txt"
    assert Fixed(by="language").group(Document(id="1", text="a")) == "und"
