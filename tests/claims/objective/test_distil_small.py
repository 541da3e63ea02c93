# SPDX-License-Identifier: Apache-2.0
"""Two stages by their equation; a run that differs by the first alone, resumes bit by bit, and is the better for it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from lect.artefacts import Model
from lect.engine.body import opened
from lect.engine.data import lay
from lect.engine.step import Step
from lect.errors import UserError
from lect.method import Run
from lect.parts.objective.distil_small import DistilSmall
from lect.parts.schedule.kind import Moment
from lect.testing import pico
from lect.testing.contract import Bench

SEQUENCES = [[2, *range(10, 30)], [2, *range(40, 75)]]


class Watcher:
    """Stands in for the optimizer and keeps the gradients."""

    def __init__(self, live: Any) -> None:
        self.live = live

    def named(self) -> list[tuple[str, torch.nn.Parameter]]:
        return list(self.live.named_parameters())

    def norm(self, grads: dict[str, torch.Tensor]) -> float:
        return 1.0

    def step(self, count: int, multiplier: list[float], grads: dict[str, torch.Tensor], norm: float) -> None:
        self.grads = grads


def equation(live: Any, other: Any, weight: float, temperature: float) -> torch.Tensor:
    """The first stage's loss, token by token, from the models' own logits over single documents."""
    total = torch.zeros(())
    for ids in SEQUENCES:
        row = torch.tensor([ids])
        with torch.no_grad():
            soft_tv = other(row).logits[0]
        for place, (said_v, soft_v) in enumerate(zip(live(row).logits[0][:-1], soft_tv[:-1], strict=True)):
            log_v = torch.log_softmax(said_v, -1)
            taught = -(torch.softmax(soft_v / temperature, -1) * log_v).sum()
            total = total + (1 - weight) * -log_v[ids[place + 1]] + weight * taught
    return total / sum(len(ids) - 1 for ids in SEQUENCES)


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_equation(family: str) -> None:
    """Loss and every gradient in the first stage, and in the second those of the text alone."""
    live, other = (pico.build(family, seed=seed)[0] for seed in (0, 1))
    part = DistilSmall(model="teacher", weight=0.6, temperature=0.5, stage=0.25)
    for progress, weight in ((0.0, 0.6), (0.249, 0.6), (0.25, 0.0), (1.0, 0.0)):
        expected = equation(live, other, weight, 0.5)
        live.zero_grad(set_to_none=True)
        expected.backward()
        grads = {name: p.grad.clone() for name, p in live.named_parameters() if p.grad is not None}
        live.zero_grad(set_to_none=True)
        watcher = Watcher(live)
        with opened(live) as body, opened(other) as teacher:
            run, optimizer = Run(folder=Path(), scratch=Path()), cast(Any, watcher)
            step = Step(run=run, body=body, optimizer=optimizer, schedules=[], objective=part, teacher=teacher)
            value = step.update([lay(SEQUENCES, 60, 0.0, (), "cpu")], 1, Moment(60 * progress, 60, 60))
        assert value == pytest.approx(expected.item(), rel=1e-5)
        for name, grad in grads.items():
            torch.testing.assert_close(watcher.grads[name], grad, rtol=1e-3, atol=1e-5)
        assert all(p.grad is None for p in other.parameters())


class Stop(Exception):
    """Ends a run from outside."""


class Breaker:
    """Hears a run, and ends it after some step."""

    def __init__(self, last: int | None) -> None:
        self.last = last

    def say(self, text: str) -> None:
        pass

    def gate(self, gate: Any) -> None:
        pass

    def progress(self, done: float, total: float, unit: str, values: Any) -> None:
        if done == self.last:
            raise Stop


def trained(
    bench: Bench,
    place: Path,
    objective: object,
    *,
    seed: int = 0,
    steps: int = 8,
    student: int = 1,
    stop: int | None = None,
) -> tuple[Model, dict[str, Any]]:
    """A student after so many steps, and the run's facts; with ``stop`` it ends there, and a second call goes on."""
    for name in ("out", "scratch"):
        (place / name).mkdir(parents=True, exist_ok=True)
    step = importlib.import_module("lect.stages.pretrain.continue").Continue(
        tokens=64 * steps,
        batch_tokens=64,
        max_length=48,
        learning_rate=3e-3,
        embedding_learning_rate=3e-3,
        checkpoint_seconds=1e-9 if stop else 1000.0,
        evaluations=1,
        evaluation_tokens=400,
        compile=False,
        objective=objective,
    )
    model = bench.model("gemma3", student)
    run = Run(folder=place / "out", scratch=place / "scratch", seed=seed, listener=Breaker(stop))
    if stop:
        with pytest.raises(Stop):
            step.apply(run, base=model, model=model, corpus=bench.corpus("all"))
        run.listener = Breaker(None)
    return step.apply(run, base=model, model=model, corpus=bench.corpus("all")), run.facts


def salt(model: Model, **knobs: float) -> dict[str, Any]:
    return {"use": "distil_small", "with": {"model": str(model.folder), **knobs}}


def test_differs_by_the_first_stage_alone_and_resumes_bit_by_bit(bench: Bench, tmp_path: Path) -> None:
    """Without weight or stage it is next_token's run; ended in either stage and resumed, it is the unbroken one."""
    teacher = bench.model("gemma3", 2)
    plain = trained(bench, tmp_path / "plain", "next_token")[0].fingerprint
    assert trained(bench, tmp_path / "off", salt(teacher, weight=0.0))[0].fingerprint == plain
    made, facts = trained(bench, tmp_path / "taught", salt(teacher, stage=0.5))
    assert made.fingerprint != plain
    assert facts["teacher"] == teacher.fingerprint
    for stop in (2, 6):
        again, _ = trained(bench, tmp_path / f"stopped {stop}", salt(teacher, stage=0.5), stop=stop)
        assert again.fingerprint == made.fingerprint


def test_what_cannot_teach_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"objective/distil_small\.model: names no teacher"):
        trained(bench, tmp_path / "none", "distil_small")
    with pytest.raises(UserError, match=r"teaches in another vocabulary: [0-9]+ of its tokens"):
        trained(bench, tmp_path / "other", salt(bench.model("gpt2")))
    with pytest.raises(UserError, match="there is no such file or folder"):
        trained(bench, tmp_path / "absent", {"use": "distil_small", "with": {"model": str(tmp_path / "no")}})


def test_a_teacher_that_has_read_more_helps(bench: Bench, tmp_path: Path) -> None:
    """Over three seeds, in bits per byte of target text that neither was trained on, after equal tokens."""
    teacher, _ = trained(bench, tmp_path / "teacher", "next_token", seed=100, steps=150, student=0)
    gains = []
    for seed in range(3):
        bits = []
        for name, objective in (("plain", "next_token"), ("taught", salt(teacher, temperature=1.0, stage=0.5))):
            place = tmp_path / f"{name} {seed}"
            _, facts = trained(bench, place, objective, seed=seed, steps=40, student=seed + 1)
            bits.append(facts["evaluations"][-1]["target"])
        gains.append(bits[0] - bits[1])
    assert min(gains) > 0, gains
    assert sum(gains) / len(gains) > 0.1, gains
