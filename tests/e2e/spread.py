# SPDX-License-Identifier: Apache-2.0
"""Train a pico model on one process or two, as test_spread.py says, and lose one of them on the way.

``spread.py HOME ATTEMPT ATTEMPT ...``: an attempt is ``fresh`` (forget all) or ``PROCESSES[:RANK:MOMENT]``.
RANK kills itself with SIGKILL at MOMENT: a number is after that step, ``sum`` while a checkpoint is written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import torch
import torch.distributed.device_mesh
import torch.distributed.fsdp

from lect import machine, processes
from lect.artefacts import Corpus, Model
from lect.engine import checkpoint
from lect.errors import UserError
from lect.method import Run
from lect.registry import build_step

KNOBS = {"tokens": 64 * 8, "batch_tokens": 64, "row_tokens": 16, "evaluation_tokens": 64, "evaluations": 2}
KNOBS |= {"checkpoint_seconds": 1e-9, "compile": False, "precision": "fp32", "weight_decay": 0.1}
KNOBS |= {"learning_rate": 1e-3, "new_row_learning_rate": 1e-2, "parameters": "sparse_then_dense"}


def show(*words: object) -> None:
    """Print a line in one piece, as several processes do."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def train(home: Path, count: int, rank: int, moment: str) -> None:
    """Run ``pretrain/continue`` as one process of ``count``; dies at ``moment`` if that says so."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Listener:
        def say(self, text: str) -> None:
            show(rank, text)

        def progress(self, done, total, unit, values) -> None:
            if moment == str(done):
                die()

        def gate(self, gate) -> None:
            assert gate.passed, gate

    if moment == "sum":
        original, calls = checkpoint.sha256, []

        def fatal(path: Path) -> str:
            calls.append(path)
            return die() if len(calls) == 4 else original(path)

        checkpoint.sha256 = fatal
    out = home / "out"
    run = Run(folder=out, scratch=home / "scratch", seed=5, listener=Listener(), processes=count, process=rank)
    step = build_step("pretrain/continue", KNOBS)
    try:
        step.apply(run, base=Model(home / "base"), model=Model(home / "model"), corpus=Corpus(home / "corpus"))
    except UserError as error:
        show(rank, "UserError", error)
        os._exit(2)
    if rank == 0:
        show("weights", hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
        show("losses", [point["loss"] for point in run.facts["losses"]])
        show("evaluations", [point["target"] for point in run.facts["evaluations"]])


def attempt(home: Path, count: int, fatal: int, moment: str) -> None:
    """Fork the processes and say how each ended."""
    shutil.rmtree(home / "out", ignore_errors=True)
    (home / "out").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = {processes.LAUNCHED: "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ |= launch | {"RANK": str(rank)}
            train(home, count, rank, moment if rank == fatal else "")
            os._exit(0)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    show("ended", *ends)


def main(home: Path, attempts: list[str]) -> None:
    """Go through the attempts."""
    torch.set_num_threads(1)
    machine.matmul_flops = lambda: 1e9
    Model(home / "model").load()  # what is imported now is not imported again in each child
    for words in attempts:
        if words == "fresh":
            shutil.rmtree(home / "scratch", ignore_errors=True)
            (home / "scratch").mkdir()
            continue
        show("attempt", words)
        count, *fatal = words.split(":")
        attempt(home, int(count), int(fatal[0]) if fatal else -1, fatal[1] if fatal else "")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
