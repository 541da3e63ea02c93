# SPDX-License-Identifier: Apache-2.0
"""Bits per byte: the equation, a uniform model, and text that a tokenizer does not know."""

from __future__ import annotations

import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lect.artefacts import Corpus, Document, Model
from lect.method import Run
from lect.ops.scoring import Reader
from lect.stages.evaluate.bits_per_byte import BitsPerByte
from lect.testing import pico


def run_in(folder):
    (folder / "out").mkdir(parents=True)
    return Run(folder=folder / "out", scratch=folder)


@pytest.mark.parametrize("family", pico.CAUSAL)
def test_equation(family, tmp_path):
    """(L_T / L_B) times the mean loss over ln 2, from all logits at once (section 3.1), on the same windows."""
    model = pico.model(family, tmp_path / "m")
    corpus = pico.corpus(tmp_path / "c")
    method = BitsPerByte(window_bytes=100, max_bytes=600)
    report = method.apply(run_in(tmp_path / "r"), base=model, model=model, corpus=corpus).data
    windows = [w for w in method.material(run_in(tmp_path / "s"), corpus) if w.role == "target"]
    assert len(windows) > 3
    live, tokenizer = model.load(), model.tokenizer()
    nats = tokens = size = 0.0
    for window in windows:
        ids = [tokenizer.bos_token_id, *tokenizer.backend_tokenizer.encode(window.text, add_special_tokens=False).ids]
        with torch.no_grad():
            loss = live(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
        nats += float(loss) * (len(ids) - 1)
        tokens += len(ids) - 1
        size += len(window.text.encode())
    mean = nats / tokens
    assert report["target"]["base"]["bits_per_byte"] == pytest.approx(tokens / size * mean / math.log(2), rel=1e-5)
    assert report["target"]["base"]["bytes_per_token"] == pytest.approx(size / tokens)


@pytest.mark.parametrize("family", pico.CAUSAL)
def test_uniform_model_costs_its_rows(family, tmp_path):
    """A model that holds every token for equally likely costs log2(rows) a token under any tokenizer."""
    live, tokenizer = pico.build(family, tied=False)
    torch.nn.init.zeros_(live.get_output_embeddings().weight)
    reader = Reader(live=live, tokenizer=tokenizer)
    method = BitsPerByte()
    windows = method.material(run_in(tmp_path / "r"), pico.corpus(tmp_path / "c"))
    scores = method.read(reader, windows, lambda _: None)
    assert scores.bits.sum() == pytest.approx(math.log2(reader.rows) * scores.tokens.sum(), rel=1e-6)
    assert scores.tokens.sum() == sum(len(reader.encode([w.text])[0]) for w in windows)


def test_numbering_of_tokens_does_not_matter(tmp_path):
    """The same model with its tokens numbered backwards predicts the same bytes."""
    live, tokenizer = pico.build("gpt2")
    method = BitsPerByte()
    windows = method.material(run_in(tmp_path / "r"), pico.corpus(tmp_path / "c"))
    before = method.read(Reader(live=live, tokenizer=tokenizer), windows, lambda _: None).bits
    weight = live.get_input_embeddings().weight
    turned = torch.arange(len(weight) - 1, -1, -1)
    with torch.no_grad():
        weight.copy_(weight[turned].clone())

    class Turned(Reader):
        def encode(self, texts):
            return [[len(weight) - 1 - i for i in ids] for ids in super().encode(texts)]

        @property
        def start(self):
            return [len(weight) - 1 - i for i in super().start]

    after = method.read(Turned(live=live, tokenizer=tokenizer), windows, lambda _: None).bits
    assert after == pytest.approx(before, rel=1e-5)


def test_unknown_text_is_charged_eight_bits_a_byte():
    """A tokenizer that hides text behind one unknown token gains nothing by it."""
    rust = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "hello": 2}, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="<unk>", bos_token="<s>")
    config = LlamaConfig(
        vocab_size=3,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=False,
    )
    live = LlamaForCausalLM(config)
    torch.nn.init.zeros_(live.get_output_embeddings().weight)
    windows = [type("W", (), {"text": "hello unheardofword"})]
    scores = BitsPerByte().read(Reader(live=live, tokenizer=tokenizer), windows, lambda _: None)
    lost = len("hello unheardofword") - len("hello")
    assert scores.unknown == 1
    assert scores.bits[0] == pytest.approx(2 * math.log2(3) + 8 * lost)


def test_sample_is_fixed_drawn_from_test_and_within_its_size(tmp_path):
    method = BitsPerByte(window_bytes=64, max_bytes=300)
    corpus = pico.corpus(tmp_path / "c")
    first = method.material(run_in(tmp_path / "r"), corpus)
    assert first == method.material(run_in(tmp_path / "s"), corpus)
    for role in ("target", "kept"):
        chosen = [w for w in first if w.role == role]
        assert 200 < sum(len(w.text.encode()) for w in chosen) <= 300
    unseen = {d.id for d in corpus.documents(split="test")}
    assert {w.document for w in first} <= unseen


def test_gate_looks_at_the_upper_end(tmp_path):
    """A model that is better on the average, but not surely, does not pass the target's gate."""
    folder = tmp_path / "c"
    folder.mkdir()
    corpus = Corpus.write(folder, (Document(id=str(n), text=f"{n} " + "ab cd " * 30, split="test") for n in range(4)))
    method = BitsPerByte()
    windows = method.material(run_in(tmp_path / "r"), corpus)
    assert len(windows) == 4
    from lect.stages.evaluate.bits_per_byte import Scores

    ones = torch.ones(4).double().numpy()
    unsure = Scores(bits=ones * [80, 120, 85, 110], tokens=ones, unknown=0)
    sure = Scores(bits=ones * [90, 91, 89, 90], tokens=ones, unknown=0)
    base = Scores(bits=ones * 100, tokens=ones, unknown=0)
    for scores, passed in ((unsure, False), (sure, True)):
        run = run_in(tmp_path / str(passed))
        fragment = method.report(run, windows, {"base": base, "adapted": scores})
        assert fragment["target"]["difference"]["mean"] < 0
        assert [g.passed for g in run.gates] == [passed]


def test_no_target_text_is_refused(tmp_path):
    from lect.errors import UserError

    folder = tmp_path / "c"
    folder.mkdir()
    corpus = Corpus.write(folder, [Document(id="1", text="kept", role="kept", split="test")])
    with pytest.raises(UserError, match="no target text"):
        BitsPerByte().apply(run_in(tmp_path / "r"), base=Model(folder), model=Model(folder), corpus=corpus)
