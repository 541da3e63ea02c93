# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
from pathlib import Path

import pytest

from lect.artefacts import Document
from lect.data import path
from lect.ops.documents import likeliest_language
from lect.stages.corpus.kinds import document_id
from lect.stages.corpus.language import Language
from lect.stages.corpus.read import Read


def bundled(language: str, count: int) -> list[str]:
    file = Path(path(language))
    texts = [t.text for t in Read().collector().collect([file]) if 300 <= len(t.text) <= 3000]
    return random.Random(0).sample(texts, count)


def documents(role: str, texts: list[str]) -> list[Document]:
    return [Document(document_id(role, t), t, role=role) for t in texts]


@pytest.fixture(scope="module")
def basque() -> list[str]:
    return bundled("eu", 150)


@pytest.fixture(scope="module")
def english() -> list[str]:
    return bundled("en", 150)


def test_foreign_documents_go_and_own_ones_stay(apply, basque: list[str], english: list[str]) -> None:
    """effect: of a Basque text with a fifth of English, at least 95 % of the English goes and no Basque."""
    given = documents("target", basque + english[:38]) + documents("kept", english[38:])
    kept, run = apply(Language(), given)
    target = [d for d in kept if d.role == "target"]
    own = set(basque)
    assert {d.text for d in target if d.text in own} == own
    assert len(target) - len(own) <= 2
    assert run.facts["language_target"]["language"] == "eu" and run.facts["language_kept"]["language"] == "en"
    assert set(run.facts["dropped"]) == {"language:en"}
    assert sum(d.language == "eu" for d in target) >= 0.95 * len(target)
    assert all(d.language in ("en", "und") for d in kept if d.role == "kept")


def disguised(texts: list[str], seed: int) -> list[str]:
    """Texts in a language nobody knows: letters changed by one fixed permutation."""
    rng = random.Random(seed)
    vowels, others = list("aeiou"), list("bcdfghjklmnpqrstvwxyz")
    new = dict(zip(vowels, rng.sample(vowels, 5), strict=True)) | dict(zip(others, rng.sample(others, 21), strict=True))
    table = str.maketrans(new | {k.upper(): v.upper() for k, v in new.items()})
    return [t.translate(table) for t in texts]


@pytest.mark.parametrize("seed", range(4))
def test_an_unknown_language_loses_nothing(apply, basque: list[str], seed: int) -> None:
    """invariant: whatever the identifier takes an unknown language for, every document of it stays."""
    given = documents("target", disguised(basque, seed))
    kept, _ = apply(Language(), given)
    assert len(kept) == len(given)


def test_unsure_and_short_stay(apply, basque: list[str]) -> None:
    """invariant: short texts and texts of figures are never dropped."""
    odd = ["Click here to save the file.", "12 34 56 " * 40, "x", "Ctrl+Shift+F12 " * 3]
    kept, _ = apply(Language(), documents("target", basque + odd))
    assert {d.text for d in kept} >= set(odd)
    assert {d.text: d.language for d in kept}["x"] == "und"


def test_many_languages_keep_everything(apply, basque: list[str], english: list[str]) -> None:
    """worked example: no language has nine tenths of a half and half text."""
    kept, run = apply(Language(majority=0.9), documents("target", basque[:40] + english[:40]))
    assert len(kept) == 80 and run.facts["language_target"]["language"] == "scattered"
    assert {d.language for d in kept} == {"und"}


def test_the_identifier_alone_drops_nothing(apply, monkeypatch: pytest.MonkeyPatch, basque: list[str], english) -> None:
    """effect: documents that the identifier surely takes for a neighbour language stay if they read like the rest."""

    def wrong(text: str) -> tuple[str, float]:
        name, likelihood = likeliest_language(text)
        return ("es", 0.999) if name == "eu" and sum(text[:60].encode()) % 3 == 0 else (name, likelihood)

    monkeypatch.setattr("lect.stages.corpus.language.likeliest_language", wrong)
    kept, run = apply(Language(), documents("target", basque + english[:20]))
    assert {d.text for d in kept} >= set(basque)
    assert set(run.facts["dropped"]) == {"language:en"} and run.facts["language_target"]["shares"]["es"] > 0.2
    assert {d.language for d in kept} <= {"eu", "und"}


def test_own_languages_stay_and_keep_their_names(apply, basque: list[str], english: list[str]) -> None:
    """effect: with own_share both languages of a role stay, named, while a third that has little of it goes."""
    khmer = bundled("km", 4)
    given = documents("target", basque[:60] + english[:40] + khmer)
    kept, run = apply(Language(own_share=0.2), given)
    named = {d.text: d.language for d in kept}
    assert set(named) == set(basque[:60] + english[:40])
    assert set(run.facts["dropped"]) == {"language:km"}
    assert run.facts["language_target"]["language"] in ("eu en", "en eu")
    for own, texts in (("eu", basque[:60]), ("en", english[:40])):
        assert sum(named[text] == own for text in texts) >= 0.9 * len(texts)
        assert {named[text] for text in texts} <= {own, "und"}


def test_a_misnamed_document_goes_to_the_nearest_own_language(apply, monkeypatch, basque, english) -> None:
    """effect: what the identifier takes for a language that is not the role's own gets the own one it reads like."""
    wrong = set(basque[:5] + english[:5])

    def mistaken(text: str) -> tuple[str, float]:
        return ("es", 0.999) if any(one.startswith(text) for one in wrong) else likeliest_language(text)

    monkeypatch.setattr("lect.stages.corpus.language.likeliest_language", mistaken)
    kept, _ = apply(Language(own_share=0.2), documents("target", basque[:60] + english[:60]))
    named = {d.text: d.language for d in kept}
    assert {named[text] for text in basque[:5]} == {"eu"}
    assert {named[text] for text in english[:5]} == {"en"}
