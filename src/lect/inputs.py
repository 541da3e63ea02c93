# SPDX-License-Identifier: Apache-2.0
"""From what the user typed after TEXT and ``--keep`` to files on disk."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from lect import data
from lect.artefacts import Sources
from lect.errors import UserError


def sources(text: Iterable[str], keep: Iterable[str], scratch: Path) -> Sources:
    """The files behind paths, folders, globs, ``-`` (standard input) and ``bundled:LANGUAGE``, with their roles."""
    files = [("target", path) for word in text for path in _files(word, scratch)]
    files += [("kept", path) for word in keep for path in _files(word, scratch)]
    unique = dict.fromkeys((role, path.resolve()) for role, path in files)
    return Sources(folder=scratch, files=tuple(unique))


def _files(word: str, scratch: Path) -> list[Path]:
    """The files that one word names, in a stable order."""
    if word.startswith(data.PREFIX):
        return [data.path(word)]
    if word == "-":
        return [_standard_input(scratch)]
    path = Path(word).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
        if not found:
            raise UserError(f"{word}: the folder holds no files; put text into it or name another")
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
        if not found:
            raise UserError(f"{word}: there is no such file or folder, and no file fits it as a pattern")
    for file in found:
        if not os.access(file, os.R_OK):
            raise UserError(f"{file}: cannot be read; change its permissions or leave it out")
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _standard_input(scratch: Path) -> Path:
    """Keep what comes through standard input in a file, so that a resumed run reads the same."""
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / "standard-input.txt"
    if not sys.stdin.isatty():
        piped = sys.stdin.buffer.read()
        if piped:
            path.write_bytes(piped)
    if not path.exists():
        raise UserError("-: nothing came through standard input; pipe text into lect")
    return path
