# SPDX-License-Identifier: Apache-2.0
"""The methods that are put to the test, and what each promises; a new one is one line here."""

from __future__ import annotations

from typing import Any


def claim(
    part: str,
    knobs: dict[str, Any] | None = None,
    on: str = "target",
    bound: float = 0.0,
    against: str = "baseline",
    shared: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A part in its slot, and its promise: bits per byte of ``on``, relative to ``against``, at most ``bound``.

    ``shared`` are words of the comparison that differ from the others': its baseline has the same.
    """
    kind, name = part.split("/")
    told = {"part": part, "with": {kind: {"use": name, "with": knobs or {}}}, "on": on, "bound": bound}
    return {**told, "against": against, "knobs": {}, **(shared or {})}


def baseline(**shared: Any) -> dict[str, Any]:
    """Plain continued pretraining, which the claims with the same ``shared`` are set against."""
    return {"part": None, "with": {}, "against": None, "knobs": {}, **shared}


LONGER: dict[str, Any] = {"knobs": {"tokens": 61_440}}
UNMIXED: dict[str, Any] = {"knobs": {"mixture": {"use": "replay", "with": {"share": 0.0}}}}

# Parts that promise as good a model with fewer moving or remaining weights have a bound of one per cent.
CLAIMS: dict[str, dict[str, Any]] = {
    "baseline": baseline(),
    "cosine": claim("schedule/cosine"),
    "power": claim("schedule/power"),
    "infinite": claim("schedule/infinite"),
    "rewarm": claim("schedule/rewarm"),
    "concat": claim("packing/concat", {"isolate": False}),
    "best_fit": claim("packing/best_fit", {"isolate": False}),
    "decompose": claim("packing/decompose", {"cycles": 32}),
    "related": claim("packing/related"),
    "upsample_late": claim("mixture/upsample_late"),
    "reweight": claim("objective/reweight"),
    "domain_prefix": claim("objective/domain_prefix"),
    "half": claim("parameters/half", on="kept"),
    "sparse_then_dense": claim("parameters/sparse_then_dense", {"pick": "magnitude", "sparsity": 0.5}, bound=0.01),
    "prune": claim("parameters/prune", bound=0.01),
    "sparse_plus_low_rank": claim("parameters/sparse_plus_low_rank", bound=0.01),
    "longer": baseline(**LONGER),
    "half_longer": claim("parameters/half", on="kept", against="longer", shared=LONGER),
    "unmixed": baseline(**UNMIXED),
    "replay": claim("mixture/replay", {"share": 0.25}, on="kept", against="unmixed", shared=UNMIXED),
}
