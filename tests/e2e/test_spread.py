# SPDX-License-Identifier: Apache-2.0
"""Two processes train what one trains; a lost one ends both, and any number of them goes on from a checkpoint."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lect import processes, recipe, runner
from lect.errors import UserError
from lect.registry import build_step
from lect.testing import pico
from lect.testing.contract import Bench

CHILD = Path(__file__).with_name("spread.py")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def told(lines: list[str], word: str) -> list[float]:
    return next(ast.literal_eval(line.removeprefix(word)) for line in lines if line.startswith(word))


@pytest.mark.timeout(400)
def test_two_processes_train_what_one_trains_and_either_goes_on_for_the_other(tmp_path: Path, bench: Bench) -> None:
    """Tied embeddings with new rows of their own learning rate, four rows a step, fp32."""
    shutil.copytree(bench.model().folder, tmp_path / "base")
    shutil.copytree(bench.grown().folder, tmp_path / "model")
    pico.corpus(tmp_path / "corpus")
    attempts = ["fresh", "1", "fresh", "2", "fresh", "2:1:4", "2:1:sum", "2", "fresh", "1:0:3", "2:0:6", "1"]
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path), *attempts],
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [a.splitlines() for a in done.stdout.split("attempt ")[1:]]
    assert [lines[0] for lines in found] == [a for a in attempts if a != "fresh"]
    one, two, lost, torn, resumed, _, first_lost, changed = found
    losses = told(one, "losses")
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.1
    for lines, ends in ((two, "0 0"), (resumed, "0 0"), (changed, "0")):
        assert lines[-1] == f"ended {ends}", lines
        assert told(lines, "losses") == pytest.approx(losses, abs=1e-5)
        assert told(lines, "evaluations") == pytest.approx(told(one, "evaluations"), abs=1e-5)
    for lines, killed in ((lost, 1), (torn, 1), (first_lost, 0)):
        assert lines[-1] == ("ended -9 2" if killed == 0 else "ended 2 -9"), lines
        assert any(f"process {1 - killed} of 2 lost another one" in line for line in lines), lines
    for lines, step in ((torn, 3), (first_lost, 2), (changed, 5)):
        assert f"0 goes on from step {step}" in lines
    unbroken, again = ([line for line in lines if line.startswith(("weights", "losses"))] for lines in (two, resumed))
    assert again == unbroken


def launched(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lect"]
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=380, check=False, cwd=folder, env=ENVIRONMENT
    )


@pytest.mark.timeout(400)
def test_torchrun_makes_the_folder_that_one_process_makes(tmp_path: Path) -> None:
    pico.model("llama", tmp_path / "model")
    rows = [json.dumps({"text": d.text}) for d in pico.messy()]
    (tmp_path / "text.jsonl").write_text("\n".join(rows), encoding="utf-8")
    told = {"tokens": 512, "batch_tokens": 128, "row_tokens": 64, "compile": False, "evaluation_tokens": 64}
    steps = [{"use": "corpus/read"}, {"use": "corpus/split"}, {"use": "pretrain/continue", "with": told}]
    steps.append({"use": "export/huggingface"})
    plan = {"model": "model", "text": ["text.jsonl"], "steps": steps}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    done = launched(tmp_path, "run", "recipe.yaml", "--out", "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Continued pretraining") == 1
    again = subprocess.run(
        [sys.executable, "-m", "lect", "run", "recipe.yaml", "--out", "two"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert again.stderr.count("done before") == len(steps), again.stderr
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    facts = next(step["facts"] for step in record["steps"] if step["use"] == "pretrain/continue")
    assert record["status"] == "done" and facts["processes"] == 2
    assert not [path for path in (tmp_path / "two" / "steps").iterdir() if path.name.endswith((".tmp", ".scratch"))]


def test_rows_that_processes_cannot_share_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = build_step("pretrain/continue", {"batch_tokens": 1000, "row_tokens": 400})
    assert step.spread(1) == 1 and step.spread(3) == 3
    with pytest.raises(
        UserError, match=r"3 rows of at most 400, which 2 processes cannot share; set row_tokens to 250"
    ):
        step.spread(2)
    assert build_step("pretrain/continue", {"batch_tokens": 1000, "row_tokens": 333}).spread(2) == 2
    assert build_step("pretrain/race", {}).spread(2) == 1
    (tmp_path / "text.txt").write_text("a")
    raw = {"model": "none", "text": [str(tmp_path / "text.txt")]}
    raw["steps"] = [{"use": "corpus/read"}, {"use": "corpus/split"}, {"use": "pretrain/continue"}]
    for name, value in ((processes.LAUNCHED, "1"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"row_tokens: a step of 512 tokens runs as 1 row of .* set row_tokens to 256"):
        runner.run(recipe.resolve(raw, "test"), tmp_path / "out")
    assert not [*(tmp_path / "out" / "steps").glob("*read*")]
