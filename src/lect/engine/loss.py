# SPDX-License-Identifier: Apache-2.0
"""Next-token loss over the vocabulary, block by block: the logits of a batch never exist at once in fp32.

Forward: for each block of the vocabulary the logits in the compute type, folded into a running maximum and sum in
fp32. Backward happens in the same call: for each block the softmax minus the one-hot, times its two products. Blocks
of logits are kept between the two passes while they fit in ``KEEP_BYTES``; beyond that they are computed again.
The scheme follows arXiv 2411.09009, section 4; its gradient filter is :class:`FilteredLoss`, used where asked for.

A second model may teach: its softmax q is a target beside the token itself. With a share s of the loss that is

    (1 - s) * -log p(target) + s * -sum over v of q(v) * log p(v),  with the slope  p - (1 - s) * one-hot - s * q

in the logits, p being the student's softmax. Blocks of the teacher's logits are made and dropped beside the student's.

Shapes: N tokens, V vocabulary, D width, E the teacher's width, B vocabulary in a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK_BYTES = 16 * 2**20
KEEP_BYTES = 128 * 2**20
SPLIT = 512  # tokens whose own logits are taken at a time
FILTER_ROWS = 1024  # vocabulary in a block of the filter; 512 to 2,048 were about as fast, see LOG.md

Weigh = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What a second model says of the same tokens, and how much that counts; no gradient flows into it."""

    hidden_ne: Tensor
    head_ve: Tensor
    """At least as many rows as the student's head; rows beyond those are left out."""
    share: float
    """How much of the loss is the teacher's, above 0 and at most 1."""
    temperature: float = 1.0
    """What the teacher's logits are divided by; the student's are not."""
    cap: float = 0.0

    def logits(self, low: int, high: int) -> Tensor:
        """Its logits over its temperature for the rows from ``low`` up to ``high``, in its compute type."""
        return self._bent(self.hidden_ne @ self.head_ve[low:high].t())

    def own(self, target_n: Tensor) -> Tensor:
        """The same for each token's target alone, in fp32 or wider."""
        return self._bent(own(self.hidden_ne, self.head_ve, target_n))

    def _bent(self, logits: Tensor) -> Tensor:
        return bend(logits, self.cap) / self.temperature


def bend(logits: Tensor, cap: float) -> Tensor:
    """The logits under a cap; 0 leaves them."""
    return cap * torch.tanh(logits / cap) if cap else logits


def own(hidden_nd: Tensor, head_vd: Tensor, target_n: Tensor) -> Tensor:
    """The logit of each token's target, in fp32 or wider."""
    wide = torch.promote_types(hidden_nd.dtype, torch.float32)
    pairs = zip(torch.split(hidden_nd, SPLIT), torch.split(target_n, SPLIT), strict=True)
    return torch.cat([torch.linalg.vecdot(h.to(wide), head_vd[t].to(wide)) for h, t in pairs])


def fold(logits_nb: Tensor, peak_n: Tensor, total_n: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """The running maximum, and the sum of exponentials below it, with one more block."""
    logits_nb = bend(logits_nb.float(), cap)
    new_n = torch.maximum(peak_n, logits_nb.amax(-1))
    total_n = total_n * torch.exp(peak_n - new_n) + torch.exp(logits_nb - new_n[:, None]).sum(-1)
    return new_n, total_n


def slope(logits_nb: Tensor, sums_n: Tensor, weight_n: Tensor, cap: float) -> Tensor:
    """The softmax of a block times each token's weight (times the slope of the cap), in the compute type."""
    wide_nb = logits_nb.float()
    if not cap:
        return (torch.exp(wide_nb - sums_n[:, None]) * weight_n[:, None]).to(logits_nb.dtype)
    bent_nb = torch.tanh(wide_nb / cap)
    chance_nb = torch.exp(cap * bent_nb - sums_n[:, None])
    return (chance_nb * (1 - bent_nb * bent_nb) * weight_n[:, None]).to(logits_nb.dtype)


def teach(
    logits_nb: Tensor, sums_n: Tensor, weight_n: Tensor, cap: float, soft_nb: Tensor, soft_sums_n: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """What :func:`slope` is where a teacher has a share, and the teacher's part of its mean of the student's logits.

    ``soft_nb`` are the teacher's logits of the block, ``soft_sums_n`` their log-sums over the whole vocabulary.
    """
    wide_nb = logits_nb.float()
    chance_nb = torch.exp(soft_nb.float() - soft_sums_n[:, None])
    if not cap:
        slope_nb = torch.exp(wide_nb - sums_n[:, None]) - share * chance_nb
        return (slope_nb * weight_n[:, None]).to(logits_nb.dtype), (chance_nb * wide_nb).sum(-1)
    bent_nb = torch.tanh(wide_nb / cap)
    slope_nb = (torch.exp(cap * bent_nb - sums_n[:, None]) - share * chance_nb) * (1 - bent_nb * bent_nb)
    return (slope_nb * weight_n[:, None]).to(logits_nb.dtype), (chance_nb * cap * bent_nb).sum(-1)


class Kernels(NamedTuple):
    """The work on one block: as written, or compiled."""

    fold: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = fold
    slope: Callable[[Tensor, Tensor, Tensor, float], Tensor] = slope
    teach: Callable[[Tensor, Tensor, Tensor, float, Tensor, Tensor, float], tuple[Tensor, Tensor]] = teach

    @classmethod
    def compiled(cls) -> Kernels:
        """All of them compiled, on their first use."""
        return cls._make(torch.compile(kernel, dynamic=True) for kernel in PLAIN)


PLAIN = Kernels()


def weighed(
    hidden_nd: Tensor,
    head_vd: Tensor,
    target_n: Tensor,
    weight_n: Tensor,
    cap: float,
    weigh: Weigh | None,
    sums_n: Tensor,
) -> tuple[Tensor, Tensor]:
    """The logit of each token's target under the cap, and the token's weight with the factor of its loss in it."""
    bent_n = bend(own(hidden_nd, head_vd, target_n), cap)
    return bent_n, weight_n if weigh is None else weight_n * weigh(sums_n - bent_n)


def aimed(bent_n: Tensor, sums_n: Tensor, weight_n: Tensor, cap: float, taught_n: Tensor | None = None) -> Tensor:
    """The slope of the loss in the logit of each token's target; ``taught_n`` is what a teacher adds to it."""
    slope_n = torch.exp(bent_n - sums_n) - 1
    slope_n = (slope_n if taught_n is None else slope_n + taught_n) * weight_n
    return slope_n * (1 - (bent_n / cap) ** 2) if cap else slope_n


class BlockedLoss(torch.autograd.Function):
    """Sum over tokens of weight times cross-entropy, with gradients of hidden states and head found on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        head_vd: Tensor,
        target_n: Tensor,
        weight_n: Tensor,
        cap: float,
        kernels: Kernels,
        weigh: Weigh | None,
        teacher: Teacher | None,
    ) -> Tensor:
        """See :func:`blocked_loss`."""
        tokens, rows = hidden_nd.shape[0], head_vd.shape[0]
        wide = torch.promote_types(hidden_nd.dtype, torch.float32)
        row_bytes = max(1, tokens) * hidden_nd.element_size() * (2 if teacher is not None else 1)
        keep = rows * row_bytes <= KEEP_BYTES
        step = max(256, BLOCK_BYTES // (1 if keep else 2) // row_bytes // 64 * 64)

        def logits(low: int) -> tuple[Tensor, Tensor | None]:
            high = min(low + step, rows)
            return hidden_nd @ head_vd[low:high].t(), teacher.logits(low, high) if teacher is not None else None

        empty = hidden_nd.new_full((tokens,), float("-inf"), dtype=wide), hidden_nd.new_zeros(tokens, dtype=wide)
        (peak_n, total_n), (soft_peak_n, soft_total_n) = empty, empty
        kept: list[tuple[Tensor, Tensor | None]] = []
        for low in range(0, rows, step):
            logits_nb, soft_nb = logits(low)
            peak_n, total_n = kernels.fold(logits_nb, peak_n, total_n, cap)
            if soft_nb is not None:
                soft_peak_n, soft_total_n = kernels.fold(soft_nb, soft_peak_n, soft_total_n, 0.0)
            if keep:
                kept.append((logits_nb, soft_nb))
            del logits_nb, soft_nb  # before the next block is made
        sums_n, soft_sums_n = peak_n + total_n.log(), soft_peak_n + soft_total_n.log()
        bent_n, weight_n = weighed(hidden_nd, head_vd, target_n, weight_n, cap, weigh, sums_n)
        loss = ((sums_n - bent_n) * weight_n).sum()
        need_hidden, need_head = ctx.needs_input_grad[:2]
        if not (need_hidden or need_head or teacher is not None):
            return loss
        taught_n = None
        if teacher is not None:
            taught_n = teacher.share * (1 - torch.exp(teacher.own(target_n) - soft_sums_n))
        slope_n = aimed(bent_n, sums_n, weight_n, cap, taught_n)
        mean_n = torch.zeros_like(sums_n)
        dhidden_nd = torch.zeros(hidden_nd.shape, dtype=wide, device=hidden_nd.device) if need_hidden else None
        dhead_vd = torch.empty_like(head_vd) if need_head else None
        for number, low in enumerate(range(0, rows, step)):
            block_bd = head_vd[low : low + step]
            logits_nb, soft_nb = kept[number] if keep else logits(low)
            if teacher is not None and soft_nb is not None:
                slope_nb, part_n = kernels.teach(logits_nb, sums_n, weight_n, cap, soft_nb, soft_sums_n, teacher.share)
                mean_n += part_n
            else:
                slope_nb = kernels.slope(logits_nb, sums_n, weight_n, cap)
            del logits_nb, soft_nb
            if keep:
                kept[number] = slope_nb, None
            inside = ((target_n >= low) & (target_n < low + step)).nonzero()[:, 0]
            slope_nb[inside, target_n[inside] - low] = slope_n[inside].to(slope_nb.dtype)
            if dhead_vd is not None:
                torch.mm(slope_nb.t(), hidden_nd, out=dhead_vd[low : low + step])
            if dhidden_nd is not None:
                dhidden_nd += slope_nb @ block_bd
            del slope_nb
        if teacher is not None:
            loss = loss + teacher.share * ((bent_n - mean_n) * weight_n).sum()
        ctx.grads = dhidden_nd.to(hidden_nd.dtype) if dhidden_nd is not None else None, dhead_vd
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        """Hand out the gradients; a factor other than one is multiplied in."""
        grads, ctx.grads = ctx.grads, None
        factor = upstream[0]
        if factor.item() != 1.0:
            grads = tuple(g if g is None else g * factor.to(g.dtype) for g in grads)
        return *grads, None, None, None, None, None, None


class FilteredLoss(torch.autograd.Function):
    """The same loss, without those parts of its gradient whose softmax is below ``least`` in a whole block.

    As in arXiv 2411.09009, section 4.3, the vocabulary is sorted by its mean logit over the row (the logit of the mean
    hidden state), so that likely tokens share blocks. Unlike there a block is one token by ``FILTER_ROWS`` of the
    vocabulary: for each block of the vocabulary the tokens with any softmax of at least ``least``, or whose target is
    inside, are gathered, and the three products of the backward pass are made for them alone.

    Rows of tokens that are no target of the row lose most of their gradient, which is small and which AdamW would have
    made large again: such rows move less. Pays from a few thousand tokens a row on; takes about 90 MiB at 4,096.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        head_vd: Tensor,
        target_n: Tensor,
        weight_n: Tensor,
        cap: float,
        kernels: Kernels,
        weigh: Weigh | None,
        least: float,
    ) -> Tensor:
        """See :func:`blocked_loss`."""
        tokens, rows = hidden_nd.shape[0], head_vd.shape[0]
        wide = torch.promote_types(hidden_nd.dtype, torch.float32)
        counts_n = weight_n > 0
        mean_d = hidden_nd[counts_n].mean(0, dtype=wide).nan_to_num()
        order_v = (head_vd @ mean_d.to(head_vd.dtype)).argsort(descending=True, stable=True)
        place_n = torch.empty_like(order_v).scatter_(0, order_v, torch.arange(rows, device=order_v.device))[target_n]
        blocks = torch.split(
            order_v, min(FILTER_ROWS, max(256, BLOCK_BYTES // (2 * hidden_nd.element_size() * max(1, tokens))))
        )
        peak_n = hidden_nd.new_full((tokens,), float("-inf"), dtype=wide)
        total_n = hidden_nd.new_zeros(tokens, dtype=wide)
        tops: list[Tensor] = []
        for block_b in blocks:
            logits_nb = hidden_nd @ head_vd[block_b].t()
            tops.append(logits_nb.amax(-1))
            peak_n, total_n = kernels.fold(logits_nb, peak_n, total_n, cap)
        sums_n = peak_n + total_n.log()
        bent_n, weight_n = weighed(hidden_nd, head_vd, target_n, weight_n, cap, weigh, sums_n)
        slope_n = aimed(bent_n, sums_n, weight_n, cap)
        floor_n = sums_n + math.log(least)
        dhidden_nd = torch.zeros(hidden_nd.shape, dtype=wide, device=hidden_nd.device)
        dhead_vd = torch.zeros_like(head_vd)
        low = 0
        for block_b, top_n in zip(blocks, tops, strict=True):
            bent_top_n = bend(top_n.to(wide), cap)
            inside_n = (place_n >= low) & (place_n < low + len(block_b))
            chosen_m = (counts_n & (inside_n | (bent_top_n >= floor_n))).nonzero()[:, 0]
            if len(chosen_m):
                part_md, block_bd = hidden_nd[chosen_m], head_vd[block_b]
                slope_mb = kernels.slope(part_md @ block_bd.t(), sums_n[chosen_m], weight_n[chosen_m], cap)
                right_m = inside_n[chosen_m].nonzero()[:, 0]
                aimed_m = chosen_m[right_m]
                slope_mb[right_m, place_n[aimed_m] - low] = slope_n[aimed_m].to(slope_mb.dtype)
                dhead_vd.index_copy_(0, block_b, slope_mb.t() @ part_md)
                dhidden_nd.index_add_(0, chosen_m, (slope_mb @ block_bd).to(wide))
            low += len(block_b)
        needs = ctx.needs_input_grad
        ctx.grads = dhidden_nd.to(hidden_nd.dtype) if needs[0] else None, dhead_vd if needs[1] else None
        return ((sums_n - bent_n) * weight_n).sum()

    backward = staticmethod(BlockedLoss.backward)


def blocked_loss(
    hidden_nd: Tensor,
    head_vd: Tensor,
    target_n: Tensor,
    weight_n: Tensor,
    cap: float = 0.0,
    kernels: Kernels = PLAIN,
    weigh: Weigh | None = None,
    teacher: Teacher | None = None,
    least: float = 0.0,
) -> Tensor:
    """Sum of ``weight * -log p(target)``, a scalar in fp32, under softmax of ``hidden @ head.T``.

    ``cap`` bends the logits to ``cap * tanh(logits / cap)`` as Gemma 2 does; 0 leaves them. ``weigh`` makes further
    factors of the weights from all tokens' losses (nats, without the teacher); no gradient flows through them.
    ``teacher`` takes a share of every token's loss. Above zero ``least`` leaves out of the gradient, where no one
    teaches, what :class:`FilteredLoss` says.
    """
    given = hidden_nd, head_vd, target_n, weight_n, cap, kernels, weigh
    filtered = least > 0 and teacher is None
    call: Any = FilteredLoss.apply if filtered else BlockedLoss.apply
    result: Tensor = call(*given, least if filtered else teacher)
    return result
