# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder as a GGUF file, and the check that the file holds what the folder holds.

Weights are written one after another, so that memory holds the model once. Vectors stay fp32 whatever the dtype, as
llama.cpp wants them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import quantize

from lect.artefacts import Model
from lect.errors import UserError
from lect.ops import gguf_families as families
from lect.ops import gguf_tokenizer, gguf_vocabulary
from lect.ops.gguf_file import GgufFile
from lect.ops.text import encode

KINDS = {"f32": Kind.F32, "bf16": Kind.BF16, "f16": Kind.F16, "q8_0": Kind.Q8_0}
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
WHOLE = ("position_embd.weight",)  # tables that llama.cpp reads in fp32 only
Q8_BLOCK = 32
PROBE_TEXT = "Kaixo, mundua!\n\n\tif (x != 1) {  return  'ñ\u00a0é🙂';  }\r\n ٣ नमस्ते 数字 ﷺ <b>1234567</b>   end "


class Source:
    """A model folder, opened once: the model in the dtype of its files, its family, configuration and tokenizer."""

    def __init__(self, model: Model) -> None:
        from lect.ops import model_folder

        self.where = str(model.folder)
        config = model_folder.read_config(model.folder)
        self.family = families.by_type(config.model_type, self.where)
        self.live: Any = model.load(dtype=config.dtype or torch.float32)
        self.rows = int(self.live.get_input_embeddings().weight.shape[0])
        self.config: dict[str, Any] = self.live.config.to_dict()
        self.tokenizer: Any = model.tokenizer()

    def tensors(self, dtype: str) -> Iterator[tuple[str, Callable[[], Any], Kind, tuple[int, ...]]]:
        """Yield name, maker of the values (fp32), type and shape of every tensor of the file."""
        family, config = self.family, self.config
        if (factors := families.llama3_factors(config)) is not None:
            yield "rope_freqs.weight", lambda: factors, Kind.F32, factors.shape
        layers = int(config.get("num_hidden_layers") or config["n_layer"])
        for name, tensor in self.live.state_dict().items():
            if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                continue
            stored = family.name(name, layers)
            turned = name.endswith(family.transposed or ("\0",))
            shape = tuple(reversed(tensor.shape)) if turned else tuple(tensor.shape)
            kind = Kind.F32 if len(shape) == 1 or stored in WHOLE else KINDS[dtype]
            if kind == Kind.Q8_0 and shape[-1] % Q8_BLOCK:
                kind = Kind.F16

            def values(name: str = name, tensor: torch.Tensor = tensor) -> Any:
                return np.ascontiguousarray(family.forward(name, tensor.float().numpy(), config))

            yield stored, values, kind, shape


def write(source: Source, path: Path, dtype: str, name: str = "", licence: str | None = None) -> list[str]:
    """Write the model as ``path`` in ``dtype`` (f32, bf16, f16 or q8_0); returns what differs in llama.cpp, in words.

    Raises UserError for a setting or a tokenizer that has no exact form in GGUF.
    """
    family, where = source.family, source.where
    vocabulary = gguf_vocabulary.write(source.tokenizer, source.rows)
    fields = families.write_config(family, source.config, where) | vocabulary.fields
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer = gguf.GGUFWriter(temporary, family.arch)
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(name or family.arch)
        if licence:
            writer.add_license(licence)
        writer.add_file_type(FILE_TYPES[dtype])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in fields.items():
            _add(writer, key, value)
        for tensor, _, kind, shape in source.tensors(dtype):
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            size = int(np.prod(shape)) // block * block_bytes
            stored = [*shape[:-1], shape[-1] // block * block_bytes] if block > 1 else shape
            element = np.uint8 if block > 1 else np.float32
            writer.add_tensor_info(tensor, stored, np.dtype(element), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, values, kind, _ in source.tensors(dtype):
            writer.write_tensor_data(_stored(tensor, values(), kind, where))
        writer.close()
        os.replace(temporary, path)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    return vocabulary.notes


def tensor_error(source: Source, path: Path) -> float:
    """The greatest error of a weight in the file, in units of what the rounding of its dtype allows; at most 1.

    Weights that their dtype holds exactly allow no error at all: then any error is infinite in these units.
    """
    file = GgufFile(path)
    worst = 0.0
    wanted = {tensor: values for tensor, values, _, _ in source.tensors("f32")}
    if set(wanted) != set(file.tensors):
        return float("inf")
    for tensor, values in wanted.items():
        kind, row = file.tensors[tensor].kind, 0
        whole = values()
        if whole.shape != file.tensors[tensor].shape:
            return float("inf")
        whole = whole.reshape(-1, whole.shape[-1])
        for block in file.blocks(tensor):
            truth = whole[row : row + len(block)]
            row += len(block)
            error, allowed = np.abs(truth - block), _allowed(truth, kind)
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(error == 0, 0.0, error / allowed)
            worst = max(worst, float(share.max(initial=0.0)))
    return worst


def vocabulary_error(source: Source, path: Path) -> int:
    """How many probe texts the file's own vocabulary segments otherwise: every token's text, and a hard line."""
    ours = source.tokenizer
    theirs = gguf_tokenizer.read(GgufFile(path).fields, str(path))
    tokens = [ours.decode([i]) for i in sorted(ours.get_vocab().values())]
    probes = [*tokens, PROBE_TEXT, *(f"{a} {b}{a}" for a, b in zip(tokens[::7], tokens[1::7], strict=False))]
    pairs = zip(encode(ours, probes), encode(theirs, probes), strict=True)
    return sum(a != b for a, b in pairs)


def _stored(name: str, values: Any, kind: Kind, where: str) -> Any:
    """The bytes of a tensor."""
    if kind == Kind.F16 and np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
        raise UserError(f"{where}: tensor {name} has values beyond fp16; choose dtype bf16")
    return values if kind == Kind.F32 else quantize(values, kind)


def _allowed(truth: Any, kind: Kind) -> Any:
    """The greatest error that rounding to ``kind`` may make, for each value."""
    if kind == Kind.BF16:
        return np.abs(truth) * 2.0**-8 * (truth.view(np.uint32) & 0xFFFF != 0)
    if kind == Kind.F16:
        inexact = truth.astype(np.float16).astype(np.float32) != truth
        return np.maximum(np.abs(truth) * 2.0**-11, 2.0**-25) * inexact
    if kind == Kind.Q8_0:
        blocks = np.abs(truth).reshape(len(truth), -1, Q8_BLOCK).max(-1)
        step = blocks / 127  # the scale of a block, kept as fp16: half a step, and its own rounding times 127
        return np.repeat(step * (0.5 + 127 * 2.0**-11) + 127 * 2.0**-25, Q8_BLOCK, axis=-1)
    return np.zeros_like(truth)


def _add(writer: Any, key: str, value: Any) -> None:
    """Add a field in the type that llama.cpp expects of it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)
