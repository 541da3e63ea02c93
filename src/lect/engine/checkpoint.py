# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or not there: written beside, flushed, summed, renamed; safetensors and JSON only."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from lect.artefacts import read_json, sha256, write_json
from lect.errors import UserError

KEEP = 2
NAME = re.compile(r"checkpoint-(\d{9})")
TENSORS, STATE, MANIFEST = "state.safetensors", "state.json", "manifest.json"


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the checkpoint of ``step`` and drop all but the last two; a full disk is a UserError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = folder / f"checkpoint-{step:09d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / TENSORS)
        write_json(temporary / STATE, state | {"step": step})
        write_json(temporary / MANIFEST, {name: sha256(temporary / name) for name in (TENSORS, STATE)})
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        os.replace(temporary, final)
        flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        raise UserError(
            f"{final}: a checkpoint of {size / 2**30:.1f} GiB could not be written ({error}); "
            "free the disk or make the folder writable, then run again: it goes on from the last checkpoint"
        ) from error
    for old in found(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if NAME.fullmatch(path.name))


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint, or None; torn leftovers are removed, damaged ones passed over."""
    from safetensors.torch import load_file

    for torn in folder.glob(".checkpoint-*.tmp"):
        shutil.rmtree(torn, ignore_errors=True)
    for path in reversed(found(folder)):
        try:
            sums = read_json(path / MANIFEST)
            if all(sums.get(name) == sha256(path / name) for name in (TENSORS, STATE)):
                return load_file(path / TENSORS), read_json(path / STATE)
        except (OSError, UserError):
            continue
    return None


def flush(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
