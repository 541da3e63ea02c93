# SPDX-License-Identifier: Apache-2.0
"""What it is worth to train on the same text again, how often, with how large a model, and when dropout helps.

Muennighoff et al., "Scaling Data-Constrained Language Models" (arXiv:2305.16264), over some 400 models:

- *Effective tokens*: D' = U + U R* (1 - e^(-R / R*)), from U tokens of text seen R + 1 times; R* = 15.39. A token of
  the next epoch is worth e^(-R / R*) of a new one, and no number of epochs is worth more than 16.4 times the text.
- *Effective parameters*: N' in the same way from U_N, the parameters that U tokens are the right amount for, and
  R_N = N / U_N - 1; R*_N = 5.31. Parameters beyond what the text can use lose their worth sooner than repeated text.
- *Loss*: L = E + A / N'^a + B / D'^b, and from it the best model for a budget of 6 N D operations (`allocate`).

Xue et al., "To Repeat or Not To Repeat" (arXiv:2305.13230): repeated text overfits, larger models sooner; of the usual
regularisers dropout alone helps, and it may start when the text begins to repeat instead of at the first step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lect.errors import UserError

__all__ = ["ACCURACY", "DROPOUT_RATES", "STUDIED_UNIQUE", "Allocation", "allocate", "dropout", "effective_parameters"]
__all__ += ["effective_tokens", "epochs_until", "loss", "matching_parameters", "worth_of_next"]

CARD = {
    "title": "Worth of repeated text",
    "paper": "arXiv:2305.16264, arXiv:2305.13230",
    "claim": "up to four epochs a repeated token is worth almost a new one, after forty nothing; with scarce text more"
    " epochs pay better than more parameters; dropout wins back part of what many epochs lose",
    "differs": [
        "constants are those of the authors' repository, fitted on English web text (C4); the loss is good for"
        " comparing, not for its value, as they say themselves",
        "less than one epoch counts as the text that was seen",
        "the best model is found by search in one dimension, as in the repository, to the digit instead of on a grid",
        "the loss never rises with epochs: the law knows no overfitting, which the second paper measured at 256 epochs",
        "the second paper gives no formula for dropout; that it starts with the second epoch unless told otherwise is"
        " ours, the rates are the best of its sweep at 2.4 and 2.8 billion parameters",
        "figures of the second paper were checked against a summary of it only; its models are encoder-decoders of up"
        " to 2.8 billion parameters",
    ],
    "version": 1,
}

LOG_A, LOG_B, LOG_E = 6.255414, 7.3049974, 0.6254804
ALPHA, BETA = 0.3526596, 0.3526596
REPEATS, REPEATS_PARAMETERS = 15.387756, 5.309743
A, B, E = math.exp(LOG_A), math.exp(LOG_B), math.exp(LOG_E)
STUDIED_UNIQUE = (1e8, 1.78e11)
"""Tokens of text in the runs that the constants were fitted to: the least and the most in the authors' repository."""
BALANCE = math.pow(ALPHA * A / (BETA * B), 1 / (ALPHA + BETA))

DROPOUT_RATES = (0.2, 0.3)
"""The best of 0.1 to 0.5 for text repeated 2^8 times (arXiv:2305.13230, sec. 5)."""

ACCURACY = {"once": 64.6, "repeated": 61.7, "repeated with dropout": 63.0}
"""Validation accuracy in per cent of T5-Base on 2^35 tokens, or 2^27 tokens seen 2^8 times (tables 1 and 4)."""


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A model and the tokens to train it on, repeats included; ``loss`` is comparable with others of this law."""

    parameters: float
    tokens: float
    epochs: float
    loss: float


def effective_tokens(unique: float, epochs: float) -> float:
    """How many new tokens the text is worth when ``unique`` tokens of it are seen ``epochs`` times."""
    text, times = _positive("unique", unique), _positive("epochs", epochs)
    return text * min(times, 1.0) * _saturated(max(times - 1, 0.0), REPEATS)


def worth_of_next(epochs: float) -> float:
    """What a token is worth after ``epochs``, as a share of a new one: 1 in the first epoch, 0.37 after 16.4."""
    return math.exp(-max(_positive("epochs", epochs) - 1, 0.0) / REPEATS)


def epochs_until(worth: float) -> float:
    """The number of epochs after which a token is worth ``worth`` of a new one: when to stop repeating."""
    if not 0 < worth <= 1:
        raise UserError(f"data repeats: worth is {worth}; give a share above 0, up to 1 (a new token)")
    return 1 - REPEATS * math.log(worth)


def matching_parameters(unique: float) -> float:
    """U_N: the parameters for which ``unique`` tokens, seen once, are the compute-optimal amount."""
    return BALANCE * math.pow(BALANCE * _positive("unique", unique), BETA / ALPHA)


def effective_parameters(parameters: float, unique: float) -> float:
    """N': how many parameters a model is worth that has only ``unique`` tokens of text to learn from."""
    used = min(_positive("parameters", parameters), matching_parameters(unique))
    return used * _saturated(parameters / used - 1, REPEATS_PARAMETERS)


def loss(parameters: float, unique: float, epochs: float) -> float:
    """The predicted loss in nats per token, for comparing models and numbers of epochs on the same text."""
    seen = unique * min(epochs, 1.0)
    model, text = effective_parameters(parameters, seen), effective_tokens(unique, epochs)
    return E + A / math.pow(model, ALPHA) + B / math.pow(text, BETA)


def allocate(flops: float, unique: float) -> Allocation:
    """The model size and number of epochs with the least loss for a budget of ``flops`` and ``unique`` tokens of text.

    With enough text this is the compute-optimal model; with less it is a smaller one that sees its text more often.
    """
    product, text = _positive("flops", flops) / 6, _positive("unique", unique)

    def cost(log: float) -> float:
        return loss(math.exp(log), *_seen(product / math.exp(log), text))

    centre = math.log(BALANCE) + math.log(product) * BETA / (ALPHA + BETA)
    grid = [centre + k / 20 for k in range(-240, 241)]
    best = min(range(481), key=lambda k: cost(grid[k]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, 480)]
    for _ in range(80):
        third = (high - low) / 3
        low, high = (low + third, high) if cost(low + third) > cost(high - third) else (low, high - third)
    parameters = math.exp((low + high) / 2)
    tokens = product / parameters
    return Allocation(parameters=parameters, tokens=tokens, epochs=tokens / text, loss=cost((low + high) / 2))


def dropout(epochs_seen: float, rate: float = DROPOUT_RATES[0], start: float = 1.0) -> float:
    """The dropout rate after ``epochs_seen``: none while the text is new, ``rate`` from ``start`` epochs on.

    On text seen once dropout only slows learning; switched on later it ends where dropout from the first step ends
    (insight 9). Larger models need the rate tuned (insight 10). ``UserError`` for a rate outside 0 to 1 or negative
    epochs.
    """
    if not 0 <= rate < 1 or not 0 <= epochs_seen < math.inf or not start >= 0:
        raise UserError(
            f"dropout: rate {rate}, epochs {epochs_seen}, start {start}; give a rate of 0 to below 1 and epochs from 0"
        )
    return rate if epochs_seen >= start else 0.0


def _saturated(repeats: float, constant: float) -> float:
    """1 + R* (1 - e^(-R / R*))."""
    return 1 - constant * math.expm1(-repeats / constant)


def _seen(tokens: float, unique: float) -> tuple[float, float]:
    """The text and the epochs over it that make ``tokens``."""
    text = min(tokens, unique)
    return text, tokens / text


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise UserError(f"data repeats: {name} is {value}; give a positive number")
    return value
