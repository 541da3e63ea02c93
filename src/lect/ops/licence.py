# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from and under which terms: read off its folder, carried into every folder made from it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NAMES = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|GEMMA_TERMS|USE_POLICY|TERMS)", re.IGNORECASE)
HUB = re.compile(r"models--([^/]+?)--([^/]+)")


@dataclass(frozen=True, kw_only=True)
class Licence:
    """What a model folder says of its licence: the identifier of the hub, the model it comes from, the files."""

    name: str | None
    link: str | None
    base_model: str | None
    files: tuple[Path, ...]

    def __str__(self) -> str:
        texts = ", ".join(path.name for path in self.files)
        return (self.name or "not stated") + (f" ({texts})" if texts else "")


def read(folder: Path) -> Licence:
    """The licence of a model folder, from its model card and its files; nothing is guessed."""
    head = card(folder)
    name = head.get("license_name") if head.get("license") == "other" else head.get("license")
    hub = HUB.search(folder.as_posix())
    base = f"{hub[1]}/{hub[2]}" if hub else head.get("base_model")
    return Licence(
        name=str(name) if name else None,
        link=str(head["license_link"]) if head.get("license_link") else None,
        base_model=base if isinstance(base, str) else base[0] if isinstance(base, list) and base else None,
        files=tuple(sorted(p for p in folder.iterdir() if p.is_file() and NAMES.match(p.name))),
    )


def card(folder: Path) -> dict[str, Any]:
    """The YAML head of a folder's README.md; empty when there is none."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    match = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    try:
        head = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}


def carry(source: Path, target: Path) -> list[str]:
    """Copy the licence files of a model folder into another, and say which; a file that is there stays."""
    names = []
    for path in read(source).files:
        if not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
        names.append(path.name)
    return names
