# SPDX-License-Identifier: Apache-2.0
"""Read a GGUF file: its fields in a second also with 262k tokens, its tensors as fp32 arrays, every bound checked.

The layout is that of the GGUF specification, version 2 and 3, little-endian: header, fields, tensor records, data.
Blocks of quantised values are decoded by the ``gguf`` package.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from lect.errors import UserError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
CHUNK_VALUES = 1 << 24  # values decoded at once: 64 MiB of fp32


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: ``shape`` with the slowest axis first (as torch has it), type, and byte range."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


@dataclass
class GgufFile:
    """The fields and tensors of one GGUF file; the data stays on disk until a tensor is asked for."""

    path: Path
    fields: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Stored] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            with open(self.path, "rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be read ({error}); give another file") from error
        try:
            self._parse()
        except (struct.error, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{self.path}: is a damaged GGUF file ({error}); download or export it again") from error

    def _parse(self) -> None:
        if self._data[:4] != b"GGUF":
            raise UserError(f"{self.path}: is not a GGUF file (it does not begin with GGUF); give another file")
        self._at = 4
        version = self._scalar("I")
        if version not in (2, 3):
            raise UserError(f"{self.path}: is GGUF version {version}; lect reads little-endian versions 2 and 3")
        tensors, fields = self._scalar("Q"), self._scalar("Q")
        for _ in range(self._counted(fields, 12)):
            name = self._string()
            self.fields[name] = self._value(self._scalar("I"))
        rows = []
        for _ in range(self._counted(tensors, 24)):
            name = self._string()
            shape = tuple(reversed([self._scalar("Q") for _ in range(self._counted(self._scalar("I"), 8))]))
            rows.append((name, shape, self._scalar("I"), self._scalar("Q")))
        step = self.fields.get("general.alignment", 32)
        if not isinstance(step, int) or step < 1:
            raise struct.error(f"general.alignment is {step!r}")
        start = -(-self._at // step) * step
        for name, shape, number, offset in rows:
            self.tensors[name] = self._stored(name, shape, number, start + offset)

    def _stored(self, name: str, shape: tuple[int, ...], number: int, start: int) -> Stored:
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise UserError(
                f"{self.path}: tensor {name} is of type {number}, which this gguf package does not know; upgrade gguf"
            ) from None
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if not shape or shape[-1] % block:
            raise struct.error(f"tensor {name} of shape {shape} is not whole blocks of {block}")
        size = prod(shape) // block * block_bytes
        if start + size > len(self._data):
            raise struct.error(f"tensor {name} ends at byte {start + size} of {len(self._data)}; the file is cut short")
        return Stored(name, shape, kind, start, size)

    def _scalar(self, form: str) -> Any:
        value = struct.unpack_from("<" + form, self._data, self._at)[0]
        self._at += struct.calcsize("<" + form)
        return value

    def _counted(self, count: int, least: int) -> int:
        """``count`` if so many things of at least ``least`` bytes can follow."""
        if count * least > len(self._data) - self._at:
            raise struct.error(f"{count} entries are announced at byte {self._at}, more than the file can hold")
        return count

    def _string(self) -> str:
        size = self._counted(self._scalar("Q"), 1)
        self._at += size
        return self._data[self._at - size : self._at].decode("utf-8", "replace")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self._string()
        if kind in SCALARS:
            return self._scalar(SCALARS[kind])
        if kind != ARRAY or depth > 2:
            raise struct.error(f"field type {kind} at byte {self._at}")
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner in SCALARS:
            size = struct.calcsize("<" + SCALARS[inner])
            start, self._at = self._at, self._at + self._counted(count, size) * size
            return list(struct.unpack_from(f"<{count}{SCALARS[inner]}", self._data, start))
        return [self._value(inner, depth + 1) for _ in range(self._counted(count, 8))]

    def blocks(self, name: str) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        """Yield a tensor as fp32 arrays, some rows at a time (axis 0; a vector comes whole)."""
        stored = self.tensors[name]
        rows = prod(stored.shape[:-1])
        row_bytes = stored.size // max(rows, 1)
        step = max(1, CHUNK_VALUES // stored.shape[-1])
        for row in range(0, rows, step):
            count = min(step, rows - row)
            raw = np.frombuffer(self._data, np.uint8, count * row_bytes, stored.start + row * row_bytes)
            try:
                values = dequantize(raw.reshape(count, row_bytes), stored.kind)
            except NotImplementedError:
                raise UserError(
                    f"{self.path}: tensor {name} is quantised as {stored.kind.name}, which the gguf package cannot "
                    "decode; give the model in F16, BF16, Q8_0 or a K-quant"
                ) from None
            values = values.reshape(count, stored.shape[-1])
            yield values if values.flags.writeable else values.copy()

    def array(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A whole tensor as an fp32 array of its own shape."""
        return np.concatenate(list(self.blocks(name))).reshape(self.tensors[name].shape)
