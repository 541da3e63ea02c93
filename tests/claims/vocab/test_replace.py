# SPDX-License-Identifier: Apache-2.0
"""Replacement: fewer tokens say the same text, at the size asked for, and what is spelled as before keeps its row."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from hypothesis import given as given_text
from hypothesis import settings as tried
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers
from vocab_families import FAMILIES, SAID, family

from lect.artefacts import Corpus, Document, Model
from lect.data import path
from lect.errors import UserError
from lect.method import Run
from lect.ops.text import encode
from lect.ops.tokenizer import Vocabulary
from lect.ops.train_tokenizer import letters, origins, put, runtime_split, settings, train, word_split
from lect.registry import build_step
from lect.testing import pico

SIZE = 1500
KHMER = "ខ្ញុំ\u200bចូលចិត្ត\u200bភាសា\u200bខ្មែរ។"


@cache
def bundled(language: str, count: int = 60) -> list[str]:
    """Real text: the first pages of a language."""
    with path(language).open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


@cache
def replaced(name: str, language: str = "eu", kind: str = "", split: bool = True) -> tuple[Vocabulary, dict[str, Any]]:
    """The old vocabulary of a family, and its ``tokenizer.json`` after training on real text."""
    old, texts = Vocabulary.read(family(name)), bundled(language)[:-10]
    model, alphabet = settings(old, kind or old.kind), letters(old, texts, 2000)
    made = train(old, texts, kind=kind or old.kind, size=SIZE, least=2, alphabet=alphabet, split=split)
    keep = {int(token["id"]) for token in old.added} | old.alphabet | old.named()
    own = (split and runtime_split(old)) or old.data["pre_tokenizer"]
    frame = Vocabulary({**old.data, "pre_tokenizer": own})
    return old, put(frame, old, keep, made, model, rows=SIZE, multiple=1)


def said(tokenizer: Any, text: str) -> tuple[list[int], str]:
    """Ids of a text, and what they decode to."""
    (ids,) = encode(tokenizer, [text])
    return ids, tokenizer.decode(ids, skip_special_tokens=False)


def test_words_keep_marks_and_joiners_and_the_border_stands_in_front() -> None:
    cut = pre_tokenizers.Split(Regex(word_split(Vocabulary.read(family("qwen")))), "isolated")

    def words(text: str) -> list[str]:
        return [word for word, _ in cut.pre_tokenize_str(text)]

    assert words(KHMER) == ["ខ្ញុំ", "\u200bចូលចិត្ត", "\u200bភាសា", "\u200bខ្មែរ", "។"]
    assert words("می\u200cخواهم क्\u200dष") == ["می\u200cخواهم", " क्\u200dष"]
    assert words("It's 'so', 12345 a.b") == ["It", "'s", " '", "so", "',", " ", "123", "45", " a", ".", "b"]
    assert words("a  b\n\n  c ") == ["a", " ", " b", "\n\n", " ", " c", " "]
    assert [word for word, _ in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("ខ្ញុំ")] != ["ខ្ញុំ"]


@pytest.mark.parametrize("language", ["eu", "km"])
@pytest.mark.parametrize("name", FAMILIES)
def test_fewer_tokens_say_the_same_text_that_training_did_not_see(name: str, language: str) -> None:
    old, data = replaced(name, language)
    new = Tokenizer.from_str(json.dumps(data))
    before = after = whole = 0
    for text in bundled(language)[-10:] + (SAID if language == "eu" else []):
        (was, one), (now, other) = said(family(name), text), said(new, text)
        if old.unknown is None or old.unknown not in was:
            whole += 1
            assert one == other
            if text not in SAID:
                before, after = before + len(was), after + len(now)
    assert whole or language == "km"
    assert after <= 0.55 * before


@pytest.mark.parametrize("name", FAMILIES)
def test_size_is_kept_and_control_tokens_stay(name: str) -> None:
    old, data = replaced(name)
    new = Vocabulary(data)
    assert len(new.strings) == SIZE
    assert sorted(new.strings) == [*range(SIZE)]
    assert Tokenizer.from_str(json.dumps(data)).get_vocab_size() == SIZE
    strip = {"id"}
    assert [{k: v for k, v in t.items() if k not in strip} for t in new.added] == [
        {k: v for k, v in t.items() if k not in strip} for t in old.added
    ]
    both = family(name), Tokenizer.from_str(json.dumps(data))
    framed = [[tokenizer.encode("Gorde."), tokenizer.encode("Gorde.", "Ireki.")] for tokenizer in both]
    special = [[t for e in one for t, m in zip(e.tokens, e.special_tokens_mask, strict=True) if m] for one in framed]
    assert special[0] == special[1]
    assert bool(special[0]) == (name not in ("gpt2", "qwen", "llama2", "openai"))
    paddings = [{k: v for k, v in (tokenizer.padding or {}).items() if k != "pad_id"} for tokenizer in both]
    assert paddings[0] == paddings[1]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
@tried(max_examples=40, deadline=None)
@given_text(text=st.text(max_size=40) | st.lists(st.sampled_from([*SAID, KHMER, "<0x41>"]), max_size=3).map(" ".join))
def test_any_text_decodes_as_before(name: str, kind: str, text: str) -> None:
    if kind == "Unigram" and name in ("bert", "openai"):
        with pytest.raises(UserError, match="choose bpe"):
            replaced(name, kind=kind)
        return
    old, data = replaced(name, kind="WordPiece" if name == "bert" else kind)
    new = Tokenizer.from_str(json.dumps(data))
    (was, one), (now, other) = said(family(name), text), said(new, text)
    if old.unknown is None or old.unknown not in was:
        assert one == other
        assert Vocabulary(data).unknown is None or Vocabulary(data).unknown not in now


def test_text_that_spells_a_byte_token_stays_text() -> None:
    """Also where training has seen few characters: a Unigram would rather take the token than spell what it lacks."""
    old, texts = Vocabulary.read(family("gemma")), ["aeiou aeio aei ae"] * 9
    made = train(old, texts, kind="Unigram", size=120, least=2, alphabet=letters(old, texts, 20), split=True)
    keep = {int(token["id"]) for token in old.added} | old.alphabet
    new = Tokenizer.from_str(json.dumps(put(old, old, keep, made, settings(old, "Unigram"), rows=SIZE, multiple=1)))
    assert said(new, "a <0x41> e")[1] == "a <0x41> e"


def test_marks_kept_with_letters_make_khmer_shorter() -> None:
    """Of the same size and on the same text, against the split of GPT-2, which cuts before marks."""
    count = []
    for split in (True, False):
        _, data = replaced("gpt2", "km", split=split)
        count.append(sum(map(len, encode(Tokenizer.from_str(json.dumps(data)), bundled("km")[-10:]))))
    assert count[0] < 0.5 * count[1]


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_training_twice_gives_the_same(kind: str) -> None:
    _, data = replaced("t5", kind=kind)
    replaced.cache_clear()
    assert replaced("t5", kind=kind)[1] == data


def test_rows_are_found_by_spelling_across_kinds_of_tokenizers() -> None:
    gemma, gpt2 = Vocabulary.read(family("gemma")), Vocabulary.read(family("gpt2"))
    found = origins(gemma, gpt2.data, {*gemma.strings})
    named = {gpt2.strings[n]: gemma.strings[i] for n, i in enumerate(found) if i >= 0}
    assert named["Ġ"] == "▁"
    assert named["Ġthe"] == "▁the"
    assert named["Ã"] == "<0xC3>"
    assert all(("Ġ" in a) == ("▁" in b) for a, b in named.items())


def corpus(folder: Path, texts: list[str]) -> Corpus:
    folder.mkdir()
    splits = ["train", "train", "train", "calibration", "test"]
    rows = [
        Document(
            id=str(n),
            text=t,
            source="target.txt",
            language="eu",
            role="target" if n % 6 else "kept",
            split=splits[n % 5],
        )
        for n, t in enumerate(texts)
    ]
    return Corpus.write(folder, rows)


def run_in(folder: Path, base: Model, texts: list[str], **knobs: Any) -> tuple[Model, Run]:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True)
    run = Run(folder=folder / "out", scratch=folder / "scratch")
    made = build_step("vocab/replace", {"multiple": 1, **knobs}).apply(
        run, model=base, corpus=corpus(folder / "corpus", texts)
    )
    assert isinstance(made, Model)
    return made, run


@pytest.mark.parametrize("language", ["eu", "km"])
@pytest.mark.parametrize("kind", pico.FAMILIES)
def test_shared_rows_are_bit_equal_in_a_model_that_loads_again(tmp_path: Path, kind: str, language: str) -> None:
    base = pico.model(kind, tmp_path / "base", tied=None if kind == "bert" else False, padding=7)
    made, run = run_in(tmp_path / "run", base, bundled(language)[:30], size=SIZE)
    assert all(gate.passed for gate in run.gates), run.gates
    old, new = base.tokenizer(), made.tokenizer()
    assert new.all_special_tokens == old.all_special_tokens
    assert new.chat_template == old.chat_template
    before, after = base.load(), made.load()
    rows = len(after.get_input_embeddings().weight)
    assert rows == SIZE or (kind == "bert" and rows < SIZE)  # lower case: no pair is left that stands twice
    shared = [token for token in new.get_vocab() if token in old.get_vocab()]
    assert len(shared) == run.facts["new"]["shared"] > len(old.all_special_tokens)
    for get in ("get_input_embeddings", "get_output_embeddings"):
        one, other = getattr(before, get)().weight, getattr(after, get)().weight
        for token in shared:
            assert torch.equal(one[old.get_vocab()[token]], other[new.get_vocab()[token]])
    text = bundled(language)[-1]
    if kind != "bert":
        assert said(old.backend_tokenizer, text)[1] == said(new.backend_tokenizer, text)[1]


def test_control_tokens_of_the_chat_template_stay(tmp_path: Path) -> None:
    live, tokenizer = pico.build("qwen3")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<unused7>", "<unused8>"]})
    live.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<unused8>{% endfor %}"
    )
    (tmp_path / "base").mkdir()
    made, _ = run_in(tmp_path / "run", Model.write(tmp_path / "base", live, tokenizer), bundled("eu")[:20], size=800)
    new = made.tokenizer()
    chat = new.apply_chat_template([{"role": "user", "content": "Kaixo"}], tokenize=False)
    ids = new(chat, add_special_tokens=False).input_ids
    tokens = new.convert_ids_to_tokens(ids)
    assert (tokens[0], tokens[-1]) == ("<|im_start|>", "<unused8>")
    assert "<unused7>" not in new.get_vocab()
    assert new.decode(ids) == chat


@pytest.mark.parametrize(("kind", "another"), [("qwen3", "gemma3"), ("gemma3", "qwen3"), ("llama", "gpt2")])
def test_a_given_tokenizer_is_taken_as_it_is(tmp_path: Path, kind: str, another: str) -> None:
    """Its segmentation, all but at added tokens of the base; the base's control tokens; rows by spelling."""
    base, other = pico.model(kind, tmp_path / "base", tied=False), pico.model(another, tmp_path / "other")
    texts = [d.text for d in pico.documents()]
    made, run = run_in(tmp_path / "run", base, texts, tokenizer=str(other.folder))
    assert {gate.name for gate in run.gates if not gate.passed} <= {"grown"}
    old, new, taken = base.tokenizer(), made.tokenizer(), other.tokenizer()
    assert {*old.all_special_tokens} <= {*new.get_vocab()}
    assert not ({*taken.all_special_tokens} - {*old.all_special_tokens} - {"<unk>"}) & {*new.get_vocab()}
    for text in texts:
        if kind == "qwen3" or not ("\n\n" in text or "<b>" in text):
            assert new.tokenize(text) == taken.tokenize(text)
        assert new.decode(new(text).input_ids, skip_special_tokens=True) == text
    one, another_table = base.load().get_input_embeddings().weight, made.load().get_input_embeddings().weight
    for theirs, ours in (("Ġ", "▁"), ("Ã", "<0xC3>"), ("e", "e")):
        pair = (theirs, ours) if kind == "qwen3" else (ours, theirs)
        assert torch.equal(one[old.get_vocab()[pair[0]]], another_table[new.get_vocab()[pair[1]]])


@pytest.mark.parametrize("kind", pico.FAMILIES)
def test_a_size_below_the_alphabet_is_refused(tmp_path: Path, kind: str) -> None:
    base = pico.model(kind, tmp_path / "base")
    with pytest.raises(UserError, match=r"vocab/replace\.size: 40 tokens are below the alphabet of \d+ .*; raise size"):
        run_in(tmp_path / "run", base, bundled("eu")[:20], size=40)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    base = pico.model("gpt2", tmp_path / "base")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    for place, words in ((tmp_path / "nowhere", "is no file"), (tmp_path, "is no tokenizer.json")):
        with pytest.raises(UserError, match=words):
            run_in(tmp_path / f"run-{place.name}", base, bundled("eu")[:20], tokenizer=str(place))
