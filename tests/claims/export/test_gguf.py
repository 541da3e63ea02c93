# SPDX-License-Identifier: Apache-2.0
"""export/gguf: what llama.cpp makes of the file is what transformers makes of the folder, for every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from lect.artefacts import Model
from lect.errors import UserError
from lect.method import Run
from lect.ops import gguf_write
from lect.ops.text import encode
from lect.stages.export.gguf import ForLlamaCpp
from lect.testing import pico
from lect.testing.llamacpp import LlamaCpp

pytest.importorskip("xllamacpp")
# llama.cpp keeps keys and values in fp16, and rounds activations as the weights are rounded.
TOLERANCE = {"f32": 0.01, "f16": 0.015, "bf16": 0.04, "q8_0": 0.12}
TEXTS = [document.text for document in pico.documents()][:4]


def exported(model, folder, base=None, **knobs):
    run = Run(folder=folder / "out", scratch=folder / "scratch")
    run.folder.mkdir(parents=True)
    return ForLlamaCpp(**knobs).apply(run, base=base or model, model=model), run


@pytest.fixture(scope="module", params=pico.CAUSAL)
def model(request, tmp_path_factory):
    return pico.model(request.param, tmp_path_factory.mktemp(request.param) / "m", padding=5)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_llama_cpp_agrees_with_transformers(model, dtype, tmp_path):
    """Next-token logits within rounding; the likeliest token the same wherever rounding does not decide."""
    made, run = exported(model, tmp_path, dtype=dtype)
    assert [gate.passed for gate in run.gates] == [True, True]
    tokenizer, live = model.tokenizer(), model.load()
    limit = TOLERANCE[dtype]
    tens = compared = 0
    with LlamaCpp(made.file) as client:
        for text, ids in zip(TEXTS, encode(tokenizer, TEXTS), strict=True):
            assert client.encode(text) == ids
            with torch.no_grad():
                ours_tv = live(torch.tensor([ids[:48]])).logits[0].numpy()
            theirs_tv = client.logits(ids[:48])
            spread = ours_tv.std()
            assert np.abs(ours_tv - theirs_tv).max() < limit * 5 * spread
            best_t = theirs_tv.argmax(1)
            lost_t = ours_tv.max(1) - ours_tv[np.arange(len(best_t)), best_t]
            assert (lost_t < limit * 5 * spread).all()
            for ours_v, theirs_v in zip(ours_tv, theirs_tv, strict=True):
                tens += len({*np.argsort(-ours_v)[:10]} & {*np.argsort(-theirs_v)[:10]})
                compared += 10
    assert tens / compared > 1 - limit


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_an_untied_head_is_exported(family, tmp_path):
    model = pico.model(family, tmp_path / "m", tied=False)
    made, _ = exported(model, tmp_path, dtype="f32")
    assert "output.weight" in {tensor.name for tensor in GGUFReader(made.file).tensors}
    ids = encode(model.tokenizer(), TEXTS)[0][:20]
    with torch.no_grad(), LlamaCpp(made.file) as client:
        assert np.abs(client.logits(ids) - model.load()(torch.tensor([ids])).logits[0].numpy()).max() < 0.1


@pytest.mark.parametrize("family", ["qwen2", "llama3"])
def test_other_members_of_the_families(family, tmp_path):
    """Attention biases (Qwen 2) and stretched frequencies (Llama 3.1)."""
    import transformers

    live, tokenizer = pico.build("qwen3" if family == "qwen2" else "llama")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": len(tokenizer), "tie_word_embeddings": False}
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 64  # one frequency falls between the bands
    torch.manual_seed(0)
    if family == "qwen2":
        live = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes))
    else:
        live = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, rope_parameters=rope))
    for parameter in live.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.2)
    model = Model.write(tmp_path / "m", live, tokenizer)
    made, run = exported(model, tmp_path, dtype="f32")
    assert all(gate.passed for gate in run.gates)
    ids = encode(tokenizer, TEXTS)[0][:60]
    with torch.no_grad(), LlamaCpp(made.file) as client:
        ours_tv = model.load()(torch.tensor([ids])).logits[0].numpy()
        theirs_tv = client.logits(ids)
    assert np.abs(ours_tv - theirs_tv).max() < 0.02 * np.abs(ours_tv).max()


def test_the_sliding_window_and_its_pattern_are_exported(tmp_path):
    """Longer than the window, so that a wrong layer would see too much."""
    model = pico.model("gemma3", tmp_path / "m")
    made, _ = exported(model, tmp_path, dtype="f32")
    ids = (encode(model.tokenizer(), TEXTS)[0] * 4)[:80]
    assert len(ids) > 4 * model.load().config.sliding_window
    with torch.no_grad(), LlamaCpp(made.file) as client:
        ours_tv, theirs_tv = model.load()(torch.tensor([ids])).logits[0].numpy(), client.logits(ids)
    assert np.abs(ours_tv - theirs_tv).max() < 0.02 * np.abs(ours_tv).max()


def test_the_gate_sees_a_changed_weight(tmp_path):
    model = pico.model("gemma3", tmp_path / "m")
    source = gguf_write.Source(model)
    gguf_write.write(source, tmp_path / "a.gguf", "f32")
    assert gguf_write.tensor_error(source, tmp_path / "a.gguf") == 0
    with torch.no_grad():
        source.live.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-6
    assert gguf_write.tensor_error(source, tmp_path / "a.gguf") == float("inf")


def test_the_gate_measures_rounding(tmp_path):
    """Rounding to nearest stays below one unit and, with so many weights, close to it."""
    source = gguf_write.Source(pico.model("gemma3", tmp_path / "m"))
    for dtype in ("bf16", "f16", "q8_0"):
        gguf_write.write(source, tmp_path / f"{dtype}.gguf", dtype)
        assert 0.9 < gguf_write.tensor_error(source, tmp_path / f"{dtype}.gguf") <= 1


def test_bf16_weights_are_exact_in_a_bf16_file(tmp_path):
    live, tokenizer = pico.build("llama")
    model = Model.write(tmp_path / "m", live.to(torch.bfloat16), tokenizer)
    _, run = exported(model, tmp_path, dtype="bf16")
    assert [gate.value for gate in run.gates] == [0.0, 0.0]


def test_the_gate_sees_another_vocabulary(tmp_path):
    first, second = pico.model("gemma3", tmp_path / "a"), pico.model("gemma3", tmp_path / "b")
    gguf_write.write(gguf_write.Source(first), tmp_path / "a.gguf", "f32")
    source = gguf_write.Source(second)
    source.tokenizer.add_tokens(["hautatzeko"])
    assert gguf_write.vocabulary_error(source, tmp_path / "a.gguf") > 0


def test_terms_of_the_base_are_carried(tmp_path):
    base, model = pico.model("llama", tmp_path / "base"), pico.model("llama", tmp_path / "m", seed=1)
    (base.folder / "LICENSE").write_text("terms of the base")
    (base.folder / "README.md").write_text("---\nlicense: mit\nbase_model: someone/pico-1\n---\n")
    made, run = exported(model, tmp_path, base=base)
    assert (made.folder / "LICENSE").read_text() == "terms of the base"
    fields = GGUFReader(made.file).fields
    assert fields["general.license"].contents() == "mit"
    assert fields["general.name"].contents() == "pico-1-lect"
    assert run.facts["carried"] == ["LICENSE"]


def test_what_gguf_cannot_say_is_refused(tmp_path):
    with pytest.raises(UserError, match="bert"):
        exported(pico.model("bert", tmp_path / "bert"), tmp_path / "1")
    live, tokenizer = pico.build("gemma3")
    live.config.query_pre_attn_scalar = 99
    with pytest.raises(UserError, match="query_pre_attn_scalar"):
        exported(Model.write(tmp_path / "scale", live, tokenizer), tmp_path / "2")
    live, tokenizer = pico.build("llama")
    live.config.hidden_act = "relu"
    with pytest.raises(UserError, match="hidden_act"):
        exported(Model.write(tmp_path / "relu", live, tokenizer), tmp_path / "3")
    live, tokenizer = pico.build("llama")
    with torch.no_grad():
        live.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    with pytest.raises(UserError, match="fp16"):
        exported(Model.write(tmp_path / "large", live, tokenizer), tmp_path / "4")
    assert not list(tmp_path.glob("*/out/*"))
