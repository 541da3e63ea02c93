# SPDX-License-Identifier: Apache-2.0
"""Prune while training: dense, then ever sparser, then as sparse as wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from lect.method import Range, knobs
from lect.parts.parameters.kind import Parameters, largest, layer_matrices

if TYPE_CHECKING:
    from torch import Tensor

    from lect.laws.average_parameters import Plan

CARD = {
    "title": "Gradual magnitude pruning inside training",
    "paper": "arXiv:2501.12486",
    "claim": "dense for the first quarter of the operations, pruned by three quarters, the rest to recover: the model"
    " ends with that share of zeros, and as good as a dense one of its average number of parameters",
    "differs": [
        "the paper prunes from random weights on, every 100 steps; here a trained model is pruned, a given number of"
        " times at equal distances",
        "start and end are shares of operations as the paper counts them, as if zeros cost nothing: laws"
        " average_parameters turns them into shares of steps; few machines save those operations",
        "the schedule is from the authors' code, their model cards and a review, as in laws average_parameters",
        "that a pruned entry never comes back, and that its moments go to zero with it, is a choice of ours",
        "the claim of equal quality is the law's prediction, kept as a fact of the run, and not measured here",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

SHARES = 1_000_000


@knobs
class Prune(Parameters):
    """A sparse model: at each pruning an equal share of the entries that are left goes to zero, and stays there.

    It takes those of the smallest magnitude of all matrices of the layers together, exactly (1 - sparsity)^(n / N) of
    the entries stay after pruning n of N. Facts under ``pruning``: sizes, average sizes, and the dense model that the
    law takes to be as good. Raises UserError for a start behind the end, and for a model without numbered layers.
    """

    sparsity: Annotated[float, Range(above=0, below=1)] = 0.5
    """Share of zeros in the matrices of the layers, all together, at the end, in (0, 1)."""
    start: Annotated[float, Range(at_least=0, at_most=1)] = 0.25
    """Share of the run's operations before the first pruning, in (0, 1)."""
    end: Annotated[float, Range(at_least=0, below=1)] = 0.75
    """Share of the run's operations by the last pruning, in (0, 1); the run needs a step behind it."""
    prunings: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 50
    """How often, at most: of prunings that fall into one step the last one is made."""

    def plan(self, parameters: int, steps: int) -> Plan:
        """What the law makes of the schedule."""
        from lect.laws.average_parameters import plan

        return plan(parameters, self.sparsity, steps, self.start, self.end)

    def round(self, progress: float) -> int:
        """How many prunings are behind."""
        found = self.plan(1, SHARES)
        done = (progress * SHARES - found.prune_start) / max(1, found.prune_end - found.prune_start)
        return max(0, min(self.prunings, int(done * self.prunings)))

    def density(self, round_: int) -> float:
        """The share of entries that are left."""
        return float((1 - self.sparsity) ** (round_ / self.prunings))

    def kept(self, weights: Mapping[str, Tensor], round_: int, seed: int) -> Mapping[str, Tensor]:
        """The largest entries of all matrices of the layers together; those at zero are the first to go."""
        import torch

        if not round_:
            return {}
        matrices = layer_matrices(weights, "prune")
        scores_n = torch.cat([weight.abs().flatten() for weight in matrices.values()])
        kept_n = largest(scores_n, round((1 - self.density(round_)) * len(scores_n)))
        pieces = torch.split(kept_n, [weight.numel() for weight in matrices.values()])
        return {n: piece_n.view(w.shape).clone() for (n, w), piece_n in zip(matrices.items(), pieces, strict=True)}

    def facts(self, weights: Mapping[str, Tensor], steps: int) -> dict[str, Any]:
        """Zeros and sizes, the average over the steps, and the law's prediction."""
        from lect.laws.average_parameters import average_of

        matrices = layer_matrices(weights, "prune").values()
        dense = sum(weight.numel() for weight in matrices)
        left = sum(int(weight.count_nonzero()) for weight in matrices)
        found = self.plan(dense, steps)
        counts = [dense * self.density(self.round((step + 0.5) / steps)) for step in range(steps)]
        words = {"prunable": dense, "left": left, "sparsity": 1 - left / dense, "average": average_of(counts)}
        words |= {"as_good_as_dense": found.average, "prune_start": found.prune_start, "prune_end": found.prune_end}
        return {"pruning": words}
