# SPDX-License-Identifier: Apache-2.0
"""Which learning rates a model wants, from rates that were tuned on a narrower one.

Maximal update parametrization (Yang et al., arXiv:2203.03466), for AdamW: an update moves what a matrix
computes by a sum over its inputs, so that a matrix of m times the width wants a rate of 1/m, while embeddings, norms
and biases, which are no sums over the width, keep theirs. m is the model's width over that of the tuned one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from lect.errors import UserError

__all__ = ["POWER_WIDTH", "Rates", "rates", "width_multiplier"]

CARD = {
    "title": "Maximal update: learning rates by width",
    "paper": "arXiv:2203.03466",
    "claim": "the learning rate that is best for a narrow model is best for a wide one too, once that of its matrices"
    " is divided by the ratio of the widths",
    "differs": [
        "the rule is read off the authors' package (mup, MuAdam) and off arXiv:2408.13359, table 1; the paper's own"
        " tables could not be read",
        "only what holds while training goes on with a trained model: the rates. First weights, and multipliers of"
        " embeddings, residuals, attention and logits (arXiv:2408.13359, table 1) belong to the making of a model",
        "the head: this engine gives it the rate of the embeddings, with which it is often one table; the rule asks for"
        " the matrices' rate, or for logits divided by m, which no finished model is built for",
        "weight decay that is counted per unit of learning rate is multiplied by m, as in the authors' package, so"
        " that what an update takes off stays the same",
        "that a rate tuned from random weights is also best for going on with a trained model is nobody's claim",
    ],
    "version": 1,
}

POWER_WIDTH = 256
"""The width at which the constants of schedule/power were found (arXiv:2408.13359, table 3)."""


class Rates(NamedTuple):
    """Peak learning rates, and the weight decay of the matrices per unit of their rate."""

    matrices: float
    others: float
    weight_decay: float


def rates(rate: float, width: int, base: int = POWER_WIDTH, weight_decay: float = 0.0) -> Rates:
    """What a model of ``width`` is to train with, where ``rate`` and ``weight_decay`` were tuned at width ``base``.

    In ``pretrain/continue`` these are learning_rate, embedding_learning_rate and weight_decay. ``UserError`` if a width
    or the rate is not positive, or the decay negative.
    """
    wider = width_multiplier(width, base)
    if not 0 < rate < math.inf or not 0 <= weight_decay < math.inf:
        raise UserError(f"maximal update: rate {rate} and weight decay {weight_decay}; give numbers above 0")
    return Rates(matrices=rate / wider, others=rate, weight_decay=weight_decay * wider)


def width_multiplier(width: int, base: int = POWER_WIDTH) -> float:
    """m: how many times as wide as the tuned model. ``UserError`` if a width is not positive."""
    if not (0 < width < math.inf and 0 < base < math.inf):
        raise UserError(f"maximal update: widths are {width} and {base}; give positive numbers")
    return width / base
