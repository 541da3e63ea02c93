# SPDX-License-Identifier: Apache-2.0
"""A training run killed with SIGKILL, at any moment, twice, ends with the same bytes as one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from lect.testing import pico

CHILD = Path(__file__).with_name("resumed.py")
KILLS = [
    ("step:3", "step:11"),
    ("write:7:tensors", "write:9:sums"),
    ("write:6:rename", "step:24"),
    ("write:1:tensors", "write:24:rename"),
]


def test_killed_twice_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    pico.model("gemma3", tmp_path / "model")
    pico.corpus(tmp_path / "corpus")
    stops = ["fresh", "never"]
    for first, second in KILLS:
        stops += ["fresh", first, second, "never"]
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path), *stops],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    unbroken, *attempts = [a.splitlines() for a in done.stdout.split("attempt ")[1:]]
    expected = [line for line in unbroken if line.startswith(("weights", "losses"))]
    assert len(expected) == 2, done.stdout + done.stderr
    assert len(attempts) == 3 * len(KILLS)
    for first, second, last in zip(*[iter(attempts)] * 3, strict=True):
        for killed in (first, second):
            assert f"ended {-signal.SIGKILL}" in killed[-1], f"was to be killed: {killed}"
        assert any("goes on from step" in line for line in last), last
        found = [line for line in last if line.startswith(("weights", "losses"))]
        assert found == expected, f"killed at {first[0]} and {second[0]}"
