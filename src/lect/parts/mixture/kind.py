# SPDX-License-Identifier: Apache-2.0
"""What a mixture does: how much of each text the rows of a run hold, at every moment of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lect.method import PartMethod, knobs

if TYPE_CHECKING:
    from lect.artefacts import Document


@dataclass(frozen=True)
class Feedback:
    """What was measured so far: mean losses in nats a token on held-out text of each text, by the text's name."""

    losses: tuple[Mapping[str, float], ...] = ()
    """In the order of time; the first was measured before the first row. Empty in the warm-up."""
    laps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The losses after a lap: a short run from the first weights that read the text of the outer name alone."""


@knobs
class Mixture(PartMethod):
    """Says how the rows of a run are shared out among texts; an author writes ``shares``, perhaps ``group``.

    The engine lays the rows so that at any time each text has had its share, as evenly spread as whole rows allow.
    A mixture that goes by what the model has learnt says in ``measurements`` how often its losses are to be measured,
    and in ``lap_steps`` how long a lap on each text is to be before the run.
    """

    @property
    def measurements(self) -> int:
        """How often the losses of the texts are measured, evenly over the run; 0 measures nothing."""
        return 0

    @property
    def lap_steps(self) -> int:
        """Steps of the lap on each text; 0 runs none. Laps are told, and leave no trace in the weights."""
        return 0

    def group(self, document: Document) -> str:
        """The name of the text that a document belongs to; by default its role, ``target`` or ``kept``."""
        return document.role

    def shares(self, tokens: Mapping[str, int], progress: float, feedback: Feedback) -> Mapping[str, float]:
        """The share of rows of each text when ``progress`` (0 to 1) of the run is behind.

        ``tokens`` are the sizes of the texts by name, none of them zero. Shares are not negative; the engine divides
        them by their sum. A text that has no share before anything is measured is not read at all. ``feedback`` is
        empty where no measurements are asked for, and while the run is prepared.
        """
        raise NotImplementedError
