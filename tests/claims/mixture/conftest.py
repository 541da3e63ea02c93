# SPDX-License-Identifier: Apache-2.0
"""A trained pico model, and what it read row by row."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lect.artefacts import Corpus, Document
from lect.engine.data import Mixed
from lect.method import Run
from lect.testing.contract import Bench

Continue = importlib.import_module("lect.stages.pretrain.continue").Continue
KNOBS = {
    "batch_tokens": 64,
    "max_length": 48,
    "evaluation_tokens": 1000,
    "evaluations": 1,
    "compile": False,
    "learning_rate": 3e-3,
    "embedding_learning_rate": 3e-3,
}


@dataclass(frozen=True)
class Trained:
    """What each row of the run held, and bits per byte of the calibration text at its end, by role."""

    rows: list[list[Document]]
    bits: dict[str, float]
    said: list[str]
    facts: dict[str, Any]

    def share(self, first: int, last: int, of: Callable[[Document], bool]) -> float:
        """The share of the rows from ``first`` up to ``last`` whose documents are ``of`` a kind; a row has one kind."""
        kinds = [{of(document) for document in row} for row in self.rows[first:last]]
        assert all(len(kind) == 1 for kind in kinds), "a row holds documents of two texts"
        return sum(kind == {True} for kind in kinds) / len(kinds)


@pytest.fixture
def trained(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """Train a pico model with a mixture for so many rows, on the pico corpus or on documents of your own."""
    monkeypatch.setattr("lect.machine.matmul_flops", lambda: 1e9)
    batch = Mixed.batch
    seen: dict[int, tuple[str, ...]] = {}

    def noted(self: Mixed, number: int) -> Any:
        made = batch(self, number)
        if self.rows:
            seen[number] = made.documents
        return made

    monkeypatch.setattr(Mixed, "batch", noted)

    def train(mixture: Any, *, rows: int, seed: int = 0, documents: Iterable[Document] = (), **knobs: Any) -> Trained:
        seen.clear()
        place = tmp_path / str(len([*tmp_path.iterdir()]))
        for name in ("out", "scratch", "corpus"):
            (place / name).mkdir(parents=True)
        given = [*documents]
        corpus = Corpus.write(place / "corpus", given) if given else bench.corpus("all")
        by_name = {document.id: document for document in corpus.documents()}
        said: list[str] = []
        run = Run(folder=place / "out", scratch=place / "scratch", seed=seed)
        monkeypatch.setattr(run, "say", said.append)
        model = bench.model("gemma3")
        Continue(**(KNOBS | {"tokens": 64 * rows, "mixture": mixture} | knobs)).apply(
            run, base=model, model=model, corpus=corpus
        )
        assert sorted(seen) == list(range(rows))
        return Trained(
            [[by_name[name] for name in seen[number]] for number in range(rows)],
            run.facts["evaluations"][-1],
            said,
            run.facts,
        )

    return train
