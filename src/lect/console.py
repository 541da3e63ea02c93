# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it runs: a live line on a terminal, plain lines elsewhere; all on standard error."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lect.method import Gate

PLAIN_SECONDS = 15.0  # where there is no terminal, a progress line at most this often


class Screen:
    """A listener that shows a run to a person or to a log file."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._unit = ""
        self._last = 0.0

    def say(self, text: str) -> None:
        """Show one line."""
        self.close()
        self.console.print(escape(text), soft_wrap=True)

    def gate(self, gate: Gate) -> None:
        """Show a measured quantity against its budget."""
        mark = "[green]holds[/]" if gate.passed else "[bold red]broken[/]"
        self.close()
        self.console.print(f"  gate {gate.name}: {gate.value:.4g} (limit {gate.limit:.4g}) {mark}", soft_wrap=True)

    def progress(self, done: float, total: float, unit: str, values: Mapping[str, Any]) -> None:
        """Show how far a task is, with its latest values."""
        words = "  ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in values.items())
        if not self.console.is_terminal:
            now = time.monotonic()
            if done >= total or now - self._last >= PLAIN_SECONDS:
                self._last = now
                self.console.print(f"  {unit} {done:g} of {total:g}  {words}", soft_wrap=True)
            return
        if self._live is None or unit != self._unit:
            self.close()
            columns = (TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
            self._live = Progress(*columns, TextColumn("{task.fields[words]}"), console=self.console, transient=True)
            self._task, self._unit = self._live.add_task(unit, words=words), unit
            self._live.start()
        if self._task is not None:
            self._live.update(self._task, completed=int(done), total=int(total), words=words)

    def close(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _short(value: Any) -> str:
    return (
        f"{value:,.0f}"
        if isinstance(value, float) and abs(value) >= 100
        else f"{value:.3g}"
        if isinstance(value, float)
        else str(value)
    )
