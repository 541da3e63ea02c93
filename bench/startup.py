# SPDX-License-Identifier: Apache-2.0
"""How long `lect --help` and `lect list` take, and that neither imports torch."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.harness import at_most

CONFIG = {"commands": [["--help"], ["list"]], "rounds": 11, "heavy": ["torch", "transformers", "pyarrow", "numpy"]}
GOALS = {"help_seconds": at_most(0.5), "list_seconds": at_most(0.5), "heavy_imports": at_most(0)}
CODE = ["src/lect"]
ORDER = 10

PROBE = """
import sys
sys.argv = ["lect", *sys.argv[1:]]
from lect.cli import main
try:
    main()
except SystemExit:
    pass
print("IMPORTED", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
"""


def seconds(words: list[str]) -> float:
    """Wall seconds of the installed command, from its start to its end."""
    command = [str(Path(sys.executable).with_name("lect")), *words]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def imported(words: list[str]) -> set[str]:
    """The top-level modules that the command has imported when it ends."""
    probe = subprocess.run([sys.executable, "-c", PROBE, *words], check=True, capture_output=True, text=True)
    line = next(line for line in reversed(probe.stderr.splitlines()) if line.startswith("IMPORTED "))
    return set(line.split()[1:])


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Medians over some rounds after one that fills the file cache."""
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    heavy: set[str] = set()
    for words in config["commands"]:
        name = words[0].lstrip("-")
        runs = [seconds(words) for _ in range(config["rounds"] + 1)][1:]
        figures[f"{name}_seconds"] = round(statistics.median(runs), 4)
        details[name] = [round(value, 4) for value in sorted(runs)]
        heavy |= imported(words) & set(config["heavy"])
    figures["heavy_imports"] = len(heavy)
    return {"figures": figures, "details": details | {"heavy": sorted(heavy)}}
