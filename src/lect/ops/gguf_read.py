# SPDX-License-Identifier: Apache-2.0
"""A GGUF file as a Hugging Face folder: weights dequantised once, configuration and tokenizer rebuilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lect.errors import UserError
from lect.ops import gguf_families as families
from lect.ops import gguf_tokenizer
from lect.ops.gguf_file import GgufFile


def read(path: Path, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF file, the weights dequantised and rounded to ``dtype``.

    bf16 is the default: models are published in it, and its rounding (0.2 % of each weight) is finer than the steps
    of every quantisation up to 8 bits. Raises UserError for a damaged file or a family that lect does not know.
    """
    file = GgufFile(path)
    where = str(path)
    family = families.by_arch(str(file.fields.get("general.architecture")), where)
    tokenizer = gguf_tokenizer.read(file.fields, where)
    shapes = {name: stored.shape for name, stored in file.tensors.items()}
    try:
        settings = families.read_config(family, file.fields, shapes)
    except (KeyError, ValueError) as error:
        raise UserError(f"{where}: lacks {error}; export the GGUF file again") from error
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = _empty(settings | ids | {"pad_token_id": tokenizer.pad_token_id}, where)
    state: dict[str, torch.Tensor] = {}
    layers = int(file.fields[f"{family.arch}.block_count"])
    taken = set()
    for name, wanted in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stored = family.name(name, layers)
        taken.add(stored)
        if stored not in file.tensors:
            raise UserError(f"{where}: lacks the tensor {stored}; export the GGUF file again")
        state[name] = _tensor(file, stored, family, name, settings, dtype)
        if state[name].shape != wanted.shape:
            raise UserError(
                f"{where}: tensor {stored} has shape {tuple(state[name].shape)} where {tuple(wanted.shape)} is meant"
            )
    if "rope_freqs.weight" in file.tensors:
        raise UserError(f"{where}: has scaled rotary positions, which lect does not read; give the Hugging Face folder")
    if extra := sorted(set(file.tensors) - taken):
        raise UserError(f"{where}: has tensors that {family.arch} does not know: {', '.join(extra[:3])}")
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.config.dtype = dtype
    return model, tokenizer


def _empty(settings: dict[str, Any], where: str) -> Any:
    """The model without weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(settings)
    kind = settings.pop("model_type")
    try:
        config = AutoConfig.for_model(kind, **settings)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"{where}: its sizes make no model ({' '.join(str(error).split())})") from error


def _tensor(
    file: GgufFile, stored: str, family: families.Family, name: str, settings: dict[str, Any], dtype: torch.dtype
) -> torch.Tensor:
    """One tensor in ``dtype``; a table of embeddings is converted some rows at a time."""
    shape = file.tensors[stored].shape
    if stored in ("token_embd.weight", "output.weight"):
        result = torch.empty(shape, dtype=dtype)
        row = 0
        for block in file.blocks(stored):
            result[row : row + len(block)] = torch.from_numpy(block)
            row += len(block)
        return result
    values = family.backward(name, file.array(stored), settings)
    return torch.from_numpy(values.copy()).to(dtype)
