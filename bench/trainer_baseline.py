# SPDX-License-Identifier: Apache-2.0
"""Plain `transformers.Trainer` on the untrimmed model: what a user would write who has never heard of lect.

As in the library's own language-modelling example: every text tokenised, all of them put end to end and cut into
blocks, AdamW, linear decay, bf16 autocast over fp32 weights. Training runs in a process of its own, so that its peak
memory is its own: ``python -m bench.trainer_baseline JOB.json`` is that process, and leaves JOB.out.json beside it.

The step count is set so that the decay ends with the minutes: a short probe gives the seconds of a step. A callback
stops the run when the minutes are over all the same. Target and kept text are mixed at the share at which lect replays
kept text.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROBE_STEPS = 6


def corpus_folder() -> Path:
    """The split corpus of the run that ``bench/adapt.py`` measured: the same text, the same test documents."""
    from bench.harness import work_folder

    found = sorted((work_folder("adapt") / "run" / "steps").glob("split-*/out"))
    if not found:
        sys.exit("the run folder of bench/adapt.py is gone; run: python -m bench adapt --force")
    return found[-1]


def in_own_process(folder: Path, name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run one training job in its own process and return what it measured."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(job, indent=1), "utf-8")
    subprocess.run([sys.executable, "-m", "bench.trainer_baseline", str(file)], check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(file.with_suffix(".out.json").read_text("utf-8"))
    return result


def probe_and_train(folder: Path, name: str, job: dict[str, Any]) -> dict[str, Any]:
    """A probe for the seconds of a step, then the run whose decay ends with the minutes."""
    probe = in_own_process(folder, f"{name}-probe", job | {"steps": PROBE_STEPS, "minutes": 60.0, "save": None})
    steps = max(1, int(job["minutes"] * 60 / probe["seconds_per_step"]))
    return in_own_process(folder, name, job | {"steps": steps}) | {"probe": probe}


def evaluate(base: Path, trained: Path, corpus: Path, folder: Path) -> dict[str, Any]:
    """Bits per byte on target and kept test text, by the code that judges lect's own models."""
    from lect.artefacts import Corpus, Model, Report
    from lect.method import Run
    from lect.registry import build_step

    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    run = Run(folder=folder / "out", scratch=folder / "scratch")
    step = build_step("evaluate/bits_per_byte", {})
    report = step.apply(run, corpus=Corpus(corpus), base=Model(base), model=Model(trained))
    assert isinstance(report, Report)
    return report.data


# -- the process that trains ------------------------------------------------------------------------------------


def blocks(tokenizer: Any, texts: list[str], size: int) -> tuple[list[list[int]], float]:
    """All texts tokenised with the tokenizer's own defaults, end to end, cut into blocks; and bytes per token."""
    ids = [i for row in tokenizer(texts)["input_ids"] for i in row]
    count = sum(len(text.encode()) for text in texts)
    return [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)], count / len(ids)


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One run of the Trainer; what it took and what it left."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        default_data_collator,
    )

    from lect.artefacts import Corpus

    corpus = Corpus(Path(job["corpus"]))
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    loaded_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    target, target_rate = blocks(tokenizer, corpus.texts("target", "train"), job["block"])
    kept, kept_rate = blocks(tokenizer, corpus.texts("kept", "train"), job["block"])
    random.Random(job["seed"]).shuffle(kept)
    kept = kept[: round(len(target) * job["kept_share"] / (1 - job["kept_share"]))]
    share = len(kept) / (len(target) + len(kept))
    rows = [{"input_ids": row, "labels": row} for row in target + kept]

    class Clock(TrainerCallback):
        """Counts the seconds of training and ends it when the minutes are over."""

        marks: list[float] = []  # noqa: RUF012

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.monotonic())

        def on_step_end(self, _args: Any, _state: Any, control: Any, **__: Any) -> Any:
            self.marks.append(time.monotonic())
            control.should_training_stop |= self.marks[-1] - self.marks[0] > job["minutes"] * 60
            return control

    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(Path(job["scratch"]) / "trainer"),
        use_cpu=True,
        bf16=True,
        per_device_train_batch_size=job["batch"],
        learning_rate=job["learning_rate"],
        max_steps=job["steps"],
        save_strategy="no",
        logging_steps=5,
        report_to="none",
        disable_tqdm=True,
        seed=job["seed"],
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,  # type: ignore[arg-type]
        data_collator=default_data_collator,
        callbacks=[clock],
    )
    trainer.train()
    steps = len(clock.marks) - 1
    seconds = clock.marks[-1] - clock.marks[0]
    tokens = steps * job["batch"] * job["block"]
    result = {
        "steps": steps,
        "seconds": seconds,
        "seconds_per_step": (clock.marks[-1] - clock.marks[1]) / (steps - 1) if steps > 1 else seconds,
        "trained_tokens": tokens,
        "trained_bytes": tokens * (target_rate * (1 - share) + kept_rate * share),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loaded_memory_bytes": loaded_bytes,
        "kept_share": share,
        "epochs": steps * job["batch"] / len(rows),
        "losses": [[entry["step"], entry["loss"]] for entry in trainer.state.log_history if "loss" in entry],
        "optimizer": str(getattr(arguments.optim, "value", arguments.optim)),
        "attention": str(model.config._attn_implementation),
        "threads": torch.get_num_threads(),
    }
    result["trained_bytes_per_second"] = result["trained_bytes"] / steps / result["seconds_per_step"]
    if job.get("judge"):
        result["calibration_loss"] = calibration_loss(trainer.model, tokenizer, corpus, job["block"], job["judge"])
    if job.get("save"):
        from lect.artefacts import Model

        folder = Path(job["save"])
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        Model.write(folder, trainer.model, tokenizer)
    return result


def calibration_loss(model: Any, tokenizer: Any, corpus: Any, size: int, count: int) -> float:
    """Mean loss on some blocks of the target's calibration text, to choose a learning rate by."""
    import torch

    rows, _ = blocks(tokenizer, corpus.texts("target", "calibration"), size)
    model.eval()
    losses = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for row in rows[:count]:
            ids = torch.tensor([row])
            losses.append(float(model(input_ids=ids, labels=ids).loss))
    return sum(losses) / len(losses)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.with_suffix(".out.json").write_text(
        json.dumps(train(json.loads(place.read_text("utf-8"))), indent=1), "utf-8"
    )
