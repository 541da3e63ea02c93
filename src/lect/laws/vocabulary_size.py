# SPDX-License-Identifier: Apache-2.0
"""How many tokens a vocabulary should have, for a model size or a training budget.

Tao et al., "Scaling Laws with Vocabulary" (arXiv:2407.13623, version 3, NeurIPS 2024), fitted on 33 million to 1.13
billion non-vocabulary parameters and checked at 2.87 billion. Three ways give three predictions:

1. *IsoFLOPs* (sec. 4.1): N_nv = e^-2.485 C^0.5 and N_v = e^-1.589 C^0.4164, the best points under each budget C.
2. *Derivative* (sec. 4.2): N_v = N_v0 (N_nv / N_nv0)^0.8354, anchored at the best small model; the exponent comes from
   the vocabulary that makes a character cheapest (`cheapest`).
3. *Loss* (sec. 4.3): the vocabulary with the least
   L_u = -E + A1 / N_nv^a1 + A2 / N_v^a2 + B / D^b when D = C / (6 (N_nv + N_v)); the only one for a budget that does
   not fit the model (too little or much text).

Units: N_nv, non-vocabulary parameters; V, tokens; d, width of the embedding; N_v = V d, counted once, since a lookup
costs no operations (footnote 1); C = 6 (N_nv + V d) H f(V), training FLOPs (eq. 5); H, characters; D = H f(V), training
tokens; f(V), tokens per character (eq. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lect.errors import UserError

__all__ = [
    "STUDIED_NON_VOCABULARY",
    "Prediction",
    "affordable_characters",
    "by_derivative",
    "by_isoflops",
    "by_loss",
    "cheapest",
]
__all__ += ["optimal_flops", "optimal_non_vocabulary", "predict", "tokens_per_character", "training_flops", "width_of"]

CARD = {
    "title": "Compute-optimal vocabulary size",
    "paper": "arXiv:2407.13623",
    "claim": "larger models deserve larger vocabularies: a 70 billion model should have 212 to 231 thousand tokens",
    "differs": [
        "constants to all digits come from the authors' repository; they give table 1 for 3 to 300 billion parameters,"
        " but for one entry that is rounded down there (383 thousand); its row for 130 billion was not compared",
        "the abstract's 216 thousand for Llama2-70B is no figure of table 1, whose row has 212, 231 and 218 thousand",
        "the width of the embedding may be given; the paper takes it from a table by model size (appendix A.7.2)",
        "the loss is minimised by bisection; the authors' fitting script takes f(V) of V in thousands, so that the"
        " constants give the optimum as published but not the value of the loss, which is therefore not offered",
        "fitted on English text alone; below 33 million or above 3 billion parameters it is an extrapolation",
    ],
    "version": 1,
}

STUDIED_NON_VOCABULARY = (33e6, 2.87e9)
F_SQUARE, F_LINEAR, F_CONSTANT = 0.00639222, -0.15811069, 1.20470122  # eq. 3
F_LARGEST = 200_000  # appendix A.9: beyond it a larger vocabulary no longer shortens the text
LOG_NON_VOCABULARY, LOG_VOCABULARY, POWER_VOCABULARY = -2.4846510161625193, -1.589031299255507, 0.4163622634135234
ANCHOR_NON_VOCABULARY, ANCHOR_VOCABULARY, GAMMA = 33e6, 3_145_728, 0.8353974035228025
A2, B = 0.19584238398665638, 2.1241123120064955  # eq. 8: N in millions, D in billions
ALPHA2, BETA = 0.6707374679896795, 0.44660634152009615
WIDTHS: tuple[tuple[float, int], ...] = ((5e7, 512), (2e8, 768), (5e8, 1024), (1e9, 1536), (2e9, 2048), (5e9, 3200))
WIDTHS += (
    (1e10, 4096),
    (2e10, 5120),
    (5e10, 6048),
    (1e11, 8192),
    (2e11, 12288),
    (5e11, 16384),
    (1e12, 20480),
    (math.inf, 24576),
)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The vocabulary in tokens by each way; None where a way needs a budget that fits the model."""

    non_vocabulary: float
    flops: float
    width: int
    isoflops: int | None
    derivative: int | None
    loss: int


def predict(non_vocabulary: float | None = None, flops: float | None = None, width: int | None = None) -> Prediction:
    """The vocabulary for a model, for a training budget, or for both.

    With one of the two, the other is the compute-optimal one. With both, only the third way applies, since the first
    two hold along the compute-optimal line. ``UserError`` if neither is given or a number is not positive.
    """
    if non_vocabulary is None and flops is None:
        raise UserError("vocabulary size: no size is given; give non_vocabulary parameters, training flops or both")
    model = optimal_non_vocabulary(_positive("flops", flops)) if non_vocabulary is None else non_vocabulary
    width = _width(model, width)
    fits = non_vocabulary is None or flops is None
    return Prediction(
        non_vocabulary=model,
        flops=optimal_flops(model) if flops is None else flops,
        width=width,
        isoflops=by_isoflops(model, width) if fits else None,
        derivative=by_derivative(model, width) if fits else None,
        loss=by_loss(model, flops, width),
    )


def by_isoflops(non_vocabulary: float, width: int | None = None) -> int:
    """The vocabulary on the power law through the best models under equal budgets (sec. 4.1), in tokens."""
    flops = optimal_flops(non_vocabulary)
    return int(math.exp(LOG_VOCABULARY) * flops**POWER_VOCABULARY / _width(non_vocabulary, width))


def by_derivative(non_vocabulary: float, width: int | None = None) -> int:
    """The vocabulary that grows with the model to the power 0.8354 from the best small one (sec. 4.2), in tokens."""
    ratio = _positive("non_vocabulary", non_vocabulary) / ANCHOR_NON_VOCABULARY
    return int(ANCHOR_VOCABULARY * ratio**GAMMA / _width(non_vocabulary, width))


def by_loss(non_vocabulary: float, flops: float | None = None, width: int | None = None) -> int:
    """The vocabulary with the least predicted loss for model and budget (sec. 4.3), in tokens.

    Without ``flops`` the budget is the compute-optimal one; a smaller one asks for fewer tokens, a larger for more.
    """
    width = _width(non_vocabulary, width)
    budget = optimal_flops(non_vocabulary) if flops is None else _positive("flops", flops)
    size, scale = non_vocabulary / 1e6, BETA * B * math.pow(6e15 / budget, BETA)

    def slope(log: float) -> float:
        """dL/dN_v times N_v ^ (a2 + 1), so that the sign changes once."""
        vocabulary = math.exp(log)
        return scale * math.pow(size + vocabulary, BETA - 1) * math.pow(vocabulary, ALPHA2 + 1) - ALPHA2 * A2

    return int(math.exp(_root(slope, -40.0, 60.0)) * 1e6 / width)


def cheapest(non_vocabulary: float, width: int | None = None) -> float:
    """The vocabulary at which training on a character takes the fewest FLOPs, in tokens (sec. 4.2, dC/dV = 0).

    At most 200,000, from where on f(V) is constant. How N_v = V d of this grows with the model is what the exponent of
    `by_derivative` was fitted to; the vocabulary itself is no advice.
    """
    width = _width(non_vocabulary, width)

    def slope(log: float) -> float:
        """dC/dV times V / 6 H."""
        parameters = width * math.exp(log)
        rate = F_SQUARE * log * log + F_LINEAR * log + F_CONSTANT
        return parameters * rate + (non_vocabulary + parameters) * (2 * F_SQUARE * log + F_LINEAR)

    return math.exp(_root(slope, 0.0, math.log(F_LARGEST)))


def tokens_per_character(vocabulary: float) -> float:
    """f(V): how many tokens a character of English takes with byte-pair encoding (eq. 3; fitted from 1K to 1M)."""
    log = math.log(min(_positive("vocabulary", vocabulary), F_LARGEST))
    return F_SQUARE * log * log + F_LINEAR * log + F_CONSTANT


def training_flops(non_vocabulary: float, vocabulary: float, characters: float, width: int | None = None) -> float:
    """C: the FLOPs of training a model on ``characters`` of text (eq. 5)."""
    parameters = non_vocabulary + vocabulary * _width(non_vocabulary, width)
    return 6 * parameters * _positive("characters", characters) * tokens_per_character(vocabulary)


def affordable_characters(non_vocabulary: float, vocabulary: float, flops: float, width: int | None = None) -> float:
    """H: how many characters of text a budget pays for (eq. 5 the other way round)."""
    return _positive("flops", flops) / training_flops(non_vocabulary, vocabulary, 1.0, width)


def optimal_flops(non_vocabulary: float) -> float:
    """C: the budget for which a model of ``non_vocabulary`` parameters is the compute-optimal one (sec. 4.1)."""
    return (_positive("non_vocabulary", non_vocabulary) / math.exp(LOG_NON_VOCABULARY)) ** 2


def optimal_non_vocabulary(flops: float) -> float:
    """N_nv: the compute-optimal number of non-vocabulary parameters for a budget (sec. 4.1)."""
    return math.exp(LOG_NON_VOCABULARY) * math.sqrt(_positive("flops", flops))


def width_of(non_vocabulary: float) -> int:
    """d: the width that the paper gives a model of this size (appendix A.7.2); use your model's own if it has one."""
    return next(width for limit, width in WIDTHS if _positive("non_vocabulary", non_vocabulary) <= limit)


def _width(non_vocabulary: float, width: int | None) -> int:
    return width_of(non_vocabulary) if width is None else int(_positive("width", width))


def _positive(name: str, value: float | None) -> float:
    if value is None or not 0 < value < math.inf:
        raise UserError(f"vocabulary size: {name} is {value}; give a positive number")
    return value


def _root(slope: Callable[[float], float], low: float, high: float) -> float:
    """Where a slope that is negative first and positive then changes its sign; an end where it does not."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return high
