# SPDX-License-Identifier: Apache-2.0
"""What a reader met: every text kept or dropped for a named reason, and every fault with its place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

NAMED = 20  # so many faults of a sort are named; all are counted


@dataclass(frozen=True)
class Text:
    """One text as it was found, with the file and the place in the file."""

    text: str
    source: str
    place: dict[str, int]


@dataclass
class Account:
    """The running count of one read."""

    texts: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    files: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    undecodable: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    named_lines: list[dict[str, Any]] = field(default_factory=list)
    named_files: list[dict[str, str]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    def drop_line(self, source: str, line: int, reason: str) -> None:
        """Count one record that gave no text."""
        self.dropped[f"bad_line:{reason}"] += 1
        self.lines[source] += 1
        if len(self.named_lines) < NAMED:
            self.named_lines.append({"file": source, "line": line, "reason": reason})

    def drop_file(self, source: str, reason: str, detail: str = "") -> None:
        """Count one file, or the rest of one, that gave no text."""
        self.dropped[reason] += 1
        self.skipped[reason] += 1
        if len(self.named_files) < NAMED:
            self.named_files.append({"file": source, "reason": reason, "detail": detail[:200]})

    def bad_bytes(self, source: str, count: int) -> None:
        """Count bytes or characters that had to be replaced by U+FFFD."""
        if count:
            self.undecodable[source] += count

    def facts(self) -> dict[str, Any]:
        """The account as JSON-able facts."""
        return {
            "read": self.texts + sum(self.dropped.values()),
            "kept": self.texts,
            "dropped": dict(self.dropped),
            "files": {"read": self.files, "skipped": dict(self.skipped), "named": self.named_files},
            "formats": dict(self.formats),
            "encodings": dict(self.encodings),
            "undecodable": {
                "count": sum(self.undecodable.values()),
                "files": len(self.undecodable),
                "named": [{"file": f, "count": n} for f, n in self.undecodable.most_common(NAMED)],
            },
            "bad_lines": {"count": sum(self.lines.values()), "named": self.named_lines},
            "columns": self.columns,
        }
