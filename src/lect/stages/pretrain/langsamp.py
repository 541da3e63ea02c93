# SPDX-License-Identifier: Apache-2.0
"""Masked pretraining on several languages, with a vector of each language and script under the head."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from lect.artefacts import Document, Model
from lect.method import OneOf, Part, PartSpec, Range, Run, knobs
from lect.ops.tokenizer import letters_by_script
from lect.stages.pretrain.kinds import PretrainStep

if TYPE_CHECKING:
    from torch import Tensor

    from lect.artefacts import Corpus

CARD = {
    "title": "Language and script vectors under the head of a masked model (LangSAMP)",
    "paper": "arXiv:2409.18199",
    "claim": "masked tokens of several languages are predicted better, and the model is saved as it was, without them",
    "differs": [
        "the paper trains XLM-R on 500 languages, 512 tokens of one language's running text at a time, for 20 epochs; "
        "here it is the user's text, and a sequence holds one document",
        "dropout is off, and the rate rises and falls by a schedule of choice; both are the engine's",
        "the vectors have a learning rate of their own, and vectors, embeddings, norms and biases have no weight decay",
        "a batch in which no token is chosen by chance has one chosen token; the mean is over the chosen tokens of "
        "each row, and rows count by their tokens",
        "scripts are told by the letters of the document, those of most letters; the paper's corpus names them",
        "what the paper measures, transfer between languages, is not measured here",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
    "pico": {"tokens": 512, "batch_tokens": 64, "max_length": 48, "evaluation_tokens": 64},
}

VECTORS = "langsamp.safetensors"


@knobs
class Langsamp(PretrainStep):
    """A masked model trained on, and apart from it the vectors that tell the text's languages and scripts apart."""

    pico_family: ClassVar[str] = "bert"

    minutes: Annotated[float | None, Range(above=0, at_most=100_000)] = 10.0
    """How long to train, getting ready included, in minutes; turned into steps once, from measured speed."""
    tokens: Annotated[int | None, Range(at_least=1)] = None
    """How much to train on instead, in tokens; takes the place of minutes."""
    languages: bool = True
    """Add a vector of the document's language (as the corpus names it; ``und`` where it does not)."""
    scripts: bool = True
    """Add a vector of the script that most letters of the document are in (``none`` without a letter)."""
    share: Annotated[float, Range(above=0, below=1)] = 0.15
    """Share of the tokens to predict, in (0, 1)."""
    learning_rate: Annotated[float, Range(above=0, at_most=1)] = 5e-5
    """Peak learning rate of the model, per update."""
    tag_learning_rate: Annotated[float, Range(above=0, at_most=1)] = 1e-3
    """Peak learning rate of the vectors of languages and scripts, per update."""
    batch_tokens: Annotated[int, Range(at_least=16, at_most=16_777_216)] = 2048
    """Tokens of one update, padding not counted (the paper: 524288)."""
    max_length: Annotated[int, Range(at_least=8, at_most=1_048_576)] = 512
    """Longest sequence in tokens; longer documents are cut into pieces of nearly equal length."""
    weight_decay: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Decoupled weight decay of the matrices, per unit of learning rate."""
    beta1: Annotated[float, Range(at_least=0, below=1)] = 0.9
    """Memory of AdamW's first moment, per update."""
    beta2: Annotated[float, Range(at_least=0, below=1)] = 0.999
    """Memory of AdamW's second moment, per update."""
    epsilon: Annotated[float, Range(above=0, at_most=1)] = 1e-8
    """What AdamW adds to the root of the second moment, in units of the gradient."""
    clip: Annotated[float, Range(at_least=0, at_most=1_000_000)] = 1.0
    """Greatest norm of all gradients together; 0 does not clip."""
    packing: Annotated[PartSpec, Part("packing")] = "one_document"
    """How documents are laid into batches; each stays a sequence of its own."""
    schedule: Annotated[PartSpec, Part("schedule")] = "warmup_stable_decay"
    """How the learning rate rises and falls over the run."""
    checkpoint_seconds: Annotated[float, Range(above=0, at_most=1_000_000)] = 300.0
    """Time between checkpoints, in seconds; a killed run loses at most this much."""
    precision: Annotated[str, OneOf("bf16", "fp32")] = "bf16"
    """Number format of the compute; master weights are fp32 in either case."""
    moments: Annotated[str, OneOf("fp32", "bf16")] = "fp32"
    """Number format of AdamW's two moments; bf16 takes 4 bytes a parameter less, and less time."""
    evaluations: Annotated[int, Range(at_least=1, at_most=1000)] = 5
    """How often bits a masked token are measured on calibration text, besides once before the first update."""
    evaluation_tokens: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 4096
    """Size of each sample that is measured, in tokens."""
    tracker: Annotated[str | None, OneOf("tensorboard", "wandb", "trackio")] = None
    """Who draws the curves while it trains: files for it in the run folder's logs; wandb stays offline."""

    def budget(self) -> tuple[float | None, int | None, int]:
        """Tokens take the place of minutes."""
        return (self.minutes if self.tokens is None else None), self.tokens, self.batch_tokens

    def apply(self, run: Run, base: Model, model: Model, corpus: Corpus) -> Model:
        """Train, write the model in the number format that its folder had, and the vectors beside it."""
        from safetensors.torch import save_file

        from lect.engine.masked import MaskedSettings, train_masked
        from lect.ops.model_folder import write_manifest

        words = {"knobs": asdict(self), "seed": run.seed, "model": model.fingerprint, "corpus": corpus.fingerprint}
        key = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
        known = [f.name for f in fields(MaskedSettings) if hasattr(self, f.name)]
        values: dict[str, Any] = {name: getattr(self, name) for name in known}
        values |= {kind: run.part(kind, getattr(self, kind)) for kind in ("packing", "schedule")}
        tags = {"language": language} if self.languages else {}
        tags |= {"script": script} if self.scripts else {}
        live, tokenizer = model.load(device=run.device), model.tokenizer()
        vectors = train_masked(run, live, tokenizer, corpus, MaskedSettings(**values), key, tags)
        run.fact(similarity={tag: similarity(found) for tag, found in vectors.items()})
        made = Model.write(run.folder, live, tokenizer, run, dtype=model.dtype)
        if vectors:
            named = {f"{tag}/{name}": vector_d for tag, found in vectors.items() for name, vector_d in found.items()}
            save_file({name: vector_d.clone() for name, vector_d in named.items()}, run.folder / VECTORS)
            write_manifest(run.folder)
        return made


def language(document: Document) -> str:
    """The language that the corpus names."""
    return document.language or "und"


def script(document: Document) -> str:
    """The script of most letters; of equals the first by name."""
    counts = letters_by_script(document.text)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else "none"


def similarity(vectors: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """The cosine of each two of the vectors, by their names."""
    long = {name: vector_d / vector_d.norm() for name, vector_d in vectors.items()}
    return {one: {other: float(a_d @ b_d) for other, b_d in long.items()} for one, a_d in long.items()}
