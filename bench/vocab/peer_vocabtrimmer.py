# SPDX-License-Identifier: Apache-2.0
"""Driver of `vocabtrimmer`: keep the tokens that the text uses at least a number of times.

``causal`` tries what the package does not offer: its class check is told that the model is a masked one, and the class
that it then loads is the causal one. Tokenizer and tables are its own work in either case.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peer_job


def trim(job: dict[str, Any]) -> None:
    """`VocabTrimmer(...).trim_vocab(...)` on a folder of documents, with nothing from a hub."""
    from vocabtrimmer import base_trimmer

    where = Path(job["out"]).parent
    (where / "data").mkdir()
    with open(where / "data" / "train.jsonl", "w", encoding="utf-8") as file:
        for path in job["texts"].values():
            for line in Path(path).read_text("utf-8").splitlines():
                file.write(json.dumps({"text": line}) + "\n")
    source = Path(job["source"])
    if job["settings"].get("causal"):
        from transformers import AutoModelForCausalLM

        base_trimmer.AutoModelForMaskedLM = AutoModelForCausalLM
        source = renamed(source, where / "source")
    trimmer = base_trimmer.VocabTrimmer(str(source))
    trimmer.trim_vocab(
        language="eu",
        path_to_save=job["out"],
        dataset=str(where / "data"),
        dataset_column="text",
        dataset_split="train",
        min_frequency=job["settings"]["least"],
        cache_file_vocab=str(where / "cache" / "vocab.json"),
        cache_file_frequency=str(where / "cache" / "frequency.json"),
    )


def renamed(source: Path, folder: Path) -> Path:
    """The same model under a class name that the package accepts."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((source / "config.json").read_text("utf-8"))
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Gemma3ForMaskedLM"]}), "utf-8")
    return folder


if __name__ == "__main__":
    peer_job.run(trim)
