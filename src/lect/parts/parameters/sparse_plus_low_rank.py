# SPDX-License-Identifier: Apache-2.0
"""Train a low-rank and a sparse matrix for each matrix, which stands still."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from lect.errors import UserError
from lect.method import Range, knobs
from lect.parts.parameters.kind import Parameters

CARD = {
    "title": "Sparse plus low-rank training (SLTrain)",
    "paper": "arXiv:2406.02214",
    "claim": "the matrices of the layers learn through a low-rank product and a sparse matrix of fixed random support:"
    " gradients are kept, and moments held, for these alone, and the model is saved with plain weights",
    "differs": [
        "the paper trains from random weights, and a matrix is the sum of product and sparse matrix alone, so that"
        " none is stored; here both are added to the trained matrix, which stays, in the compute type",
        "the sparse values begin at zero, so that the model begins as it was; the authors draw them uniformly within"
        " one over the root of the inputs, which would blur a trained model",
        "the whole matrix is made anew in each forward and each backward pass, and the gradient of a whole matrix"
        " exists for a moment, as in the authors' code: this saves memory and no time",
        "rank, factor and share of entries are the authors' for 60 million parameters; larger ones have rank 256 with"
        " factor 16, and rank 512 with factor 8; their learning rate is 0.003 where full training has 0.001",
        "no 8-bit moments and no updates layer by layer, on which the paper's saving of 73 % rests; the plan's memory"
        " is that of full training",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class SparsePlusLowRank(Parameters):
    """A model of which the layers' matrices moved by (factor / rank) B A + S, and all else as it wanted.

    B is (out, rank) and begins at zero, A (rank, in) begins uniform within 1 / sqrt(in), S has its entries at
    places drawn uniformly once. Embeddings, norms, biases and head are trained whole. Fact ``trained_parameters``.
    Raises UserError for a model without numbered layers, and where the rank is above a side of a matrix.
    """

    rank: Annotated[int, Range(at_least=1, at_most=65_536)] = 128
    """Rank of the product, in rows of A."""
    share: Annotated[float, Range(above=0, below=1)] = 0.03
    """Share of the entries of each matrix that have a sparse value of their own, in (0, 1)."""
    factor: Annotated[float, Range(above=0, at_most=1_000_000)] = 32.0
    """The product is multiplied by this over the rank."""

    @contextmanager
    def opened(self, live: Any, seed: int) -> Iterator[None]:
        """Put a :class:`Summed` around every linear module of the layers; at the end add up and take them out."""
        from transformers.pytorch_utils import Conv1D

        made: list[tuple[nn.Module, str, Summed]] = []
        for name, module in list(live.named_modules()):
            if isinstance(module, nn.Linear | Conv1D) and any(part.isdecimal() for part in name.split(".")):
                if self.rank > min(module.weight.shape):
                    size = " x ".join(map(str, module.weight.shape))
                    raise UserError(
                        f"parameters/sparse_plus_low_rank: {name} is {size}; lower rank to its shorter side"
                    )
                rng = np.random.default_rng([seed, len(made)])
                owner, _, last = name.rpartition(".")
                made.append((live.get_submodule(owner), last, Summed(module, self, rng)))
        if not made:
            raise UserError("parameters/sparse_plus_low_rank: the model shows no numbered layers; use parameters: full")
        try:
            for owner_module, last, summed in made:
                summed.inner.weight.requires_grad_(False)
                setattr(owner_module, last, summed)
            yield
            for _, _, summed in made:
                summed.inner.weight.data = summed.weight().detach()
        finally:
            for owner_module, last, summed in made:
                setattr(owner_module, last, summed.inner)
                summed.inner.weight.requires_grad_(True)

    def facts(self, weights: Mapping[str, Tensor], steps: int) -> dict[str, Any]:
        """How many parameters were trained."""
        return {"trained_parameters": sum(weight.numel() for weight in weights.values())}


class Summed(nn.Module):
    """A linear module with a product and a sparse matrix added to its weight, (out, in), or (in, out) in GPT-2."""

    index_n: Tensor

    def __init__(self, inner: Any, part: SparsePlusLowRank, rng: np.random.Generator) -> None:
        super().__init__()
        self.inner, self.scale, self.out_first = inner, part.factor / part.rank, isinstance(inner, nn.Linear)
        weight = inner.weight
        rows, columns = weight.shape
        bound = 1 / math.sqrt(columns if self.out_first else rows)
        a_rd = torch.from_numpy(rng.uniform(-bound, bound, (part.rank, columns if self.out_first else rows)))
        b_dr = torch.zeros(rows if self.out_first else columns, part.rank)
        left, right = (b_dr, a_rd) if self.out_first else (a_rd.t(), b_dr.t())
        self.left, self.right = (nn.Parameter(side.contiguous().to(weight)) for side in (left, right))
        places = np.sort(rng.choice(weight.numel(), int(part.share * weight.numel()), replace=False, shuffle=False))
        self.register_buffer("index_n", torch.from_numpy(places).to(weight.device), persistent=False)
        self.values_n = nn.Parameter(torch.zeros(len(places)).to(weight))

    def weight(self) -> Tensor:
        """The sum."""
        return summed(self.inner.weight, self.left, self.right, self.values_n, self.index_n, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """The linear map by the sum."""
        sides = self.left, self.right, self.values_n, self.index_n
        y: Tensor = Product.apply(x, self.inner.weight, *sides, self.scale, self.out_first)  # type: ignore[no-untyped-call]
        return y if self.inner.bias is None else y + self.inner.bias


def summed(base: Tensor, left: Tensor, right: Tensor, values_n: Tensor, index_n: Tensor, scale: float) -> Tensor:
    """base + scale * left @ right, plus the values at their places in it (row by row)."""
    total = torch.addmm(base, left, right, alpha=scale)
    total.view(-1).index_add_(0, index_n, values_n)
    return total


class Product(torch.autograd.Function):
    """x times the sum; the sum is not kept for the backward pass but made again, as in the authors' code."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        base: Tensor,
        left: Tensor,
        right: Tensor,
        values_n: Tensor,
        index_n: Tensor,
        scale: float,
        out_first: bool,
    ) -> Tensor:
        """See :class:`Summed`."""
        ctx.save_for_backward(x, base, left, right, values_n, index_n)
        ctx.scale, ctx.out_first = scale, out_first
        weight = summed(base, left, right, values_n, index_n, scale)
        return x @ (weight.t() if out_first else weight)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        """Slopes of x, both factors and the values; none of the base."""
        x, base, left, right, values_n, index_n = ctx.saved_tensors
        (g,) = upstream
        weight = summed(base, left, right, values_n, index_n, ctx.scale)
        dx = g @ (weight if ctx.out_first else weight.t())
        g_nd, x_nd = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
        slope = g_nd.t() @ x_nd if ctx.out_first else x_nd.t() @ g_nd
        dleft, dright = ctx.scale * (slope @ right.t()), ctx.scale * (left.t() @ slope)
        return dx, None, dleft, dright, slope.reshape(-1)[index_n], None, None, None
