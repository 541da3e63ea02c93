# SPDX-License-Identifier: Apache-2.0
"""Rates by stratum, strata from files or from the text, and rare words that are learnt better."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lect.artefacts import Corpus, Document, Model
from lect.parts.objective.kind import Texts
from lect.parts.objective.stratified import COMMON, EASY, TERM, Stratified
from lect.testing import pico
from lect.testing.contract import Bench
from masked_streams import applied, english, field, stream


def test_each_stratum_has_its_rate() -> None:
    """0.15, 0.20 and 0.25, those of the paper; punctuation has the first."""
    draw = np.random.default_rng(1)
    class_t = draw.choice([-1, 0, COMMON, EASY, TERM], 100_000).astype(np.int8)
    count_t = Stratified().counts(class_t, np.ones(100_000, bool), draw.random(100_000))
    assert {*count_t.tolist()} == {0.0, 1.0}
    for number, rate in ((-1, 0.15), (0, 0.25), (COMMON, 0.15), (EASY, 0.2), (TERM, 0.25)):
        assert count_t[class_t == number].mean() == pytest.approx(rate, abs=0.01)


def test_strata_of_the_frequencies_of_all_the_text() -> None:
    target, kept = ["a a a a b b", "c d"], ["a a a a e e b b f"]
    found = Stratified(common_running=0.5, easy_running=0.35).listing(Texts(target=target, kept=kept, seed=0))
    assert found == {"a": COMMON, "b": EASY, "e": EASY}  # 8, 4 and 2 of 17 running words
    assert Stratified(common_running=0, easy_running=0).listing(Texts(target=target, kept=kept, seed=0)) == {}


def test_strata_of_files_and_terms(tmp_path: Path) -> None:
    for name, words in (("common", "The\nof"), ("easy", "of\ncell\nopen"), ("terms", "cell\npivot table")):
        (tmp_path / name).write_text(words, "utf-8")
    texts = Texts(target=["the cell of the table"], kept=[], seed=0)
    files = {name: str(tmp_path / name) for name in ("common", "easy", "terms")}
    expected = {"the": COMMON, "of": EASY, "cell": TERM, "open": EASY, "pivot table": TERM}
    assert Stratified(**files).listing(texts) == expected
    found = Stratified(count=4, common_running=1.0).listing(field())
    assert {term for term, number in found.items() if number == TERM} == {"cell", "pivot", "table", "pivot table"}


def test_tokens_of_a_text_are_masked_by_their_words() -> None:
    tokenizer = pico.build("bert")[1]
    rates = {"common_share": 0.0, "easy_share": 0.0, "other_share": 0.9}
    listing = {"the": COMMON, "to": COMMON, "menu": EASY}
    data = stream(tokenizer, english(), {"use": "stratified", "with": rates}, listing, room=256)
    hidden = {t for n in range(20) for t in tokenizer.convert_ids_to_tokens(data.batch(n).target_t.tolist())}
    assert not hidden & {"the", "to", "menu", ".", ","}
    assert {"formula", "insert", "table"} <= hidden


def words_of(model: Model) -> list[str]:
    """Four words that will be common, and twelve that will be rare."""
    vocab = model.tokenizer().get_vocab()
    return sorted(t for t in vocab if t.isascii() and t.isalpha() and t.islower() and len(t) > 2)[:16]


def text(words: list[str], draw: random.Random, rare: int) -> list[str]:
    """Nine common words; the rare one behind the middle is told by its place in the list, which the fifth one gives."""
    made = draw.choices(words[:4], k=9)
    made[4:6] = [words[4 + rare], words[10 + rare]]
    return made


def bits(model: Model, words: list[str]) -> float:
    """Bits that a rare word costs where it is masked."""
    live, tokenizer = model.load(), model.tokenizer()
    total, draw = 0.0, random.Random(9)
    for n in range(30):
        made = text(words, draw, n % 6)
        made[5] = tokenizer.mask_token
        with torch.no_grad():
            logits_v = live(**tokenizer(" ".join(made), return_tensors="pt")).logits[0, 6]
        target = tokenizer.convert_tokens_to_ids(words[10 + n % 6])
        total += cross_entropy(logits_v, torch.tensor(target)).item() / math.log(2) / 30
    return total


def test_rare_words_are_learnt_better_than_with_one_rate(bench: Bench, tmp_path: Path) -> None:
    """Over three seeds: a tenth fewer bits at least, with as many masks and updates, and rates far apart."""
    base, draw = bench.model("bert"), random.Random(2)
    words = words_of(base)
    rows = [
        Document(
            id=f"{n:04d}",
            text=" ".join(text(words, draw, n % 6)),
            role="target",
            split="train" if n < 200 else "calibration",
        )
        for n in range(210)
    ]
    (tmp_path / "corpus").mkdir()
    corpus = Corpus.write(tmp_path / "corpus", rows)
    rates = {"common_share": 0.05, "easy_share": 0.05, "other_share": 0.45}
    both: dict[str, Any] = {
        "strata": {"use": "stratified", "with": {"common_running": 0.75, "easy_running": 0.0, **rates}},
        "uniform": {"use": "masked_tokens", "with": {"share": (7 * 0.05 + 2 * 0.45) / 9}},
    }
    knobs = {"tokens": 64 * 120, "learning_rate": 3e-3}
    for seed in range(3):
        found = {}
        for name, objective in both.items():
            place = tmp_path / f"{name}{seed}"
            run = applied("pretrain/masked", place, base, corpus, seed=seed, objective=objective, **knobs)
            found[name] = bits(Model(place / "out"), words)
            if name == "strata":
                assert {*run.facts["listed"]["1"]["first"]} == {*words[:4]}
        assert found["strata"] < 0.9 * found["uniform"], found
