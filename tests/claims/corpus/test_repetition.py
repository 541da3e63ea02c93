# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.ops.documents import units
from lect.stages.corpus.kinds import document_id
from lect.stages.corpus.repetition import STATISTICS, Repetition, statistics

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "tu", "zer", "ban") for b in ("ra", "ne", "to", "ki", "su", "pe", "gi")]


def naive(text: str) -> dict[str, float]:
    """Table A1 as loops over words, lines and paragraphs."""
    out: dict[str, float] = {}
    for name, parts in (("lines", text.split("\n")), ("paragraphs", re.split(r"\n\s*\n", text))):
        parts = [p.strip() for p in parts if p.strip()]
        again = [p for i, p in enumerate(parts) if p in parts[:i]]
        out[name] = len(again) / len(parts) if parts else 0.0
        out[name[:-1] + "_characters"] = sum(map(len, again)) / sum(map(len, parts)) if parts else 0.0
    words = units(text)
    total = sum(map(len, words)) or 1
    for n in (2, 3, 4):
        count = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        best = max(count.values(), default=0)
        longest = max((sum(map(len, gram)) for gram, c in count.items() if c == best), default=0)
        out[f"top_{n}_gram"] = min(1.0, best * longest / total) if best > 1 else 0.0
    for n in (5, 6, 7, 8, 9, 10):
        seen: set[tuple[str, ...]] = set()
        covered: set[int] = set()
        for i in range(len(words) - n + 1):
            gram = tuple(words[i : i + n])
            if gram in seen:
                covered.update(range(i, i + n))
            seen.add(gram)
        out[f"repeated_{n}_grams"] = sum(len(words[i]) for i in covered) / total
    return out


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(["a b", "bc", "d", "\n", "\n\n", "é", "雨"])).map(" ".join)))
def test_same_as_the_formulas_written_as_loops(text: str) -> None:
    """equation: the 13 shares of table A1 (arXiv:2112.11446, appendix A1)."""
    found = dict(zip(STATISTICS, statistics(text).tolist(), strict=True))
    assert found == pytest.approx(naive(text))


def test_worked_example() -> None:
    """worked example: ten words of one letter, said twice, on two lines."""
    text = "a b c d e f g h i j\na b c d e f g h i j"
    found = dict(zip(STATISTICS, statistics(text).tolist(), strict=True))
    assert found["lines"] == 0.5 and found["line_characters"] == 0.5 and found["paragraphs"] == 0
    assert found["top_2_gram"] == pytest.approx(2 * 2 / 20)
    assert found["repeated_10_grams"] == 0.5


def sentences(rng: random.Random, count: int, share: float) -> str:
    """Lines of random words; each is the first line again with chance ``share``."""
    lines = [" ".join(rng.choices(WORDS, k=9)) for _ in range(count)]
    return "\n".join([lines[0], *(lines[0] if rng.random() < share else line for line in lines[1:])])


def test_drops_the_outliers_of_the_text_itself(apply) -> None:
    """effect: stuck texts go, all others stay, in a plain corpus and in one that repeats itself by nature."""
    for seed in range(3):
        rng = random.Random(seed)
        for natural, bad in ((0.0, 0.8), (0.25, 0.97)):
            good = [sentences(rng, 40, natural * rng.random()) for _ in range(200)]
            stuck = [sentences(rng, 40, bad) for _ in range(10)]
            given = [Document(document_id("target", t), t) for t in good + stuck]
            kept, run = apply(Repetition(), given)
            assert {d.text for d in kept} == set(good)
            assert sum(run.facts["dropped"].values()) == 10


def test_threshold_is_median_and_upper_quartile() -> None:
    """equation: median + 6 * 1.4826 * (upper quartile - median), and always_keep below it."""
    shares = np.linspace(0, 0.2, 101)[:, None] * np.ones(len(STATISTICS))
    assert Repetition().thresholds(shares) == pytest.approx(max(0.5, 0.1 + 6 * 1.4826 * 0.05))
    assert Repetition(deviations=2.0).thresholds(shares) == pytest.approx(0.5)
