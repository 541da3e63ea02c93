# SPDX-License-Identifier: Apache-2.0
"""Whole terms are masked, mistakes in them weigh more by the authors' rule, and terms are learnt better."""

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
from lect.errors import UserError
from lect.parts.objective.masked_terms import MaskedTerms
from lect.testing import pico
from lect.testing.contract import Bench
from masked_streams import applied, english, field, stream


def loop(part: MaskedTerms, classes: list[int], first: list[bool], draws: list[float]) -> list[tuple[str, int]]:
    """Masked tokens as (kind, place): terms by the draw of their first token, then tokens that are left over."""
    chosen: list[tuple[str, int]] = []
    at = 0
    while at < len(classes):
        stop = at + 1
        while stop < len(classes) and not first[stop]:
            stop += 1
        if classes[at] == 1 and draws[at] < part.term_share:
            chosen += [("term", n) for n in range(at, stop)]
        else:
            for n in range(at, stop):
                left = draws[n]
                if classes[at] == 1 and n == at:
                    left = (left - part.term_share) / (1 - part.term_share)
                chosen += [("word", n)] if left < part.word_share else []
        at = stop
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_a_plain_loop(seed: int) -> None:
    """Weights: w = the share of terms among the masks, softmax of (max(w, 1/2), min(w, 1/2)), plus one."""
    draw = np.random.default_rng(seed)
    part = MaskedTerms(term_share=(0.25, 0.9)[seed % 2], word_share=(0.15, 0.05)[seed % 2])
    class_t = np.repeat(draw.choice([-1, 0, 1], 60), draw.integers(1, 4, 60)).astype(np.int8)
    first_t = (class_t < 1) | (draw.random(len(class_t)) < 0.6)
    first_t[1:] |= class_t[1:] != class_t[:-1]
    first_t[0] = True
    draw_t = draw.random(len(class_t))
    chosen = loop(part, class_t.tolist(), first_t.tolist(), draw_t.tolist())
    share = sum(kind == "term" for kind, _ in chosen) / len(chosen)
    high, low = math.exp(max(0.5, share)), math.exp(min(0.5, share))
    weight = {"term": 1 + high / (high + low), "word": 1 + low / (high + low)}
    expected = np.zeros(len(class_t))
    for kind, n in chosen:
        expected[n] = weight[kind]
    assert {kind for kind, _ in chosen} == {"term", "word"}
    assert part.counts(class_t, first_t, draw_t) == pytest.approx(expected)
    by_hand = MaskedTerms(term_share=part.term_share, word_share=part.word_share, weight=7.0)
    assert {*by_hand.counts(class_t, first_t, draw_t).tolist()} == {0.0, 1.0, 7.0}


def test_terms_weigh_more_between_1_and_1_2_times() -> None:
    part = MaskedTerms()
    assert part.weights(0, 10) == pytest.approx((1 + 1 / (1 + math.exp(-0.5)), 1 + 1 / (1 + math.exp(0.5))))
    assert part.weights(5, 5) == pytest.approx((1.5, 1.5))
    ratios = [a / b for a, b in (part.weights(n, 20 - n) for n in range(21))]
    assert min(ratios) == pytest.approx(1.0) and max(ratios) == ratios[0] == pytest.approx(ratios[-1])
    assert 1.17 < max(ratios) < 1.19


def test_whole_terms_are_masked_and_nothing_else_is_shown() -> None:
    tokenizer = pico.build("bert")[1]
    listing = {"insert menu": 1, "the document": 1, "formula": 1}
    objective = {"use": "masked_terms", "with": {"word_share": 0.0, "term_share": 0.5}}
    terms = {tuple(tokenizer(t, add_special_tokens=False).input_ids) for t in listing}
    data = stream(tokenizer, english(), objective, listing, room=256)
    masked = 0
    for number in range(20):
        batch = data.batch(number)
        places, targets = batch.row.chosen_m.tolist(), batch.target_t.tolist()
        if len(targets) == 1:
            continue  # a batch without a chosen term has one chosen token
        assert {*batch.row.ids_t[batch.row.chosen_m].tolist()} == {tokenizer.mask_token_id}
        runs: list[list[int]] = []
        for n, (place, target) in enumerate(zip(places, targets, strict=True)):
            if n and places[n - 1] == place - 1 and tuple(runs[-1]) not in terms:
                runs[-1].append(target)
            else:
                runs.append([target])
        assert {tuple(run) for run in runs} <= terms
        masked += len(runs)
    assert masked > 40


def test_shares_and_weights_of_a_whole_batch() -> None:
    tokenizer = pico.build("bert")[1]
    data = stream(tokenizer, english(), "masked_terms", {"formula": 1, "menu": 1}, room=2000)
    batches = [data.batch(n) for n in range(40)]
    terms, words = (tokenizer.convert_tokens_to_ids([*some]) for some in (("formula", "menu"), ("the", "open")))
    for ids, share in ((terms, 0.25 + 0.75 * 0.15), (words, 0.15)):
        hidden = sum(int(torch.isin(b.target_t, torch.tensor(ids)).sum()) for b in batches)
        shown = sum(int(torch.isin(b.row.ids_t, torch.tensor(ids)).sum()) for b in batches)
        assert hidden / (hidden + shown) == pytest.approx(share, abs=0.04)
    assert all(float(b.weight_t.sum()) == pytest.approx(b.tokens, rel=1e-5) for b in batches)
    assert all(len({*b.weight_t.tolist()}) == 2 for b in batches)


def test_terms_come_from_a_file_or_from_the_text(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("Pivot table\ncell\n", "utf-8")
    assert MaskedTerms(terms=str(tmp_path / "terms.txt")).listing(field()) == {"pivot table": 1, "cell": 1}
    assert MaskedTerms(count=4).listing(field()) == dict.fromkeys(["cell", "pivot", "table", "pivot table"], 1)
    with pytest.raises(UserError, match=r"^objective/masked_terms: .*no\.txt: cannot be read"):
        MaskedTerms(terms=str(tmp_path / "no.txt")).listing(field())


def corpus(folder: Path, words: list[str]) -> Corpus:
    """Texts of ten words: the term at a place drawn is told by the word before it, the rest are drawn from four."""
    draw, rows = random.Random(3), []
    for split, count in (("train", 200), ("calibration", 10)):
        for n in range(count):
            text = draw.choices(words[6:10], k=10)
            which, at = draw.randrange(3), draw.randrange(1, 9)
            text[at - 1 : at + 1] = [words[3 + which], words[which]]
            rows.append(Document(id=f"{split}{n:04d}", text=" ".join(text), role="target", split=split))
    folder.mkdir(parents=True)
    return Corpus.write(folder, rows)


def bits(model: Model, words: list[str]) -> float:
    """Bits that a term costs where it is masked."""
    live, tokenizer = model.load(), model.tokenizer()
    total, draw = 0.0, random.Random(9)
    for n in range(30):
        text = draw.choices(words[6:10], k=10)
        text[4:6] = [words[3 + n % 3], tokenizer.mask_token]
        with torch.no_grad():
            logits_v = live(**tokenizer(" ".join(text), return_tensors="pt")).logits[0, 6]
        target = tokenizer.convert_tokens_to_ids(words[n % 3])
        total += cross_entropy(logits_v, torch.tensor(target)).item() / math.log(2) / 30
    return total


def test_terms_are_learnt_better_than_with_uniform_masking(bench: Bench, tmp_path: Path) -> None:
    """Over three seeds: a tenth fewer bits a term at least, with as many masks and updates."""
    base = bench.model("bert")
    vocab = base.tokenizer().get_vocab()
    words = sorted(t for t in vocab if t.isascii() and t.isalpha() and t.islower() and len(t) > 2)[:10]
    (tmp_path / "terms.txt").write_text("\n".join(words[:3]), "utf-8")
    some = corpus(tmp_path / "corpus", words)
    listed = {"terms": str(tmp_path / "terms.txt"), "term_share": 0.5, "word_share": 0.12}
    share = (0.5 + 9 * 0.12 + 0.5 * 0.12) / 10
    both: dict[str, Any] = {
        "terms": {"use": "masked_terms", "with": listed},
        "uniform": {"use": "masked_tokens", "with": {"share": share}},
    }
    knobs = {"tokens": 64 * 120, "learning_rate": 3e-3}
    for seed in range(3):
        found = {}
        for name, objective in both.items():
            place = tmp_path / f"{name}{seed}"
            run = applied("pretrain/masked", place, base, some, seed=seed, objective=objective, **knobs)
            found[name] = bits(Model(place / "out"), words)
            assert ("listed" in run.facts) == (name == "terms")
        assert found["terms"] < 0.9 * found["uniform"], found
    assert run.facts.get("listed") is None
