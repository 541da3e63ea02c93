# SPDX-License-Identifier: Apache-2.0
"""What a choice of parameters does: which tensors, and which of their entries, move in which part of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lect.errors import UserError
from lect.method import PartMethod, knobs

if TYPE_CHECKING:
    from torch import Tensor


@knobs
class Parameters(PartMethod):
    """Says what is trained; an author writes what differs from all of it, and ``round`` where that changes.

    Everything here is a pure function, so that a resumed run is the same run.
    """

    @contextmanager
    def opened(self, live: Any, seed: int) -> Iterator[None]:
        """The model as it is trained: inside, maybe with other modules; afterwards plain, with what they learnt.

        Parameters that want no gradient inside stand still for the whole run and have no moments. Entered with fp32
        weights, and left with them; an exception leaves the old modules too.
        """
        yield

    def round(self, progress: float) -> int:
        """The number of the round (from 0) when ``progress`` (0 to 1) of the run is behind; by default one round."""
        return 0

    def trained(self, shapes: Mapping[str, tuple[int, ...]], round_: int, seed: int) -> Collection[str]:
        """The names of the tensors that move in a round, out of all that the run could train; the rest stands still."""
        return shapes.keys()

    def kept(self, weights: Mapping[str, Tensor], round_: int, seed: int) -> Mapping[str, Tensor]:
        """Masks of the tensors (by name, their shape, bool) of which some entries stay zero in a round.

        True where an entry may differ from zero. ``weights`` are all tensors, in fp32, as the round before left them.
        Called once a round; the engine keeps the masks in its checkpoints.
        """
        return {}

    def facts(self, weights: Mapping[str, Tensor], steps: int) -> dict[str, Any]:
        """JSON for the run's record, from the tensors (in fp32) as a run of so many steps has left them."""
        return {}


def layer_matrices(weights: Mapping[str, Tensor], who: str) -> dict[str, Tensor]:
    """The matrices inside numbered layers, in the order of their names; a UserError where there is none."""
    found = {n: t for n, t in sorted(weights.items()) if t.ndim == 2 and any(part.isdecimal() for part in n.split("."))}
    if not found:
        raise UserError(f"parameters/{who}: the model's tensors show no numbered layers; use parameters: full")
    return found


def largest(scores: Tensor, zeros: int) -> Tensor:
    """False at exactly ``zeros`` entries, those of the smallest scores (of equal ones the first), true elsewhere."""
    import torch

    flat_n = scores.reshape(-1)
    kept_n = torch.ones_like(flat_n, dtype=torch.bool)
    if zeros > 0:
        limit = torch.kthvalue(flat_n, zeros).values
        kept_n = flat_n >= limit
        ties = (flat_n == limit).nonzero()[:, 0]
        kept_n[ties[: zeros - int((~kept_n).sum())]] = False
    return kept_n.reshape(scores.shape)
