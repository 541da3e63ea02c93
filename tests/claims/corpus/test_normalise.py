# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.stages.corpus.kinds import document_id
from lect.stages.corpus.normalise import Normalise

ODD = "\u2003\u00a0\u00ad\u200b\u200c\u200d\u2028\u2029\u202f\u3000\ufeff\x00\x0b\x85\r\n\t ae\u0301\u0308\u1100\u1161"


@given(st.one_of(st.text(), st.text(st.sampled_from(ODD))))
def test_twice_is_once(text: str) -> None:
    """invariant: idempotent, and the result is in form C (Annex 15)."""
    once = Normalise().change(text)
    assert Normalise().change(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(line != line.rstrip() for line in once.split("\n"))
    assert "\n\n\n" not in once and not once.startswith("\n") and not once.endswith("\n")


@given(st.text(st.characters(categories=["L", "N", "M", "P", "S"])))
def test_letters_marks_and_signs_stay(text: str) -> None:
    """invariant: of text without spaces and controls only the canonical form changes."""
    assert Normalise().change(text) == unicodedata.normalize("NFC", text)


def test_examples(apply) -> None:
    """worked example: what goes, what stays, and a text that is nothing but white space."""
    change = Normalise().change
    assert change("cafe\u0301\r\nte\u00ad\u0301\rend \t\n\n\n\n  x\u00a0!\u200d<eos>\x00") == (
        "café\nté\nend\n\n  x\u00a0!\u200d<eos>"
    )
    assert Normalise(blank_lines=0).change("a\n\n\nb") == "a\nb"
    documents, run = apply(
        Normalise(), [Document(document_id("target", t), t) for t in ["a\r\nb", "a\nb", " \u00a0\n", "c"]]
    )
    assert [d.text for d in documents] == ["a\nb", "a\nb", "c"]
    assert [d.id for d in documents] == [document_id("target", d.text) for d in documents]
    assert run.facts["dropped"] == {"empty": 1} and run.facts["changed"] == 2
