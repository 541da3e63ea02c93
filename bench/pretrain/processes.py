# SPDX-License-Identifier: Apache-2.0
"""Two processes with a core each against one process on one core, and against one with two threads.

The trimmed model trains for a few steps of two rows each, three times, each time started anew as a user would, by
``torchrun`` where there are two processes. Every process is bound to the cores that it has. Data, steps and losses are
the same each time, up to rounding; the greatest difference of losses is stored. ``python -m bench.pretrain.processes
JOB.json`` is the process that trains.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.harness import ROOT, at_least, ratio
from bench.vocab.place import Place, corpus

CONFIG: dict[str, Any] = {
    "model": "gemma-3-270m",
    "text": "bundled:eu",
    "keep": "bundled:en",
    "batch_tokens": 4096,
    "row_tokens": 2048,
    "steps": 8,
    "cases": {"one": [1, 1], "two_threads": [1, 2], "two": [2, 1]},
}
"""The cases are processes, and threads of each."""
GOALS = {"speedup": at_least(1.7)}
CODE = ["src/lect/engine", "src/lect/stages/pretrain", "src/lect/parts/packing", "src/lect/processes.py"]
CODE += ["src/lect/stages/vocab/trim.py", "bench/vocab/place.py"]
ORDER = 71


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One trim, then the cases one after another."""
    from lect import artefacts, models

    shutil.rmtree(folder / "run", ignore_errors=True)
    place, base = Place(folder / "run"), artefacts.Model(models.resolve(config["model"]))
    read = corpus(place, config["text"], config["keep"])
    trimmed = place.step("trim", "vocab/trim", {}, model=base, corpus=read)[0]
    knobs = {"tokens": config["batch_tokens"] * config["steps"], "evaluations": 1, "evaluation_tokens": 256}
    knobs |= {name: config[name] for name in ("batch_tokens", "row_tokens")}
    details: dict[str, Any] = {}
    for name, (processes, threads) in config["cases"].items():
        given = {"base": base.folder, "model": trimmed.folder, "corpus": read.folder}
        job = {"knobs": knobs, "threads": threads, "folder": str(folder / "run" / name)}
        job["given"] = {what: str(at.resolve()) for what, at in given.items()}
        details[name] = started(folder / "run" / f"{name}.json", job, processes, threads)
        print(name, {k: v for k, v in details[name].items() if k != "losses"}, flush=True)
    rate = {name: case["tokens_per_second"] for name, case in details.items()}
    losses = [case["losses"] for case in details.values()]
    return {
        "figures": {
            "speedup": ratio(rate["two"], rate["one"]),
            "speedup_of_two_threads": ratio(rate["two_threads"], rate["one"]),
            "two_processes_over_two_threads": ratio(rate["two"], rate["two_threads"]),
            "greatest_difference_of_losses": max(max(x) - min(x) for x in zip(*losses, strict=True)),
        },
        "details": details,
    }


def started(file: Path, job: dict[str, Any], processes: int, threads: int) -> dict[str, Any]:
    """Run one case in processes of its own and return what process 0 measured."""
    for name in ("out", "scratch"):
        (Path(job["folder"]) / name).mkdir(parents=True)
    file.write_text(json.dumps(job), "utf-8")
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, "-m", *(launch if processes > 1 else []), "bench.pretrain.processes", str(file)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    shutil.rmtree(job["folder"])
    result: dict[str, Any] = json.loads(file.with_suffix(".out.json").read_text("utf-8"))
    return result


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One process of one case; the facts of the step, and the cores that this process had."""
    from lect import processes
    from lect.artefacts import Corpus, Model
    from lect.method import Run
    from lect.registry import build_step

    size, rank, threads = processes.size(), processes.rank(), job["threads"]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < size * threads:
        sys.exit(f"{size} processes of {threads} threads need {size * threads} cores, and there are {len(cores)}")
    os.sched_setaffinity(0, cores[rank * threads : (rank + 1) * threads])
    place, given = Path(job["folder"]), {name: Path(at) for name, at in job["given"].items()}
    run = Run(folder=place / "out", scratch=place / "scratch", processes=size, process=rank)
    models = {name: Model(given[name]) for name in ("base", "model")}
    build_step("pretrain/continue", job["knobs"]).apply(run, **models, corpus=Corpus(given["corpus"]))
    kept = ("tokens_per_second", "step_seconds", "steps", "compile_seconds", "compiled", "filled", "peak_memory_bytes")
    facts = {name: run.facts[name] for name in (*kept, "processes", "threads")}
    losses = [point["loss"] for point in run.facts["losses"]]
    return facts | {"cores_of_each": len(os.sched_getaffinity(0)), "losses": losses}


if __name__ == "__main__":
    told = Path(sys.argv[1])
    measured = train(json.loads(told.read_text("utf-8")))
    from lect.processes import rank as own_rank

    if own_rank() == 0:
        told.with_suffix(".out.json").write_text(json.dumps(measured, indent=1), "utf-8")
