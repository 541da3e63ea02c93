# SPDX-License-Identifier: Apache-2.0
"""Extension: merging goes on where the old tokenizer stops, fewer tokens say the same text, and nothing old moves."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from vocab_families import FAMILIES, LINES, family

from lect.artefacts import Corpus, Model
from lect.errors import UserError
from lect.method import Run
from lect.ops.growth import add, merges, pieces, words
from lect.ops.text import encode
from lect.ops.tokenizer import Vocabulary
from lect.registry import build_step
from lect.testing import pico
from lect.testing.new_tokens import documents

TEXTS = [f"{line} gelaxkatxo gelaxkatxoa gelaxkatxoak сохраняющий сохраняющие" for line in LINES]


def grown(name: str, count: int = 30) -> tuple[Any, Any, Vocabulary, Vocabulary]:
    """Old and new tokenizer of a family, and their vocabularies."""
    old = family(name)
    before = Vocabulary.read(old)
    counted = words(old, before, TEXTS)
    made = merges(counted, before, count=count, least=2, longest=20)
    cut = add(before.cut(before.strings), made, {"": 1000, **{token: 50 for *_, token in made}})
    return old, Tokenizer.from_str(json.dumps(cut.data)), before, Vocabulary(cut.data)


def naive_merges(counted: Counter[tuple[int, ...]], old: Vocabulary, count: int) -> list[tuple[str, str]]:
    """Algorithm 1 of the paper as a loop: count every pair anew, join the most frequent (of equals, the oldest)."""
    number = dict(old.ids)
    lines = {tuple(old.strings[i] for i in word): n for word, n in counted.items()}
    assert len(lines) == len(counted)
    found: list[tuple[str, str]] = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for line, n in lines.items():
            for pair in pairwise(line):
                pairs[pair] += n
        best = min(pairs, key=lambda pair: (-pairs[pair], number[pair[0]], number[pair[1]]))
        found.append(best)
        number.setdefault(old.joined(*best), max(*old.strings, *number.values()) + 1)
        joined: Counter[tuple[str, ...]] = Counter()
        for line, n in lines.items():
            out: list[str] = []
            for token in line:
                if out and (out[-1], token) == best:
                    out[-1] = old.joined(out[-1], token)
                else:
                    out.append(token)
            joined[tuple(out)] += n
        lines = dict(joined)
    return found


@pytest.mark.parametrize("name", ["gpt2", "gemma", "bert"])
def test_merges_are_those_of_the_naive_loop(name: str) -> None:
    old = Vocabulary.read(family(name))
    counted = words(family(name), old, TEXTS)
    ours = merges(counted, old, count=25, least=1, longest=99)
    assert [(left, right) for left, right, _ in ours] == naive_merges(counted, old, len(ours))


BPE = [name for name in FAMILIES if Vocabulary.read(family(name)).kind == "BPE"]


@pytest.mark.parametrize("name", BPE)
def test_fewer_tokens_say_the_same_and_every_new_token_is_reached(name: str) -> None:
    old, new, before, after = grown(name)
    was, now = encode(old, TEXTS), encode(new, TEXTS)
    assert sum(map(len, now)) < 0.97 * sum(map(len, was))
    fresh = {after.ids[t] for t in after.ids if t not in before.ids}
    assert fresh
    reached = after.ancestors({i for ids in now for i in ids})
    assert fresh <= reached
    for one, other in zip(was, now, strict=True):
        assert old.decode(one, skip_special_tokens=False) == new.decode(other, skip_special_tokens=False)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40) | st.lists(st.sampled_from(TEXTS), max_size=2).map(" ".join))
def test_any_text_decodes_as_before(name: str, text: str) -> None:
    old, new, *_ = GROWN[name]
    (was,), (now,) = encode(old, [text]), encode(new, [text])
    assert old.decode(was, skip_special_tokens=False) == new.decode(now, skip_special_tokens=False)
    assert len(now) <= len(was)


@pytest.mark.parametrize("name", FAMILIES)
def test_pieces_are_the_old_tokens_that_spell_the_new_one(name: str) -> None:
    old, _, before, after = grown(name)
    fresh = [t for t in after.ids if t not in before.ids]
    for token, ids in zip(fresh, pieces(before, old, after, fresh), strict=True):
        spelled = "".join(before.strings[i].removeprefix(before.prefix if n else "") for n, i in enumerate(ids))
        assert len(ids) > 1
        assert spelled == token


GROWN = {name: grown(name) for name in FAMILIES}


def made_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def run_in(folder: Path) -> Run:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True)
    return Run(folder=folder / "out", scratch=folder / "scratch")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", pico.CAUSAL)
def test_old_rows_are_bit_equal_and_new_rows_are_the_mean_of_their_pieces(
    tmp_path: Path, kind: str, tied: bool
) -> None:
    base = pico.model(kind, tmp_path / "base", tied=tied, padding=7)
    corpus = Corpus.write(made_folder(tmp_path / "corpus"), documents())
    run = run_in(tmp_path / "run")
    step = build_step("vocab/extend", {"tokens": 20, "least": 2, "multiple": 1})
    made = step.apply(run, model=base, corpus=corpus)
    assert isinstance(made, Model)
    assert all(gate.passed for gate in run.gates)
    old, new = base.tokenizer(), made.tokenizer()
    before, after = base.load(), made.load()
    fresh = [t for t in new.get_vocab() if t not in old.get_vocab()]
    seen = Vocabulary.read(new).ancestors({i for ids in encode(new, corpus.texts("target")) for i in ids})
    assert {new.get_vocab()[token] for token in fresh} <= seen
    assert len(fresh) == run.facts["new"]["tokens"] == 20
    for get in ("get_input_embeddings", "get_output_embeddings"):
        one, other = getattr(before, get)().weight, getattr(after, get)().weight
        for token, i in old.get_vocab().items():
            assert torch.equal(one[i], other[new.get_vocab()[token]])
        for token in fresh:
            ids = [piece.id for piece in old.backend_tokenizer.model.tokenize(token)]
            torch.testing.assert_close(other[new.get_vocab()[token]], one[ids].mean(0))


def test_rows_come_in_the_asked_multiple(tmp_path: Path) -> None:
    base = pico.model("gpt2", tmp_path / "base")
    corpus = Corpus.write(made_folder(tmp_path / "corpus"), documents())
    run = run_in(tmp_path / "run")
    made = build_step("vocab/extend", {"tokens": 40, "least": 2, "multiple": 16}).apply(run, model=base, corpus=corpus)
    assert isinstance(made, Model)
    assert len(made.load().get_input_embeddings().weight) % 16 == 0


def test_a_text_with_nothing_to_merge_is_refused(tmp_path: Path) -> None:
    base = pico.model("gpt2", tmp_path / "base")
    corpus = Corpus.write(made_folder(tmp_path / "corpus"), documents())
    step = build_step("vocab/extend", {"tokens": 40, "least": 100_000})
    with pytest.raises(UserError, match="lower least"):
        step.apply(run_in(tmp_path / "run"), model=base, corpus=corpus)
