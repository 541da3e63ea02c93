# SPDX-License-Identifier: Apache-2.0
"""What every comparison shares: when a result is stale, what is written beside the figures, how goals are judged.

A comparison is one file here with a literal ``CONFIG``, a dict ``GOALS``, a list ``CODE`` (files and folders, from the
root of the repository, that decide its result), a list ``NEEDS`` (comparisons that it is set against) and a function
``measure(config, folder)`` that returns ``{"figures": {name: number}, "details": {...}}``, and a ``verdict`` in words
where a paper's promise was put to the test. The result is one JSON file in ``bench/results``. A file with a function
``variants()`` instead holds many comparisons of one kind, by name.

A result is stale when its key changed: the hash of the configuration, of the version of lect, of ``CODE`` (comments and
docstrings do not count) and of the keys of ``NEEDS``. The commit is written too, and whether files differ from it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
PACKAGE = ROOT / "src" / "lect"
QUIET = 0.5
"""A load average (one minute, before the start) up to which a machine counts as quiet."""


@dataclass(frozen=True)
class Goal:
    """A bound that a figure should keep; ``most`` is an upper bound, else it is a lower one."""

    bound: float
    most: bool

    def reached(self, value: float | None) -> bool | None:
        """Whether the value keeps the bound; None where nothing was measured."""
        if value is None:
            return None
        return value <= self.bound if self.most else value >= self.bound

    def __str__(self) -> str:
        return f"{'at most' if self.most else 'at least'} {self.bound:g}"


def at_most(bound: float) -> Goal:
    """A figure that should not be above ``bound``."""
    return Goal(bound, True)


def at_least(bound: float) -> Goal:
    """A figure that should not be below ``bound``."""
    return Goal(bound, False)


def comparisons() -> dict[str, ModuleType]:
    """Every comparison by name: the files that hold a CONFIG and a ``measure``; ``vocab/x.py`` is ``vocab_x``.

    A variant ``y`` of it is ``vocab_x_y``.
    """
    found = {}
    for path in sorted(HERE.rglob("*.py")):
        source = path.read_text("utf-8")
        parts = path.relative_to(HERE).with_suffix("").parts
        name = "_".join(parts)
        if "\ndef variants(" in source:
            made = importlib.import_module(".".join(("bench", *parts))).variants()
            found |= {f"{name}_{variant}": module for variant, module in made.items()}
        elif "\nCONFIG" in source and "\ndef measure(" in source:
            found[name] = importlib.import_module(".".join(("bench", *parts)))
    return dict(sorted(found.items(), key=lambda item: (getattr(item[1], "ORDER", 50), item[0])))


def code_hash(path: Path) -> str:
    """A hash of what a file does: of the syntax tree without docstrings for Python, of the bytes for others."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def key(config: dict[str, Any], module: ModuleType) -> str:
    """What a result is good for."""
    places = [ROOT / word for word in module.CODE]
    files = {p for place in places for p in (place.rglob("*") if place.is_dir() else [place])}
    files = {p for p in files if p.suffix in (".py", ".zst")} | {Path(str(module.__file__))}
    total = hashlib.sha256((json.dumps(config, sort_keys=True) + version()).encode())
    for path in sorted(files):
        total.update(f"{path.relative_to(ROOT).as_posix()}\0{code_hash(path)}\n".encode())
    for name in getattr(module, "NEEDS", []):
        total.update(str(stored(name)["key"]).encode())
    return total.hexdigest()


def version() -> str:
    """The version of lect."""
    import lect

    return lect.__version__


def stored(name: str) -> dict[str, Any]:
    """The result of another comparison, which has to be there."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        sys.exit(f"bench/results/{name}.json is missing; run: python -m bench {name}")
    result: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return result


def git(*words: str) -> str:
    """What git says, or an empty text outside a repository."""
    answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def work_folder(name: str) -> Path:
    """Where a comparison keeps what it makes: ``LECT_BENCH``, else a folder of the user's cache."""
    base = (
        os.environ.get("LECT_BENCH")
        or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lect" / "bench"
    )
    folder = Path(base) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(name: str, module: ModuleType, force: bool = False) -> tuple[dict[str, Any], bool]:
    """The result of one comparison, and whether it was measured now."""
    config: dict[str, Any] = module.CONFIG
    file = RESULTS / f"{name}.json"
    wanted = key(config, module)
    if file.exists() and not force:
        old: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if old["key"] == wanted:
            return old, False
    from lect import machine

    before = machine.describe()
    started, clock = datetime.now(UTC), time.monotonic()
    measured = module.measure(config, work_folder(name))
    goals: dict[str, Goal] = module.GOALS
    unknown = sorted(set(goals) - set(measured["figures"]))
    if unknown:
        raise KeyError(f"{name}: goals without a figure: {', '.join(unknown)}")
    result = {
        "schema": 1,
        "name": name,
        "title": (module.__doc__ or "").splitlines()[0],
        "key": wanted,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
        "command": f"python -m bench {name}",
        "commit": git("rev-parse", "HEAD"),
        "changes_on_top": bool(git("status", "--porcelain", "--", "src", ":(glob)bench/**/*.py")),
        "machine": before,
        "quiet": before["load_average"][0] <= QUIET,
        "load_average_after": list(os.getloadavg()),
        "versions": machine.versions(),
        "config": config,
        "figures": {
            figure: {"value": value, "goal": str(goals[figure]), "reached": goals[figure].reached(value)}
            if figure in goals
            else {"value": value}
            for figure, value in measured["figures"].items()
        },
        "details": measured["details"],
        **({"verdict": measured["verdict"]} if "verdict" in measured else {}),
    }
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", "utf-8")
    return result, True


def table(results: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table: what was measured, what was aimed at, whether it was reached."""
    rows = ["| comparison | figure | measured | aim | reached |", "|---|---|---:|---|---|"]
    for result in results:
        for name, figure in result["figures"].items():
            value = "not measured" if figure["value"] is None else f"{figure['value']:.4g}"
            reached = {True: "yes", False: "**no**", None: ""}[figure.get("reached")]
            rows.append(
                f"| {result['name']} | {name.replace('_', ' ')} | {value} | {figure.get('goal', '')} | {reached} |"
            )
    return "\n".join(rows)


def ratio(above: float | None, below: float | None) -> float | None:
    """One number over another, or None where one of them is missing or the lower one is 0."""
    return above / below if above is not None and below else None
