# SPDX-License-Identifier: Apache-2.0
"""Runs of `lect run` killed with SIGKILL at random moments of training end with the bytes of one that was left alone.

Each run has a folder of its own, is killed once or twice somewhere between its first step and its last, checkpoints
included, and is then left to end. The model is a Gemma 3 of three million parameters with random weights: with the
packaged one a run takes minutes, and this many of them hours. Everything else is the real road: text from a file, the
split, the trim, training in bf16, some runs with compiled layers. What comes before training is made once and copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.harness import at_least

CONFIG: dict[str, Any] = {
    "runs": 20,
    "compiled": 4,
    "seed": 7,
    "documents": 240,
    "model": {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "head_dim": 48},
    "heads": 4,
    "tokens": 16_384,
    "batch_tokens": 256,
    "checkpoint_seconds": 0.5,
}
GOALS = {"identical": at_least(CONFIG["runs"])}
CODE = [
    "src/lect/engine",
    "src/lect/stages/pretrain",
    "src/lect/parts",
    "src/lect/runner.py",
    "src/lect/testing/pico.py",
]
CODE += ["src/lect/stages/vocab/trim.py"]
ORDER = 75
READY, RESUMED = "getting ready", "goes on from step"


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Unbroken runs first, with and without the compiler; then all the killed ones, each compared with its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ingredients(config, folder)
    rng = random.Random(config["seed"])
    whole = {compiled: Attempt(folder, "whole", compiled).to_its_end() for compiled in (False, True)}
    rows = []
    for number in range(config["runs"]):
        compiled = number < config["compiled"]
        row = killed(folder, f"run-{number}", compiled, whole[compiled], 1 + number % 2, rng)
        row["identical"] = row.pop("sha256") == whole[compiled]["sha256"]
        rows.append(row)
        print(number, row, flush=True)
        shutil.rmtree(folder / f"run-{number}")
    moments = [moment for row in rows for moment in row["kills"]]
    return {
        "figures": {
            "identical": sum(row["identical"] for row in rows),
            "kills": len(moments),
            "kills_inside_a_checkpoint": sum(moment["inside_checkpoint"] for moment in moments),
            "kills_before_the_first_checkpoint": sum(moment["checkpoint"] is None for moment in moments),
        },
        "details": {"runs": rows, "unbroken": {"plain": whole[False], "compiled": whole[True]}},
    }


def ingredients(config: dict[str, Any], folder: Path) -> None:
    """The model, the text, the two recipes and, in ``whole``, the steps before training."""
    import torch

    from lect.artefacts import Model
    from lect.testing import pico

    small, tokenizer = pico.build("gemma3")
    heads = {"num_attention_heads": config["heads"], "num_key_value_heads": 1}
    layers = ["sliding_attention", "full_attention"] * (config["model"]["num_hidden_layers"] // 2)
    values = small.config.to_dict() | config["model"] | heads | {"layer_types": layers, "max_position_embeddings": 512}
    torch.manual_seed(config["seed"])
    live = type(small)(type(small.config)(**values))
    (folder / "model").mkdir()
    Model.write(folder / "model", live.eval(), tokenizer)
    rng = random.Random(config["seed"])
    for name, language in (("target", "eu"), ("kept", "en")):
        words = [w for d in pico.documents() if d.language == language for w in d.text.split()]
        texts = [" ".join(rng.choices(words, k=rng.randint(20, 300))) for _ in range(config["documents"])]
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    knobs = {k: config[k] for k in ("tokens", "batch_tokens", "checkpoint_seconds")} | {
        "evaluations": 4,
        "evaluation_tokens": 512,
    }
    for compiled in (False, True):
        recipe = {
            "model": str(folder / "model"),
            "text": [str(folder / "target.jsonl")],
            "keep": [str(folder / "kept.jsonl")],
            "seed": config["seed"],
            "steps": [
                {"use": "corpus/read"},
                {"use": "corpus/split"},
                {"use": "vocab/trim"},
                {"use": "pretrain/continue", "with": knobs | {"compile": compiled}},
            ],
        }
        (folder / f"recipe-{compiled}.yaml").write_text(json.dumps(recipe), "utf-8")


class Attempt:
    """One process of ``lect run`` in ``folder / name``; what it says is read while it runs."""

    def __init__(self, folder: Path, name: str, compiled: bool) -> None:
        self.out = folder / name / str(compiled)
        before = folder / "whole" / str(compiled)
        if not self.out.exists() and before.exists():
            shutil.copytree(before / "steps", self.out / "steps", ignore=shutil.ignore_patterns("*continue-*"))
        command = [sys.executable, "-m", "lect", "run", str(folder / f"recipe-{compiled}.yaml"), "--out", str(self.out)]
        self.heard: dict[str, float] = {}
        self.said: list[str] = []
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.ear = threading.Thread(target=self.listen, daemon=True)
        self.ear.start()

    def listen(self) -> None:
        """Note when the lines of interest come."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            for words in (READY, RESUMED):
                if words in line:
                    self.heard[words] = time.monotonic()

    @property
    def scratch(self) -> Path | None:
        """Where training keeps its checkpoints, once it has begun."""
        return next(self.out.glob("steps/.continue-*.scratch"), None)

    def begun(self) -> bool:
        """Whether steps are taken: the plan is there, or an earlier attempt's checkpoint was taken over."""
        if RESUMED in self.heard:
            return True
        place = self.scratch
        return READY in self.heard and place is not None and (place / "plan.json").exists() and not found(place)

    def kill(self) -> None:
        """SIGKILL to the process and to whatever it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.ear.join()

    def to_its_end(self) -> dict[str, Any]:
        """Wait; the sum of the weights and how long the steps took. Anything but a whole run is an error."""
        self.process.wait()
        self.ear.join()
        if self.process.returncode != 0:
            raise RuntimeError("\n".join([f"lect run ended with {self.process.returncode}", *self.said[-20:]]))
        record = json.loads((self.out / "record.json").read_text("utf-8"))
        step = record["steps"][-1]
        weights = self.out / step["folder"] / "model.safetensors"
        facts = step["facts"]
        return {
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "seconds": facts["seconds"],
            "steps": facts["steps"],
            "compiled": facts["compiled"],
            "resumed": RESUMED in self.heard,
        }


def found(scratch: Path) -> list[int]:
    """The steps of the checkpoints that are there under their final name."""
    return sorted(int(path.name.rpartition("-")[2]) for path in scratch.glob("checkpoint-*"))


def killed(
    folder: Path, name: str, compiled: bool, whole: dict[str, Any], times: int, rng: random.Random
) -> dict[str, Any]:
    """One run, killed up to so many times and then left to end; where it ended before it was killed, killed sooner."""
    kills: list[dict[str, Any]] = []
    seconds = whole["seconds"]
    while len(kills) < times:
        attempt = Attempt(folder, name, compiled)
        while attempt.process.poll() is None and not attempt.begun():
            time.sleep(0.005)
        left = 1 - (kills[-1]["checkpoint"] or 0) / whole["steps"] if kills else 1.0
        wait = rng.uniform(0, seconds * left)
        deadline = time.monotonic() + wait
        while attempt.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        scratch = attempt.scratch
        if attempt.process.poll() is not None or scratch is None:
            attempt.to_its_end()
            shutil.rmtree(attempt.out)
            kills, seconds = [], seconds / 2
            continue
        attempt.kill()
        steps = found(scratch)
        inside = any(scratch.glob(".checkpoint-*.tmp"))
        kills.append({"seconds": wait, "checkpoint": steps[-1] if steps else None, "inside_checkpoint": inside})
    return Attempt(folder, name, compiled).to_its_end() | {"kills": kills}
