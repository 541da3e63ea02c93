# SPDX-License-Identifier: Apache-2.0
"""Two toy languages with the same meanings in other words, for initialisers that work across languages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from lect.ops.tokenizer import Vocabulary
from lect.parts.init.kind import NewTokens

WORDS = 48
WIDTH = 64


@dataclass(frozen=True)
class Two:
    """Word n of one language means what word n of the other means, and stands beside words of near numbers."""

    old: list[str]
    new: list[str]
    table_vd: Tensor
    """The rows of ``[UNK]`` and of the old words, (1 + WORDS, WIDTH), orthonormal."""
    tokens: NewTokens

    def dictionary(self, numbers: Any) -> str:
        """Lines of the new word, a tab and the old one, for these meanings."""
        return "".join(f"{self.new[n]}\t{self.old[n]}\n" for n in numbers)

    def shares(self, rows_md: Tensor) -> Tensor:
        """How much of each new row is each old word's row: (m, WORDS)."""
        return rows_md @ self.table_vd[1:].T


def two(seed: int = 0, sentences: int = 1500, shared: Collection[int] = (), capitals: Collection[int] = ()) -> Two:
    """The languages, with kept text in the old and target text in the new one.

    The words of ``shared`` are equal in both; those of ``capitals`` have a capital in the new one, and are else equal.
    """
    random = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    spelled = sorted({"".join(random.choice(letters, 7)) for _ in range(3 * WORDS)})
    random.shuffle(spelled)
    old, new = spelled[:WORDS], spelled[WORDS : 2 * WORDS]
    new = [old[n] if n in shared else word for n, word in enumerate(new)]
    new = [old[n].title() if n in capitals else word for n, word in enumerate(new)]
    texts = [
        [" ".join(words[(at + int(step)) % WORDS] for at, step in _walk(random)) for _ in range(sentences)]
        for words in (old, new)
    ]
    every = ["[UNK]", *dict.fromkeys([*old, *new])]
    before, after = _tokenizer(every[: 1 + WORDS]), _tokenizer(every)
    table_vd = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed)))[0][: 1 + WORDS]
    tokens = NewTokens(
        old=Vocabulary.read(before),
        new=Vocabulary.read(after),
        origin=[n if n <= WORDS else -1 for n in range(len(every))],
        pieces=[[0]] * (len(every) - 1 - WORDS),
        old_tokenizer=before,
        new_tokenizer=after,
        texts=texts[1],
        kept_texts=texts[0],
        live=None,
        side="input",
        seed=seed,
    )
    return Two(old, new, table_vd.contiguous(), tokens)


def _walk(random: np.random.Generator) -> list[tuple[int, int]]:
    """Eight words around a place on a ring; the ring is not the same all around, so that it can be told how it lies."""
    at = int(WORDS * random.random() ** 1.5)
    return [(at, step) for step in random.integers(-2, 3, 8)]


def _tokenizer(words: list[str]) -> Tokenizer:
    rust = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    return rust
