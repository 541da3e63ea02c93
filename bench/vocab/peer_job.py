# SPDX-License-Identifier: Apache-2.0
"""What the drivers of the compared packages share; they run in environments without lect.

A driver is started with one JSON file: ``source`` (model folder), ``tokenizer`` (folder with the tokenizer to make rows
for), ``texts`` (plain files by role), ``settings`` and ``out`` (the model folder to write).
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(driver: Callable[[dict[str, Any]], None]) -> None:
    """Run a driver on the job that the command line names; an error ends as one line, the last of the log."""
    try:
        driver(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            return
        traceback.print_exc()
        message = " ".join(str(error).split())
        print(f"\n{type(error).__name__}: {message}", file=sys.stderr, flush=True)
        sys.exit(1)


def load(job: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The model that is changed in fp32, its tokenizer, and the tokenizer to make rows for."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(job["source"], dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(job["source"]), AutoTokenizer.from_pretrained(job["tokenizer"])


def save(job: dict[str, Any], model: Any, tokenizer: Any, rows: Any = None) -> None:
    """Put ``rows`` in the place of the embedding, if there are any, and write all in the number format of lect's."""
    import torch

    if rows is not None:
        model.resize_token_embeddings(len(rows), mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(torch.as_tensor(rows, dtype=torch.float32))
    model.to(torch.bfloat16).save_pretrained(job["out"])
    tokenizer.save_pretrained(job["out"])
