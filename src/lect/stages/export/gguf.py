# SPDX-License-Identifier: Apache-2.0
"""The model for llama.cpp and all that is built on it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from lect.artefacts import Gguf, Model
from lect.method import OneOf, Run, knobs
from lect.ops import gguf_write, licence
from lect.stages.export.kinds import ExportStep

CARD = {
    "title": "GGUF file for llama.cpp",
    "paper": "",
    "claim": "llama.cpp gives the token ids of the Hugging Face folder on every text, and its likeliest next tokens",
    "differs": [
        "llama.cpp itself treats a few plain added tokens as control tokens by their spelling, </s> among them",
        "a tokenizer that brings text to NFC (Qwen) does so in the folder, not in llama.cpp",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class ForLlamaCpp(ExportStep):
    """Writes the model as one GGUF file that stays right when the tokenizer was changed.

    The form of the vocabulary follows from the tokenizer itself, not from a table of known models. Families: Gemma 3,
    Llama, Qwen 2 and 3, GPT-2; any other is refused by name. The file is read back: weights against the folder, and
    the vocabulary by segmenting every token's text with it.
    """

    publish: ClassVar[str | None] = "model.gguf"
    output: ClassVar[type[Gguf]] = Gguf
    gates: ClassVar[dict[str, tuple[float, str]]] = {
        "gguf_tensors": (1.0, "greatest error of a weight in the file, in units of what rounding to its dtype allows"),
        "gguf_vocabulary": (0.0, "probe texts that the vocabulary of the file segments otherwise than the folder"),
    }
    dtype: Annotated[str, OneOf("bf16", "f16", "f32", "q8_0")] = "f16"
    """Number format of the matrices; vectors stay fp32."""

    def export(self, run: Run, base: Model, model: Model) -> Gguf:
        """Write, then read back and compare."""
        made = Gguf(run.folder)
        terms = licence.read(base.folder)
        name = (terms.base_model or "").split("/")[-1] or "model"
        source = gguf_write.Source(model)
        notes = gguf_write.write(source, made.file, self.dtype, name=f"{name}-lect", licence=terms.name)
        for note in notes:
            run.say(note)
        run.gate("gguf_tensors", gguf_write.tensor_error(source, made.file), run.limit("gguf_tensors", 1.0))
        errors = gguf_write.vocabulary_error(source, made.file)
        run.gate("gguf_vocabulary", errors, run.limit("gguf_vocabulary", 0.0))
        run.fact(dtype=self.dtype, bytes=made.file.stat().st_size, notes=notes)
        return made
