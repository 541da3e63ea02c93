# SPDX-License-Identifier: Apache-2.0
"""Trim and extend with the tokenizers of published models, on models of their family with random pico weights."""

from __future__ import annotations

import io
import json
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard

from lect import data
from lect.artefacts import Corpus, Document, Model
from lect.method import Run
from lect.ops.text import encode
from lect.registry import build_step

FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "tokenizers"
FAMILIES = {
    "llama3": "llama",
    "llama2": "llama",
    "qwen3": "qwen3",
    "gemma3": "gemma3",
    "gpt4o": "gpt2",
    "deepseek_v3": "llama",
}


@cache
def texts(language: str, count: int) -> list[str]:
    """The first texts of a bundled language."""
    with open(data.path(language), "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as raw:
        lines = islice(io.TextIOWrapper(raw, encoding="utf-8"), count)
        return [json.loads(line)["text"][:1500] for line in lines]


def corpus(folder: Path, target: str) -> Corpus:
    """Forty documents of the target language and twenty of English."""
    folder.mkdir()
    rows = []
    for role, language, count in (("target", target, 40), ("kept", "en", 20)):
        for n, text in enumerate(texts(language, count)):
            split = "test" if n % 5 == 3 else "calibration" if n % 5 == 1 else "train"
            rows.append(Document(id=f"{role}-{n}", text=text, role=role, split=split))
    return Corpus.write(folder, rows)


def model(name: str, folder: Path) -> Model:
    """A model of the tokenizer's family, of random weights and width 16, with rows to spare."""
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(FOLDER / name, local_files_only=True)
    rows = max(tokenizer.get_vocab().values()) + 12
    small = {"vocab_size": rows, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    wide = small | {"intermediate_size": 16, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 4096}
    ids = {f"{key}_token_id": getattr(tokenizer, f"{key}_token_id") for key in ("bos", "eos", "pad")}
    kinds: dict[str, Any] = {
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**wide, **ids)),
        "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**wide, **ids)),
        "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**wide, **ids)),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=rows, n_embd=16, n_layer=1, n_head=1, n_positions=4096, **ids)
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        live = kinds[FAMILIES[name]]().eval()
    return Model.write(folder, live, tokenizer)


def run_in(folder: Path) -> Run:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True)
    return Run(folder=folder / "out", scratch=folder / "scratch")


CASES = [("llama3", "eu"), ("llama2", "km"), ("qwen3", "eu"), ("gemma3", "km"), ("gpt4o", "eu"), ("deepseek_v3", "eu")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "target"), CASES)
def test_trim_then_extend(name: str, target: str, tmp_path: Path) -> None:
    """Every gate holds, the vocabulary shrinks, the target needs fewer tokens, and chat templates still render."""
    if not (FOLDER / name).exists():
        pytest.skip(f"the tokenizer of {name} was not fetched: python scripts/fetch_tokenizers.py {FOLDER}")
    base, text = model(name, tmp_path / "base"), corpus(tmp_path / "corpus", target)
    trimming, extending = run_in(tmp_path / "trim"), run_in(tmp_path / "extend")
    trimmed = build_step("vocab/trim", {}).apply(trimming, model=base, corpus=text)
    made = build_step("vocab/extend", {"tokens": 256, "least": 4}).apply(extending, model=trimmed, corpus=text)
    assert isinstance(made, Model)
    for run in (trimming, extending):
        assert all(gate.passed for gate in run.gates), run.gates
    old, new = base.tokenizer(), made.tokenizer()
    assert len(new) < 0.8 * len(old)
    unseen = text.texts("target", "test")
    before, after = (sum(map(len, encode(tokenizer, unseen))) for tokenizer in (old, new))
    assert after < 0.95 * before
    said = [
        [t.backend_tokenizer.decode(ids, skip_special_tokens=False) for ids in encode(t, unseen)] for t in (old, new)
    ]
    assert said[0] == said[1]
    if old.chat_template:
        said = [{"role": "user", "content": "Kaixo"}]
        was, now = (t.apply_chat_template(said, tokenize=False, add_generation_prompt=True) for t in (old, new))
        assert was == now
        assert new(now, add_special_tokens=False).input_ids
