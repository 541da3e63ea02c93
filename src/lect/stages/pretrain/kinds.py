# SPDX-License-Identifier: Apache-2.0
"""Steps that go on training a model on text: a model and a corpus in, a model out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar

from lect.artefacts import Artefact, Corpus, Model
from lect.engine.cost import plan
from lect.method import Estimate, Run, Sizes, Step, knobs

if TYPE_CHECKING:
    from lect.engine.train import Settings


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

    def estimate(self, sizes: Sizes) -> Estimate:
        """Memory and checkpoints from the sizes; seconds from the budget, or from tokens and the machine's rate."""
        minutes, tokens, batch_tokens = self.budget()
        cost = plan(
            tokens=tokens or 0,
            parameters=sizes.parameters,
            matmul_flops=sizes.matmul_flops,
            batch_tokens=batch_tokens,
            rows=sizes.rows,
        )
        seconds = cost.seconds if minutes is None else minutes * 60
        disk = 2 * cost.checkpoint_bytes + sizes.model_bytes
        return Estimate(seconds=seconds, memory_bytes=cost.memory_bytes, disk_bytes=disk, sizes=sizes)

    def apply(self, run: Run, base: Model, model: Model, corpus: Corpus) -> Model:
        """Train, then write the model in the number format that its folder had.

        Rows of tokens that ``base`` does not have are new rows to the engine.
        """
        from lect.engine.train import train

        words = {"knobs": asdict(self), "seed": run.seed, "model": model.fingerprint, "corpus": corpus.fingerprint}
        key = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
        live, tokenizer = model.load(device=run.device), model.tokenizer()
        known = base.tokenizer().get_vocab()
        new_rows = [i for token, i in tokenizer.get_vocab().items() if token not in known]
        train(run, live, tokenizer, corpus, self.settings(run), key, new_rows)
        return Model.write(run.folder, live, tokenizer, run, dtype=model.dtype)
