# SPDX-License-Identifier: Apache-2.0
"""The curves of a run for TensorBoard, Weights & Biases or trackio, while it trains; a resumed run goes on with them.

TensorBoard's files are flushed with every checkpoint, and a resumed run marks what an earlier process wrote behind its
checkpoint as void. The other two cannot take points back: a resumed run, whose numbers are the same, leaves out those
that were handed over before it was killed. Weights & Biases stays offline unless WANDB_MODE says something else.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lect.errors import UserError

if TYPE_CHECKING:
    from lect.method import Run

PROJECT = "lect"


class Tracker(Protocol):
    """Who takes the numbers of a run."""

    def begin(self, step: int) -> None:
        """Open the curves; what stands in them behind ``step`` comes again."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take all numbers of one step; steps rise."""

    def flush(self) -> None:
        """Put what was taken where a kill does not reach it."""

    def close(self) -> None:
        """Close the curves."""


class TensorBoard:
    """Event files in a folder, for ``tensorboard --logdir``."""

    def __init__(self, folder: Path) -> None:
        self._make = _library("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.folder = folder
        self._writer: Any = None

    def begin(self, step: int) -> None:
        """Void the points behind ``step``, or all of them at the start."""
        self._writer = self._make(str(self.folder), purge_step=step + 1 if step else 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar for each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write the files."""
        self._writer.flush()

    def close(self) -> None:
        """Write and close the files."""
        if self._writer is not None:
            self._writer.close()


class Service:
    """Weights & Biases, or trackio, which takes the same calls; ``state`` keeps the run's name and its last step."""

    def __init__(self, package: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._package, self._folder, self._config = package, folder, dict(config)
        self._library = _library(package, package)
        self._state = folder / f"{package}.json"
        self._open = False

    def begin(self, step: int) -> None:
        """Open the run of this folder again, or a new one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            self.name, self._last = str(state["name"]), int(state["step"])
        except (OSError, ValueError, KeyError, TypeError):
            self.name, self._last = f"{self._folder.name}-{secrets.token_hex(3)}", -1
        options: dict[str, Any] = {"project": PROJECT, "name": self.name, "config": self._config, "resume": "allow"}
        if self._package == "wandb":
            mode = os.environ.get("WANDB_MODE", "offline")
            options |= {"id": self.name, "dir": str(self._folder), "mode": mode, "settings": {"console": "off"}}
        self._library.init(**options)
        self._open = True

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand the numbers over, unless they were before."""
        if step <= self._last:
            return
        self._last = step
        beside = self._state.with_suffix(".tmp")
        beside.write_text(json.dumps({"name": self.name, "step": step}), encoding="utf-8")
        os.replace(beside, self._state)
        self._library.log(dict(values), step=step)

    def flush(self) -> None:
        """Both write in the background, within about a second, and have no call for it."""

    def close(self) -> None:
        """Close the run."""
        if self._open:
            self._library.finish()


def opened(name: str | None, run: Run, config: Mapping[str, Any]) -> Tracker | None:
    """The tracker of that name, or None; a package that is not installed is a UserError.

    Files go into ``run.logs``. ``config`` is shown beside the curves; what is no number or word in it is left out.
    """
    if name is None:
        return None
    folder = run.logs or run.scratch / "logs"
    plain = {key: value for key, value in config.items() if isinstance(value, str | int | float)}
    made: Tracker = TensorBoard(folder) if name == "tensorboard" else Service(name, folder, plain)
    run.say(f"tracker: {name} gets the curves of this run" + ("" if name == "trackio" else f", in {folder}"))
    return made


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"tracker: {package} is not installed ({error}); pip install {package}, or set tracker to null"
        ) from error
