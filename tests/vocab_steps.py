# SPDX-License-Identifier: Apache-2.0
"""Vocabulary steps on any small tokenizer: a tiny model around it, a corpus of a few lines, and the step run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lect.artefacts import Corpus, Document, Model
from lect.method import Run
from lect.registry import build_step


def apply(step: str, folder: Path, base: Model, corpus: Corpus, **knobs: Any) -> tuple[Model, Run]:
    """What the step makes in a new folder, and its run."""
    (folder / "out").mkdir(parents=True)
    (folder / "scratch").mkdir()
    run = Run(folder=folder / "out", scratch=folder / "scratch")
    return build_step(step, {"multiple": 1, **knobs}).apply(run, model=base, corpus=corpus), run  # type: ignore[return-value]


def model_of(rust: Tokenizer, folder: Path, template: str | None = None) -> Model:
    """A tiny model with this tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust)
    tokenizer.chat_template = template
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        live = GPT2LMHeadModel(config).eval()
    folder.mkdir(parents=True)
    return Model.write(folder, live, tokenizer)


def corpus_of(folder: Path, target: Sequence[str], kept: Sequence[str] = ()) -> Corpus:
    """Training documents of one line each."""
    folder.mkdir(parents=True)
    texts = [*(("target", text) for text in target), *(("kept", text) for text in kept)]
    lines = (Document(id=f"{n}", text=text, role=role, split="train") for n, (role, text) in enumerate(texts))
    return Corpus.write(folder, lines)
