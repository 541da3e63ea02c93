# SPDX-License-Identifier: Apache-2.0
"""Causal attention over documents laid end to end: none sees another, and no mask of length squared is built.

A batch is one row of T tokens; ``offsets`` says where documents begin and end (``[0, 120, 400, T]``). The operator
walks over documents and, inside one, over blocks of queries, so that it multiplies only what lies under the diagonal
(and inside the window, where the layer has one). Heads that share a key head are rows of one product.

On CUDA in bf16 torch's own kernel for such rows takes its place, where it is seen to give the same; see :func:`agrees`.
Its way back adds up in no fixed order, so there resumed runs are equal to rounding; bit for bit with
``torch.use_deterministic_algorithms(True)``.

Shapes: H query heads, G key heads (R = H / G queries each), T tokens, D width of a head, B queries in a block, K keys
that the block sees; N documents of one length, M = N * G.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

NAME = "lect_documents"
BLOCK = 128
EVEN = 3  # a document of so many blocks of twice the size is cut into those: the calls cost more than the products
UNIT = 16  # blocks are of a multiple of it: for every shape that is new the library makes code, and keeps it
KEEP_BYTES = 16 * 2**20  # weights of a layer that the backward pass finds again; beyond that they are made again
TOLERANCE = 0.02  # of the norm; bf16 rounds by 0.004
slope = torch.ops.aten._softmax_backward_data.out  # weights times the slope of each less its mean under them
REFUSED = ("softcap", "s_aux", "head_mask", "position_bias")


class Block(NamedTuple):
    """Queries from ``first`` and keys from ``low``, both up to ``stop``, of a document from ``start`` up to ``end``.

    Queries and keys beyond the document fill the block up; nothing of them counts.
    """

    first: int
    stop: int
    low: int
    start: int
    end: int

    @property
    def real(self) -> slice:
        """The document's own queries in the row."""
        return slice(max(self.first, self.start), min(self.stop, self.end))

    @property
    def inside(self) -> slice:
        """The same in the block."""
        return slice(self.real.start - self.first, self.real.stop - self.first)


def blocks(offsets: list[int], window: int) -> Iterator[Block]:
    """Cut each document into blocks of one size, which reach into its neighbours where it is no multiple of them."""
    for start, end in pairwise(offsets):
        length = end - start
        count = -(-length // (2 * BLOCK))
        size = -(-length // count) if 0 < count <= EVEN else BLOCK
        size = -(-size // UNIT) * UNIT
        whole = -(-length // size) * size
        base = start if start + whole <= offsets[-1] else max(0, offsets[-1] - whole)
        for first in range(base, end, size):
            low = base if window <= 0 else max(base, first - window + 1)
            yield Block(first, min(first + size, offsets[-1]), low, start, end)


@lru_cache(maxsize=8)
def band(tokens: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to the scores of any block of a row of ``tokens``: zero where a query sees a key, else very little.

    Query b stands in row b, a key n places behind the block's first query in column ``tokens + n``. A query sees its
    own place and earlier ones, those nearer than ``window`` where that is above zero.
    """
    queries = 2 * BLOCK
    columns = torch.arange(tokens + queries, device=device) - tokens
    distance_bj = torch.arange(queries, device=device)[:, None] - columns
    unseen_bj = (distance_bj < 0) | ((distance_bj >= window) if window > 0 else False)
    return torch.zeros(unseen_bj.shape, dtype=dtype, device=device).masked_fill_(unseen_bj, _lowest(dtype))


def _lowest(dtype: torch.dtype) -> float:
    """A number that no score makes up for, and that is still one when a score is added."""
    return torch.finfo(dtype).min / 2


class Kernels:
    """Whether attention runs by :func:`flash`."""

    flash: bool = False


def even(tokens: int, offsets: Tensor) -> tuple[int, list[int]]:
    """How many documents of one length a row is, and the offsets in each; one where lengths differ.

    Documents of one length are multiplied together: for many short ones the calls cost more than the products.
    """
    borders = list(dict.fromkeys(offsets.tolist()))  # without empty documents
    count = max(1, len(borders) - 1)
    return (count, borders[:2]) if borders == list(range(0, tokens + 1, max(1, tokens // count))) else (1, borders)


def _split(x_thd: Tensor, count: int) -> Tensor:
    """A row as its documents of one length, (N, T / N, H, D)."""
    return x_thd.view(count, -1, *x_thd.shape[1:])


def _rows(x_nbhd: Tensor, groups: int) -> Tensor:
    """The queries of a block as rows of their key head: (N, B, H, D) to (N * G, B * R, D)."""
    count, queries, heads, width = x_nbhd.shape
    x_nbgrd = x_nbhd.view(count, queries, groups, heads // groups, width)
    return x_nbgrd.transpose(1, 2).reshape(count * groups, -1, width)


def _heads(x_mrd: Tensor, like_nbhd: Tensor) -> Tensor:
    """The inverse of :func:`_rows`."""
    count, queries, heads, _ = like_nbhd.shape
    groups = len(x_mrd) // count
    x_ngbrd = x_mrd.view(count, groups, queries, heads // groups, -1)
    return x_ngbrd.transpose(1, 2).flatten(2, 3)


def _room(q_nthd: Tensor, window: int) -> Tensor:
    """Room for the weights of any block of a row, whatever its documents."""
    count, tokens, heads, _ = q_nthd.shape
    return q_nthd.new_empty(count * heads * min(tokens, 2 * BLOCK) * _reach(tokens, window))


def _reach(tokens: int, window: int) -> int:
    """How many keys a block of a row sees at most."""
    return tokens if window <= 0 else min(tokens, max(window + BLOCK, (2 * BLOCK + UNIT) * EVEN))


def kept(q: Tensor, window: int) -> int:
    """How many weights of a row are kept for the backward pass at most; none where all would be too many."""
    count = q.numel() // q.shape[2] * (max(_reach(len(q), window), UNIT * UNIT) + UNIT)
    return count if count * q.element_size() <= KEEP_BYTES else 0


def _shaped(room: Tensor, *shape: int) -> Tensor:
    """The start of ``room``, in that shape."""
    return room[: math.prod(shape)].view(shape)


def _product(room: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
    """Their batched product times ``scale``, at the start of ``room``."""
    return _shaped(room, *left.shape[:2], right.shape[2]).baddbmm_(left, right, beta=0, alpha=scale)


def _weigh(scores_mrk: Tensor, q_mrd: Tensor, k_mkd: Tensor, block: Block, band_bj: Tensor, scale: float) -> None:
    """Weights of a block in the place of ``scores_mrk``: the softmax of scaled scores over the keys seen.

    Of a query that sees no key they mean nothing.
    """
    queries, keys = block.stop - block.first, block.stop - block.low
    start = band_bj.shape[1] - 2 * BLOCK - (block.first - block.low)
    scores_mbrk = scores_mrk.view(len(scores_mrk), queries, -1, keys)
    scores_mbrk.copy_(band_bj[:queries, None, start : start + keys])
    if block.low < block.start:
        scores_mbrk[..., : block.start - block.low] = _lowest(scores_mrk.dtype)
    scores_mrk.baddbmm_(q_mrd, k_mkd.transpose(1, 2), alpha=scale)
    torch.softmax(scores_mrk, -1, out=scores_mrk)


@torch.library.custom_op("lect::document_attention", mutates_args=())
def documents(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float, keep: int
) -> tuple[Tensor, Tensor]:
    """What :func:`document_attention` gives, and the weights for the backward pass at the start of ``keep`` numbers."""
    groups, band_bj = k.shape[1], band(len(q), window, q.dtype, q.device)
    out_thd, weights_n = q.new_empty(*q.shape[:2], v.shape[-1]), q.new_empty(keep)
    count, borders = even(len(q), offsets)
    q_nthd, out_nthd = (_split(x, count) for x in (q, out_thd))
    k_ngtd, v_ngtd = (_split(x, count).transpose(1, 2) for x in (k, v))
    room, space = weights_n if len(weights_n) else _room(q_nthd, window), torch.empty_like(out_thd).view(-1)
    for block in blocks(borders, window):
        queries, keys = slice(block.first, block.stop), slice(block.low, block.stop)
        q_nbhd = q_nthd[:, queries]
        q_mrd, k_mkd, v_mkd = _rows(q_nbhd, groups), k_ngtd[:, :, keys].flatten(0, 1), v_ngtd[:, :, keys].flatten(0, 1)
        weights_mrk = _shaped(room, *q_mrd.shape[:2], k_mkd.shape[1])
        _weigh(weights_mrk, q_mrd, k_mkd, block, band_bj, scale)
        out_nthd[:, block.real] = _heads(_product(space, weights_mrk, v_mkd), q_nbhd)[:, block.inside]
        if len(weights_n):
            room = room[weights_mrk.numel() :]
    return out_thd, weights_n


@documents.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float, keep: int) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:2], v.shape[-1]), q.new_empty(keep)


@torch.library.custom_op("lect::document_attention_backward", mutates_args=())
def documents_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, weights_n: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, added up in fp32; weights that were not kept are made again."""
    groups, band_bj = k.shape[1], band(len(q), window, q.dtype, q.device)
    dq_thd, dk_tgd, dv_tgd = (torch.empty_like(x) for x in (q, k, v))
    count, borders = even(len(q), offsets)
    q_nthd, grad_nthd, dq_nthd = (_split(x, count) for x in (q, grad, dq_thd))
    k_ngtd, v_ngtd, *out_ngtd = (_split(x, count).transpose(1, 2) for x in (k, v, dk_tgd, dv_tgd))
    dk_ngtd, dv_ngtd = (torch.zeros_like(x, dtype=torch.float32) for x in out_ngtd)
    room = weights_n if len(weights_n) else _room(q_nthd, window)
    other, space = _room(q_nthd, window), q.new_empty(max(x.numel() for x in (q, k, v)))
    for block in blocks(borders, window):
        queries, keys = slice(block.first, block.stop), slice(block.low, block.stop)
        q_nbhd, own_nbhd = q_nthd[:, queries], grad_nthd[:, queries]
        if block.inside != slice(0, block.stop - block.first):
            own_nbhd = torch.zeros_like(own_nbhd)
            own_nbhd[:, block.inside] = grad_nthd[:, block.real]
        q_mrd, grad_mrd = _rows(q_nbhd, groups), _rows(own_nbhd, groups)
        k_mkd, v_mkd = k_ngtd[:, :, keys].flatten(0, 1), v_ngtd[:, :, keys].flatten(0, 1)
        dk_ngkd, dv_ngkd = dk_ngtd[:, :, keys], dv_ngtd[:, :, keys]
        weights_mrk = _shaped(room, *q_mrd.shape[:2], k_mkd.shape[1])
        if len(weights_n):
            room = room[weights_mrk.numel() :]
        else:
            _weigh(weights_mrk, q_mrd, k_mkd, block, band_bj, scale)
        dv_ngkd += _product(space, weights_mrk.transpose(1, 2), grad_mrd).view_as(dv_ngkd)
        dscores_mrk = _product(other, grad_mrd, v_mkd.transpose(1, 2))
        slope(dscores_mrk, weights_mrk, -1, q.dtype, grad_input=dscores_mrk)
        dq_nthd[:, block.real] = _heads(_product(space, dscores_mrk, k_mkd, scale), q_nbhd)[:, block.inside]
        dk_ngkd.add_(_product(space, dscores_mrk.transpose(1, 2), q_mrd).view_as(dk_ngkd), alpha=scale)
    for out, wide in zip(out_ngtd, (dk_ngtd, dv_ngtd), strict=True):
        out.copy_(wide)
    return dq_thd, dk_tgd, dv_tgd


@documents_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, weights_n: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, offsets, ctx.window, ctx.scale, _ = inputs
    ctx.save_for_backward(q, k, v, output[1], offsets)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, weights_n, offsets = ctx.saved_tensors
    grads = documents_backward(grad.contiguous(), q, k, v, weights_n, offsets, ctx.window, ctx.scale)
    return *grads, None, None, None, None


documents.register_autograd(_backward, setup_context=_save)


def document_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> Tensor:
    """Attend inside each document: ``q`` (T, H, D), ``k`` and ``v`` (T, G, D) give (T, H, D); all contiguous."""
    out_thd: Tensor = documents(q, k, v, offsets, window, scale, kept(q, window))[0]
    return out_thd


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
