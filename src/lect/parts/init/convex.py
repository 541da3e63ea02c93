# SPDX-License-Identifier: Apache-2.0
"""A new token starts inside the hull of the old rows, where the words around it put it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lect.method import Range, knobs
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "Constrained Word2Vec",
    "paper": "arXiv:2407.05841",
    "claim": "each new row is a convex combination of old rows, with weights that lower the skip-gram loss on the text",
    "differs": [
        "the paper weighs all old tokens; here the most frequent ones of the text and the token's own pieces",
        "one weight for each pair of new and old token; the authors' code has a product of two factors of rank 1024",
        "weights begin at the token's pieces; the code begins at random",
        "the loss takes each negative by itself (Mikolov et al., arXiv:1310.4546, eq. 4); the code sums them first",
        "trained on the target text alone; the code takes text in which translated words are mixed",
        "settings are from the code (AI4Bharat/VocabAdaptation_LLM), the paper's own text was not at hand",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Convex(Init):
    """New rows that are weighted means of old rows, learnt so that they go with the tokens around them.

    Only the weights are learnt: old rows stay. Where the head is a table of its own, input rows meet output rows, and
    the weights of both sides are learnt together; else the one table is on both sides of the product.
    """

    candidates: Annotated[int, Range(at_least=1, at_most=100_000)] = 1024
    """How many of the text's most frequent old tokens every new row may draw on, beside its own pieces."""
    start: Annotated[float, Range(at_least=0, at_most=1)] = 0.9
    """Share of the weight that the own pieces have at the start; the candidates have the rest, evenly."""
    window: Annotated[int, Range(at_least=1, at_most=1000)] = 5
    """How far apart two tokens of a pair may be, in tokens."""
    negatives: Annotated[int, Range(at_least=1, at_most=100)] = 5
    """Tokens drawn at random against each pair, by their frequency to the power of 3/4."""
    threshold: Annotated[float, Range(above=0, at_most=1_000_000_000)] = 3.0
    """Tokens that the text holds n times stand in the middle of a pair at a rate of sqrt(threshold / n), at most 1."""
    steps: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 100
    """Updates of the weights."""
    pairs: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 8192
    """Pairs of each update."""
    learning_rate: Annotated[float, Range(above=0, at_most=10)] = 0.05
    """Learning rate of Adam, for the logarithms of the weights."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is sum_c softmax(a_n)_c E[c], with a_n learnt by skip-gram with negative samples."""
        places = torch.argsort(new.old_counts(len(table_vd)), descending=True, stable=True)
        used = int((new.old_counts(len(table_vd)) > 0).sum())
        shared_c = places[: min(self.candidates, used)]
        tables = {new.side: table_vd} | _other(table_vd, new)
        with torch.enable_grad():
            hulls = {side: Hull(table, shared_c, new.pieces, self.start) for side, table in tables.items()}
            pairs = Pairs.read(new, len(table_vd), self.window, self.threshold)
            if pairs is not None:
                self._learn(hulls, pairs, new)
            return hulls[new.side].rows().detach()

    def _learn(self, hulls: dict[str, Hull], pairs: Pairs, new: NewTokens) -> None:
        """Adam on the logits of each hull."""
        old_u, fresh_w = torch.from_numpy(pairs.old_u), torch.from_numpy(pairs.fresh_w)
        adam = torch.optim.Adam([hull.logits for hull in hulls.values()], lr=self.learning_rate)
        rng = np.random.default_rng(new.seed)  # of no side: both sides see the same pairs
        for step in range(self.steps):
            center_b, context_b = pairs.draw(self.pairs, rng)
            wrong_bk = pairs.noise((len(center_b), self.negatives), rng)
            known = {side: torch.cat([hull.table[old_u], hull.rows()[fresh_w]]) for side, hull in hulls.items()}
            inside = known.get("input", known[new.side])
            outside = known.get("output", inside)
            center_bd = functional.embedding(center_b, inside)
            loss = loss_of(center_bd, functional.embedding(context_b, outside), functional.embedding(wrong_bk, outside))
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            new.progress(step + 1, self.steps, loss=float(loss.detach()) / max(1, len(center_b)))


def loss_of(center_bd: Tensor, context_bd: Tensor, wrong_bkd: Tensor) -> Tensor:
    """Skip-gram with negative samples: -sum_b [log s(c_b o_b) + sum_k log s(-c_b w_bk)], s the logistic function."""
    right_b = (center_bd * context_bd).sum(1)
    wrong_bk = torch.einsum("bd,bkd->bk", center_bd, wrong_bkd)
    return -(functional.logsigmoid(right_b).sum() + functional.logsigmoid(-wrong_bk).sum())


class Hull:
    """Points in the hull of rows of a table: each has its own weights for the shared rows and for its pieces."""

    def __init__(self, table_vd: Tensor, shared_c: Tensor, pieces: Sequence[Sequence[int]], start: float) -> None:
        self.table = table_vd
        self.shared = shared_c
        start = start if len(shared_c) else 1.0
        longest = max(map(len, pieces))
        self.own = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in pieces])
        count_m1 = torch.tensor([[len(ids)] for ids in pieces])
        own_mp = (start / count_m1).expand(-1, longest).masked_fill(torch.arange(longest) >= count_m1, 0.0)
        shared_mc = torch.full((len(pieces), len(shared_c)), (1 - start) / max(1, len(shared_c)))
        self.logits = torch.cat([shared_mc, own_mp], dim=1).log().requires_grad_()

    def rows(self) -> Tensor:
        """The points, (m, d)."""
        weight_mc = self.logits.softmax(1)
        shared_mc, own_mp = weight_mc[:, : len(self.shared)], weight_mc[:, len(self.shared) :].contiguous()
        own_md: Tensor = functional.embedding_bag(self.own, self.table, per_sample_weights=own_mp, mode="sum")
        return own_md + shared_mc @ self.table[self.shared]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The text as a line of small numbers: the old ids that it uses first, then the new tokens that it uses."""

    old_u: NDArray[np.int64]
    """The old ids that the text uses in its new segmentation."""
    fresh_w: NDArray[np.int64]
    """The new tokens that it uses, by their number among the new tokens."""
    line: NDArray[np.int64]
    """The text."""
    text: NDArray[np.int64]
    """Which text each token belongs to."""
    middle: NDArray[np.float64]
    """How often, summed up, each place is the middle of a pair."""
    often: NDArray[np.float64]
    """How often, summed up, each number is drawn as a negative."""
    window: int

    @classmethod
    def read(cls, new: NewTokens, rows: int, window: int, threshold: float) -> Pairs | None:
        """The text in its new segmentation; None when no new token stands in it."""
        unified = np.asarray(new.origin, dtype=np.int64)
        unified[new.ids] = rows + np.arange(len(new.ids))
        flat = unified[np.concatenate([np.empty(0, np.int32), *new.new_text])]
        known, line, counts = np.unique(flat, return_inverse=True, return_counts=True)
        if not len(known) or known[-1] < rows:
            return None
        rate = np.minimum(1, np.sqrt(threshold / counts))
        return cls(
            old_u=known[known < rows],
            fresh_w=known[known >= rows] - rows,
            line=line,
            text=np.repeat(np.arange(len(new.new_text)), [len(ids) for ids in new.new_text]),
            middle=np.cumsum(rate[line]),
            often=np.cumsum(counts**0.75),
            window=window,
        )

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """At most ``count`` pairs of a middle token and one at most ``window`` places away in the same text."""
        at = np.searchsorted(self.middle, rng.random(count) * self.middle[-1], side="right")
        away = rng.integers(1, self.window + 1, count) * rng.choice([-1, 1], count)
        inside = (at + away >= 0) & (at + away < len(self.line))
        at, other = at[inside], (at + away)[inside]
        same = self.text[at] == self.text[other]
        return torch.from_numpy(self.line[at[same]]), torch.from_numpy(self.line[other[same]])

    def noise(self, shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Numbers drawn by frequency to the power of 3/4."""
        return torch.from_numpy(np.searchsorted(self.often, rng.random(shape) * self.often[-1], side="right"))


def _other(table_vd: Tensor, new: NewTokens) -> dict[str, Tensor]:
    """The table of the other side by its name, if there is one of the same shape."""
    body, head = new.live.get_input_embeddings(), new.live.get_output_embeddings()
    if head is None or head.weight is body.weight:
        return {}
    side, module = ("output", head) if new.side == "input" else ("input", body)
    other_vd = module.weight.detach().float()
    return {side: other_vd} if other_vd.shape == table_vd.shape else {}
