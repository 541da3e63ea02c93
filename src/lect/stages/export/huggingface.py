# SPDX-License-Identifier: Apache-2.0
"""The folder that is published: transformers, vLLM and others load it with nothing of lect's."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
import yaml

from lect.artefacts import Model, write_text
from lect.method import OneOf, Run, knobs
from lect.ops import licence, model_folder
from lect.stages.export.kinds import ExportStep

CARD = {
    "title": "Plain Hugging Face folder",
    "paper": "",
    "claim": "the folder gives the logits of the model in memory with a difference of 0 in fp32",
    "differs": [],
    "version": 1,
    "off": {"dtype": "same"},
    "needs": [],
    "xfail": {},
}
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


@knobs
class Huggingface(ExportStep):
    """Writes the model as a plain folder with a model card, the base's terms, and a manifest of SHA-256 sums.

    Weights are rounded to ``dtype`` first, so that what is reloaded can be compared with 0 as the limit; what the
    rounding itself changes is measured beside it (fact ``rounding``: the greatest difference of fp32 logits).
    """

    publish: ClassVar[str | None] = "model"
    output: ClassVar[type[Model]] = Model
    dtype: Annotated[str, OneOf("bf16", "f16", "f32", "same")] = "bf16"
    """Number format of the weights; ``same`` keeps the one they have."""
    name: str = ""
    """Title of the model card; empty for the base's name with ``lect``."""
    language: str = ""
    """Language codes for the model card, with commas; empty for none."""

    def export(self, run: Run, base: Model, model: Model) -> Model:
        """Round, save, reload and compare; then write the card."""
        stored = model_folder.read_config(model.folder).dtype or torch.float32
        dtype = DTYPES.get(self.dtype, stored)
        live = model.load(dtype=dtype, device=run.device)
        run.say(f"writing {sum(p.numel() for p in live.parameters()) / 1e6:.0f} million parameters as {dtype}")
        made = Model.write(run.folder, live, model.tokenizer(), run)
        if dtype != stored:
            wide = model.load(dtype=torch.float32, device=run.device)
            run.fact(rounding=model_folder.reload_difference(wide, run.folder, weights=False))
        run.fact(dtype=str(dtype).removeprefix("torch."))
        write_text(run.folder / "README.md", self.card(base, made, live))
        return made

    def finish(self, run: Run) -> None:
        """Sum up the folder again, now with card and licence files."""
        model_folder.write_manifest(run.folder)

    def card(self, base: Model, made: Model, live: Any) -> str:
        """The model card: the head that the hub reads, and a page for people."""
        terms = licence.read(base.folder)
        origin = (terms.base_model or "").split("/")[-1]
        title = self.name or f"{origin or live.config.model_type}-lect"
        kind = "text-generation" if type(live).__name__.endswith(("ForCausalLM", "LMHeadModel")) else "fill-mask"
        auto = "AutoModelForCausalLM" if kind == "text-generation" else "AutoModelForMaskedLM"
        head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": kind, "tags": ["lect"]}
        if terms.name:
            head["license"] = terms.name
        if terms.link:
            head["license_link"] = terms.link
        if terms.base_model:
            head |= {"base_model": terms.base_model, "base_model_relation": "finetune"}
        if self.language:
            head["language"] = [code.strip() for code in self.language.split(",")]
        before, after = (_sizes(folder) for folder in (base, made))
        texts = ", ".join(f"`{path.name}`" for path in terms.files)
        lines = [
            f"---\n{yaml.safe_dump(head, sort_keys=True, allow_unicode=True).strip()}\n---",
            f"# {title}",
            f"Made from {f'`{terms.base_model}`' if terms.base_model else 'a base model'} by lect, which fits an open "
            "language model to the text of its user.",
            f"| | base | this model |\n|---|---|---|\n| parameters | {before[0]:,} | {after[0]:,} |\n"
            f"| rows of the vocabulary | {before[1]:,} | {after[1]:,} |",
            "## Use",
            f"```python\nfrom transformers import {auto}, AutoTokenizer\n\n"
            f'model = {auto}.from_pretrained("path/of/this/folder")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")\n```',
            "`manifest.json` holds the SHA-256 sum of every file.",
            "## What to expect",
            "It was fitted to one body of text. What it gained there and what it kept elsewhere was measured in the "
            "run that made it, in `report.html` and `report.json` of that run; nothing else was measured. It is no "
            "more truthful and no safer than its base.",
            "## Licence",
            f"The terms of the base model hold for this model: {terms.name or 'its folder stated none'}."
            + (f" They are in {texts}." if texts else ""),
        ]
        return "\n\n".join(lines) + "\n"


def _sizes(model: Model) -> tuple[int, int]:
    """Parameters and embedding rows of a folder, tied ones once."""
    shapes = model_folder.weight_shapes(model.folder)
    config = model_folder.read_config(model.folder)
    tied = config.tie_word_embeddings
    count = sum(torch.Size(s).numel() for n, s in shapes.items() if not (tied and n == "lm_head.weight"))
    return count, int(config.vocab_size)
