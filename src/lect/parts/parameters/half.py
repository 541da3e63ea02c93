# SPDX-License-Identifier: Apache-2.0
"""Half of every kind of parameter stands still."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Annotated

from lect.errors import UserError
from lect.method import Range, knobs
from lect.parts.parameters.kind import Parameters

CARD = {
    "title": "Half fine-tuning",
    "paper": "arXiv:2404.18466",
    "claim": "in every layer half of the matrices of attention, of the feed-forward part and of the norms stand still",
    "differs": [
        "rounds are equal parts of one run, where the paper's are one fine-tuning after another, each with its own "
        "data; a run of one round, the default, is one of those",
        "compiled layers share their code, so that there gradients of what stands still are computed and thrown away; "
        "uncompiled they are not",
        "AdamW's moments of a tensor outlast the rounds in which it stands still",
        "a bias goes with its matrix; norms of queries and keys count as norms; what a model stores as one matrix "
        "(GPT-2's queries, keys and values) is one",
        "of an odd number of layers, the odd one moves the larger half; all outside the layers moves: the paper has "
        "embeddings and head so, of the last norm nothing was found",
        "the text of the paper was not at hand: the choice is as in a published reimplementation and a review of it",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Half(Parameters):
    """Half of the model is trained, chosen within each category (category-level selection).

    Two of a layer's four attention matrices move; of its three feed-forward matrices two in half of the layers, one in
    the others; half of its norms; embeddings and head. Raises UserError for a model
    whose tensors' names show no numbered layers.
    """

    rounds: Annotated[int, Range(at_least=1, at_most=1000)] = 1
    """Parts of the run, each with another half drawn anew; with one, what stands still is the base's at the end."""

    def round(self, progress: float) -> int:
        """Which of the equal parts."""
        return min(self.rounds - 1, int(progress * self.rounds))

    def trained(self, shapes: Mapping[str, tuple[int, ...]], round_: int, seed: int) -> Collection[str]:
        """All outside the layers, and in every category and layer half of the units."""
        import numpy as np

        rng = np.random.default_rng([seed, round_])
        moving = set(shapes)
        found = categories(shapes)
        if not found:
            raise UserError("parameters/half: the model's tensors show no numbered layers; use parameters: full")
        for _, layers in sorted(found.items()):
            uneven = [layer for layer, units in sorted(layers.items()) if len(units) % 2]
            larger = {uneven[n] for n in rng.permutation(len(uneven))[: (len(uneven) + 1) // 2]}
            for layer, units in sorted(layers.items()):
                names = sorted(units)
                still = rng.permutation(len(names))[len(names) // 2 + (layer in larger) :]
                moving.difference_update(name for n in still for name in units[names[n]])
        return moving


def categories(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Tensors inside numbered layers, by category, layer and unit; a unit is a weight with its bias."""
    units: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in shapes:
        parts = name.split(".")
        number = next((n for n, part in enumerate(parts) if part.isdecimal()), None)
        if number is not None:
            units[".".join(parts[: number + 1]), name.removesuffix(".bias").removesuffix(".weight")].append(name)
    found: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(dict))
    for (layer, unit), names in units.items():
        inside = unit.removeprefix(layer)
        attention = "attn" in inside or "attention" in inside
        category = "attention" if attention else "feed_forward"
        if all(len(shapes[name]) < 2 for name in names):
            category = "norms"
        found[category][layer][unit] = names
    return found
