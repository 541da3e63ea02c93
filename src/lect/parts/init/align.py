# SPDX-License-Identifier: Apache-2.0
"""A new token starts as the mean of the old tokens that stand in its place in the text."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import torch
from torch import Tensor

from lect.method import knobs
from lect.ops.text import BATCH_TEXTS, plain
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "Alignment of old and new segmentation",
    "paper": "arXiv:2406.11477",
    "claim": "each new row is the mean, by frequency, of the means of the old tokens that stand in its places",
    "differs": [
        "taken from the authors' code (gucci-j/lowres-cve, align_init.py), which counts a token once in each line, at "
        "its last occurrence, and aligns the first one to the begin-of-text token too; here each occurrence counts",
        "a token that the text does not hold is the mean of its old pieces; the code goes back over its merges",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}
Alignments = dict[int, Counter[tuple[int, ...]]]
"""For each new id, how often it was aligned to which old ids."""


@knobs
class Align(Init):
    """New rows that are means over what the old tokenizer makes of the same places in the text."""

    spelling: bool = False
    """Whether the segmentation of the token by itself counts too, as often as its most frequent alignment."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is sum_a f_a mean(E[a]) over the sequences of old ids a that n is aligned to, with frequencies f_a."""
        found = alignments(new)
        rows = []
        for n, pieces in zip(new.ids, new.pieces, strict=True):
            counted = Counter(found.get(n, ()))
            if self.spelling or not counted:
                counted[tuple(pieces)] += max(counted.values(), default=1)
            total = sum(counted.values())
            rows.append(sum(times / total * table_vd[list(ids)].mean(0) for ids, times in counted.items()))
        return torch.stack([torch.as_tensor(row_d) for row_d in rows])


def alignments(new: NewTokens) -> Alignments:
    """What old ids each new token stands for in the text.

    An old token belongs to an occurrence of a new one when its stretch of characters lies within that of the new
    token, or the other way round.
    """
    fresh = set(new.ids)
    found: Alignments = defaultdict(Counter)
    with plain(new.old_tokenizer) as old, plain(new.new_tokenizer) as grown:
        for start in range(0, len(new.texts), BATCH_TEXTS):
            batch = list(new.texts[start : start + BATCH_TEXTS])
            before = old.encode_batch(batch, add_special_tokens=False)
            after = grown.encode_batch(batch, add_special_tokens=False)
            for was, now in zip(before, after, strict=True):
                at = [place for place, n in enumerate(now.ids) if n in fresh]
                if at and was.ids:
                    _align(was.ids, np.asarray(was.offsets), now.ids, np.asarray(now.offsets), at, found)
    return found


def _align(
    old: list[int], old_n2: np.ndarray, new: list[int], new_n2: np.ndarray, at: list[int], found: Alignments
) -> None:
    """Count what stands in the places ``at`` of one text; offsets of both segmentations only ever rise."""
    first_n, last_n = old_n2.T
    begin_k, end_k = new_n2[at].T
    inside = np.searchsorted(first_n, begin_k), np.searchsorted(last_n, end_k, side="right")
    around = np.searchsorted(last_n, end_k), np.searchsorted(first_n, begin_k, side="right")
    for k, place in enumerate(at):
        spans = [range(low[k], high[k]) for low, high in (inside, around)]
        places = sorted({j for span in spans for j in span})
        if places:
            found[new[place]][tuple(old[j] for j in places)] += 1
