# SPDX-License-Identifier: Apache-2.0
"""What an objective does: what the model reads or has to fill in, how much each token counts, who teaches beside it.

``Objective`` is for models that predict the next token, ``Masking`` for those that fill in masked ones. A slot names
the class that it takes, and a part of the other one is refused when the recipe is resolved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from lect.method import PartMethod, knobs

if TYPE_CHECKING:
    from torch import Tensor

    from lect.artefacts import Document


@knobs
class Objective(PartMethod):
    """Changes documents before they are read, the weights of tokens once their losses are known, or their targets."""

    weighs: ClassVar[bool] = False
    """Whether ``weights`` is asked; without it every token counts the same."""

    def document(self, document: Document) -> Document:
        """What the model is to read of a training document; by default all of it as it is."""
        return document

    def weights(self, loss_n: Tensor, sequence_n: Tensor, progress: float) -> Tensor:
        """How much each of the n tokens of a row counts, not negative, in fp32; one is as much as without weights.

        ``loss_n`` are the tokens' losses in nats, ``sequence_n`` the number of the sequence that each stands in,
        ascending; ``progress`` (0 to 1) is how much of the run is behind. Weights are taken as constants: no gradient
        flows through them.
        """
        raise NotImplementedError

    def teacher(self) -> str:
        """The model whose predictions are learnt beside the text, as the user names models; empty is none."""
        return ""

    def soft(self, progress: float) -> tuple[float, float]:
        """The teacher's share of the loss at ``progress``, from 0 to 1, and what its logits are divided by."""
        return 0.0, 1.0


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What a masking objective may look at before the run: the texts for training, by role, and the run's seed."""

    target: Sequence[str]
    kept: Sequence[str]
    seed: int


@knobs
class Masking(PartMethod):
    """Chooses the tokens that a masked model has to fill in; by default 15 % of them, each by itself."""

    masked: ClassVar[float] = 0.8
    """Share of the chosen tokens that are shown as the mask token."""
    random: ClassVar[float] = 0.1
    """Share of the chosen tokens that are shown as any token of the vocabulary; the rest are shown as they are."""
    listed: ClassVar[bool] = False
    """Whether ``listing`` is asked; without it all words are of class 0."""

    def listing(self, texts: Texts) -> dict[str, int]:
        """The class, from 1, of each word or term as :func:`lect.ops.terms.normal` writes it; others are of class 0."""
        return {}

    def counts(
        self, class_t: NDArray[np.int8], first_t: NDArray[np.bool_], draw_t: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """How much each of the t tokens of a batch counts among the chosen ones; 0 where it is not chosen.

        ``class_t`` is the class of the listed term that a token belongs to, 0 in other words, -1 outside of words;
        ``first_t`` is False at the second and further tokens of a term; ``draw_t`` is uniform in [0, 1), a draw for
        each token. The loss is the mean of the chosen tokens' losses, weighted by their counts.
        """
        return (draw_t < 0.15).astype(np.float64)
