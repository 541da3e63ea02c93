# SPDX-License-Identifier: Apache-2.0
"""Train with most of the weights at zero, then with all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from lect.method import OneOf, Range, knobs
from lect.parts.parameters.kind import Parameters, largest, layer_matrices

if TYPE_CHECKING:
    from torch import Tensor

CARD = {
    "title": "Sparse pre-training, dense fine-tuning (SPDF)",
    "paper": "arXiv:2303.10464",
    "claim": "a share of every matrix of the layers is zero for the first part of the run, the same entries throughout;"
    " then the zeros learn too, and the model becomes better than one that stays sparse",
    "differs": [
        "the paper trains from random weights, where zeros cost nothing; here trained weights are set to zero, so that"
        " the model first gets worse: pick magnitude costs less than the paper's random choice",
        "sparse and dense training are parts of one run on one text with one schedule; the paper's are pre-training"
        " and fine-tuning, each with a schedule and an optimizer state of its own",
        "zeros are multiplied like other numbers: the paper's saving of operations needs hardware that leaves them out",
        "the text of the paper was not at hand: that the sparsity is the same in each matrix of attention and"
        " feed-forward, and that embeddings, norms, biases and head stay dense, is from the authors' posts and"
        " manuals; how long each part lasts here is a choice of ours",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class SparseThenDense(Parameters):
    """A run of which the first part trains a sparse model and the rest all of it.

    In each matrix of a layer exactly the share ``sparsity`` (to the nearest entry) is set to zero at the start and
    stays so; when the sparse part ends, those entries begin at zero, with moments of zero. Raises UserError for a model
    whose tensors' names show no numbered layers.
    """

    sparsity: Annotated[float, Range(above=0, below=1)] = 0.75
    """Share of zeros in each matrix of the layers, in (0, 1); the paper has 0.5 and 0.75."""
    sparse: Annotated[float, Range(above=0, at_most=1)] = 0.75
    """Share of the run, at its start, that is sparse, in (0, 1]; with 1 the model stays sparse."""
    pick: Annotated[str, OneOf("random", "magnitude")] = "random"
    """Which entries are zero: uniformly random ones, or those of the smallest magnitude."""

    def round(self, progress: float) -> int:
        """Sparse, then dense."""
        return int(self.sparse <= progress and self.sparse < 1)

    def kept(self, weights: Mapping[str, Tensor], round_: int, seed: int) -> Mapping[str, Tensor]:
        """In the sparse round a mask for every matrix of the layers, in the dense one none."""
        import torch

        if round_:
            return {}
        draw = torch.Generator().manual_seed(seed)
        masks = {}
        for name, weight in layer_matrices(weights, "sparse_then_dense").items():
            scores = weight.abs() if self.pick == "magnitude" else torch.rand(weight.shape, generator=draw)
            masks[name] = largest(scores, round(self.sparsity * weight.numel())).to(weight.device)
        return masks
