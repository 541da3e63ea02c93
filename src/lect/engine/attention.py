# SPDX-License-Identifier: Apache-2.0
"""Causal attention over documents laid end to end: none sees another, and no mask of length squared is built.

A batch is one row of T tokens; ``offsets`` says where documents begin and end (``[0, 120, 400, T]``). The operator
walks over documents and, inside one, over blocks of queries, so that it multiplies only what lies under the diagonal
(and inside the window, where the layer has one). Heads that share a key head are rows of one product.

Shapes: H query heads, G key heads (R = H / G queries each), T tokens, D width of a head, B queries in a block,
K keys that the block sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

NAME = "lect_documents"
BLOCK = 128
REFUSED = ("softcap", "s_aux", "head_mask", "position_bias")


def _blocks(offsets: list[int], window: int) -> Iterator[tuple[int, int, int]]:
    """Yield first query, query behind the last, first key of every block; keys end where the queries end."""
    for start, stop in pairwise(offsets):
        for first in range(start, stop, BLOCK):
            low = start if window <= 0 else max(start, first - window + 1)
            yield first, min(first + BLOCK, stop), low


def _scores(q_grd: Tensor, k_gkd: Tensor, first: int, stop: int, low: int, window: int, scale: float) -> Tensor:
    """Scaled scores of a block in fp32, minus infinity where a query may not look; shape (G, R, B, K)."""
    groups, rows, _ = q_grd.shape
    queries, keys = stop - first, stop - low
    scores_grbk = torch.bmm(q_grd, k_gkd.transpose(1, 2)).float().mul_(scale)
    scores_grbk = scores_grbk.view(groups, rows // queries, queries, keys)
    later_bb = torch.ones(queries, queries, dtype=torch.bool, device=q_grd.device).triu_(1)
    scores_grbk[..., first - low :].masked_fill_(later_bb, float("-inf"))
    if window > 0 and keys > window:
        distance_bk = torch.arange(first, stop, device=q_grd.device)[:, None] - torch.arange(
            low, stop, device=q_grd.device
        )
        scores_grbk.masked_fill_(distance_bk >= window, float("-inf"))
    return scores_grbk


def _rows(x_htd: Tensor, groups: int, first: int, stop: int) -> Tensor:
    """The queries of a block as rows of their key head: (H, T, D) to (G, R * B, D)."""
    return x_htd[:, first:stop].reshape(groups, -1, x_htd.shape[-1])


@torch.library.custom_op("lect::document_attention", mutates_args=())
def document_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend inside each document; ``q`` (H, T, D), ``k`` and ``v`` (G, T, D) give (H, T, D) and log sums (H, T)."""
    heads, total, _ = q.shape
    groups = k.shape[0]
    out_htd = q.new_empty(heads, total, v.shape[-1])
    sums_ht = q.new_empty(heads, total, dtype=torch.float32)
    for first, stop, low in _blocks(offsets.tolist(), window):
        scores_grbk = _scores(_rows(q, groups, first, stop), k[:, low:stop], first, stop, low, window, scale)
        sums_grb = scores_grbk.logsumexp(-1)
        weights_grbk = scores_grbk.sub_(sums_grb[..., None]).exp_().to(v.dtype)
        block_grd = torch.bmm(weights_grbk.view(groups, -1, stop - low), v[:, low:stop])
        out_htd[:, first:stop] = block_grd.view(heads, stop - first, -1)
        sums_ht[:, first:stop] = sums_grb.view(heads, -1)
    return out_htd, sums_ht


@document_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
    shape = (q.shape[0], q.shape[1], v.shape[-1])
    return q.new_empty(shape), q.new_empty(shape[:2], dtype=torch.float32)


@torch.library.custom_op("lect::document_attention_backward", mutates_args=())
def document_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; the weights are computed again from the saved log sums."""
    heads, groups = q.shape[0], k.shape[0]
    dq_htd = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    dk_gtd = torch.zeros(k.shape, dtype=torch.float32, device=q.device)
    dv_gtd = torch.zeros(v.shape, dtype=torch.float32, device=q.device)
    delta_ht = torch.einsum("htd,htd->ht", grad.float(), out.float())
    for first, stop, low in _blocks(offsets.tolist(), window):
        queries, keys = stop - first, stop - low
        q_grd, k_gkd = _rows(q, groups, first, stop), k[:, low:stop]
        grad_grd = _rows(grad, groups, first, stop)
        weights_grbk = _scores(q_grd, k_gkd, first, stop, low, window, scale)
        weights_grbk.sub_(sums[:, first:stop].reshape(groups, -1, queries, 1)).exp_()
        weights = weights_grbk.to(v.dtype).view(groups, -1, keys)
        dv_gtd[:, low:stop] += torch.bmm(weights.transpose(1, 2), grad_grd)
        dweights_grbk = torch.bmm(grad_grd, v[:, low:stop].transpose(1, 2)).float().view_as(weights_grbk)
        dweights_grbk.sub_(delta_ht[:, first:stop].reshape(groups, -1, queries, 1)).mul_(weights_grbk).mul_(scale)
        dscores = dweights_grbk.to(q.dtype).view(groups, -1, keys)
        dq_htd[:, first:stop] = torch.bmm(dscores, k_gkd).view(heads, queries, -1)
        dk_gtd[:, low:stop] += torch.bmm(dscores.transpose(1, 2), q_grd)
    return dq_htd, dk_gtd.to(k.dtype), dv_gtd.to(v.dtype)


@document_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, offsets, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, offsets)


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, sums, offsets = ctx.saved_tensors
    grads = document_attention_backward(grad, q, k, v, out, sums, offsets, ctx.window, ctx.scale)
    return *grads, None, None, None


document_attention.register_autograd(_backward, setup_context=_save)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """The face that transformers calls: (1, H, T, D) in, (1, T, H, D) out; what it cannot honour raises."""
    if cu_seq_lens_q is None or query.shape[0] != 1:
        raise NotImplementedError("the model does not hand the document borders to its attention")
    if dropout or any(others.get(name) is not None for name in REFUSED):
        raise NotImplementedError("this attention has dropout, a soft cap, sinks or a bias")
    if getattr(module, "is_causal", True) is False:
        raise NotImplementedError("this attention is not causal")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out_htd, _ = document_attention(query[0], key[0], value[0], cu_seq_lens_q, sliding_window or 0, scale)
    return out_htd.transpose(0, 1)[None], None
