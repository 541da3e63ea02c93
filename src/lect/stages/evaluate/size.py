# SPDX-License-Identifier: Apache-2.0
"""How many parameters and bytes a model has, and where they are."""

from __future__ import annotations

from typing import Any

import torch

from lect.artefacts import Corpus, Model
from lect.method import Run, knobs
from lect.stages.evaluate.kinds import Comparison

CARD = {
    "title": "Parameters and bytes on disk",
    "paper": "",
    "claim": "embedding, head and body add up to the parameters, each counted once where it is shared",
    "differs": [],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Size(Comparison):
    """Shows how large each model is, and how much of it is the vocabulary.

    Parameters are counted in the loaded model, shared ones once; a tied head therefore counts 0. Bytes are those of
    the whole folder, tokenizer included.
    """

    def material(self, run: Run, corpus: Corpus) -> None:
        """Nothing is read for this."""

    def measure(self, run: Run, name: str, model: Model, material: None) -> dict[str, Any]:
        """Count one model."""
        live = model.load(dtype=torch.bfloat16)
        embedding, head = live.get_input_embeddings(), live.get_output_embeddings()
        tied = head is not None and head.weight is embedding.weight
        counts = {
            "embedding": sum(p.numel() for p in embedding.parameters()),
            "head": 0 if head is None or tied else sum(p.numel() for p in head.parameters()),
        }
        total = sum(p.numel() for p in live.parameters())
        counts["body"] = total - counts["embedding"] - counts["head"]
        return {
            "parameters": total,
            "bytes": model.bytes,
            **counts,
            "rows": int(embedding.weight.shape[0]),
            "tied": tied,
        }

    def report(self, run: Run, material: None, results: dict[str, Any]) -> dict[str, Any]:
        """The counts of each model."""
        return {"size": results}
