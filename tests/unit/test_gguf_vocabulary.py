# SPDX-License-Identifier: Apache-2.0
"""Tokenizers written to GGUF: llama.cpp gives the same token ids on real lines and on arbitrary Unicode."""

from __future__ import annotations

import json
import random
import string
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gguf_tokenizers import FORMS, LINES, TEXTS, model, tokenizer
from lect.artefacts import Model
from lect.errors import UserError
from lect.ops import gguf_tokenizer, gguf_vocabulary, gguf_write
from lect.ops.gguf_file import GgufFile
from lect.ops.text import encode
from lect.ops.tokenizer import Vocabulary
from lect.testing.llamacpp import LlamaCpp

pytest.importorskip("xllamacpp")
HARD = [
    "",
    " ",
    "\n",
    " " * 45 + "x" + " " * 70,
    "\n" * 40 + "a\n\n\nb\n \n",
    "\t\ta\r\nb\r\r\n",
    "<unk><s></s><end><|end|><h1>a</h1><pad>",
    "e\u0301é ﬁ ǅ ﷺ \u00a0 \u2003 \u3000",
    "\x00\x01\x7f\x85",
    "it's IT'S we'Ll 'tis ''s",
    "12345678901 1,234.5 ٣٤ Ⅻ ½",
    "unreachable unreachable  <x> <h1 ><h1>",
    "👩‍👩‍👧‍👦🏳️‍🌈🇪🇺",
]


def random_texts(count):
    """Strings over characters that Unicode 15 has names for, from every plane, often with white space."""
    draw = random.Random(7)
    named = [chr(c) for c in range(0x20, 0x1FA00) if unicodedata.name(chr(c), "")]
    pools = [named, string.printable, " \n\t\r", [c for line in LINES for c in line]]
    return ["".join(draw.choice(draw.choice(pools)) for _ in range(draw.randint(1, 50))) for _ in range(count)]


@pytest.fixture(scope="module", params=FORMS)
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    source = gguf_write.Source(model(request.param, folder / "m"))
    gguf_write.write(source, folder / "model.gguf", "q8_0")
    with LlamaCpp(folder / "model.gguf") as client:
        yield source, client, folder / "model.gguf"


def differing(tokenizer, client, texts):
    return [
        (text, tokenizer.convert_ids_to_tokens(ids), tokenizer.convert_ids_to_tokens(client.encode(text)))
        for text, ids in zip(texts, encode(tokenizer, texts), strict=True)
        if ids != client.encode(text)
    ]


def test_llama_cpp_gives_the_same_ids(opened):
    source, client, path = opened
    assert differing(source.tokenizer, client, [*TEXTS, *HARD, *random_texts(400)]) == []
    assert client.rows == source.rows == len(source.tokenizer) + 3
    assert gguf_write.vocabulary_error(source, path) == 0


@given(st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40))
@settings(max_examples=80, deadline=None)
def test_llama_cpp_gives_the_same_ids_on_any_text(opened, text):
    source, client, _ = opened
    assert differing(source.tokenizer, client, [text]) == []


def test_begin_and_end_tokens_are_those_of_the_folder(opened):
    source, client, _ = opened
    text = "Gorde fitxategia"
    assert client.encode(text, special=True) == source.tokenizer(text).input_ids


def test_a_trimmed_vocabulary_keeps_its_ids(tmp_path):
    for form in ("pieces", "pieces, space first", "gpt-2", "qwen2"):
        whole = tokenizer(form)
        vocabulary = Vocabulary.read(whole)
        used = {i for ids in encode(whole, TEXTS[::3]) for i in ids}
        keep = vocabulary.ancestors(used | vocabulary.alphabet | vocabulary.special() | vocabulary.named())
        cut = vocabulary.cut(keep)
        assert len(cut.origin) < len(whole)
        names = {k: v for k, v in whole.special_tokens_map.items() if isinstance(v, str)}
        small = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(cut.data)), **names)
        source = gguf_write.Source(_model(small, tmp_path / form))
        gguf_write.write(source, tmp_path / f"{form}.gguf", "q8_0")
        fields = GgufFile(tmp_path / f"{form}.gguf").fields
        assert fields["tokenizer.ggml.model"] == ("llama" if form.startswith("pieces") else "gpt2")
        with LlamaCpp(tmp_path / f"{form}.gguf") as client:
            assert differing(source.tokenizer, client, [*TEXTS, *HARD, *random_texts(100)]) == []


def _model(tokenizer, folder):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Model.write(folder, LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)), tokenizer)


def test_merges_of_another_trainer_are_kept_by_rank():
    """Scores cannot say them: the piece would be joined from parts that its merges do not name."""
    written = gguf_vocabulary.write(tokenizer("ranked"), 2000)
    assert written.fields["tokenizer.ggml.pre"] == gguf_tokenizer.RAW_BPE
    assert any("rank" in note for note in written.notes)


def test_rows_without_a_token_are_unused():
    made = tokenizer("pieces")
    fields = gguf_vocabulary.write(made, len(made) + 2).fields
    assert fields["tokenizer.ggml.token_type"][-2:] == [gguf_tokenizer.UNUSED] * 2
    assert len(set(fields["tokenizer.ggml.tokens"])) == len(made) + 2


def test_token_types_are_those_of_the_tokenizer():
    made = tokenizer("pieces")
    fields = gguf_vocabulary.write(made, len(made)).fields
    kinds = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True))
    assert kinds["<unk>"] == gguf_tokenizer.UNKNOWN
    assert kinds["<s>"] == gguf_tokenizer.CONTROL
    assert kinds["<h1>"] == kinds["   "] == gguf_tokenizer.USER_DEFINED
    assert kinds["<0x0A>"] == gguf_tokenizer.BYTE
    assert fields["tokenizer.ggml.bos_token_id"] == 1
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.add_eos_token"] is False


def changed(form, change):
    data = json.loads(tokenizer(form).backend_tokenizer.to_str())
    change(data)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(data)), bos_token="<s>")


def _no_bytes(data):
    data["model"]["byte_fallback"] = False


REFUSED = {
    "normaliser": ("gpt-2", lambda d: d.update(normalizer={"type": "Lowercase"}), "Lowercase"),
    "pre-tokenizer": (
        "gpt-2",
        lambda d: d["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Whitespace"}),
        "White",
    ),
    "expression": (
        "qwen2",
        lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": r"\p{L}+"}),
        "none that lect knows",
    ),
    "merges flag": ("gpt-2", lambda d: d["model"].update(ignore_merges=True), "none that lect knows"),
    "space first": (
        "gpt-2",
        lambda d: d["pre_tokenizer"]["pretokenizers"][-1].update(add_prefix_space=True),
        "space before",
    ),
    "no byte tokens": ("pieces", _no_bytes, "256 byte tokens"),
    "spaces": ("pieces", lambda d: d.update(normalizer=None), "neither byte-level"),
    "suffix": ("pieces", lambda d: d["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix"),
    "dropout": ("gpt-2", lambda d: d["model"].update(dropout=0.1), "dropout"),
    "added token": ("gpt-2", lambda d: d["added_tokens"][-1].update(lstrip=True), "lstrip"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_exact_form_is_refused_by_name(case):
    form, change, word = REFUSED[case]
    with pytest.raises(UserError, match=word):
        gguf_vocabulary.write(changed(form, change), 3000)


def test_another_kind_of_tokenizer_is_refused():
    rust = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    rust.normalizer, rust.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    with pytest.raises(UserError, match="WordPiece"):
        gguf_vocabulary.write(PreTrainedTokenizerFast(tokenizer_object=rust), 2)


def test_merges_of_one_piece_must_stand_together():
    """Scores rank pieces, not merges: here ab joins before c only in one of two ways to abc."""
    vocab = {token: i for i, token in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    together = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]
    assert gguf_vocabulary._scores(vocab, together, set()) == {"ab": 0.0, "bc": -1.0, "abc": -2.0}
    assert gguf_vocabulary._scores(vocab, [together[0], together[2], together[1], together[3]], set()) is None
    assert gguf_vocabulary._scores(vocab, together[:3], set()) is None
