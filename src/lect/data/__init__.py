# SPDX-License-Identifier: Apache-2.0
"""The bundled text: real Basque, English and Khmer text inside the package, its licences beside it (README.md here)."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from lect.errors import UserError

PREFIX = "bundled:"

FILES: dict[str, str] = {"eu": "eu.jsonl.zst", "en": "en.jsonl.zst", "km": "km.jsonl.zst"}
"""Language code -> file, in the folder of this module."""

GENERAL: dict[str, str] = {"en": "bundled:en"}
"""Strong language of a model -> the general sample that a run keeps good when the user names no text to keep."""


def path(language: str) -> Path:
    """The file of one language's bundled text, readable as any file of the user's."""
    name = language.removeprefix(PREFIX)
    if name not in FILES:
        near = get_close_matches(name, FILES, n=1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else f"there are {', '.join(PREFIX + n for n in FILES)}"
        raise UserError(f"no bundled text {PREFIX}{name}; {hint}")
    return Path(__file__).parent / FILES[name]


def resolve(text: str) -> str:
    """The file behind an alias such as `bundled:eu`; anything else comes back as it is."""
    return str(path(text)) if text.startswith(PREFIX) else text
