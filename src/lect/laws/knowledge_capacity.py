# SPDX-License-Identifier: Apache-2.0
"""How many bits of knowledge a model can hold, and how large a model a set of facts needs.

Allen-Zhu and Li, "Physics of Language Models: Part 3.3, Knowledge Capacity Scaling Laws" (arXiv:2404.05405), on made-up
biographies, models of a million to half a billion parameters trained from scratch:

- *Knowledge* is a set of (name, attribute, value); its bits (prop. 2.3) are N log2(N0 / N) for the names,
  N K C log2 D for the values and K D log2(T^L / D) for what the values are made of.
- *Capacity ratio* R = learned bits / parameters (def. 4.1 and 4.3), the learned bits from the model's losses.
- *Law*: R is 2 when each fact is seen 1000 times in training (result 1), never above 2.3, and 1 when it is seen 100
  times (result 4). A model with a bit for every 1.8 learns all of it.
- int8 keeps it, int4 leaves 0.7 (result 8); junk, experts and gated layers take what `ratio` says (results 5 to 12).

An exposure is a fact told once, in any words; one pass over a text may expose a fact a thousand times.
"""

from __future__ import annotations

import math
from typing import Literal

from lect.errors import UserError
from lect.method import nearest

__all__ = ["CEILING", "EXPOSURES", "INT4", "JUNK", "SAFE", "STUDIED_PARAMETERS", "capacity", "learned_bits"]
__all__ += ["parameters_for", "ratio", "set_bits", "worth_marking"]

CARD = {
    "title": "Knowledge capacity",
    "paper": "arXiv:2404.05405",
    "claim": "a model holds 2 bits of knowledge a parameter if trained long enough, at 8 bits a weight too; half of it"
    " for what it saw 100 times; junk around the facts costs up to 20 times, a mark before the good text saves it",
    "differs": [
        "peak ratios as the paper rounds them; it says at least 2, at least 1, and up to 20 times",
        "numbers of exposures between those studied take the ratio of the next lower one, and fewer than 100 are"
        " refused; what the paper did not combine, such as int4 after 100 exposures, is refused too",
        "the worth of junk data is that of a mix of 1/8 good and 7/8 junk tokens, the only one studied",
        "quantised models were plain ones; gated ones are taken to keep as much after 1000 exposures",
        "parameters count the rows of the embedding that the text uses alone (appendix A)",
        "facts of made-up people: nothing here says how many bits a text of yours holds, beyond `set_bits`",
    ],
    "version": 1,
}

EXPOSURES = {100: 1.0, 1000: 2.0}
"""Bits a parameter by how often a fact is seen (results 1 and 4)."""

STUDIED_PARAMETERS = (1e6, 5e8)

CEILING, SAFE, INT4 = 2.3, 1.8, 0.7
"""No model held more than the first (result 1c); up to the second all is learned (1b); what int4 leaves (result 8)."""

JUNK = {
    "random": {100: 20.0, 300: 3.0, 600: 1.5, 1000: 1.3},
    "random, good text marked": {100: 2.0, 300: 1.0},
    "repetitive": {100: 1.0},
}
"""How many times less is learned than from 100 exposures without junk, when 7 of 8 tokens are junk (results 10-12)."""

Layers = Literal["plain", "gated", "none"]
MLP_LOSS: dict[str, float] = {"plain": 1.0, "gated": 1.3, "none": 1.5}
EXPERT_LOSS = {100: 1.5, 1000: 1.3}


def ratio(
    exposures: float = 1000,
    *,
    weight_bits: int = 16,
    mlp: Layers = "plain",
    experts: bool = False,
    junk: str | None = None,
) -> float:
    """Bits of knowledge a parameter: 2 at best.

    ``exposures``: how often each fact is seen in training. ``weight_bits``: 16, 8 or 4 after training. ``mlp``:
    ``gated`` as in Llama or Gemma, or no layer at all, costs only with few exposures (results 5 to 7). ``experts``: 32
    a layer, per parameter of all of them (result 9). ``junk``: a key of `JUNK`. ``UserError`` where the paper has no
    figure.
    """
    seen = _studied(exposures, EXPOSURES)
    if junk is not None:
        return EXPOSURES[100] / _junk(exposures, junk, plain=weight_bits >= 8 and mlp == "plain" and not experts)
    if mlp not in MLP_LOSS:
        raise UserError(f"knowledge capacity: no mlp {mlp!r}; take one of {', '.join(MLP_LOSS)}")
    if experts and mlp != "plain":
        raise UserError("knowledge capacity: experts were studied with plain layers only; leave mlp at plain")
    found = EXPOSURES[seen]
    if seen < 1000:
        found /= MLP_LOSS[mlp]
    if experts:
        found /= EXPERT_LOSS[seen]
    return _quantised(found, weight_bits, plain=seen == 1000 and not experts)


def capacity(parameters: float, exposures: float = 1000, *, weight_bits: int = 16, mlp: Layers = "plain") -> float:
    """How many bits of knowledge a model of ``parameters`` can hold."""
    return _positive("parameters", parameters) * ratio(exposures, weight_bits=weight_bits, mlp=mlp)


def parameters_for(bits: float, exposures: float = 1000, *, weight_bits: int = 16, mlp: Layers = "plain") -> float:
    """How many parameters learn ``bits`` of knowledge nearly without error: a ninth more than the peak ratio asks.

    Result 1b has it for 1000 exposures, B / 1.8; the paper sees the same margin elsewhere (remark 5.1).
    """
    peak = ratio(exposures, weight_bits=weight_bits, mlp=mlp)
    return _positive("bits", bits) / (peak * SAFE / EXPOSURES[1000])


def set_bits(
    names: int,
    name_space: float,
    values: float = 0.0,
    *,
    attributes: int = 0,
    chunks: int = 1,
    diversity: int = 1,
    chunk_bits: float = 0.0,
) -> float:
    """The bits that a set of facts takes (prop. 2.3 in its approximation).

    ``names`` out of ``name_space`` possible ones. Each has either ``values`` bits of attributes, the base-2 logarithm
    of how many combinations there are (def. 4.3), or ``attributes`` of ``chunks``, each one of ``diversity`` strings
    that themselves are drawn from 2^``chunk_bits`` = T^L ones; or both.
    """
    if not 0 < names <= name_space < math.inf or values < 0 or attributes < 0 or chunks < 1 or diversity < 1:
        raise UserError(
            f"set_bits: {names} names of {name_space}, {attributes} attributes; give at most as many names as there are"
        )
    value = values + attributes * chunks * math.log2(diversity)
    strings = attributes * diversity * max(0.0, chunk_bits - math.log2(diversity))
    return names * (math.log2(name_space / names) + value) + strings


def learned_bits(names: int, name_space: float, values: float, name_loss: float, value_loss: float) -> float:
    """The bits that a model learned of a set of facts (def. 4.3): by its parameters it is the capacity ratio.

    ``name_loss`` and ``value_loss`` are the summed losses in nats over the tokens of a name and of all of its values,
    averaged over names; log ``names`` and 0 for a model without error.
    """
    if not 0 < names <= name_space < math.inf or name_loss < 0 or value_loss < 0:
        raise UserError(f"learned_bits: {names} names of {name_space}, losses {name_loss} and {value_loss}; check them")
    return names * (math.log2(name_space) + values - (name_loss + value_loss) / math.log(2))


def worth_marking(exposures: float) -> float:
    """How many times more a model learns amid junk if each good document begins with a mark, such as its domain."""
    seen = _studied(exposures, JUNK["random, good text marked"])
    return JUNK["random"][seen] / JUNK["random, good text marked"][seen]


def _junk(exposures: float, junk: str, *, plain: bool) -> float:
    if junk not in JUNK:
        raise UserError(f"knowledge capacity: no junk {junk!r}; take one of {', '.join(JUNK)}.{nearest(junk, JUNK)}")
    if not plain:
        raise UserError(
            "knowledge capacity: junk was studied in plain models alone; leave weight_bits, mlp and experts"
        )
    return JUNK[junk][_studied(exposures, JUNK[junk])]


def _quantised(found: float, weight_bits: int, *, plain: bool) -> float:
    if weight_bits not in (4, 8, 16):
        raise UserError(f"knowledge capacity: weights of {weight_bits} bits were not studied; give 4, 8 or 16")
    if weight_bits > 4:
        return found
    if not plain:
        raise UserError("knowledge capacity: int4 was studied after 1000 exposures, without experts; give those")
    return INT4


def _studied(exposures: float, table: dict[int, float]) -> int:
    if not min(table) <= exposures < math.inf:
        raise UserError(f"knowledge capacity: {exposures} exposures were not studied; give {min(table)} or more")
    return max(entry for entry in table if entry <= exposures)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise UserError(f"knowledge capacity: {name} is {value}; give a positive number")
    return value
