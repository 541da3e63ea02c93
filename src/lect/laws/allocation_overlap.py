# SPDX-License-Identifier: Apache-2.0
"""How much of a vocabulary each language gets, and how far two languages share it.

Limisiewicz, Balhar and Mareček, "Tokenization Impacts Multilingual Language Modeling" (arXiv:2305.17179, sec. 3), from
the counts f(v) of each token v in a text of language l and their shares d(v) = f(v) / sum f (eq. 3):

- *Allocation* by average rank (eq. 4), AR = sum rank(v) d(v), the most frequent token having rank 1: how many tokens
  the language is spread over. Higher is more.
- *Allocation* by characters per token (eq. 5), CPT: how long its tokens are. Higher is more.
- *Overlap* by Jensen-Shannon divergence of two languages (eq. 6 and 7), in bits, 0 to 1. Lower is more overlap.

No model is trained; a tokenizer and a text in each language are enough.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

from lect.errors import UserError
from lect.method import nearest

__all__ = ["ALLOCATION_HELPS", "DIVERGENCE_HELPS", "Tokenised", "average_rank", "characters_per_token", "count"]
__all__ += ["divergence", "overlap_helps", "shares"]

CARD = {
    "title": "Vocabulary allocation and overlap",
    "paper": "arXiv:2305.17179",
    "claim": "overlap hurts tagging and dependency labels across languages and helps inference and retrieval;"
    " long tokens go with better tagging, labels and entities",
    "differs": [
        "ranks count from 1 as positions do; the authors' code counts from 0, so that its average ranks are lower by 1",
        "characters are those of the text that was tokenized; the authors' code counts line ends among the characters"
        " and the special tokens of each line among the tokens",
        "correlations are those of tables 3 and 5, of masked models with 20 and 6 languages; they are no predictions",
    ],
    "version": 1,
}

DIVERGENCE_HELPS = {"entities": -0.111, "tagging": 0.395, "dependencies": 0.463, "inference": -0.516}
DIVERGENCE_HELPS["retrieval"] = -0.648
"""Table 5: Spearman's correlation of divergence with the score of transfer to another language, by task. That of
entities is not significant over all pairs; within one script the paper finds that overlap helps them (sec. 5.2)."""

ALLOCATION_HELPS = {
    "masked prediction": (-0.723, -0.913),
    "entities": (0.394, 0.657),
    "tagging": (0.320, 0.724),
    "dependencies": (0.266, 0.675),
    "inference": (0.56, 0.388),
}
"""Table 3: Spearman's correlations of average rank and of characters per token with the score in the language."""


@dataclass(frozen=True)
class Tokenised:
    """A text of one language after tokenization: the count of each token, and the characters that went in."""

    counts: Mapping[Hashable, int]
    characters: int


def count(texts: Iterable[str], tokenize: Callable[[str], Iterable[Hashable]]) -> Tokenised:
    """Count the tokens of ``texts``; ``tokenize`` gives the tokens or ids of a text, without special ones."""
    counts: Counter[Hashable] = Counter()
    characters = 0
    for text in texts:
        characters += len(text)
        counts.update(tokenize(text))
    return Tokenised(counts, characters)


def shares(counts: Mapping[Hashable, int]) -> dict[Hashable, float]:
    """The share of each token that occurs (eq. 3). ``UserError`` if none does or a count is negative."""
    total = sum(counts.values())
    if total <= 0 or min(counts.values()) < 0:
        raise UserError(f"token counts: {len(counts)} tokens with a total of {total}; give a text with tokens in it")
    return {token: number / total for token, number in counts.items() if number}


def average_rank(counts: Mapping[Hashable, int]) -> float:
    """Over how many tokens the language is spread (eq. 4): 1 for one token, (n + 1) / 2 for n equally frequent ones."""
    ordered = sorted(shares(counts).values(), reverse=True)
    return math.fsum(rank * share for rank, share in enumerate(ordered, 1))


def characters_per_token(text: Tokenised) -> float:
    """How many characters a token holds on average (eq. 5). ``UserError`` if there is no token."""
    shares(text.counts)
    return text.characters / sum(text.counts.values())


def divergence(left: Mapping[Hashable, int], right: Mapping[Hashable, int]) -> float:
    """How little two languages share, in bits (eq. 6 and 7): 0 for equal shares, 1 for no token in common."""
    one, two = shares(left), shares(right)
    terms = []
    for token in one.keys() | two.keys():
        p, q = one.get(token, 0.0), two.get(token, 0.0)
        terms += [share * math.log2(2 * share / (p + q)) for share in (p, q) if share]
    return min(1.0, max(0.0, math.fsum(terms) / 2))


def overlap_helps(task: str) -> bool | None:
    """Whether tokens that languages share go with better transfer in ``task`` (table 5); None if not significant."""
    if task not in DIVERGENCE_HELPS:
        known = ", ".join(DIVERGENCE_HELPS)
        raise UserError(f"overlap_helps: no task {task!r}; take one of {known}.{nearest(task, DIVERGENCE_HELPS)}")
    return None if task == "entities" else DIVERGENCE_HELPS[task] < 0
