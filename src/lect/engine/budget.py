# SPDX-License-Identifier: Apache-2.0
"""What every run is told whatever it trains, and how many steps its budget allows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lect.artefacts import read_json, write_json
from lect.errors import UserError

if TYPE_CHECKING:
    from lect.engine.loop import Loop
    from lect.method import Run
    from lect.parts.packing.kind import Packing
    from lect.parts.schedule.kind import Schedule

FEWEST_STEPS = 10
FORMATS = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the settings of all runs share; the knobs of a pretraining step say what each means."""

    minutes: float | None
    tokens: int | None
    learning_rate: float
    batch_tokens: int
    max_length: int
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    clip: float
    packing: Packing
    schedule: Schedule
    checkpoint_seconds: float
    precision: str
    moments: str = "fp32"
    evaluations: int
    evaluation_tokens: int
    tracker: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The compute type."""
        return FORMATS[self.precision]

    @property
    def adam(self) -> dict[str, Any]:
        """The optimiser's own numbers and number formats."""
        numbers = {name: getattr(self, name) for name in ("beta1", "beta2", "epsilon", "clip")}
        return numbers | {"dtype": self.dtype, "moments": FORMATS[self.moments]}


def planned(run: Run, loop: Loop, budget: Budget, key: str, started: float, step_seconds: float) -> dict[str, Any]:
    """The plan that an earlier, killed run of the same key made, or a new one; it says how many steps there are.

    Of several processes the first decides; all take part in the laps.
    """
    old = loop.step.world.told(lambda: _earlier(run, loop, key))
    if old is not None:
        return old
    laps = loop.laps()
    return loop.step.world.told(lambda: _new(run, loop, budget, key, started, step_seconds, laps))


def _earlier(run: Run, loop: Loop, key: str) -> dict[str, Any] | None:
    """The plan of a killed run of the same key; checkpoints of another are a UserError."""
    path: Path = run.scratch / "plan.json"
    if path.exists() and (old := read_json(path)).get("key") == key:
        if any(old[name] != value for name, value in machine_state(loop).items()):
            run.say(
                "this run began with other threads or processes, another torch or without its compiler: it goes on, "
                "but the weights will not be bit-identical to those of an unbroken run"
            )
        return old
    for stale in run.scratch.glob("checkpoint-*"):
        raise UserError(f"{stale}: is a checkpoint of another run; delete the folder {run.scratch} and run again")
    return None


def _new(
    run: Run, loop: Loop, budget: Budget, key: str, started: float, step_seconds: float, laps: dict[str, Any]
) -> dict[str, Any]:
    """A plan of so many steps as the budget allows, written to the scratch folder."""
    if budget.tokens is not None:
        steps = max(1, budget.tokens // budget.batch_tokens)
    elif budget.minutes is not None:
        probe_rows = sum(len(p.batches) for p in loop.probes.values())
        evaluation_steps = (budget.evaluations + 1) * probe_rows / loop.rows * 0.4
        if loop.texts:
            text_rows = sum(len(p.batches) for p in loop.texts.values())
            evaluation_steps += loop.data.mixture.measurements * text_rows / loop.rows * 0.4
        spent = time.monotonic() - started
        steps = planned_steps(budget.minutes, spent, step_seconds, evaluation_steps, loop.step.compile)
    else:
        raise UserError("minutes and tokens are both null; give one of them")
    plan = {"key": key, "steps": steps, "planned_step_seconds": step_seconds, **machine_state(loop)}
    if laps:
        plan["laps"] = laps
    write_json(run.scratch / "plan.json", plan)
    return plan


def planned_steps(
    minutes: float, spent: float, step_seconds: float, evaluation_steps: float, compiled: bool = False
) -> int:
    """Steps that fit into ``minutes`` after ``spent`` seconds; evaluations count as so many steps more.

    Fewer than ``FEWEST_STEPS`` is a UserError that says how many minutes would do.
    """
    steps = int((minutes * 60 - spent) / step_seconds - evaluation_steps)
    if steps < FEWEST_STEPS:
        least = (spent + (FEWEST_STEPS + evaluation_steps) * step_seconds) / 60
        raise UserError(
            f"minutes: {minutes:g} is too short: getting ready took {spent:.0f} s and a step takes "
            f"{step_seconds:.1f} s; give at least {math.ceil(least * 10) / 10:g}"
            f"{', or set compile to false' if compiled else ''}"
        )
    return steps


def machine_state(loop: Loop) -> dict[str, Any]:
    """What must be the same for a resumed run to be bit-identical."""
    return {
        "threads": torch.get_num_threads(),
        "processes": loop.step.world.size,
        "compiled": loop.step.compile,
        "layout": loop.step.body.layout,
        "torch": torch.__version__,
    }
