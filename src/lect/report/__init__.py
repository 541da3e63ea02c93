# SPDX-License-Identifier: Apache-2.0
"""The report of a run: ``report.json`` for programs, ``report.html`` for people, a short table for the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lect.artefacts import write_json, write_text

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["build", "table"]


def build(folder: Path) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html`` in a run folder and return what the first holds.

    Both are written under a temporary name and renamed. Whatever the run did not record is null in the one and
    said in the other. Raises a UserError when ``record.json`` is missing or unreadable.
    """
    from lect.report.assemble import assemble
    from lect.report.page import page

    folder = Path(folder)
    data = assemble(folder)
    html = page(data)
    write_json(folder / "report.json", data)
    write_text(folder / "report.html", html)
    return data


def table(data: dict[str, Any]) -> Table:
    """The base-against-adapted table of a report as a short table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    from lect.report.compare import compare_rows
    from lect.report.shape import REPORT, fit
    from lect.report.verdict import sentence

    report = fit(REPORT, data)
    result = Table(
        title=Text(sentence(report)), title_justify="left", title_style="", box=None, pad_edge=False, min_width=76
    )
    result.add_column("")
    for name in ("base", "adapted", "change"):
        result.add_column(name, justify="right")
    group = ""
    for row in compare_rows(report):
        name = row["name"] if row["group"] in ("Speed", "Size") else f"{row['group'].lower()}, {row['name']}"
        moved = f"{row['change']} {row['judged']}".strip()
        result.add_row(name, row["base"], row["adapted"], moved, end_section=row["group"] != group and bool(group))
        group = row["group"]
    return result
