# SPDX-License-Identifier: Apache-2.0
"""Continued pretraining: next-token prediction on the user's text, with kept text replayed."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

from lect.method import OneOf, Part, PartSpec, Range, Run, knobs
from lect.stages.pretrain.kinds import PretrainStep

if TYPE_CHECKING:
    from lect.engine.train import Settings

CARD = {
    "title": "Continued pretraining with replay",
    "paper": "arXiv:2403.08763",
    "claim": "lowers bits per byte on the target text, while kept text, a quarter of the rows, gets no worse",
    "differs": [
        "the rate falls to zero at the end instead of following a cosine to a tenth",
        "sequences hold one document each and cannot see each other",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
    "pico": {"tokens": 512, "batch_tokens": 64, "max_length": 48, "compile": False, "evaluation_tokens": 64},
}


@knobs
class Continue(PretrainStep):
    """A model that has read the user's text and still knows the kept text."""

    minutes: Annotated[float | None, Range(above=0, at_most=100_000)] = 10.0
    """How long to train, getting ready included, in minutes; turned into steps once, from measured speed."""
    tokens: Annotated[int | None, Range(at_least=1)] = None
    """How much to train on instead, in tokens; takes the place of minutes."""
    learning_rate: Annotated[float, Range(above=0, at_most=1)] = 5e-5
    """Peak learning rate of everything but embeddings and head, per update."""
    embedding_learning_rate: Annotated[float, Range(above=0, at_most=1)] = 5e-5
    """Peak learning rate of embeddings and head, per update."""
    new_row_learning_rate: Annotated[float, Range(above=0, at_most=1)] = 5e-5
    """Peak learning rate of the rows of tokens that the base does not have, per update."""
    new_rows_first: Annotated[float, Range(at_least=0, below=1)] = 0.0
    """Share of the run, at its start, in which only the rows of new tokens move, in (0, 1)."""
    batch_tokens: Annotated[int, Range(at_least=16, at_most=16_777_216)] = 512
    """Tokens of one update; the fewer, the more updates fit into the time."""
    row_tokens: Annotated[int, Range(at_least=1, at_most=16_777_216)] = 4096
    """Tokens that are computed at once; a step of more runs as several rows, which processes share."""
    max_length: Annotated[int, Range(at_least=8, at_most=1_048_576)] = 512
    """Longest sequence in tokens; longer documents are cut into pieces of nearly equal length."""
    mixture: Annotated[PartSpec, Part("mixture")] = "replay"
    """How the rows are shared out among target and kept text."""
    weight_decay: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Decoupled weight decay of the matrices (not of embeddings, norms and biases), per unit of learning rate."""
    beta1: Annotated[float, Range(at_least=0, below=1)] = 0.9
    """Memory of AdamW's first moment, per update."""
    beta2: Annotated[float, Range(at_least=0, below=1)] = 0.95
    """Memory of AdamW's second moment, per update."""
    epsilon: Annotated[float, Range(above=0, at_most=1)] = 1e-8
    """What AdamW adds to the root of the second moment, in units of the gradient."""
    clip: Annotated[float, Range(at_least=0, at_most=1_000_000)] = 1.0
    """Greatest norm of all gradients together; 0 does not clip."""
    objective: Annotated[PartSpec, Part("objective", base="Objective")] = "next_token"
    """What of a document the model reads, and how much each token counts."""
    parameters: Annotated[PartSpec, Part("parameters")] = "full"
    """Which tensors move, and when."""
    packing: Annotated[PartSpec, Part("packing")] = "one_document"
    """How documents are laid into rows."""
    schedule: Annotated[PartSpec, Part("schedule")] = "warmup_stable_decay"
    """How the learning rate rises and falls over the run."""
    embedding_schedule: Annotated[PartSpec | None, Part("schedule")] = None
    """The same for embeddings and head, where they have one of their own."""
    new_row_schedule: Annotated[PartSpec | None, Part("schedule")] = None
    """The same for the rows of new tokens, where they have one of their own."""
    checkpoint_seconds: Annotated[float, Range(above=0, at_most=1_000_000)] = 300.0
    """Time between checkpoints, in seconds; a killed run loses at most this much."""
    precision: Annotated[str, OneOf("bf16", "fp32")] = "bf16"
    """Number format of the compute; master weights are fp32 in either case."""
    moments: Annotated[str, OneOf("fp32", "bf16")] = "fp32"
    """Number format of AdamW's two moments; bf16 takes 4 bytes a parameter less; its time depends on the processor."""
    gradient_filter: Annotated[float, Range(at_least=0, at_most=0.01)] = 0.0
    """Softmax below which blocks of the loss's gradient are left out, such as 2.4e-4; 0 leaves out none, exactly."""
    compile: bool = True
    """Compile the layers where that works here; where not, the run says so and goes on without."""
    activations: Annotated[str, OneOf("keep", "recompute")] = "keep"
    """What a layer leaves for the backward pass: all, or its input alone, and it runs twice; slower in less memory."""
    evaluations: Annotated[int, Range(at_least=1, at_most=1000)] = 5
    """How often bits per byte are measured on calibration text, besides once before the first update."""
    evaluation_tokens: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 4096
    """Size of each sample that is measured, in tokens."""
    tracker: Annotated[str | None, OneOf("tensorboard", "wandb", "trackio")] = None
    """Who draws the curves while it trains: files for it in the run folder's logs; wandb stays offline."""

    def budget(self) -> tuple[float | None, int | None, int]:
        """Tokens take the place of minutes."""
        return (self.minutes if self.tokens is None else None), self.tokens, self.batch_tokens

    def row(self) -> int:
        """The knob."""
        return self.row_tokens

    def spread(self, processes: int) -> int:
        """All of them, if they can share the rows of a step."""
        from lect.engine.train import split_step

        split_step(self.batch_tokens, self.row_tokens, processes)
        return processes

    def recomputes(self) -> bool:
        """As the knob says."""
        return self.activations == "recompute"

    def settings(self, run: Run) -> Settings:
        """Every knob but the parts goes to the engine as it is."""
        from lect.engine.train import Settings

        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("packing", "mixture", "objective", "parameters"):
            values[name] = run.part(name, getattr(self, name))
        for name in ("schedule", "embedding_schedule", "new_row_schedule"):
            spec = getattr(self, name)
            values[name] = run.part("schedule", spec) if spec is not None else None
        return Settings(**values)
