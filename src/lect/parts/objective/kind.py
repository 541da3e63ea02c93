# SPDX-License-Identifier: Apache-2.0
"""What an objective does: what of a document the model reads, how much each token counts, who teaches beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

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
