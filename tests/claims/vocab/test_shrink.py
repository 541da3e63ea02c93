# SPDX-License-Identifier: Apache-2.0
"""Shrinking: leaves go by frequency as in the paper, text reads as before, and it is longer by as little as can be."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from vocab_families import FAMILIES, LINES, SAID, family

from lect.artefacts import Corpus, Model
from lect.errors import UserError
from lect.method import Run
from lect.ops.text import backend, encode
from lect.ops.tokenizer import Vocabulary
from lect.stages.vocab.shrink import left
from lect.testing import pico
from vocab_steps import apply, corpus_of, model_of


def shrink(folder: Path, base: Model, corpus: Corpus, **knobs: Any) -> tuple[Model, Run]:
    return apply("vocab/shrink", folder, base, corpus, **knobs)


@pytest.mark.parametrize("rows", [300, 420, 600])
def test_the_paper_s_loop_leaves_the_same_tokens(tmp_path: Path, rows: int) -> None:
    """One leaf at a time, the least frequent (of equals the last), whose two parts take its occurrences over."""
    rust = family("gpt2")
    model = json.loads(rust.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    rank = {pair: n for n, pair in enumerate(merges)}
    split: dict[str, tuple[str, str]] = {}
    for token in vocab:
        parts = list(token)
        while fires := [(rank[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in rank]:
            at = min(fires)[1]
            if len(parts) == 2:
                split[token] = parts[0], parts[1]
            parts[at : at + 2] = ["".join(parts[at : at + 2])]
    count = Counter(token for line in SAID for token in rust.encode(line, add_special_tokens=False).tokens)
    tokens = {*vocab}
    special = len(rust.get_vocab()) - len(vocab)
    while len(tokens) + special > rows:
        used = {part for token in tokens & split.keys() for part in split[token]}
        leaves = [token for token in tokens & split.keys() if token not in used]
        gone = min(leaves, key=lambda t: (count[t], -vocab[t]))
        for part in split[gone]:
            count[part] += count[gone]
        tokens.remove(gone)
    made, run = shrink(tmp_path / "run", model_of(rust, tmp_path / "base"), corpus_of(tmp_path / "c", SAID), rows=rows)
    assert {*json.loads(backend(made.tokenizer()).to_str())["model"]["vocab"]} == tokens
    assert len(made.tokenizer()) == rows and all(gate.passed for gate in run.gates), run.gates


def tiny(kind: str) -> tuple[Tokenizer, list[str]]:
    """A small tokenizer of one word, without rewriting, and the words that it was made for."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abc"), random.integers(2, 7))) for _ in range(80)]
    if kind == "Unigram":
        pieces = {word[a:b] for word in words for a in range(len(word)) for b in range(a + 1, len(word) + 1)}
        some = [*sorted(random.choice(sorted(pieces - {*"abc"}), 40, replace=False)), *"abc"]
        return Tokenizer(models.Unigram([("?", -30.0), *((t, -3.0 * random.random() - 3) for t in some)], 0)), words
    if kind == "WordPiece":
        pieces = {word[a:b] for word in words for a in range(len(word)) for b in range(a + 2, len(word) + 1)}
        some = [*sorted(random.choice(sorted(pieces), 24, replace=False)), *"abc"]
        every = ["?", "$", *some, *(f"##{t}" for t in some)]
        return Tokenizer(models.WordPiece({t: n for n, t in enumerate(every)}, unk_token="?")), words
    rust = Tokenizer(models.BPE())
    rust.train_from_iterator(words, trainers.BpeTrainer(vocab_size=50, show_progress=False))
    return rust, words


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordPiece"])
def test_each_token_that_goes_is_the_one_that_the_text_misses_least(kind: str) -> None:
    """A plain search, with the library to spell each token without itself, drops the same tokens."""
    rust, words = tiny(kind)
    vocabulary = Vocabulary.read(rust)
    stays = vocabulary.ancestors(vocabulary.alphabet | vocabulary.named())
    counts = Counter(i for ids in encode(rust, words) for i in ids)
    kept, times = {*vocabulary.strings}, Counter(counts)

    def spelled(i: int) -> list[int]:
        cut = vocabulary.cut(kept - {i})
        token = vocabulary.strings[i]
        model = Tokenizer.from_str(json.dumps(cut.data)).model
        inside = token.startswith("##")
        found = [cut.origin[t.id] for t in model.tokenize("$" + token[2:] if inside else token)]
        return found[1:] if inside else found

    for goal in range(len(kept) - 1, len(stays) - 1, -1):
        free = [i for i in kept - stays if vocabulary.ancestors(kept - {i}) == kept - {i}]
        spelling = {i: spelled(i) if times[i] else [] for i in free}
        gone = min(free, key=lambda i: (times[i] * max(1, len(spelling[i]) - 1), -i))
        for j in spelling[gone]:
            times[j] += times[gone]
        kept.remove(gone)
        assert left(vocabulary, {*vocabulary.strings}, stays, counts, goal) == kept


@pytest.mark.parametrize("name", FAMILIES)
def test_text_reads_as_before_at_any_size(name: str, tmp_path: Path) -> None:
    """Nothing becomes unknown, nothing is garbled, and a document whose tokens all stay keeps its segmentation."""
    rust = family(name)
    base, corpus = model_of(rust, tmp_path / "base"), corpus_of(tmp_path / "corpus", LINES[::2], LINES[1::2])
    with pytest.raises(UserError, match=r"^vocab/shrink.rows: 1 rows are too few: .* need \d+; raise rows$") as error:
        shrink(tmp_path / "none", base, corpus, rows=1)
    least = int(str(error.value).split(" need ")[1].split(";")[0])
    with pytest.raises(UserError, match=f"need {least}; raise rows"):
        shrink(tmp_path / "less", base, corpus, rows=least - 1)
    lengths, total = [], len(rust.get_vocab())
    for rows in (least, (2 * least + total) // 3, (least + 2 * total) // 3, total + 1000):
        made, run = shrink(tmp_path / str(rows), base, corpus, rows=rows)
        new = made.tokenizer()
        assert len(new) == min(rows, total) == made.load().get_input_embeddings().weight.shape[0]
        assert {gate.name for gate in run.gates} == {"unknown", "decoding", "kept_logits", "reload"}
        assert all(gate.passed for gate in run.gates), run.gates
        names = {i: token for token, i in new.get_vocab().items()}
        for before, after in zip(encode(rust, LINES), encode(new, LINES), strict=True):
            tokens = [rust.id_to_token(i) for i in before]
            if {*tokens} <= {*names.values()}:
                assert [names[i] for i in after] == tokens
        lengths.append(sum(map(len, encode(new, LINES))))
        fact = run.facts["shrink"]
        assert fact["least"] == least
        size = sum(len(line.encode()) for line in LINES[::2])
        after = sum(map(len, encode(new, LINES[::2])))
        assert fact["bytes_per_token"]["target"]["after"] == pytest.approx(size / after)
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1] == sum(map(len, encode(rust, LINES)))


@cache
def smaller(name: str) -> tuple[Tokenizer, Tokenizer, int | None]:
    """A tokenizer, what is left of it half way down to its least size, and its unknown token."""
    rust = family(name)
    vocabulary = Vocabulary.read(rust)
    stays = vocabulary.ancestors(vocabulary.alphabet | vocabulary.special() | vocabulary.named())
    stays |= {vocabulary.ids["▁"]} if "▁" in vocabulary.ids else set()
    counts = Counter(i for ids in encode(rust, LINES) for i in ids)
    kept = left(vocabulary, {*vocabulary.strings}, stays, counts, (len(stays) + len(vocabulary.strings)) // 2)
    return rust, Tokenizer.from_str(json.dumps(vocabulary.cut(kept).data)), vocabulary.unknown


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(text=st.one_of(st.text(max_size=40), st.text(alphabet="aeiknrtz -\n▁Ġ<>h1/#0xñя文", max_size=40)))
def test_any_text_reads_as_before(name: str, text: str) -> None:
    old, new, unknown = smaller(name)
    before, after = encode(old, [text])[0], encode(new, [text])[0]
    if unknown not in before:
        assert new.decode(after, skip_special_tokens=False) == old.decode(before, skip_special_tokens=False)


def lexicon(seed: int) -> tuple[Tokenizer, list[str], list[str]]:
    """A byte-level tokenizer of made-up words, and two samples of Zipf-like text of some of them."""
    random = np.random.default_rng(seed)
    stems = [
        "".join(random.choice(list("bdfgklmnprst")) + random.choice(list("aeiou")) for _ in range(3))
        for _ in range(300)
    ]
    ends = ["", "ra", "ko", "tik", "aren", "etan", "ekin"]
    words = [stem + end for stem in stems for end in ends]
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator(
        [" ".join(random.permutation(words)) for _ in range(3)],
        trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False),
    )
    weight = 1 / np.arange(1, len(words) + 1)
    order = random.permutation(words)
    texts = [" ".join(random.choice(order, 60, p=weight / weight.sum())) for _ in range(160)]
    return rust, texts[:80], texts[80:]


@pytest.mark.parametrize("seed", range(3))
def test_further_text_is_shorter_than_with_the_most_frequent_tokens(seed: int) -> None:
    """The claim: fewer tokens than with the tokens most frequent before, each with its ancestors, at equal rows."""
    rust, seen, further = lexicon(seed)
    vocabulary = Vocabulary.read(rust)
    counts = Counter(i for ids in encode(rust, seen) for i in ids)
    for rows in (400, 600):
        kept = left(vocabulary, {*vocabulary.strings}, vocabulary.alphabet, counts, rows)
        plain = set(vocabulary.alphabet)
        for i in sorted(counts, key=lambda i: (-counts[i], i)):
            if len(plain | vocabulary.ancestors([i])) <= rows:
                plain |= vocabulary.ancestors([i])
        tokens = [
            sum(map(len, encode(Tokenizer.from_str(json.dumps(vocabulary.cut(ids).data)), further)))
            for ids in (kept, plain)
        ]
        assert len(kept) == rows and len(plain) >= rows - 2
        assert tokens[0] < 0.97 * tokens[1], (rows, tokens)


def test_both_roles_count_alike(tmp_path: Path) -> None:
    """Ten times more kept text of the same kind changes nothing."""
    base = model_of(family("gpt2"), tmp_path / "base")
    for rows in (300, 450):
        made = [
            shrink(
                tmp_path / f"{rows}-{n}", base, corpus_of(tmp_path / f"c{rows}-{n}", SAID[:6], SAID[6:] * n), rows=rows
            )
            for n in (1, 10)
        ]
        assert made[0][0].tokenizer().get_vocab() == made[1][0].tokenizer().get_vocab()


def test_rows_are_a_multiple_where_the_least_number_allows_it(tmp_path: Path) -> None:
    base, corpus = pico.model("gemma3", tmp_path / "base", padding=8), pico.corpus(tmp_path / "corpus")
    _, run = shrink(tmp_path / "free", base, corpus, rows=500)
    least = run.facts["shrink"]["least"]
    for rows, multiple, want in ((500, 64, 448), (least + 1, 64, least), (least + 70, 64, (least + 70) // 64 * 64)):
        made, run = shrink(tmp_path / f"{rows}-{multiple}", base, corpus, rows=rows, multiple=multiple)
        assert made.load().get_input_embeddings().weight.shape[0] == want >= least
        assert all(gate.passed for gate in run.gates)


def test_a_chat_template_keeps_its_words(tmp_path: Path) -> None:
    """A template renders to the same tokens at the least size, where the tokens of its words would have gone."""
    rust = Tokenizer.from_str(family("qwen").to_str())
    rust.add_special_tokens(["<|reserved_special_token_7|>"])
    template = "{{ '<|im_start|>' + 'speichern' + messages[0]['content'] + '<think>' }}"
    base, corpus = model_of(rust, tmp_path / "base", template), corpus_of(tmp_path / "corpus", ["Taula bat, taula bi."])
    with pytest.raises(UserError) as error:
        shrink(tmp_path / "none", base, corpus, rows=1)
    rows = int(str(error.value).split(" need ")[1].split(";")[0])
    made, _ = shrink(tmp_path / "run", base, corpus, rows=rows)
    new, old = made.tokenizer(), base.tokenizer()
    assert {"<|im_start|>", "<think>"} <= {*new.get_vocab()} and "<|reserved_special_token_7|>" not in new.get_vocab()
    assert new.chat_template == template
    said = encode(old, ["speichern"])[0]
    assert len(said) < len("speichern") and encode(new, ["speichern"]) == [
        new.convert_tokens_to_ids(old.convert_ids_to_tokens(said))
    ]
    written = [t.apply_chat_template([{"role": "user", "content": "xyz"}], return_dict=False) for t in (new, old)]
    names = [t.convert_ids_to_tokens(ids) for t, ids in zip((new, old), written, strict=True)]
    assert names[0] == names[1]
