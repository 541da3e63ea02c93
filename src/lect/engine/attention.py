# SPDX-License-Identifier: Apache-2.0
"""Causal attention over documents laid end to end: none sees another, and no mask of length squared is built.

A batch is one row of T tokens; ``offsets`` says where documents begin and end (``[0, 120, 400, T]``). The operator
walks over documents and, inside one, over blocks of queries, so that it multiplies only what lies under the diagonal
(and inside the window, where the layer has one). Heads that share a key head are rows of one product.

On CUDA in bf16 torch's own kernel for such rows takes its place, where it is seen to give the same; see :func:`agrees`.
Its way back adds up in no fixed order, so there resumed runs are equal to rounding; bit for bit with
``torch.use_deterministic_algorithms(True)``.

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
TOLERANCE = 0.02  # of the norm; bf16 rounds by 0.004
REFUSED = ("softcap", "s_aux", "head_mask", "position_bias")


def _blocks(offsets: list[int], window: int) -> Iterator[tuple[int, int, int]]:
    """Yield first query, query behind the last, first key of every block; keys end where the queries end."""
    for start, stop in pairwise(offsets):
        for first in range(start, stop, BLOCK):
            low = start if window <= 0 else max(start, first - window + 1)
            yield first, min(first + BLOCK, stop), low


def weigh(scores: Tensor, shift: int, window: int, scale: float) -> Tensor:
    """Softmax in fp32 over the keys that a query may see: itself and earlier ones, nearer than ``window`` if any.

    ``scores`` is (G, B, R, K), and is multiplied by ``scale`` first; query b stands at place ``b + shift`` of the keys.
    """
    queries, keys = scores.shape[1], scores.shape[-1]
    places = torch.arange(queries, device=scores.device)[:, None] + shift
    distance_bk = places - torch.arange(keys, device=scores.device)
    unseen_bk = distance_bk < 0
    if window > 0:
        unseen_bk = unseen_bk | (distance_bk >= window)
    return torch.softmax((scores.float() * scale).masked_fill(unseen_bk[:, None], float("-inf")), -1).to(scores.dtype)


def slope(upstream: Tensor, weights: Tensor, scale: float) -> Tensor:
    """The gradient of the scores: weights times upstream less its mean under the weights, (G, B, R, K)."""
    wide = weights.float()
    change = wide * upstream.float()
    return ((change - wide * change.sum(-1, keepdim=True)) * scale).to(upstream.dtype)


class Kernels:
    """How attention runs: the two element-wise functions as written or compiled, or all of it by :func:`flash`."""

    flash: bool = False
    weigh: Callable[[Tensor, int, int, float], Tensor] = staticmethod(weigh)
    slope: Callable[[Tensor, Tensor, float], Tensor] = staticmethod(slope)


def _rows(x_bhd: Tensor, groups: int) -> Tensor:
    """The queries of a block as rows of their key head: (B, H, D) to (G, B * R, D)."""
    queries, heads, width = x_bhd.shape
    return x_bhd.view(queries, groups, heads // groups, width).transpose(0, 1).reshape(groups, -1, width)


def _heads(x_grd: Tensor, queries: int) -> Tensor:
    """The inverse of :func:`_rows`."""
    groups, _, width = x_grd.shape
    return x_grd.view(groups, queries, -1, width).transpose(0, 1).reshape(queries, -1, width)


def _weights(q_grd: Tensor, k_gkd: Tensor, queries: int, window: int, scale: float) -> Tensor:
    """Weights of a block, (G, B, R, K)."""
    groups, keys = k_gkd.shape[:2]
    scores_gbrk = torch.bmm(q_grd, k_gkd.transpose(1, 2)).view(groups, queries, -1, keys)
    return Kernels.weigh(scores_gbrk, keys - queries, window if keys > window else 0, scale)


@torch.library.custom_op("lect::document_attention", mutates_args=())
def document_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> Tensor:
    """Attend inside each document: ``q`` (T, H, D), ``k`` and ``v`` (T, G, D) give (T, H, D); all contiguous."""
    groups = k.shape[1]
    out_thd = q.new_empty(*q.shape[:2], v.shape[-1])
    k_gtd, v_gtd = k.transpose(0, 1), v.transpose(0, 1)
    for first, stop, low in _blocks(offsets.tolist(), window):
        q_grd = _rows(q[first:stop], groups)
        weights_gbrk = _weights(q_grd, k_gtd[:, low:stop], stop - first, window, scale)
        block_grd = torch.bmm(weights_gbrk.view(groups, -1, stop - low), v_gtd[:, low:stop])
        out_thd[first:stop] = _heads(block_grd, stop - first)
    return out_thd


@document_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> Tensor:
    return q.new_empty(*q.shape[:2], v.shape[-1])


@torch.library.custom_op("lect::document_attention_backward", mutates_args=())
def document_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; the weights are computed again, and added up in fp32."""
    groups = k.shape[1]
    dq_thd, dk_tgd, dv_tgd = (torch.empty_like(x) for x in (q, k, v))
    k_gtd, v_gtd = k.transpose(0, 1), v.transpose(0, 1)
    for start, end in pairwise(offsets.unique().tolist()):  # type: ignore[no-untyped-call]  # no empty documents
        dk_gkd, dv_gkd = (x.new_zeros((groups, end - start, x.shape[-1]), dtype=torch.float32) for x in (k, v))
        for first, stop, low in _blocks([start, end], window):
            queries, keys, seen = stop - first, stop - low, slice(low - start, stop - start)
            q_grd, grad_grd = _rows(q[first:stop], groups), _rows(grad[first:stop], groups)
            weights_gbrk = _weights(q_grd, k_gtd[:, low:stop], queries, window, scale)
            dv_gkd[:, seen] += torch.bmm(weights_gbrk.view(groups, -1, keys).transpose(1, 2), grad_grd)
            dweights_gbrk = torch.bmm(grad_grd, v_gtd[:, low:stop].transpose(1, 2)).view_as(weights_gbrk)
            dscores_grk = Kernels.slope(dweights_gbrk, weights_gbrk, scale).view(groups, -1, keys)
            dq_thd[first:stop] = _heads(torch.bmm(dscores_grk, k_gtd[:, low:stop]), queries)
            dk_gkd[:, seen] += torch.bmm(dscores_grk.transpose(1, 2), q_grd)
        dk_tgd[start:end], dv_tgd[start:end] = dk_gkd.transpose(0, 1), dv_gkd.transpose(0, 1)
    return dq_thd, dk_tgd, dv_tgd


@document_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, offsets, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, offsets)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, offsets = ctx.saved_tensors
    grads = document_attention_backward(grad.contiguous(), q, k, v, offsets, ctx.window, ctx.scale)
    return *grads, None, None, None


document_attention.register_autograd(_backward, setup_context=_save)


def flash(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> Tensor:
    """What :func:`document_attention` gives, by torch's kernel for rows of documents; CUDA alone, and not in fp32."""
    from torch.nn.attention import varlen  # takes three seconds, and brings in all that several processes need

    reach = (window - 1 if window > 0 else -1, 0)  # keys to the left of the query's own, and to its right
    gqa, longest = q.shape[1] != k.shape[1], len(q)
    made = varlen.varlen_attn(
        q, k, v, offsets, offsets, longest, longest, scale=scale, window_size=reach, enable_gqa=gqa
    )
    return made[0] if isinstance(made, tuple) else made


def agrees(heads: int, groups: int, width: int, device: str) -> bool:
    """Whether :func:`flash` runs here in bf16 and gives the states and slopes of :func:`document_attention`.

    It is tried on a row of four documents, one of them empty, with a window and without. A kernel that is missing or
    does not take these heads is no error.
    """
    random = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0, 70, 71, 71, 200], dtype=torch.int32, device=device)
    shapes = [(200, count, width) for count in (heads, groups, groups, heads)]
    try:
        for window in (0, 50):
            q, k, v, grad = (torch.randn(x, generator=random).to(device, torch.bfloat16) for x in shapes)
            for other in (q, k, v):
                other.requires_grad_()
            found = []
            for way in (document_attention, flash):
                with torch.enable_grad():
                    out = way(q, k, v, offsets, window, width**-0.5)
                    found.append([out.detach(), *torch.autograd.grad(out, (q, k, v), grad)])
            for one, two in zip(*found, strict=True):
                if not (one - two).float().norm() <= TOLERANCE * one.float().norm():
                    return False
    except (RuntimeError, ValueError, NotImplementedError):
        return False
    return True


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
    q_thd, k_tgd, v_tgd = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    way = flash if Kernels.flash and q_thd.dtype == torch.bfloat16 else document_attention
    return way(q_thd, k_tgd, v_tgd, cu_seq_lens_q, sliding_window or 0, scale)[None], None
