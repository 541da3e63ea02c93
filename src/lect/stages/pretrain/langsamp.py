# SPDX-License-Identifier: Apache-2.0
"""Masked pretraining on several languages, with a vector of each language and script under the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

from lect.artefacts import Document
from lect.method import Range, Run, knobs
from lect.ops.tokenizer import letters_by_script
from lect.stages.pretrain.kinds import MaskedStep

if TYPE_CHECKING:
    from torch import Tensor

CARD = {
    "title": "Language and script vectors under the head of a masked model (LangSAMP)",
    "paper": "arXiv:2409.18199",
    "claim": "masked tokens of several languages are predicted better, and the model is saved as it was, without them",
    "differs": [
        "the paper trains XLM-R on 500 languages, 512 tokens of one language's running text at a time, for 20 epochs; "
        "here it is the user's text in batches of 2,048 tokens (the paper: 524,288), and a sequence holds one document",
        "dropout is off, and the rate rises and falls by a schedule of choice; both are the engine's",
        "the vectors have a learning rate of their own, and vectors, embeddings, norms and biases have no weight decay",
        "a batch in which no token is chosen by chance has one chosen token; the mean is over the chosen tokens of "
        "each row, and rows count by their tokens",
        "scripts are told by the letters of the document, those of most letters; the paper's corpus names them",
        "what the paper measures, transfer between languages, is not measured here",
    ],
    "version": 2,
    "off": None,
    "needs": [],
    "xfail": {},
    "pico": {"tokens": 512, "batch_tokens": 64, "max_length": 48, "evaluation_tokens": 64},
}

VECTORS = "langsamp.safetensors"


@knobs
class Langsamp(MaskedStep):
    """A masked model trained on, and apart from it the vectors that tell the text's languages and scripts apart."""

    languages: bool = True
    """Add a vector of the document's language (as the corpus names it; ``und`` where it does not)."""
    scripts: bool = True
    """Add a vector of the script that most letters of the document are in (``none`` without a letter)."""
    tag_learning_rate: Annotated[float, Range(above=0, at_most=1)] = 1e-3
    """Peak learning rate of the vectors of languages and scripts, per update."""

    def tags(self) -> Mapping[str, Callable[[Document], str]]:
        """Language and script, as far as the knobs ask for them."""
        return ({"language": language} if self.languages else {}) | ({"script": script} if self.scripts else {})

    def finish(self, run: Run, vectors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write the vectors beside the model."""
        from safetensors.torch import save_file

        from lect.ops.model_folder import write_manifest

        run.fact(similarity={tag: similarity(found) for tag, found in vectors.items()})
        if vectors:
            named = {f"{tag}/{name}": vector_d for tag, found in vectors.items() for name, vector_d in found.items()}
            save_file({name: vector_d.clone() for name, vector_d in named.items()}, run.folder / VECTORS)
            write_manifest(run.folder)


def language(document: Document) -> str:
    """The language that the corpus names."""
    return document.language or "und"


def script(document: Document) -> str:
    """The script of most letters; of equals the first by name."""
    counts = letters_by_script(document.text)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else "none"


def similarity(vectors: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """The cosine of each two of the vectors, by their names."""
    long = {name: vector_d / vector_d.norm() for name, vector_d in vectors.items()}
    return {one: {other: float(a_d @ b_d) for other, b_d in long.items()} for one, a_d in long.items()}
