# SPDX-License-Identifier: Apache-2.0
"""From paths to streams of bytes: folders walked, compression undone, archives opened, bombs refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

CHUNK = 1 << 20
SLICE = 1 << 12
FREE = 64 << 20  # expanded bytes that no ratio is asked of
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, zstandard.ZstdError)


class Refused(Exception):
    """A file that will not be read: the reason that is counted, and what was seen."""

    @property
    def reason(self) -> str:
        """The word under which the account counts it."""
        return str(self.args[0])

    @property
    def detail(self) -> str:
        """What was seen."""
        return str(self.args[1]) if len(self.args) > 1 else ""


@dataclass(frozen=True)
class Limits:
    """What one compressed file may grow to, and what one archive may hold."""

    expanded_bytes: int
    ratio: float
    entries: int


@dataclass(frozen=True)
class Item:
    """One file, or one member of an archive: a name to show, a suffix to read it by, a way to open it."""

    name: str
    suffix: str
    open: Callable[[], BinaryIO]

    def chunks(self) -> Iterator[bytes]:
        """The bytes, piece by piece."""
        with self.open() as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def head(self, size: int = 1 << 16) -> bytes:
        """The first bytes."""
        with self.open() as file:
            return file.read(size)

    def data(self, most: int) -> bytes:
        """All bytes, or Refused when there are more than ``most``."""
        with self.open() as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise Refused("too_large", f"more than {most} bytes in one document")
        return data


def walk(path: Path) -> Iterator[tuple[Path, str]]:
    """The files under ``path`` in a fixed order, each with why it is passed over, or ""; links to folders end there."""
    if not path.is_dir():
        yield path, "" if path.is_file() else "not_a_file"
        return
    for entry in sorted(path.iterdir(), key=lambda p: p.name):
        if entry.name.startswith("."):
            yield entry, "hidden"
        elif entry.is_dir() and entry.is_symlink():
            yield entry, "linked_folder"
        elif entry.is_dir():
            try:
                yield from walk(entry)
            except PermissionError:
                yield entry, "unreadable"
        else:
            yield entry, "" if entry.is_file() else "not_a_file"


class ZstdFile(io.RawIOBase):
    """What a .zst file holds, all of its frames; EOFError where it ends inside one (the library's reader says nothing).

    The input is fed in small slices, so that a bomb never expands to more than some 100 MB at a time.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed with this one
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._ready = b""
        self._waiting = b""

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with the next bytes; 0 at the end."""
        while not self._ready:
            data = self._waiting or self._file.read(SLICE)
            if not data:
                if self._frame is not None:
                    raise EOFError("ends inside a zstd frame")
                return 0
            frame = self._frame or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            self._ready = frame.decompress(data)
            self._frame, self._waiting = (None, frame.unused_data) if frame.eof else (frame, b"")
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


OPENERS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": lambda path: cast(BinaryIO, gzip.open(path, "rb")),  # noqa: SIM115
    ".bz2": lambda path: cast(BinaryIO, bz2.open(path, "rb")),  # noqa: SIM115
    ".xz": lambda path: cast(BinaryIO, lzma.open(path, "rb")),  # noqa: SIM115
    ".zst": lambda path: cast(BinaryIO, io.BufferedReader(ZstdFile(path), CHUNK)),
}


def items(path: Path, limits: Limits) -> Iterator[Item]:
    """What one file holds: itself, its expansion, or the members of an archive; Refused when it is a bomb."""
    name, suffix = path.as_posix(), path.suffix.lower()
    if suffix == ".zip":
        yield from members(path, limits)
    elif suffix in OPENERS:
        measure(lambda: OPENERS[suffix](path), path.stat().st_size, limits)
        yield Item(name, PurePosixPath(path.stem).suffix.lower(), lambda: OPENERS[suffix](path))
    else:
        yield Item(name, suffix, lambda: open(path, "rb"))  # noqa: SIM115


def measure(opener: Callable[[], BinaryIO], packed: int, limits: Limits, before: int = 0) -> int:
    """How many bytes a stream expands to; Refused past the limits. Damage is left for the reading to report."""
    total = before
    try:
        with opener() as file:
            while chunk := file.read(CHUNK):
                total += len(chunk)
                if total > limits.expanded_bytes:
                    raise Refused("archive_bomb", f"expands past {limits.expanded_bytes} bytes")
                if total - before > max(FREE, limits.ratio * packed):
                    raise Refused("archive_bomb", f"expands past {limits.ratio:g} times its size")
    except DAMAGED:
        return total
    return total


def members(path: Path, limits: Limits) -> Iterator[Item]:
    """The files in a .zip, in the archive's order; nested archives, encrypted members and bombs raise Refused."""
    with zipfile.ZipFile(path) as archive:
        infos = [i for i in archive.infolist() if not i.is_dir()]
        if len(infos) > limits.entries:
            raise Refused("archive_bomb", f"holds {len(infos)} files, more than {limits.entries}")
        if sum(i.file_size for i in infos) > limits.expanded_bytes:
            raise Refused("archive_bomb", f"says it expands past {limits.expanded_bytes} bytes")
        if any(i.flag_bits & 1 for i in infos):
            raise Refused("encrypted", "needs a password")
        total = 0
        for info in infos:
            total = measure(partial(_member, archive, info), info.compress_size, limits, total)
        for info in infos:
            inner = PurePosixPath(info.filename)
            hidden = any(part.startswith((".", "__MACOSX")) for part in inner.parts if part not in (".", ".."))
            suffix = ".hidden" if hidden else inner.suffix.lower()
            yield Item(f"{path.as_posix()}:{info.filename}", suffix, partial(_member, archive, info))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    return cast(BinaryIO, archive.open(info))


def readable(path: Path) -> bool:
    """Say whether the file may be opened."""
    return os.access(path, os.R_OK)
