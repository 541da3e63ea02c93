# SPDX-License-Identifier: Apache-2.0
"""Training that cannot go on ends in one line and status 2; the same command then ends it as if unbroken."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lect import cli
from lect.engine import checkpoint, loss
from lect.testing import pico

KNOBS = {"tokens": 64 * 20, "batch_tokens": 64, "max_length": 48, "evaluation_tokens": 64, "evaluations": 2}
KNOBS |= {"checkpoint_seconds": 1e-6, "compile": False}
STEPS = [{"use": "corpus/read"}, {"use": "corpus/split", "with": {"least_bytes": 0}}]
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked")
Lect = Callable[..., tuple[int, str]]


@pytest.fixture
def lect(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], place: Path) -> Lect:
    """The command in this process: its status and the last line that it said; tracebacks fail the test."""

    def call(out: str, *settings: str) -> tuple[int, str]:
        words = ["lect", "run", str(place / "recipe.yaml"), "--out", str(place / out)]
        monkeypatch.setattr(sys, "argv", [*words, *(["--set", *settings] if settings else [])])
        capfd.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        said = capfd.readouterr().err.splitlines()
        assert status == 0 or sum(line.startswith("lect: ") for line in said) == 1, said
        return status, said[-1]

    return call


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    pico.model("llama", folder / "model")
    for role in ("target", "kept"):
        rows = [json.dumps({"text": d.text}) for d in pico.messy() if d.role == role]
        (folder / f"{role}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    recipe = {"model": str(folder / "model"), "text": [str(folder / "target.jsonl")]}
    recipe |= {"keep": [str(folder / "kept.jsonl")], "steps": [*STEPS, {"use": "pretrain/continue", "with": KNOBS}]}
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return folder


@pytest.fixture
def whole(place: Path, lect: Lect) -> bytes:
    """The weights of a run that nothing went wrong in."""
    assert lect("whole")[0] == 0
    return weights(place / "whole")


def weights(out: Path) -> bytes:
    """What training made; there is one such step."""
    (path,) = out.glob("steps/continue-*/out/model.safetensors")
    return path.read_bytes()


def kept(out: Path) -> list[str]:
    """Checkpoints that are whole; nothing stands half-written beside them."""
    (scratch,) = out.glob("steps/.continue-*.scratch")
    assert not list(scratch.glob(".checkpoint-*.tmp"))
    assert not list(out.glob("steps/continue-*"))
    return [path.name for path in checkpoint.found(scratch)]


def test_a_budget_shorter_than_getting_ready(place: Path, lect: Lect, whole: bytes) -> None:
    status, line = lect("short", "continue.tokens=null", "continue.minutes=0.0001")
    assert status == 2 and "minutes: 0.0001 is too short" in line and "give at least" in line
    assert kept(place / "short") == []
    assert lect("short")[0] == 0
    assert weights(place / "short") == whole
    assert all(s["skipped"] for s in json.loads((place / "short" / "record.json").read_text())["steps"][:2])


def test_a_disk_that_fills_during_a_checkpoint(
    place: Path, lect: Lect, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = checkpoint.write_json

    def full(path: Path, value: object) -> None:
        if "checkpoint-000000009" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(path, value)

    monkeypatch.setattr(checkpoint, "write_json", full)
    status, line = lect("full")
    assert status == 2 and "No space left on device" in line and "it goes on from the last checkpoint" in line
    assert kept(place / "full") == ["checkpoint-000000007", "checkpoint-000000008"]
    monkeypatch.setattr(checkpoint, "write_json", original)
    assert lect("full")[0] == 0
    assert weights(place / "full") == whole


def test_files_that_may_not_grow(place: Path, lect: Lect, whole: bytes) -> None:
    """The model fits under the limit, a checkpoint, three times as large, does not: a real write in a process."""
    model = (place / "model" / "model.safetensors").stat().st_size

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * model, 2 * model))

    words = [sys.executable, "-m", "lect", "run", str(place / "recipe.yaml"), "--out", str(place / "limit")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=limit)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert line.startswith("lect: ") and "could not be written" in line and "Traceback" not in done.stderr
    assert kept(place / "limit") == []
    assert lect("limit")[0] == 0
    assert weights(place / "limit") == whole


def test_a_loss_that_is_no_number(place: Path, lect: Lect, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loss.blocked_loss
    calls: list[int] = []

    def poisoned(*args: object) -> object:
        calls.append(1)
        return original(*args) * (float("nan") if len(calls) == 25 else 1)

    monkeypatch.setattr(loss, "blocked_loss", poisoned)
    status, line = lect("nan")
    assert status == 2 and "the loss is nan" in line and "the last checkpoint is kept" in line
    named = line.split("in documents ")[1].split(";")[0].removesuffix(" ...").split(", ")
    assert named and all(len(name) == 64 for name in named)
    step = int(line.split("step ")[1].split(":")[0])
    assert kept(place / "nan")[-1] == f"checkpoint-{step - 1:09d}"
    monkeypatch.setattr(loss, "blocked_loss", original)
    assert lect("nan")[0] == 0
    assert weights(place / "nan") == whole


def test_a_mixture_that_names_a_missing_source(place: Path, lect: Lect, whole: bytes) -> None:
    source = str(place / "nowhere.jsonl")
    mixture = json.dumps({"use": "fixed", "with": {"by": "source", "ratio": {source: 1}}})
    status, line = lect("missing", f"continue.mixture={mixture}")
    assert status == 2 and f"no text for training has the source {source!r}" in line
    assert str(place / "target.jsonl") in line.split("There are: ")[1]
    assert lect("missing")[0] == 0
    assert weights(place / "missing") == whole


def test_a_checkpoint_of_another_recipe(place: Path, lect: Lect, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another recipe has a place of its own; put into it by hand, the checkpoint is refused and stays."""
    original = checkpoint.save

    def stopped(folder: Path, step: int, *rest: object) -> None:
        original(folder, step, *rest)
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", stopped)
    assert lect("other")[0] == 130
    (first,) = (place / "other").glob("steps/.continue-*.scratch")
    assert lect("other", "continue.learning_rate=1e-3")[0] == 130
    (second,) = set((place / "other").glob("steps/.continue-*.scratch")) - {first}
    monkeypatch.setattr(checkpoint, "save", original)
    shutil.rmtree(second)
    shutil.copytree(first, second)
    status, line = lect("other", "continue.learning_rate=1e-3")
    assert status == 2 and "is a checkpoint of another run" in line and str(second) in line
    assert [p.name for p in checkpoint.found(second)] == [p.name for p in checkpoint.found(first)]
    assert lect("other")[0] == 0
    assert weights(place / "other") == whole
