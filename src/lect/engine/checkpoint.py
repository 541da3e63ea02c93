# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or not there: written beside, flushed, summed, renamed; safetensors and JSON only.

Each process writes its part of the rows of every tensor into a file of its own; parts laid end to end in the order of
the files are the tensor, so any number of processes reads what any other number wrote. PyTorch's own distributed
checkpoints would do the same, but plan with pickled messages and keep no sums.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lect.artefacts import read_json, sha256, write_json
from lect.engine.spread import ALONE, World
from lect.errors import UserError

KEEP = 2
NAME = re.compile(r"checkpoint-(\d{9})")
TENSORS, STATE, MANIFEST = "state-{:05d}.safetensors", "state.json", "manifest.json"


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], world: World = ALONE) -> None:
    """Write the checkpoint of ``step`` and drop all but the last two; a full disk is a UserError.

    Each process gives its own part of the tensors; the state is that of process 0.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = folder / f"checkpoint-{step:09d}"
    temporary = folder / f".{final.name}.tmp"
    names = [TENSORS.format(rank) for rank in range(world.size)]
    own = temporary / names[world.rank]
    try:
        if world.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(final, ignore_errors=True)
            temporary.mkdir(parents=True)
        world.wait()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, own)
        if world.rank == 0:
            write_json(temporary / STATE, state | {"step": step})
        sums = world.texts(sha256(own))
        flush(own)
        world.wait()
        if world.rank:
            return
        sums = [*sums, sha256(temporary / STATE)]
        write_json(temporary / MANIFEST, dict(zip([*names, STATE], sums, strict=True)))
        for path in (temporary / STATE, temporary / MANIFEST, temporary):
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


def load(folder: Path, world: World = ALONE) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint, or None; torn leftovers are removed, damaged ones passed over.

    Each process gets its part of the rows of every tensor.
    """
    name = world.told(lambda: _newest(folder))
    if name is None:
        return None
    path = folder / name
    return _parts(sorted(path.glob(TENSORS.format(0).replace("00000", "*"))), world), read_json(path / STATE)


def _newest(folder: Path) -> str | None:
    """The name of the newest checkpoint whose files are all there and have the sums that they had."""
    for torn in folder.glob(".checkpoint-*.tmp"):
        shutil.rmtree(torn, ignore_errors=True)
    for path in reversed(found(folder)):
        try:
            sums = read_json(path / MANIFEST)
            if {STATE, TENSORS.format(0)} <= sums.keys() and all(sums[name] == sha256(path / name) for name in sums):
                return path.name
        except (OSError, UserError):
            continue
    return None


def _parts(files: list[Path], world: World) -> dict[str, Tensor]:
    """This process's part of the rows of every tensor, out of files that hold parts of other sizes."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    if len(files) == world.size == 1:
        whole: dict[str, Tensor] = load_file(files[0])
        return whole
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, "pt")) for file in files]
        made = {}
        for name in opened[0].keys():  # noqa: SIM118
            slices = [file.get_slice(name) for file in opened]
            ends = list(accumulate(int(part.get_shape()[0]) for part in slices))
            first, last = world.part(ends[-1])
            bounds = zip(slices, [0, *ends], ends, strict=False)
            found = [part[max(first, a) - a : min(last, b) - a] for part, a, b in bounds if a < last and first < b]
            made[name] = torch.cat(found) if found else slices[0][:0]
    return made


def flush(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
