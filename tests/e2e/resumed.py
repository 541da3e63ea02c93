# SPDX-License-Identifier: Apache-2.0
"""Train a pico model again and again, as test_resume.py says, and be killed on the way.

``resumed.py HOME STOP STOP ...``: each stop is one attempt in a forked process of its own, with a real SIGKILL:
``never``, ``step:N`` (after step N), ``write:N:MOMENT`` (inside the checkpoint of step N), or ``fresh`` (forget all).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from lect.artefacts import Corpus, Model
from lect.engine import checkpoint
from lect.method import Run
from lect.registry import build_step

KNOBS = {"tokens": 64 * 24, "batch_tokens": 64, "max_length": 48, "evaluation_tokens": 64, "evaluations": 2}
KNOBS |= {"checkpoint_seconds": 1e-9, "compile": False}


def attempt(home: Path, stop: str) -> None:
    """Run ``pretrain/continue`` once."""
    kind, *numbers = stop.split(":")

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Listener:
        def say(self, text: str) -> None:
            print(text, flush=True)

        def progress(self, done, total, unit, values) -> None:
            if kind == unit == "step" and done == int(numbers[0]):
                die()

        def gate(self, gate) -> None:
            assert gate.passed, gate

    if kind == "write":
        moments = {"tensors": "write_json", "sums": "sha256", "rename": "flush"}
        name = moments[numbers[1]]
        original = getattr(checkpoint, name)

        now = [0]

        def fatal(*args):
            steps = [int(n.group(1)) for a in args for n in [checkpoint.NAME.search(str(a))] if n]
            renamed = not steps  # the folder above is flushed behind the rename
            now[:] = steps or now
            if now[0] >= int(numbers[0]) and renamed == (numbers[1] == "rename"):
                die()
            return original(*args)

        setattr(checkpoint, name, fatal)
    out = home / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    run = Run(folder=out, scratch=home / "scratch", seed=5, listener=Listener())
    step = build_step("pretrain/continue", KNOBS)
    step.apply(run, base=Model(home / "model"), model=Model(home / "model"), corpus=Corpus(home / "corpus"))
    print("weights", hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(), flush=True)
    print("losses", [point["loss"] for point in run.facts["losses"]], flush=True)


def main(home: Path, stops: list[str]) -> None:
    """Fork for each attempt and say how it ended."""
    torch.set_num_threads(1)
    Model(home / "model").load()  # what is imported now is not imported again in each child
    for stop in stops:
        if stop == "fresh":
            shutil.rmtree(home / "scratch", ignore_errors=True)
            (home / "scratch").mkdir()
            continue
        print("attempt", stop, flush=True)
        child = os.fork()
        if child == 0:
            attempt(home, stop)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("ended", os.waitstatus_to_exitcode(status), len(checkpoint.found(home / "scratch")), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
