# SPDX-License-Identifier: Apache-2.0
"""At first a small model's predictions are targets beside the text; then the text alone."""

from __future__ import annotations

from typing import Annotated

from lect.errors import UserError
from lect.method import Range, knobs
from lect.parts.objective.kind import Objective

CARD = {
    "title": "Early distillation from a small model (SALT)",
    "paper": "arXiv:2410.18779",
    "claim": "taught at first by a model that has read more, a model is better after equal tokens than without",
    "differs": [
        "the paper trains from scratch on the Pile, and its teacher is about half as large as the model; here a "
        "trained model goes on, and any model of the same vocabulary may teach",
        "the selection of hard but learnable text for the first stage (SALT_DS) is left out: it scores text by an "
        "early checkpoint of the small model, which a finished model does not have, and public reviews of the paper "
        "find no consistent gain of it over this",
        "36,000 of 208,000 steps are the first stage; that, and that the text's own loss stays in it, was taken from "
        "public reviews and summaries; the text of the paper was not at hand, so weight and temperature, and that only "
        "the teacher's logits are divided by the temperature, could not be checked",
        "kept text is taught as the target is",
    ],
    "version": 1,
    "off": {"weight": 0.0},
    "needs": [],
    "xfail": {},
}


@knobs
class DistilSmall(Objective):
    """A model that learns from a small one first, and outgrows it (two stages).

    In the first stage the loss of a token is (1 - weight) times its cross-entropy plus weight times the cross-entropy
    of the model under the teacher's softmax at the temperature; in the second it is the cross-entropy alone. The
    teacher must have the model's tokenizer, is loaded once in the compute type (2 bytes a parameter in bf16), and reads
    every row of the first stage, which costs its forward pass.
    """

    model: str = ""
    """The teacher: a folder, a GGUF file, a packaged alias or a hub id."""
    weight: Annotated[float, Range(at_least=0, at_most=1)] = 0.667
    """The teacher's share of the loss in the first stage, in (0, 1); 0 leaves it out."""
    temperature: Annotated[float, Range(at_least=0.01, at_most=100)] = 0.25
    """What the teacher's logits are divided by; below one it is surer of itself than it was."""
    stage: Annotated[float, Range(at_least=0, at_most=1)] = 0.173
    """Share of the run that the first stage takes, in (0, 1)."""

    def teacher(self) -> str:
        """The knob; an empty one is a UserError."""
        if not (self.weight and self.stage):
            return ""
        if not self.model:
            raise UserError("objective/distil_small.model: names no teacher; give a model with the same tokenizer")
        return self.model

    def soft(self, progress: float) -> tuple[float, float]:
        """The weight up to the end of the first stage, then nothing."""
        return (self.weight if progress < self.stage else 0.0), self.temperature
