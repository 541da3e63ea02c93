# SPDX-License-Identifier: Apache-2.0
"""A text's tokens on the disk, written once and mapped, so that text larger than the memory trains.

A folder holds the ids end to end (32-bit, little-endian), where each document starts, its bytes and its name, and a
manifest with the key and the sums. It is written beside, flushed and renamed, so it is whole or not there. What the
memory holds is a chunk of ids while encoding, and afterwards some bytes a document.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lect.artefacts import read_json, sha256, write_json
from lect.engine.checkpoint import flush
from lect.engine.data import Encoded, encoded_chunks
from lect.errors import UserError

if TYPE_CHECKING:
    from lect.artefacts import Document
    from lect.method import Run

FORMAT = 1
IDS, STARTS, BYTES, NAMES, MANIFEST = "ids.bin", "starts.npy", "bytes.npy", "names.json", "manifest.json"


def kept(run: Run, name: str, key: str, tokenizer: Any, documents: Iterable[Document], count: int) -> Encoded:
    """Documents as tokens, from the run's scratch folder where they are there already, whole and of the same ``key``.

    ``key`` names text and tokenizer; neither is touched then. Else the ``count`` documents are encoded, with progress
    shown. A disk that takes no more is a UserError.
    """
    folder = run.scratch / name
    if not _whole(folder, key):
        _write(run, folder, key, tokenizer, documents, count)
    ids = np.memmap(folder / IDS, dtype="<i4", mode="r") if (folder / IDS).stat().st_size else np.zeros(0, np.int32)
    starts, sizes = np.load(folder / STARTS), np.load(folder / BYTES)
    return Encoded(ids, starts, sizes, read_json(folder / NAMES)["names"])


def _whole(folder: Path, key: str) -> bool:
    """Whether the folder holds everything under this key, undamaged."""
    try:
        manifest = read_json(folder / MANIFEST)
        if (manifest["format"], manifest["key"]) != (FORMAT, key):
            return False
        return all(sha256(folder / name) == manifest["sums"][name] for name in (IDS, STARTS, BYTES, NAMES))
    except (OSError, UserError, KeyError, TypeError):
        return False


def _write(run: Run, final: Path, key: str, tokenizer: Any, documents: Iterable[Document], count: int) -> None:
    """Encode chunk by chunk into a folder that gets its name when it is whole."""
    temporary = final.with_name(f".{final.name}.tmp")
    names: list[str] = []
    lengths: list[int] = []
    sizes: list[int] = []
    total = 0
    try:
        for stale in (temporary, final):
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir(parents=True)
        with open(temporary / IDS, "wb") as file:
            for chunk in encoded_chunks(tokenizer, documents):
                for found in chunk.ids:
                    file.write(found.astype("<i4").tobytes())
                    lengths.append(len(found))
                    total += len(found)
                names += chunk.names
                sizes += chunk.bytes
                run.progress(len(names), max(count, len(names)), "document", tokens=total)
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        np.save(temporary / STARTS, starts)
        np.save(temporary / BYTES, np.asarray(sizes, dtype=np.int64))
        write_json(temporary / NAMES, {"names": names})
        sums = {name: sha256(temporary / name) for name in (IDS, STARTS, BYTES, NAMES)}
        write_json(temporary / MANIFEST, {"format": FORMAT, "key": key, "sums": sums})
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        os.replace(temporary, final)
        flush(final.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"{final}: the text's tokens ({4 * total / 2**30:.1f} GiB so far) could not be written ({error}); free the "
            "disk or make the folder writable, then run again"
        ) from error
