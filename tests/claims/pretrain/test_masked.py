# SPDX-License-Identifier: Apache-2.0
"""Continued masked pretraining: the loss of transformers, fewer bits on the text, a plain folder, clear refusals."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, BertModel

import masked_streams
from lect.artefacts import Corpus, Document, Model
from lect.errors import UserError
from lect.method import Run
from lect.registry import build_step, check_values, find
from lect.testing import pico
from lect.testing.contract import Bench
from masked_streams import stream

BERT = Path(__file__).resolve().parents[3] / ".venv" / "tokenizers" / "minilm"
applied = partial(masked_streams.applied, "pretrain/masked")


def test_the_first_loss_is_the_one_of_transformers(bench: Bench, tmp_path: Path) -> None:
    """One batch of the pico corpus, padded, masked and labelled for the model's own loss."""
    base, corpus = bench.model("bert"), bench.corpus("all")
    run = applied(tmp_path, base, corpus, seed=5, tokens=256, batch_tokens=256, max_length=40)
    live, tokenizer = base.load(), base.tokenizer()
    training = [d for role in ("target", "kept") for d in corpus.documents(role, "train")]
    batch = stream(tokenizer, training, room=256, seed=5).batch(0)
    label_t = torch.full_like(batch.row.ids_t, -100)
    label_t[batch.row.chosen_m] = batch.target_t
    lengths = batch.row.offsets.diff().tolist()

    def padded(values_t: torch.Tensor, fill: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([*torch.split(values_t, lengths)], True, fill)

    seen_nt = padded(torch.ones_like(label_t), 0)
    with torch.no_grad():
        made = live(input_ids=padded(batch.row.ids_t, 0), attention_mask=seen_nt, labels=padded(label_t, -100))
    assert run.facts["losses"][0]["loss"] == pytest.approx(made.loss.item(), rel=1e-4)


def test_masked_tokens_of_the_text_take_fewer_bits(bench: Bench, tmp_path: Path) -> None:
    """Over three seeds, at least one bit a masked token on text that was not trained on."""
    for seed in range(3):
        knobs = {"tokens": 64 * 150, "learning_rate": 3e-3}
        run = applied(tmp_path / str(seed), bench.model("bert"), bench.corpus("all"), seed=seed, **knobs)
        before, after = run.facts["masked_evaluations"][0], run.facts["masked_evaluations"][-1]
        assert after["target"] < before["target"] - 1, (before, after)
        assert all(gate.passed for gate in run.gates)


def test_the_folder_is_that_of_langsamp_without_tags(bench: Bench, tmp_path: Path) -> None:
    base, corpus = bench.model("bert"), bench.corpus("all")
    applied(tmp_path / "masked", base, corpus)
    masked_streams.applied("pretrain/langsamp", tmp_path / "bare", base, corpus, languages=False, scripts=False)
    made = Model(tmp_path / "masked" / "out")
    assert made.fingerprint == Model(tmp_path / "bare" / "out").fingerprint
    assert {p.name for p in made.folder.iterdir()} == {p.name for p in base.folder.iterdir()}
    old, new = (load_file(folder / "model.safetensors") for folder in (base.folder, made.folder))
    assert {n: t.shape for n, t in old.items()} == {n: t.shape for n, t in new.items()}
    _, report = AutoModelForMaskedLM.from_pretrained(made.folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]


@pytest.mark.parametrize(
    ("step", "objective"),
    [("pretrain/masked", "next_token"), ("pretrain/langsamp", "reweight"), ("pretrain/continue", "masked_tokens")],
)
def test_an_objective_of_the_other_kind_of_model_is_refused_before_anything_runs(step: str, objective: str) -> None:
    with pytest.raises(UserError, match=f"objective '{objective}' is for models of another kind; use one of: ") as told:
        check_values(find(step), {"objective": objective}, "steps[0]")
    fitting = str(told.value).rpartition(": ")[2].split(", ")
    assert ("masked_terms" in fitting) == (step != "pretrain/continue")
    assert all(check_values(find(step), {"objective": name}, "steps[0]") for name in fitting)


def test_models_that_fill_in_nothing_are_refused(bench: Bench, tmp_path: Path) -> None:
    live, tokenizer = pico.build("bert")
    (tmp_path / "bare").mkdir()
    with torch.random.fork_rng():
        bare = Model.write(tmp_path / "bare", BertModel(live.config), tokenizer)
    with pytest.raises(UserError, match=r"^BertModel: has no head that fills in masked tokens"):
        applied(tmp_path / "a", bare, bench.corpus("all"))
    with pytest.raises(UserError, match="no mask token"):
        applied(tmp_path / "b", bench.model("llama"), bench.corpus("all"))


@pytest.mark.skipif(not BERT.exists(), reason="the published encoder was not fetched")
def test_a_published_encoder_without_its_head_is_refused(tmp_path: Path) -> None:
    for name in ("out", "scratch", "corpus"):
        (tmp_path / name).mkdir()
    rows = [Document(id=str(n), text=f"Cell {n} of the sheet", role="target", split="train") for n in range(20)]
    given: dict[str, Any] = {"base": Model(BERT), "model": Model(BERT)}
    run = Run(folder=tmp_path / "out", scratch=tmp_path / "scratch")
    with pytest.raises(UserError, match="has no head that fills in masked tokens"):
        build_step("pretrain/masked", {}).apply(run, **given, corpus=Corpus.write(tmp_path / "corpus", rows))
