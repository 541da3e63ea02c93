# SPDX-License-Identifier: Apache-2.0
"""Tokenizer surgery: what is kept segments as before, and every text reads as it did, for every family."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from vocab_families import FAMILIES, LINES, SAID, family

from lect.errors import UserError
from lect.ops.text import encode
from lect.ops.tokenizer import Vocabulary, letters_by_script, literals, script

KEPT = [*SAID[:2], SAID[10]]  # Basque, English and a line of code


@cache
def pair(name: str) -> tuple[Vocabulary, Tokenizer, Tokenizer, list[int]]:
    """Vocabulary, base, and the tokenizer cut down to three lines of the text, with its origin."""
    base = family(name)
    vocabulary = Vocabulary.read(base)
    used = {i for ids in encode(base, KEPT) for i in ids}
    keep = vocabulary.ancestors(used | vocabulary.alphabet | vocabulary.special() | vocabulary.named())
    cut = vocabulary.cut(keep)
    return vocabulary, base, Tokenizer.from_str(json.dumps(cut.data)), cut.origin


anything = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([w for line in LINES for w in line.split(" ")] + [" ", "\n\n", "<h1>"]), max_size=12).map(
        " ".join
    ),
    st.text(alphabet="aeiknrtz -\n▁Ġ<>h1/#0x", max_size=40),
)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_was_kept_segments_as_before(name: str) -> None:
    _, base, cut, origin = pair(name)
    for before, after in zip(encode(base, KEPT), encode(cut, KEPT), strict=True):
        assert [origin[i] for i in after] == before


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=150, deadline=None)
@given(text=anything)
def test_every_text_reads_as_it_did(name: str, text: str) -> None:
    _, base, cut, _ = pair(name)
    (before,), (after,) = encode(base, [text]), encode(cut, [text])
    assert cut.decode(after, skip_special_tokens=False) == base.decode(before, skip_special_tokens=False)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(anything, min_size=1, max_size=3))
def test_any_text_that_is_kept_segments_as_before(name: str, texts: list[str]) -> None:
    vocabulary, base, _, _ = pair(name)
    before = encode(base, texts)
    used = {i for ids in before for i in ids}
    keep = vocabulary.ancestors(used | vocabulary.alphabet | vocabulary.special() | vocabulary.named())
    cut = vocabulary.cut(keep)
    after = encode(Tokenizer.from_str(json.dumps(cut.data)), texts)
    assert [[cut.origin[i] for i in ids] for ids in after] == before


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_dense_and_nothing_useless_is_left(name: str) -> None:
    vocabulary, base, cut, origin = pair(name)
    vocab = cut.get_vocab()
    assert sorted(vocab.values()) == list(range(len(origin))) == list(range(cut.get_vocab_size()))
    assert len(origin) < base.get_vocab_size()
    for token, i in vocab.items():
        assert base.token_to_id(token) == origin[i]
    again = Vocabulary.read(cut)
    if again.kind == "BPE":
        kept = [m for m in vocabulary.merges if m[0] in vocab and m[1] in vocab and "".join(m) in vocab]
        assert [m for m in again.merges if m in set(kept)] == kept or name == "openai"
        loose = [t for t, i in again.ids.items() if len(again.symbols(t)) > 1 and len(again.line(i)) == 1]
        named = {vocabulary.strings[i] for i in vocabulary.special() | vocabulary.named() | vocabulary.alphabet}
        assert set(loose) <= named | {"\n\n", "\n\n\n", "▁▁"}


@pytest.mark.parametrize("name", FAMILIES)
def test_control_tokens_and_templates_follow(name: str) -> None:
    vocabulary, base, cut, origin = pair(name)
    before, after = base.encode(KEPT[0]).ids, cut.encode(KEPT[0]).ids
    assert [origin[i] for i in after] == before
    control = {t["content"] for t in vocabulary.added if t["special"]}
    left = {t["content"] for t in Vocabulary.read(cut).added if t["special"]}
    assert control - left <= {"<unused0>", "<unused1>", "[unused0]", "[unused1]"} | {
        f"<|reserved_special_token_{i}|>" for i in range(5)
    }
    if vocabulary.data["padding"]:
        assert cut.padding is not None
        assert cut.padding["pad_id"] == cut.token_to_id(cut.padding["pad_token"])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_old_token_as_a_text_stays_known(name: str) -> None:
    vocabulary, base, cut, _ = pair(name)
    now = Vocabulary.read(cut).unknown
    texts = [vocabulary.surface(token) for token in vocabulary.strings.values()]
    lost = [
        text
        for text, before, after in zip(texts, encode(base, texts), encode(cut, texts), strict=True)
        if now is not None and now in after and vocabulary.unknown not in before
    ]
    assert lost == []


@pytest.mark.parametrize("name", ["gpt2", "qwen", "gemma", "llama2", "openai"])
def test_a_derivation_is_enough_for_the_library_and_no_more(name: str) -> None:
    """The tokens on its derivation suffice to make a token; where it has one split only, none may be missing."""
    vocabulary, base, _, _ = pair(name)
    fixed = vocabulary.alphabet | vocabulary.named()
    checked = 0
    for i in sorted(vocabulary.ids.values())[::9]:
        line = vocabulary.line(i)
        text = vocabulary.surface(vocabulary.strings[i])
        (before,) = encode(base, [text])
        if len(line) < 2 or i not in before:
            continue
        cut = vocabulary.cut({*vocabulary.ancestors(before), *fixed})
        (after,) = encode(Tokenizer.from_str(json.dumps(cut.data)), [text])
        assert [cut.origin[n] for n in after] == before
        missing = {*line[1:]} - fixed - set(vocabulary.ancestors(set(before) - {i}))
        if name != "gemma" and missing:
            cut = vocabulary.cut({*vocabulary.ancestors(before), *fixed} - {min(missing)})
            (after,) = encode(Tokenizer.from_str(json.dumps(cut.data)), [text])
            assert [cut.origin[n] for n in after] != before
            checked += 1
    assert checked > 5 or name == "gemma"


def test_full_merge_tables_derive_by_the_split_that_fires() -> None:
    vocab = {c: n for n, c in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    merges = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]
    vocabulary = Vocabulary.read(Tokenizer(models.BPE(vocab=vocab, merges=merges)))
    assert vocabulary.derive("abc") == ("a", "bc")
    assert vocabulary.ancestors([vocab["abc"]]) == {vocab[t] for t in ("abc", "a", "bc", "b", "c")}


def test_both_spellings_of_merges_are_read() -> None:
    vocab = {"a": 0, "b": 1, "ab": 2}
    data = json.loads(Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")])).to_str())
    data["model"]["merges"] = ["a b"]
    assert Vocabulary(data).merges == [("a", "b")]


def test_holes_and_shared_ids_become_dense() -> None:
    data = json.loads(Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")])).to_str())
    data["model"]["vocab"] = {"a": 0, "b": 7, "ab": 9, "c": 7}
    data["added_tokens"] = [
        {"id": 4, "content": "<x>", "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    ]
    cut = Vocabulary(data).cut({0, 4, 7, 9})
    assert cut.data["model"]["vocab"] == {"a": 0, "b": 1, "c": 2, "ab": 3}
    assert cut.origin == [0, 7, 7, 9, 4]
    assert cut.data["added_tokens"][0]["id"] == 4


def test_added_tokens_that_text_uses_stay_and_others_go() -> None:
    _, _, cut, _ = pair("gemma")
    vocab = cut.get_vocab()
    assert "\n\n" in vocab
    assert "</h1>" not in vocab and "<unused0>" not in vocab
    assert cut.decode(encode(cut, ["<h1>a</h1>"])[0]) == "<h1>a</h1>"
    _, _, rewritten, _ = pair("qwen")
    assert "<think>" in rewritten.get_vocab()


def test_unigram_keeps_the_piece_that_prices_the_unknown() -> None:
    vocabulary, _, cut, _ = pair("xlmr")
    lowest = min(score for _, score in vocabulary.data["model"]["vocab"])
    assert min(score for _, score in json.loads(cut.to_str())["model"]["vocab"]) == pytest.approx(lowest)


def test_tokenizers_that_cannot_be_cut_are_refused_with_a_reason() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(UserError, match="WordLevel"):
        Vocabulary.read(words)
    with pytest.raises(UserError, match="dropout"):
        Vocabulary.read(Tokenizer(models.BPE(vocab={"a": 0}, merges=[], dropout=0.1)))
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Vocabulary.read(object())
    with pytest.raises(UserError, match="empty"):
        Vocabulary.read(Tokenizer(models.BPE()))


def test_scripts_and_template_literals() -> None:
    assert [script(c) for c in "aж中 1-"] == ["LATIN", "CYRILLIC", "CJK", "", "", ""]
    assert letters_by_script("né ж") == {"LATIN": 2, "CYRILLIC": 1}
    template = "{{ bos }}<turn>{% if a == 'user' %}{{ \"model\\n\" }}{% endif %}end"
    assert literals(template) == ["<turn>", "end", "user", "model\n"]


def test_ties_of_rank_go_to_the_left() -> None:
    vocab = {"a": 0, "aa": 1, "aaa": 2}
    vocabulary = Vocabulary.read(Tokenizer(models.BPE(vocab=vocab, merges=[("a", "a"), ("a", "aa"), ("aa", "a")])))
    assert vocabulary.derive("aaa") == ("aa", "a")


def test_unigram_by_hand_unknown_moves_and_keeps_its_price() -> None:
    pieces = [("yx", -2.0), ("xy", -50.0), ("<unk>", 0.0), ("x", -1.0), ("y", -1.5), ("zx", -40.0)]
    base = Tokenizer(models.Unigram(pieces, unk_id=2))
    vocabulary = Vocabulary.read(base)
    assert vocabulary.alphabet == {1, 2, 3, 4, 5}  # the lowest, the singles, and the one way to write z
    cut = vocabulary.cut(vocabulary.alphabet)
    assert cut.origin == [1, 2, 3, 4, 5]
    assert cut.data["model"]["unk_id"] == 1
    made = Tokenizer.from_str(json.dumps(cut.data))
    for text in ("xzx", "yzzx", "qx", "yxy"):
        assert "".join(made.encode(text).tokens) == "".join(base.encode(text).tokens)
    assert [cut.origin[i] for i in made.encode("xzx").ids] == base.encode("xzx").ids == [3, 5]
