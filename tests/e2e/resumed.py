# SPDX-License-Identifier: Apache-2.0
"""Train a pico model in ``sys.argv[1]``; run by test_resume.py in a process of its own, which it kills."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from lect.artefacts import Corpus, Model
from lect.engine import checkpoint
from lect.method import Run
from lect.registry import build_step

KNOBS = {"tokens": 64 * 24, "batch_tokens": 64, "max_length": 48, "evaluation_tokens": 64, "evaluations": 2}


def main(home: Path, stop: str) -> None:
    """Run ``pretrain/continue``; ``stop`` is ``step:N`` (killed before step N) or ``write:N:M`` (in a checkpoint)."""
    import os
    import signal

    import torch

    torch.set_num_threads(1)
    kind, *numbers = stop.split(":")

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Listener:
        def say(self, text: str) -> None:
            print(text, flush=True)

        def progress(self, done, total, unit, values) -> None:
            if kind == "step" and done == int(numbers[0]):
                die()

        def gate(self, gate) -> None:
            assert gate.passed, gate

    if kind == "write":
        moments = {"tensors": "write_json", "sums": "sha256", "rename": "_flush"}
        name = moments[numbers[1]]
        original = getattr(checkpoint, name)

        def fatal(*args):
            step = next(int(n.group(1)) for a in args for n in [checkpoint.NAME.search(str(a))] if n)
            if step >= int(numbers[0]):
                die()
            return original(*args)

        setattr(checkpoint, name, fatal)
    out = home / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    run = Run(folder=out, scratch=home / "scratch", seed=5, listener=Listener())
    step = build_step("pretrain/continue", KNOBS | {"checkpoint_seconds": 1e-9, "compile": sys.argv[3] == "compile"})
    step.apply(run, model=Model(home / "model"), corpus=Corpus(home / "corpus"))
    print("weights", hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(), flush=True)
    print("losses", [point["loss"] for point in run.facts["losses"]], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
