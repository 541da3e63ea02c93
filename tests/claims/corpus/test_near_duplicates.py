# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from lect.artefacts import Document
from lect.stages.corpus.kinds import document_id
from lect.stages.corpus.near_duplicates import NearDuplicates, bands

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "tu", "zer", "ban") for b in ("ra", "ne", "to", "ki", "su", "pe", "gi")]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def true_jaccard(a: str, b: str, n: int = 5) -> float:
    left, right = ({tuple(w[i : i + n]) for i in range(max(1, len(w) - n + 1))} for w in (words(a), words(b)))
    return len(left & right) / len(left | right)


def texts(seed: int, families: int = 25) -> list[str]:
    """Random texts, each with copies in which a few words are changed."""
    rng = random.Random(seed)
    out = []
    for _ in range(families):
        base = rng.choices(WORDS, k=rng.randint(30, 400))
        for changes in (0, 1, 2, 3, 4, 6, 10):
            copy = list(base)
            for _ in range(changes):
                copy[rng.randrange(len(copy))] = rng.choice(WORDS)
            out.append(" ".join(copy))
    return sorted(set(out), key=lambda t: rng.random())


def documents(role: str, given: list[str]) -> list[Document]:
    return [Document(document_id(role, t), t, role=role) for t in given]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_parity_with_the_true_jaccard_index_of_all_pairs(apply, threshold: float) -> None:
    """parity: the documents kept are those that a greedy pass over all pairs keeps."""
    given = documents("target", texts(1))
    expected: list[Document] = []
    for document in sorted(given, key=lambda d: (-len(d.text), d.id)):
        if all(true_jaccard(document.text, other.text) < threshold for other in expected):
            expected.append(document)
    kept, run = apply(NearDuplicates(threshold=threshold), given)
    assert 20 < len(expected) < len(given) - 20
    assert {d.id for d in kept} == {d.id for d in expected}
    assert run.facts["dropped"] == {"near_duplicate": len(given) - len(expected)}


def test_order_and_role(apply) -> None:
    """invariant: the order of documents does not matter, and a copy in the kept text yields to the target."""
    given = documents("target", texts(2, 10)) + documents("kept", [*texts(2, 10), *texts(9, 1)])
    first, run = apply(NearDuplicates(), given)
    second, _ = apply(NearDuplicates(), given[::-1])
    assert {d.id for d in first} == {d.id for d in second}
    assert {d.text for d in first if d.role == "kept"} <= set(texts(9, 1))
    assert run.facts["dropped"]["near_duplicate_of_target"] >= 10


def test_never_drops_both(apply) -> None:
    """invariant: a dropped text has a kept one that is as near as the threshold says."""
    given = documents("target", texts(3))
    kept, _ = apply(NearDuplicates(threshold=0.6), given)
    left = {d.id for d in kept}
    for document in given:
        if document.id not in left:
            assert any(true_jaccard(document.text, other.text) >= 0.6 for other in kept)


def test_scripts_without_spaces(apply) -> None:
    """worked example: two Chinese sentences that differ in one character of forty are one text."""
    base = "昨天下了很大的雨今天太阳出来了明天可能会下雪所以请你带上外套和雨伞出门不要忘记给妈妈打电话告诉她你几点回家"
    given = documents(
        "target",
        [base, base.replace("雪", "雾"), "完全不同的另外一句话没有任何相同的地方只是为了比较而写在这里", "?!", "..."],
    )
    kept, run = apply(NearDuplicates(threshold=0.7), given)
    assert len(kept) == 4 and run.facts["dropped"] == {"near_duplicate": 1}


def test_equal_ids_are_not_dropped_together(apply) -> None:
    """invariant: of three copies with one id, one stays."""
    document = documents("target", texts(4, 1)[:1])[0]
    kept, _ = apply(NearDuplicates(), [document, replace(document, source="b"), replace(document, source="c")])
    assert len(kept) == 1


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_miss_one_pair_in_a_thousand(threshold: float) -> None:
    """equation: chance of a shared band, 1 - (1 - s**r)**b, at the threshold."""
    count, rows = bands(threshold)
    assert count * rows <= 128
    assert 1 - (1 - threshold**rows) ** count >= 0.999 or rows == 1
