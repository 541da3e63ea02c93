# SPDX-License-Identifier: Apache-2.0
"""llama.cpp itself, to prove an exported GGUF file with: token ids, next-token logits, greedy decoding.

Calls the C library inside the ``xllamacpp`` wheel (a test-time dependency), so that no server and no socket is
needed. Parameter structs are taken from the library's own defaults and handed back unread: they are wider here than
there, so that their layout may change.
"""

from __future__ import annotations

import ctypes
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lect.errors import UserError

ROOM = 2048  # bytes, more than any parameter struct of llama.cpp has


class _Params(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint64 * (ROOM // 8)),)


class _Batch(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint64 * 16),)


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_QUIET = _LOG(lambda level, text, data: None)


@cache
def _library() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise UserError("llama.cpp is needed for this: pip install xllamacpp") from error
    library = ctypes.CDLL(str(Path(xllamacpp.__file__).with_name("xllamacpp.abi3.so")))
    pointer, number, text = ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p
    floats, numbers = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int32)
    for name, result, arguments in (
        ("llama_backend_init", None, []),
        ("llama_log_set", None, [_LOG, pointer]),
        ("llama_model_default_params", _Params, []),
        ("llama_model_load_from_file", pointer, [text, _Params]),
        ("llama_model_free", None, [pointer]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", number, [pointer]),
        ("llama_vocab_is_eog", ctypes.c_bool, [pointer, number]),
        ("llama_tokenize", number, [pointer, text, number, numbers, number, ctypes.c_bool, ctypes.c_bool]),
        ("llama_detokenize", number, [pointer, numbers, number, text, number, ctypes.c_bool, ctypes.c_bool]),
        ("llama_context_default_params", _Params, []),
        ("llama_init_from_model", pointer, [pointer, _Params]),
        ("llama_set_n_threads", None, [pointer, number, number]),
        ("llama_free", None, [pointer]),
        ("llama_batch_get_one", _Batch, [numbers, number]),
        ("llama_decode", number, [pointer, _Batch]),
        ("llama_get_logits_ith", floats, [pointer, number]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_QUIET, None)
    library.llama_backend_init()
    return library


class LlamaCpp:
    """One GGUF file in llama.cpp, on the CPU; use it in a ``with`` block. The context holds 512 tokens."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._library = _library()
        self._threads = threads
        parameters = self._library.llama_model_default_params()
        self._model = self._library.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise UserError(f"{path}: llama.cpp does not load it; export the GGUF file again")
        self._vocab = self._library.llama_model_get_vocab(self._model)
        self.rows = int(self._library.llama_vocab_n_tokens(self._vocab))

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.llama_model_free(self._model)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of ``text``: none added, and control tokens in it are text, unless ``special``."""
        raw = text.encode()
        room = 2 * len(raw) + 16
        ids = (ctypes.c_int32 * room)()
        count = self._library.llama_tokenize(self._vocab, raw, len(raw), ids, room, special, special)
        return list(ids[:count])

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, control tokens spelled out; broken characters are replaced."""
        numbers = (ctypes.c_int32 * len(ids))(*ids)
        room = 64 * len(ids) + 64
        text = ctypes.create_string_buffer(room)
        count = self._library.llama_detokenize(self._vocab, numbers, len(ids), text, room, False, True)
        return text.raw[:count].decode("utf-8", "replace")

    def logits(self, ids: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Next-token logits after every prefix of ``ids``; shape (len(ids), rows)."""
        with _Context(self) as context:
            return np.stack([context.step([i]) for i in ids])

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """The ``count`` likeliest next tokens one after another (it does not stop at an end token)."""
        result: list[int] = []
        with _Context(self) as context:
            row = context.step(ids)
            for _ in range(count):
                result.append(int(row.argmax()))
                row = context.step(result[-1:])
        return result

    def step_seconds(self, ids: list[int], start: int) -> float:
        """Seconds to go through ``ids[start:]`` token by token, as greedy decoding does, after a prompt of the rest."""
        with _Context(self) as context:
            context.step(ids[:start])
            begun = time.perf_counter()
            for i in ids[start:]:
                int(context.step([i]).argmax())
            return time.perf_counter() - begun


class _Context:
    def __init__(self, model: LlamaCpp) -> None:
        self._library, self._rows = model._library, model.rows
        self._context = self._library.llama_init_from_model(model._model, self._library.llama_context_default_params())
        self._library.llama_set_n_threads(self._context, model._threads, model._threads)

    def __enter__(self) -> _Context:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.llama_free(self._context)

    def step(self, ids: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits after the last of ``ids``, which follow what was given before."""
        numbers = (ctypes.c_int32 * len(ids))(*ids)
        status = self._library.llama_decode(self._context, self._library.llama_batch_get_one(numbers, len(ids)))
        if status:
            raise RuntimeError(f"llama.cpp: decoding failed with status {status}")
        return np.ctypeslib.as_array(self._library.llama_get_logits_ith(self._context, -1), (self._rows,)).copy()
