# SPDX-License-Identifier: Apache-2.0
"""Text to tokens, the one way: what the user wrote is text, also where it spells a control token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_TEXTS = 1000


def backend(tokenizer: Any) -> Any:
    """The Rust tokenizer inside a ``PreTrainedTokenizerFast``, or the tokenizer itself if it is one."""
    return getattr(tokenizer, "backend_tokenizer", tokenizer)


@contextmanager
def plain(tokenizer: Any) -> Iterator[Any]:
    """The Rust tokenizer with control tokens, padding and truncation switched off; all restored afterwards."""
    rust = backend(tokenizer)
    before = rust.encode_special_tokens, rust.padding, rust.truncation
    rust.encode_special_tokens = True
    rust.no_padding()
    rust.no_truncation()
    try:
        yield rust
    finally:
        rust.encode_special_tokens = before[0]
        if before[1] is not None:
            rust.enable_padding(**before[1])
        if before[2] is not None:
            rust.enable_truncation(**before[2])


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text: no special token is added, and none is read out of the text."""
    result: list[list[int]] = []
    with plain(tokenizer) as rust:
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = rust.encode_batch_fast(list(texts[start : start + BATCH_TEXTS]), add_special_tokens=False)
            result.extend(encoding.ids for encoding in batch)
    return result


def encode_spans(tokenizer: Any, texts: Sequence[str]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each text, and where its tokens stand in it: (t, 2) first and last character, the last one not included.

    The tokens are those of :func:`encode`.
    """
    with plain(tokenizer) as rust:
        for start in range(0, len(texts), BATCH_TEXTS):
            some = list(texts[start : start + BATCH_TEXTS])
            for text, found in zip(some, rust.encode_batch(some, add_special_tokens=False), strict=True):
                yield text, np.asarray(found.offsets, dtype=np.int64).reshape(-1, 2)


def byte_count(texts: Sequence[str]) -> int:
    """The number of UTF-8 bytes of all texts (a lone surrogate counts as its three bytes)."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
