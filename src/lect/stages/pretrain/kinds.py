# SPDX-License-Identifier: Apache-2.0
"""Steps that go on training a model on text, a model and a corpus in, a model out; and steps that ready it for that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from lect.artefacts import Artefact, Corpus, Document, Model
from lect.engine.cost import ROW_TOKENS, plan
from lect.errors import UserError
from lect.method import Estimate, OneOf, Part, PartSpec, Range, Run, Sizes, Step, knobs

if TYPE_CHECKING:
    from torch import Tensor

    from lect.engine.train import Settings
    from lect.ops.tokenizer import Vocabulary


@knobs
class PretrainStep(Step):
    """Trains on the corpus with the engine; an author writes ``settings``."""

    inputs: ClassVar[dict[str, type[Artefact]]] = {"base": Model, "model": Model, "corpus": Corpus}
    output: ClassVar[type[Artefact]] = Model
    gates: ClassVar[dict[str, tuple[float, str]]] = {
        "reload": (0.0, "greatest difference of fp32 logits between the trained model and its folder, loaded again"),
    }

    def settings(self, run: Run) -> Settings:
        """What the engine is to do."""
        raise NotImplementedError

    def budget(self) -> tuple[float | None, int | None, int]:
        """Minutes, tokens (one of them is None), and tokens a batch, for the plan."""
        raise NotImplementedError

    def row(self) -> int:
        """The most tokens that are computed at once, for the plan."""
        return ROW_TOKENS

    def key(self, run: Run, model: Model, corpus: Corpus) -> str:
        """What tells checkpoints of this run from those of another: knobs, seed and inputs, hashed."""
        words = {"knobs": asdict(self), "seed": run.seed, "model": model.fingerprint, "corpus": corpus.fingerprint}
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()

    def recomputes(self) -> bool:
        """Whether layers are run again in the backward pass, for the plan."""
        return False

    def estimate(self, sizes: Sizes) -> Estimate:
        """Memory and checkpoints from the sizes; seconds from the budget, or from tokens and the machine's rate."""
        minutes, tokens, batch_tokens = self.budget()
        cost = plan(
            tokens=tokens or 0,
            parameters=sizes.parameters,
            matmul_flops=sizes.matmul_flops,
            batch_tokens=batch_tokens,
            row_tokens=self.row(),
            rows=sizes.rows,
            recomputed=sizes.parameters - sizes.embedding_parameters if self.recomputes() else 0,
        )
        seconds = cost.seconds if minutes is None else minutes * 60
        encoded = 4 * (sizes.target_bytes + sizes.kept_bytes) / max(1.0, sizes.bytes_per_token)
        disk = 2 * cost.checkpoint_bytes + sizes.model_bytes + int(encoded)
        return Estimate(seconds=seconds, memory_bytes=cost.memory_bytes, disk_bytes=disk, sizes=sizes)

    def apply(self, run: Run, base: Model, model: Model, corpus: Corpus) -> Model:
        """Train, then write the model in the number format that its folder had.

        Rows of tokens that ``base`` does not have are new rows to the engine.
        """
        from lect.engine.train import train

        key = self.key(run, model, corpus)
        live, tokenizer = model.load(device=run.device), model.tokenizer()
        known = base.tokenizer().get_vocab()
        new_rows = [i for token, i in tokenizer.get_vocab().items() if token not in known]
        train(run, live, tokenizer, corpus, self.settings(run), key, new_rows)
        if run.process:
            return Model(run.folder)
        return Model.write(run.folder, live, tokenizer, run, dtype=model.dtype)


@knobs
class MaskedStep(PretrainStep):
    """Trains a masked model on the corpus; an author may say which ``tags`` of a document get a vector."""

    pico_family: ClassVar[str] = "bert"

    minutes: Annotated[float | None, Range(above=0, at_most=100_000)] = 10.0
    """How long to train, getting ready included, in minutes; turned into steps once, from measured speed."""
    tokens: Annotated[int | None, Range(at_least=1)] = None
    """How much to train on instead, in tokens; takes the place of minutes."""
    objective: Annotated[PartSpec, Part("objective", base="Masking")] = "masked_tokens"
    """Which tokens are to be filled in, and how much each counts."""
    learning_rate: Annotated[float, Range(above=0, at_most=1)] = 5e-5
    """Peak learning rate of the model, per update."""
    batch_tokens: Annotated[int, Range(at_least=16, at_most=16_777_216)] = 2048
    """Tokens of one update, padding not counted."""
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
    """Number format of AdamW's two moments; bf16 takes 4 bytes a parameter less; its time depends on the processor."""
    evaluations: Annotated[int, Range(at_least=1, at_most=1000)] = 5
    """How often bits a masked token are measured on calibration text, besides once before the first update."""
    evaluation_tokens: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 4096
    """Size of each sample that is measured, in tokens."""
    tracker: Annotated[str | None, OneOf("tensorboard", "wandb", "trackio")] = None
    """Who draws the curves while it trains: files for it in the run folder's logs; wandb stays offline."""

    def budget(self) -> tuple[float | None, int | None, int]:
        """Tokens take the place of minutes."""
        return (self.minutes if self.tokens is None else None), self.tokens, self.batch_tokens

    def tags(self) -> Mapping[str, Callable[[Document], str]]:
        """What names a document, by the name of the tag; none by default."""
        return {}

    def finish(self, run: Run, vectors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Nothing is left to do with the tags' vectors: tag -> name -> (d,)."""

    def apply(self, run: Run, base: Model, model: Model, corpus: Corpus) -> Model:
        """Train, then write the model in the number format that its folder had, without the tags' vectors."""
        from lect.engine.masked import MaskedSettings, train_masked

        key = self.key(run, model, corpus)
        names = {f.name for f in fields(MaskedSettings)}
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}
        values |= {kind: run.part(kind, getattr(self, kind)) for kind in ("objective", "packing", "schedule")}
        live, tokenizer = model.load(device=run.device), model.tokenizer()
        vectors = train_masked(run, live, tokenizer, corpus, MaskedSettings(**values), key, self.tags())
        made = Model.write(run.folder, live, tokenizer, run, dtype=model.dtype)
        self.finish(run, vectors)
        return made


@knobs
class ModelStep(Step):
    """Makes another model of a model, without text; an author writes ``made``."""

    inputs: ClassVar[dict[str, type[Artefact]]] = {"model": Model}
    output: ClassVar[type[Artefact]] = Model

    def made(self, run: Run, live: Any) -> Any:
        """The other model, in fp32, for the same tokenizer; ``live`` (fp32) may be changed."""
        raise NotImplementedError

    def apply(self, run: Run, model: Model) -> Model:
        """Make it, and write it in the number format that the model's folder had."""
        return Model.write(run.folder, self.made(run, model.load()), model.tokenizer(), run, dtype=model.dtype)


@dataclass(frozen=True, kw_only=True)
class NewRows:
    """The tokens that a model has and its base has not, and first rows for them from any ``init/…`` part."""

    base: Model
    corpus: Corpus
    old: Vocabulary
    new: Vocabulary
    origin: list[int]
    """For each id of the model's tokenizer the id of the same token in the base, or -1."""
    tokenizers: tuple[Any, Any]
    """The base's and the model's."""

    @classmethod
    def of(cls, base: Model, tokenizer: Any, corpus: Corpus) -> NewRows:
        """Compare the vocabularies; a tokenizer whose ids leave gaps is a UserError."""
        from lect.ops.model_folder import read_config
        from lect.ops.tokenizer import Vocabulary
        from lect.ops.train_tokenizer import origins

        before = base.tokenizer()
        old, new = Vocabulary.read(before), Vocabulary.read(tokenizer)
        if sorted(new.strings) != list(range(len(new.strings))):
            raise UserError("model: its tokenizer has ids without a token; let vocab/trim or vocab/extend rewrite it")
        rows = int(read_config(base.folder).get_text_config().vocab_size)
        origin = origins(old, new.data, {i for i in old.strings if i < rows})
        return cls(base=base, corpus=corpus, old=old, new=new, origin=origin, tokenizers=(before, tokenizer))

    @property
    def ids(self) -> list[int]:
        """The ids of the new tokens in the model, ascending."""
        return [n for n, i in enumerate(self.origin) if i < 0]

    def rows(self, run: Run, spec: PartSpec) -> dict[str, Tensor]:
        """First rows, (m, d) in fp32, by side: ``input``, and ``output`` where the base's head has its own table.

        The base is in memory meanwhile. Rows that are no numbers are a UserError that names the initialiser.
        """
        from lect.ops.growth import pieces
        from lect.parts.init.kind import NewTokens, first_rows

        texts = {r: self.corpus.texts(r, "train") + self.corpus.texts(r, "") for r in ("target", "kept")}
        tokens = NewTokens(
            old=self.old,
            new=self.new,
            origin=self.origin,
            pieces=pieces(self.old, self.tokenizers[0], self.new, [self.new.strings[n] for n in self.ids]),
            old_tokenizer=self.tokenizers[0],
            new_tokenizer=self.tokenizers[1],
            texts=texts["target"],
            kept_texts=texts["kept"],
            live=self.base.load(),
            seed=run.seed,
            progress=run.progress,
        )
        return first_rows(run, {"input": spec, "output": spec}, tokens)

    def fill(self, live: Any, rows: dict[str, Tensor]) -> None:
        """Write first rows into the tables of the model, in place; tables of another shape are a UserError."""
        import torch

        from lect.parts.init.kind import tables

        here = tables(live)
        widths = [{side: table.shape[1] for side, table in found.items()} for found in (rows, here)]
        if widths[0] != widths[1]:
            raise UserError(
                f"model: its embeddings ({widths[1]} wide) are not laid out as those of the base ({widths[0]}); "
                "give a model that was made from this base"
            )
        with torch.no_grad():
            for side, rows_md in rows.items():
                here[side][torch.tensor(self.ids)] = rows_md.to(here[side])
