# SPDX-License-Identifier: Apache-2.0
"""Causal attention over documents laid end to end: none sees another, and no mask of length squared is built.

A batch is one row of T tokens; ``offsets`` says where documents begin and end (``[0, 120, 400, T]``). The operator
walks over documents and, inside one, over blocks of queries, so that it multiplies only what lies under the diagonal
(and inside the window, where the layer has one). Heads that share a key head are rows of one product.

Shapes: H query heads, G key heads (R = H / G queries each), T tokens, D width of a head, B queries in a block,
K keys that the block sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def weigh(scores: Tensor, shift: int, window: int) -> Tensor:
    """Softmax in fp32 over the keys that a query may see: itself and earlier ones, nearer than ``window`` if any.

    ``scores`` is (G, R, B, K); query b stands at place ``b + shift`` of the keys.
    """
    queries, keys = scores.shape[-2:]
    places = torch.arange(queries, device=scores.device)[:, None] + shift
    distance_bk = places - torch.arange(keys, device=scores.device)
    unseen_bk = distance_bk < 0
    if window > 0:
        unseen_bk = unseen_bk | (distance_bk >= window)
    return torch.softmax(scores.float().masked_fill(unseen_bk, float("-inf")), -1).to(scores.dtype)


def slope(upstream: Tensor, weights: Tensor, mean: Tensor) -> Tensor:
    """The gradient of the scores: weights times upstream less its mean under the weights, (G, R, B, K)."""
    return ((upstream.float() - mean[..., None]) * weights.float()).to(upstream.dtype)


class Kernels:
    """The two element-wise functions as they run: as written, or compiled while a run compiles."""

    weigh: Callable[[Tensor, int, int], Tensor] = staticmethod(weigh)
    slope: Callable[[Tensor, Tensor, Tensor], Tensor] = staticmethod(slope)


def _rows(x_htd: Tensor, groups: int, first: int, stop: int) -> Tensor:
    """The queries of a block as rows of their key head: (H, T, D) to (G, R * B, D)."""
    return x_htd[:, first:stop].reshape(groups, -1, x_htd.shape[-1])


def _weights(q_grd: Tensor, k_gkd: Tensor, queries: int, window: int) -> Tensor:
    """Weights of a block, (G, R, B, K); the queries come scaled."""
    groups, keys = k_gkd.shape[:2]
    scores_grbk = torch.bmm(q_grd, k_gkd.transpose(1, 2)).view(groups, -1, queries, keys)
    return Kernels.weigh(scores_grbk, keys - queries, window if keys > window else 0)


@torch.library.custom_op("lect::document_attention", mutates_args=())
def document_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> Tensor:
    """Attend inside each document: ``q`` (H, T, D), ``k`` and ``v`` (G, T, D) give (H, T, D)."""
    heads, total, _ = q.shape
    groups = k.shape[0]
    out_htd = q.new_empty(heads, total, v.shape[-1])
    for first, stop, low in _blocks(offsets.tolist(), window):
        weights_grbk = _weights(_rows(q, groups, first, stop) * scale, k[:, low:stop], stop - first, window)
        block_grd = torch.bmm(weights_grbk.view(groups, -1, stop - low), v[:, low:stop])
        out_htd[:, first:stop] = block_grd.view(heads, stop - first, -1)
    return out_htd


@document_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[1], v.shape[-1])


@torch.library.custom_op("lect::document_attention_backward", mutates_args=())
def document_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; the weights are computed again."""
    heads, groups = q.shape[0], k.shape[0]
    dq_htd = q.new_empty(q.shape)
    dk_gtd, dv_gtd = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (k, v))
    mean_ht = torch.linalg.vecdot(grad.float(), out.float())
    for first, stop, low in _blocks(offsets.tolist(), window):
        queries, keys = stop - first, stop - low
        q_grd, k_gkd = _rows(q, groups, first, stop) * scale, k[:, low:stop]
        grad_grd = _rows(grad, groups, first, stop)
        weights_grbk = _weights(q_grd, k_gkd, queries, window)
        dv_gtd[:, low:stop] += torch.bmm(weights_grbk.view(groups, -1, keys).transpose(1, 2), grad_grd)
        dweights_grbk = torch.bmm(grad_grd, v[:, low:stop].transpose(1, 2)).view_as(weights_grbk)
        mean_grb = mean_ht[:, first:stop].reshape(groups, -1, queries)
        dscores = Kernels.slope(dweights_grbk, weights_grbk, mean_grb).view(groups, -1, keys)
        dq_htd[:, first:stop] = torch.bmm(dscores, k_gkd).mul_(scale).view(heads, queries, -1)
        dk_gtd[:, low:stop] += torch.bmm(dscores.transpose(1, 2), q_grd)
    return dq_htd, dk_gtd.to(k.dtype), dv_gtd.to(v.dtype)


@document_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, offsets, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, output, offsets)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, offsets = ctx.saved_tensors
    grads = document_attention_backward(grad, q, k, v, out, offsets, ctx.window, ctx.scale)
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
    out_htd = document_attention(query[0], key[0], value[0], cu_seq_lens_q, sliding_window or 0, scale)
    return out_htd.transpose(0, 1)[None], None
