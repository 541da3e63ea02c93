# SPDX-License-Identifier: Apache-2.0
"""GGUF files as folders: pico models written and read back, the rules of SentencePiece, and refusals."""

from __future__ import annotations

from itertools import pairwise

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Model
from lect.errors import UserError
from lect.ops import gguf_families, gguf_read, gguf_tokenizer, gguf_write
from lect.ops.gguf_file import GgufFile
from lect.ops.text import encode
from lect.testing import pico


@pytest.fixture(scope="module", params=pico.CAUSAL)
def pair(request, tmp_path_factory):
    """A pico model and the GGUF file made from it in fp32."""
    folder = tmp_path_factory.mktemp(request.param)
    model = pico.model(request.param, folder / "m", padding=3)
    gguf_write.write(gguf_write.Source(model), folder / "model.gguf", "f32")
    return model, folder / "model.gguf"


def test_a_model_comes_back_bit_for_bit(pair, tmp_path):
    model, path = pair
    live, tokenizer = gguf_read.read(path, torch.float32)
    wanted = model.load()
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(live.state_dict()[name], tensor), name
    before, after = wanted.config.to_dict(), live.config.to_dict()
    ignored = {"dtype", "_name_or_path", "n_inner", "layer_types_", "_sliding_window_pattern", "transformers_version"}
    assert {k: v for k, v in before.items() if k not in ignored} == {k: v for k, v in after.items() if k not in ignored}
    made = Model.write(tmp_path / "m", live, tokenizer)
    assert made.tokenizer().get_vocab() == model.tokenizer().get_vocab()
    assert made.tokenizer().special_tokens_map == model.tokenizer().special_tokens_map


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_tokenizer_comes_back(pair, text):
    model, path = pair
    if not hasattr(test_the_tokenizer_comes_back, str(path)):
        both = model.tokenizer(), gguf_tokenizer.read(GgufFile(path).fields, str(path))
        setattr(test_the_tokenizer_comes_back, str(path), both)
    ours, theirs = getattr(test_the_tokenizer_comes_back, str(path))
    text = text.encode("utf-8", "replace").decode()
    assert encode(ours, [text]) == encode(theirs, [text])
    assert ours(text).input_ids == theirs(text).input_ids


def sentencepiece(text, scores):
    """SentencePiece's own rule: join the neighbours that make the piece of the highest score, leftmost first."""
    parts = list(text)
    while True:
        pairs = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not pairs:
            return parts
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@given(st.lists(st.text("abc", min_size=2, max_size=4), unique=True, max_size=12), st.text("abc", max_size=25))
@settings(max_examples=300, deadline=None)
def test_merges_do_what_scores_say(pieces, text):
    """Distinct splits of one piece tie in SentencePiece and are ranked in BPE: pieces of one letter are left out."""
    from tokenizers import Tokenizer, models

    pieces = [p for p in pieces if len(set(p)) == len(p)]
    scores = {piece: -float(i) for i, piece in enumerate(pieces)}
    vocabulary = ["a", "b", "c", *pieces]
    ranked = gguf_tokenizer.merges(set(vocabulary), scores)
    rust = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocabulary)}, merges=ranked))
    assert rust.encode(text).tokens == sentencepiece(text, scores)


def edited(path, target, change):
    """A copy of a GGUF file whose fields and tensors ``change`` has edited."""
    file = GgufFile(path)
    fields = dict(file.fields)
    tensors = {name: file.array(name) for name in file.tensors}
    change(fields, tensors)
    writer = gguf.GGUFWriter(target, fields.pop("general.architecture"))
    for key, value in fields.items():
        if not key.startswith(("GGUF.", "general.")):
            gguf_write._add(writer, key, value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


REFUSED = {
    "architecture": (lambda f, t: f.update({"general.architecture": "mamba"}), "mamba"),
    "missing tensor": (lambda f, t: t.pop("blk.1.ffn_up.weight"), "blk.1.ffn_up.weight"),
    "unknown tensor": (lambda f, t: t.update({"blk.0.extra.weight": np.ones(3, np.float32)}), "blk.0.extra.weight"),
    "wrong shape": (lambda f, t: t.update({"output_norm.weight": np.ones(5, np.float32)}), "output_norm.weight"),
    "missing field": (lambda f, t: f.pop("llama.block_count"), "llama.block_count"),
    "rope scaling": (lambda f, t: f.update({"llama.rope.scaling.type": "yarn"}), "yarn"),
    "tokenizer kind": (lambda f, t: f.update({"tokenizer.ggml.model": "bert"}), "bert"),
    "no tokens": (lambda f, t: f.pop("tokenizer.ggml.tokens"), "vocabulary"),
    "no scores": (lambda f, t: f.pop("tokenizer.ggml.scores"), "scores"),
    "token twice": (lambda f, t: f["tokenizer.ggml.tokens"].__setitem__(300, "<s>"), "twice"),
    "types cut": (lambda f, t: f.update({"tokenizer.ggml.token_type": [1, 1]}), "vocabulary"),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    gguf_write.write(gguf_write.Source(pico.model("llama", folder / "m")), folder / "model.gguf", "f32")
    return folder / "model.gguf"


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(llama, tmp_path, case):
    change, word = REFUSED[case]
    with pytest.raises(UserError, match=word):
        gguf_read.read(edited(llama, tmp_path / "x.gguf", change))


def test_an_edited_file_that_is_right_is_read(llama, tmp_path):
    live, _ = gguf_read.read(edited(llama, tmp_path / "x.gguf", lambda f, t: None))
    assert live.dtype == torch.bfloat16


def test_linear_rope_scaling_is_read(llama, tmp_path):
    extra = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    live, _ = gguf_read.read(edited(llama, tmp_path / "x.gguf", lambda f, t: f.update(extra)))
    assert live.config.rope_parameters["rope_type"] == "linear"
    assert live.config.rope_parameters["factor"] == 4.0


def test_fp32_fields_become_the_decimals_they_were():
    assert gguf_families.short(float(np.float32(1e-6))) == 1e-6
    assert gguf_families.short(1e6) == 1e6
