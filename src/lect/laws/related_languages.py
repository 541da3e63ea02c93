# SPDX-License-Identifier: Apache-2.0
"""What text of related languages is worth to a language, in text of its own; which languages to take and how much.

Chang, Arnett, Tu and Bergen, "When Is Multilinguality a Curse?" (arXiv:2311.09205), over 10,000 models of 252
languages.

- *Score* (eq. 1): s = mean log2 P(token) of a model minus that of a baseline on the same held-out tokens, in bits per
  token; one bit is half the perplexity.
- *Curve* (sec. 4.3): s(n) = -a x^-b + c with x = log10 n, n the monolingual training tokens, for one language and one
  model size; fitted to monolingual models of several n.
- *Worth*: the n at which the curve reaches the score of a model that also saw other languages. Against the tokens of
  the language that this model saw it is a gain: 0.33 is worth a third more text.
- *Which languages* (sec. 5): the ten with the greatest mean of standardised syntactic, geographic and lexical
  similarity.
- *How much*: `published` says what the paper found for its sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from statistics import fmean, median, pstdev
from typing import NamedTuple

from lect.errors import UserError

__all__ = [
    "FINDINGS",
    "Curve",
    "Finding",
    "combined_similarity",
    "curve_score",
    "equivalent_tokens",
    "fit_curve",
    "gain",
]
__all__ += ["lexical_similarity", "median_curve", "most_similar", "published", "relative_score"]

CARD = {
    "title": "Worth of related languages",
    "paper": "arXiv:2311.09205",
    "claim": "text of ten similar languages is worth up to a third more text of a language that has a million tokens,"
    " and costs a language with a billion tokens more than half of its own",
    "differs": [
        "no curve is published with its constants, so they are fitted to scores that you measured",
        "a curve needs three sizes; with two the paper takes a as the median over other languages; that b then lies on"
        " the side of their median b, and equals it when there is one size, is ours",
        "least squares over b by search; how the paper fits could not be checked",
        "figures are those stated in sections 6.1 and 6.2 and at figure 1, checked against a summary of the paper only;"
        " what it shows only in plots, such as languages with a hundred million tokens, has no entry",
        "similarities may be of any source; the paper takes lang2vec's for syntax and geography",
    ],
    "version": 1,
}

TINY, MINI, SMALL = 4.6e6, 11.6e6, 29.5e6  # parameters of the models (sec. 4.1), without those of added vocabulary
STUDIED = {
    "target_tokens": (1e6, 1e7, 1e8, 1e9),
    "added_tokens": (1e7, 1e8, 1e9),
    "parameters": (TINY, MINI, SMALL),
}


class Curve(NamedTuple):
    """The constants of s(n) = -a log10(n)^-b + c, in bits per token; c is the score that no amount of text exceeds."""

    a: float
    b: float
    c: float


class Finding(NamedTuple):
    """One result of the paper; None stands for any, and for an amount for the best of those tried."""

    target_tokens: float
    added_tokens: float | None
    parameters: float | None
    similar: bool | None
    effect: str
    """``gain``, ``none`` or ``loss``."""
    change: float | None
    """The worth as a share of the language's own tokens; None where the paper gives no number in its text."""
    where: str


FINDINGS = (
    Finding(1e6, None, SMALL, True, "gain", 0.33, "sec. 6.1"),
    Finding(1e6, None, SMALL, False, "gain", 0.22, "sec. 6.1"),
    Finding(1e6, None, TINY, True, "gain", 0.12, "sec. 6.1"),
    Finding(1e6, 1e9, SMALL, True, "gain", 0.22, "figure 1"),
    Finding(1e6, 1e7, None, None, "none", None, "sec. 6.1"),
    Finding(1e6, 1e8, None, None, "gain", None, "sec. 6.1"),
    Finding(1e6, 1e9, None, None, "gain", None, "sec. 6.1"),
    Finding(1e7, 1e9, TINY, None, "loss", None, "sec. 6.1"),
    Finding(1e7, 1e9, MINI, None, "loss", None, "sec. 6.1"),
    Finding(1e9, 1e9, SMALL, None, "loss", -0.63, "sec. 6.2"),
    Finding(1e9, 1e9, TINY, None, "loss", -0.88, "sec. 6.2"),
    Finding(1e9, None, None, None, "loss", None, "sec. 6.2"),
    Finding(1e9, 1e9, None, None, "loss", None, "sec. 6.2"),
)
"""Special cases stand before general ones. Gains for a million tokens were significant in 11 of 12 comparisons."""


def relative_score(bits: float, baseline_bits: float) -> float:
    """The score of a model (eq. 1), from its and the baseline's mean bits per token on the same held-out text.

    The tokens must be the same for both, and for all models of a curve: one tokenizer per language.
    """
    return baseline_bits - bits


def curve_score(curve: Curve, tokens: float) -> float:
    """The score that ``tokens`` of the language alone give."""
    return curve.c - curve.a * math.pow(_log(tokens), -curve.b)


def equivalent_tokens(curve: Curve, score: float) -> float:
    """How many tokens of the language alone give ``score``. ``UserError`` if no amount does."""
    if -math.inf < score < curve.c:
        log = math.log(curve.a / (curve.c - score)) / curve.b
        if log < math.log(300):
            return math.pow(10, math.exp(log))
    raise UserError(f"score {score:g}: no amount of text reaches it on a curve that ends at {curve.c:g}; fit it anew")


def gain(curve: Curve, score: float, tokens: float) -> float:
    """What the other languages were worth, as a share of the ``tokens`` of its own that the model saw."""
    return equivalent_tokens(curve, score) / tokens - 1


def fit_curve(tokens: Sequence[float], scores: Sequence[float], like: Curve | None = None) -> Curve:
    """The curve of one language and model size through ``scores`` of models with ``tokens`` of it alone.

    Least squares from three sizes on. With fewer, ``like`` (`median_curve` of other languages) gives what is
    missing. ``UserError`` if scores do not grow with the tokens, or grow in no way that such a curve can.
    """
    pairs = sorted(zip(map(_log, tokens), scores, strict=True))
    logs, values = [x for x, _ in pairs], [s for _, s in pairs]
    if len(set(logs)) < len(logs) or len(logs) < (1 if like else 3):
        raise UserError(
            f"curve: {len(logs)} sizes, all must differ; give three or more, or fewer and a curve to be like"
        )
    if len(values) > 1 and values[-1] <= values[0]:
        raise UserError(
            "curve: the score does not grow with the tokens; check the runs, the largest should be the best"
        )
    if len(logs) > 2:
        return _least_squares(logs, values)
    assert like is not None
    b = like.b if len(logs) == 1 else _matching_power(logs, (values[1] - values[0]) / like.a, like.b)
    return Curve(like.a, b, values[0] + like.a * logs[0] ** -b)


def median_curve(curves: Sequence[Curve]) -> Curve:
    """The curve whose constants are the medians over languages (appendix A.4)."""
    if not curves:
        raise UserError("curve: no curves to take the median of; fit some languages that have three sizes")
    return Curve(*(median(column) for column in zip(*curves, strict=True)))


def lexical_similarity(left: AbstractSet[str], right: AbstractSet[str]) -> float:
    """The logarithm of one more than the number of tokens in both languages' vocabularies (sec. 5)."""
    return math.log(len(left & right) + 1)


def combined_similarity(*measures: Mapping[frozenset[str], float | None]) -> dict[frozenset[str], float]:
    """The mean of standardised similarities for each pair of languages; an unknown one counts as the average (sec. 5).

    Each measure maps the same pairs, ``frozenset({"eus", "spa"})``, to a similarity or None.
    """
    standard = []
    for measure in measures:
        known = [value for value in measure.values() if value is not None]
        middle, spread = (fmean(known), pstdev(known)) if known else (0.0, 0.0)
        standard.append({p: 0.0 if v is None or not spread else (v - middle) / spread for p, v in measure.items()})
    if not standard or any(measure.keys() != standard[0].keys() for measure in standard):
        raise UserError("similarity: the measures hold other pairs of languages; give each of them every pair")
    return {pair: fmean(measure[pair] for measure in standard) for pair in standard[0]}


def most_similar(language: str, similarity: Mapping[frozenset[str], float], count: int = 10) -> list[str]:
    """The languages to add, most similar first; the paper takes ten, of those with enough text (sec. 5)."""
    others = {other: value for pair, value in similarity.items() if language in pair for other in pair - {language}}
    if not others:
        raise UserError(f"similarity: no pair with {language!r}; give its similarity to the others")
    return sorted(others, key=lambda other: (-others[other], other))[:count]


def published(
    target_tokens: float, parameters: float, similar: bool = True, added_tokens: float | None = None
) -> Finding | None:
    """What the paper found at the sizes nearest to yours; None where its text says nothing.

    ``target_tokens`` are the language's own, ``added_tokens`` those of ten other languages together (None: the best
    amount of those tried), ``parameters`` without embeddings of added vocabulary. ``UserError`` for a size more than
    three times beyond those studied, where the paper gives no ground for a guess.
    """
    target = _studied("target_tokens", target_tokens)
    size = _studied("parameters", parameters)
    added = None if added_tokens is None else _studied("added_tokens", added_tokens)
    for finding in FINDINGS:
        if (finding.target_tokens, finding.added_tokens) == (target, added):
            fits_size, fits_kind = finding.parameters in (None, size), finding.similar in (None, similar)
            if fits_size and fits_kind:
                return finding
    return None


def _studied(name: str, value: float) -> float:
    sizes = STUDIED[name]
    if not sizes[0] / 3 <= value <= sizes[-1] * 3:
        raise UserError(f"published: {name} {value:g} was not studied; give {sizes[0]:g} to {sizes[-1]:g} or nearby")
    return min(sizes, key=lambda size: abs(math.log(size / value)))


def _log(tokens: float) -> float:
    if not 1 < tokens < math.inf:
        raise UserError(f"curve: {tokens} tokens; give a number above 1")
    return math.log10(tokens)


def _matching_power(logs: Sequence[float], rise: float, near: float) -> float:
    """The b for which x0^-b - x1^-b is ``rise``: of the two there are, the one on the side of the peak of ``near``."""
    low, high = logs
    peak = math.log(math.log(high) / math.log(low)) / math.log(high / low)

    def missing(b: float) -> float:
        return rise - math.pow(low, -b) + math.pow(high, -b)

    if missing(peak) > 0:
        raise UserError(f"curve: scores rise by more than its a allows, {rise:g} times; measure a third size")
    inside, outside = peak, (0.0 if near < peak else peak + 200 / math.log(low))
    for _ in range(200):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if missing(middle) <= 0 else (inside, middle)
    return inside


def _least_squares(logs: Sequence[float], values: Sequence[float]) -> Curve:
    """a and c are linear for a given b; the b with the least squares lies between 0.001 and 100."""

    def fitted(log_b: float) -> tuple[float, Curve]:
        b = math.exp(log_b)
        column = [(x / logs[0]) ** -b for x in logs]
        middle, mean = fmean(column), fmean(values)
        spread = sum((k - middle) ** 2 for k in column)
        slope = -sum((k - middle) * (s - mean) for k, s in zip(column, values, strict=True)) / spread
        c = mean + slope * middle
        errors = sum((c - slope * k - s) ** 2 for k, s in zip(column, values, strict=True))
        return errors, Curve(slope * logs[0] ** b, b, c)

    ends = math.log(1e-3), math.log(100.0)
    grid = [ends[0] + (ends[1] - ends[0]) * k / 400 for k in range(401)]
    best = min(range(401), key=lambda k: fitted(grid[k])[0])
    if best in (0, 400) or fitted(grid[best])[1].a <= 0:
        raise UserError("curve: the scores do not level off as such a curve does; measure more or other sizes")
    return fitted(_least(lambda log_b: fitted(log_b)[0], grid[best - 1], grid[best + 1]))[1]


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, by thirds."""
    for _ in range(120):
        third = (high - low) / 3
        if function(low + third) < function(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2
