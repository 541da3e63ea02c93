# SPDX-License-Identifier: Apache-2.0
"""How good a model becomes that is pruned while it is trained, and when to prune.

Jin et al., "The Journey Matters: Average Parameter Count over Pre-training Unifies Sparse and Dense Scaling Laws"
(arXiv:2501.12486):

- *Law*: L = E + A / N^alpha + B / D^beta holds for pruned models as for dense ones if N is the average over training,
  1/D times the integral of N(t) dt. A pruned model is as good as a dense one of its average size, which took the same
  operations, and ends smaller: half as large at 80 % sparsity.
- *When*: prune from 25 % to 75 % of the operations of the training; of 80 schedules tried this is nearly the best.
- *How*: every so many steps an equal share of the weights that are left, the smallest of all layers together, so that
  the density falls as (1 - sparsity)^u, u from 0 to 1 over the pruning.

Shares of operations are not shares of steps: a pruned model takes fewer operations a step. `plan` converts them.
Parameters are those of the linear layers, which are pruned; tables of embeddings are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lect.errors import UserError

__all__ = [
    "STUDIED_PARAMETERS",
    "Constants",
    "Plan",
    "average_density",
    "average_of",
    "compression",
    "density",
    "loss",
    "plan",
]

CARD = {
    "title": "Average parameters of sparse pre-training",
    "paper": "arXiv:2501.12486",
    "claim": "one law covers sparse and dense training if it takes the average number of parameters; pruning from 25 to"
    " 75 % of the operations is nearly best; the same loss for the same operations with up to half the model",
    "differs": [
        "the form of the law was checked on the authors' page and the schedule against their code, model cards and a"
        " review; the fitted constants are not published, so that none are offered: fit them to your own runs",
        "the density falls evenly instead of every 100 steps, and counts steps as the model cards do; the average"
        " densities of their models of 1.2 billion parameters come out 0.001 higher",
        "the schedule was searched with models of 162 million parameters alone, the law fitted with 58 to 468 million",
        "operations of a sparse step are counted as if zeros cost nothing, which few machines deliver",
    ],
    "version": 1,
}

START, END = 0.25, 0.75
STUDIED_PARAMETERS = (58e6, 468e6)

Constants = tuple[float, float, float, float, float]
"""A, B, alpha, beta and E of the law, in this order: what `lect.laws.task_ladder.fit_loss` gives, which fits the same
form; give it the average parameters, the tokens and the loss of each run."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A pruning schedule in steps, for a model that is pruned to ``final`` of its ``dense`` parameters."""

    dense: float
    final: float
    average: float
    prune_start: int
    prune_end: int
    steps: int


def plan(parameters: float, sparsity: float, steps: int, start: float = START, end: float = END) -> Plan:
    """When to start and to end pruning in a training of ``steps``, and the sizes that come of it.

    ``start`` and ``end`` are shares of the operations. ``UserError`` if a number is out of range.
    """
    if not 0 < parameters < math.inf or steps < 1:
        raise UserError(f"average parameters: {parameters} parameters, {steps} steps; give positive numbers")
    mean = average_density(sparsity, start, end)
    dense, pruning = start * mean, (end - start) * mean / _mean_while_pruning(sparsity)
    return Plan(
        dense=parameters,
        final=parameters * (1 - sparsity),
        average=parameters * mean,
        prune_start=round(dense * steps),
        prune_end=round((dense + pruning) * steps),
        steps=steps,
    )


def average_density(sparsity: float, start: float = START, end: float = END) -> float:
    """The average share of the parameters over all steps, by the final ``sparsity`` and the schedule.

    It is the operations of the training over those of a dense model for the same steps.
    """
    if not 0 <= sparsity < 1 or not 0 <= start <= end <= 1:
        raise UserError(
            f"average parameters: sparsity {sparsity}, start {start}, end {end}; give 0 <= start <= end <= 1 and a"
            " sparsity of 0 to below 1"
        )
    return 1 / (start + (end - start) / _mean_while_pruning(sparsity) + (1 - end) / (1 - sparsity))


def density(plan: Plan, step: float) -> float:
    """The share of the parameters that a model has at ``step`` of a plan."""
    if step >= plan.prune_end:
        return plan.final / plan.dense
    return math.pow(
        plan.final / plan.dense, max(0.0, step - plan.prune_start) / max(1, plan.prune_end - plan.prune_start)
    )


def average_of(counts: Sequence[float]) -> float:
    """The average parameters of a run, from its non-zero parameters at even distances of tokens."""
    if not counts or min(counts) <= 0:
        raise UserError(f"average parameters: {len(counts)} counts; give the parameters of each step, all positive")
    return fmean(counts)


def compression(sparsity: float, start: float = START, end: float = END) -> float:
    """How many times smaller the pruned model ends than the dense one that is as good for the same operations."""
    return average_density(sparsity, start, end) / (1 - sparsity)


def loss(constants: Constants, average: float, tokens: float) -> float:
    """The predicted loss after ``tokens`` of training with ``average`` parameters; of a dense model, its parameters."""
    if not 0 < average < math.inf or not 0 < tokens < math.inf:
        raise UserError(f"average parameters: {average} parameters and {tokens} tokens; give positive numbers")
    a, b, alpha, beta, floor = constants
    return floor + a * math.pow(average, -alpha) + b * math.pow(tokens, -beta)


def _mean_while_pruning(sparsity: float) -> float:
    """The mean of (1 - sparsity)^u for u from 0 to 1."""
    return -sparsity / math.log1p(-sparsity) if sparsity else 1.0
