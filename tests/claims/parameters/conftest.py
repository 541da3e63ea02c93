# SPDX-License-Identifier: Apache-2.0
"""A short run of pretraining on a pico model with a choice of parameters, whole or stopped on the way."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lect.artefacts import Model
from lect.method import Run
from lect.testing.contract import Bench

Continue = importlib.import_module("lect.stages.pretrain.continue").Continue
KNOBS = {
    "batch_tokens": 64,
    "max_length": 48,
    "evaluation_tokens": 200,
    "evaluations": 1,
    "compile": False,
    "learning_rate": 3e-3,
    "embedding_learning_rate": 3e-3,
}
Trained = Callable[..., tuple[Model, Run]]


@pytest.fixture
def trained(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Train for so many steps; ``stops`` are steps after which the run is broken off and begun again."""
    monkeypatch.setattr("lect.machine.matmul_flops", lambda: 1e9)

    def train(
        parameters: Any, *, steps: int, seed: int = 0, family: str = "gemma3", stops: tuple[int, ...] = (), **knobs: Any
    ) -> tuple[Model, Run]:
        place = tmp_path / str(len([*tmp_path.iterdir()]))
        (place / "scratch").mkdir(parents=True)
        model = bench.model(family)
        for stop in (*stops, None):
            out = place / f"out-{stop}"
            out.mkdir()
            run = Run(folder=out, scratch=place / "scratch", seed=seed)

            def progress(done: float, *_: Any, stop: int | None = stop, **__: Any) -> None:
                if done == stop:
                    raise KeyboardInterrupt

            monkeypatch.setattr(run, "progress", progress)
            step = Continue(**(KNOBS | {"tokens": 64 * steps, "parameters": parameters} | knobs))
            try:
                made = step.apply(run, base=model, model=model, corpus=bench.corpus("all"))
            except KeyboardInterrupt:
                continue
        assert all(gate.passed for gate in run.gates)
        return made, run

    return train
