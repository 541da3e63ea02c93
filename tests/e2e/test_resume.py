# SPDX-License-Identifier: Apache-2.0
"""A training run killed with SIGKILL, at any moment, twice, ends with the same bytes as one that was left alone."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lect.testing import pico

CHILD = Path(__file__).with_name("resumed.py")


def child(home: Path, stop: str = "never", mode: str = "eager") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHILD), str(home), stop, mode], capture_output=True, text=True, timeout=170, check=False
    )


def result(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(("weights", "losses"))]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("resume")
    pico.model("gemma3", home / "model")
    pico.corpus(home / "corpus")
    (home / "scratch").mkdir()
    return home


@pytest.fixture(scope="module")
def unbroken(start: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    home = tmp_path_factory.mktemp("unbroken") / "home"
    shutil.copytree(start, home)
    found = result(child(home))
    assert len(found) == 2
    return found


@pytest.mark.parametrize(
    ("first", "second"),
    [("step:3", "step:11"), ("write:7:tensors", "write:9:sums"), ("write:6:rename", "step:24")],
)
def test_killed_twice_and_resumed_gives_the_same_bytes(
    first: str, second: str, start: Path, unbroken: list[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(start, home)
    for stop in (first, second):
        killed = child(home, stop)
        assert killed.returncode == -signal.SIGKILL, f"was to be killed at {stop}: {killed.stdout}{killed.stderr}"
        assert list((home / "scratch").glob("checkpoint-*")), "nothing to resume from"
    last = child(home)
    assert "goes on from step" in last.stdout
    assert result(last) == unbroken
