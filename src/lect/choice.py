# SPDX-License-Identifier: Apache-2.0
"""Which vocabulary: what keeping, trimming, extending and replacing would give, measured on a sample of the text.

Every candidate's tokenizer is made from four fifths of the sample and measured on the last fifth. What a token costs
follows from the parameters; how often training would meet each new token follows from the budget.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lect.method import Sizes
from lect.ops.growth import Merge, add, merges, words
from lect.ops.text import backend, byte_count, encode
from lect.ops.tokenizer import Vocabulary

HELD_OUT = 5
EXTENSIONS = (256, 1024, 4096, 16384)
LONGEST = 24
LEAST = 16
"""Fewest times that a pair stands in the whole text to become a token: the default of vocab/extend."""
SEEN = 100.0
"""Fewest times that training has to meet each new token, on average, for its shorter texts to pay: see LOG.md."""
REPLAY = 0.25


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One choice of vocabulary and what it would give; ratios are to keeping everything."""

    name: str
    steps: tuple[dict[str, Any], ...]
    """The recipe's vocabulary steps for this choice."""
    rows: int
    new: int
    """New tokens among the rows."""
    bytes_per_token: float
    """On target text that the candidate was not made from."""
    parameters: int
    head_flops: float
    """Operations of the head for one byte of target text."""
    speed: float
    """Bytes of target text in the same time, where matrix products are what takes the time."""
    seen: float
    """How often training would meet each new token, on average; 0 where there is none."""
    picked: bool = False


def candidates(tokenizer: Any, texts: Sequence[str], sizes: Sizes, trimmed: Sizes, tokens: float) -> list[Candidate]:
    """Every candidate, exactly one of them picked.

    ``texts`` is a sample of the target, ``trimmed`` what trimming would leave, ``tokens`` the budget of training.
    Candidates that this tokenizer or this sample does not allow are left out.
    """
    learnt = [text for n, text in enumerate(texts) if n % HELD_OUT] or list(texts)
    unseen = [text for n, text in enumerate(texts) if n % HELD_OUT == 0]
    size, old = byte_count(unseen), backend(tokenizer)
    base = size / max(1, sum(map(len, encode(old, unseen))))

    def row(name: str, steps: Sequence[dict[str, Any]], start: Sizes, rows: int, rust: Any, new: set[int]) -> Candidate:
        ids = Counter(i for text in encode(rust, unseen) for i in text)
        width = sizes.embedding_parameters / max(1, sizes.rows)
        parameters = int(start.parameters + (rows - start.rows) * width)
        ratio = size / max(1, ids.total())
        share = sum(n for i, n in ids.items() if i in new) / max(1, ids.total())
        return Candidate(
            name=name,
            steps=tuple(steps),
            rows=rows,
            new=len(new),
            bytes_per_token=ratio,
            parameters=parameters,
            head_flops=2 * rows * width / ratio,
            speed=sizes.parameters / parameters * ratio / base,
            seen=tokens * (1 - REPLAY) * share / len(new) if new else 0.0,
        )

    trim: dict[str, Any] = {"use": "vocab/trim"}
    found = [row("keep", [], sizes, sizes.rows, old, set()), row("trim", [trim], trimmed, trimmed.rows, old, set())]
    vocabulary = Vocabulary.read(tokenizer)
    counted = words(tokenizer, vocabulary, learnt)
    least = max(2, round(LEAST * byte_count(learnt) / max(1, sizes.target_bytes)))
    every = merges(counted, vocabulary, count=max(EXTENSIONS), least=least, longest=LONGEST)
    for count in EXTENSIONS:
        rust, new = grown(vocabulary, every, count)
        step = {"use": "vocab/extend", "with": {"tokens": count}}
        if new and (len(new) == count or count == EXTENSIONS[0]):
            found.append(row(f"extend {count:,}", [trim, step], trimmed, trimmed.rows + len(new), rust, new))
    return picked(found)


def grown(vocabulary: Vocabulary, every: Sequence[Merge], count: int) -> tuple[Any, set[int]]:
    """The tokenizer with the first ``count`` new tokens of the merges, and their ids."""
    from tokenizers import Tokenizer

    fresh: set[str] = set()
    end = 0
    for *_, token in every:
        if token not in vocabulary.ids and len(fresh | {token}) > count:
            break
        fresh |= {token} - vocabulary.ids.keys()
        end += 1
    cut = add(vocabulary.cut(vocabulary.strings), every[:end], {"": 1})
    return Tokenizer.from_str(json.dumps(cut.data)), {n for n, i in enumerate(cut.origin) if i < 0}


def picked(found: Sequence[Candidate]) -> list[Candidate]:
    """The same, with the pick marked: the fastest whose new tokens training meets often enough; else trimming.

    New tokens start as means of old ones and cost quality until training has met them; :data:`SEEN` says how often.
    """
    enough = [c for c in found if c.new and c.seen >= SEEN]
    best = max(enough, key=lambda c: c.speed) if enough else max(found, key=lambda c: c.speed if not c.new else 0.0)
    return [replace(c, picked=c is best) for c in found]
