# SPDX-License-Identifier: Apache-2.0
"""Equation against a loop with numbers worked by hand; edges of a real graph; laps and resuming leave no trace."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Corpus, Document
from lect.engine.loop import Loop
from lect.engine.step import Step
from lect.method import Run
from lect.parts.mixture.kind import Feedback
from lect.parts.mixture.skill_it import SkillIt
from lect.registry import build_step
from lect.testing import pico
from lect.testing.contract import Bench
from lect.testing.new_tokens import documents

EU, EN = "target eu", "kept en"
BEFORE = {EU: 4.0, EN: 2.0}
LAPS = {EU: {EU: 2.0, EN: 2.5}, EN: {EU: 3.0, EN: 1.5}}
"""A lap on Basque halves its own loss and harms English: A = 0.5 and 0; one on English takes a quarter of both."""


def spec(**knobs: Any) -> dict[str, Any]:
    return {"use": "skill_it", "with": knobs}


def share(found: dict[str, float]) -> float:
    """The first text's share of the two."""
    return found[EU] / (found[EU] + found[EN])


def test_worked_by_hand() -> None:
    """Basque: 0.5 x 1 + 0 x 1 = 0.5 at first, English: 0.25 + 0.25 = 0.5; then Basque's loss falls less."""
    mixture = SkillIt(eta=1.0, window=2)
    assert mixture.graph(Feedback((BEFORE,), LAPS)) == {EU: {EU: 0.5, EN: 0.0}, EN: {EU: 0.25, EN: 0.25}}
    assert share(mixture.shares(BEFORE, 0.0, Feedback((BEFORE,), LAPS))) == pytest.approx(0.5)
    second = (BEFORE, {EU: 3.0, EN: 1.0})  # sums of the last two: 7 and 3; powers 3.5 and 1.75 + 0.75
    assert share(mixture.shares(BEFORE, 0.3, Feedback(second, LAPS))) == pytest.approx(1 / (1 + math.exp(2.5 - 3.5)))
    third = (*second, {EU: 1.0, EN: 1.0})  # the first is out of the window: 4 and 2; powers 2 and 1 + 0.5
    assert share(mixture.shares(BEFORE, 0.6, Feedback(third, LAPS))) == pytest.approx(1 / (1 + math.exp(1.5 - 2)))
    only = SkillIt(eta=1.0, window=2, goal="target")  # English counts for what it does for Basque alone: 4 x 0.25
    assert share(only.shares(BEFORE, 0.6, Feedback(third, LAPS))) == pytest.approx(1 / (1 + math.exp(1 - 2)))


LOSS = st.floats(0.01, 12)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.floats(0, 5), st.data())
def test_equation(k: int, times: int, window: int, eta: float, data: st.DataObject) -> None:
    """Algorithm 1 in plain loops, for any number of skills and measurements."""
    names = [f"target {n}" for n in range(k)]
    draw = lambda: {name: data.draw(LOSS) for name in names}  # noqa: E731
    losses, laps = tuple(draw() for _ in range(times)), {name: draw() for name in names}
    found = SkillIt(eta=eta, window=window).shares(dict.fromkeys(names, 9), 0.5, Feedback(losses, laps))
    expected = []
    for i in names:
        power = 0.0
        for j in names:
            edge = (losses[0][j] - laps[i][j]) / losses[0][j]
            if edge > 0 and times == 1:
                power += eta * edge
            elif edge > 0:
                for tau in range(max(0, times - window), times):
                    power += eta * edge * losses[tau][j]
        expected.append(power)
    for i, mine in zip(names, expected, strict=True):
        below = 0.0
        for other in expected:
            below += math.exp(other - mine)
        assert found[i] / sum(found.values()) == pytest.approx(1 / below, abs=1e-9)


def test_without_laps_or_eta_all_texts_are_alike() -> None:
    assert len(set(SkillIt().shares(BEFORE, 0.0, Feedback()).values())) == 1
    assert len(set(SkillIt(eta=0).shares(BEFORE, 0.5, Feedback((BEFORE, LAPS[EU]), LAPS)).values())) == 1


def skills() -> Iterator[Document]:
    """Basque, the same Basque once more, Spanish, and kept English, told apart by their sources."""
    for document in pico.documents():
        yield document
        if document.role == "target":
            name = hashlib.sha256(f"twin {document.id}".encode()).hexdigest()
            yield replace(document, id=name, source="twin.txt")
    for document in documents():
        if document.role == "target":
            yield replace(document, source="spanish.txt")


def test_a_twin_is_a_strong_edge_and_a_stranger_a_weak_one(trained) -> None:
    made = trained(spec(by="source", lap_steps=10, measurements=4), rows=20, documents=skills())
    facts = made.facts
    points = facts["measurements"]
    assert [point["step"] for point in points] == [0, 5, 10, 15]
    losses = tuple(point["losses"] for point in points)
    graph = SkillIt().graph(Feedback(losses, facts["laps"]["losses"]))
    one, twin, other, kept = "target target.txt", "target twin.txt", "target spanish.txt", "kept kept.txt"
    assert set(graph) == {one, twin, other, kept}
    assert graph[one][twin] == pytest.approx(graph[one][one], rel=0.05)
    for a, b in ((one, twin), (twin, one)):
        for stranger in (other, kept):
            assert graph[a][b] > 1.5 * graph[a][stranger]
    assert facts["laps"]["tokens"] > 4 * 10 * 32
    assert facts["trained_tokens"] <= 20 * 64
    assert any(line.startswith("mixture: the laps read") for line in made.said)
    for n, point in enumerate(points):
        shares = SkillIt().shares(dict.fromkeys(graph, 1), 0, Feedback(losses[: n + 1], facts["laps"]["losses"]))
        whole = sum(shares.values())
        assert point["shares"] == pytest.approx({name: value / whole for name, value in shares.items()})


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_loss_ends_below_that_of_equal_shares(seed: int, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one text is another's twin, at equal tokens of the run; strangers pay for it."""
    go, ends = Loop.go, []

    def watched(self: Loop, *given: Any) -> Any:
        record = go(self, *given)
        ends.append(self._losses())
        return record

    monkeypatch.setattr(Loop, "go", watched)
    for eta in (0.0, 0.5):
        trained(spec(by="source", eta=eta, lap_steps=10), rows=60, seed=seed, documents=skills())
    alike, found = (sum(end.values()) / len(end) for end in ends)
    assert found < alike - 0.015


class Killed(Exception):
    pass


def run_it(bench: Bench, place: Path, mixture: Any, steps: int = 8, **more: Any) -> tuple[str, Run]:
    """The sum of the weights after some steps that save every time, in a folder that may hold an earlier run."""
    for name in ("out", "scratch", "corpus"):
        (place / name).mkdir(parents=True, exist_ok=True)
    corpus = Corpus.write(place / "corpus", pico.documents())
    run = Run(folder=place / "out", scratch=place / "scratch")
    knobs = {"batch_tokens": 64, "max_length": 48, "compile": False, "evaluation_tokens": 200, "mixture": mixture}
    knobs |= {
        "tokens": 64 * steps,
        "learning_rate": 3e-3,
        "embedding_learning_rate": 3e-3,
        "checkpoint_seconds": 1e-3,
    } | more
    model = bench.model("gemma3")
    made = build_step("pretrain/continue", knobs).apply(run, base=model, model=model, corpus=corpus)
    return hashlib.sha256((made.folder / "model.safetensors").read_bytes()).hexdigest(), run


@pytest.mark.parametrize("parameters", ["full", "sparse_then_dense"])
def test_laps_leave_no_trace_in_the_weights(parameters: str, bench: Bench, tmp_path: Path) -> None:
    """With eta 0 the weights are those of equal shares, to the byte; also where rounds make masks."""
    equal = {"use": "fixed", "with": {"by": "role"}}
    alike, _ = run_it(bench, tmp_path / "fixed", equal, parameters=parameters)
    found, run = run_it(bench, tmp_path / "skills", spec(by="role", eta=0.0, lap_steps=3), parameters=parameters)
    assert found == alike
    moved = [run.facts["laps"]["losses"][name][name] for name in ("target", "kept")]
    before = run.facts["measurements"][0]["losses"]
    assert moved[0] < before["target"] and moved[1] < before["kept"]


def test_killed_anywhere_it_lays_the_same_rows(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in a lap, then after the third step, at a measurement, and once more: the same bytes as in one go."""
    mixture = spec(by="role", eta=5.0, lap_steps=3, measurements=4, window=2)
    whole, run = run_it(bench, tmp_path / "whole", mixture)
    shares = [round(point["shares"]["target"], 3) for point in run.facts["measurements"]]
    assert len(shares) == 4 and len(set(shares)) > 2, "the mixture stands still, so this proves nothing"
    update, laps, measure = Step.update, Loop.laps, Loop._measure
    inside = []
    calls = {"lap": 0, "step": 0, "measure": 0}

    def dying(kind: str, last: int) -> None:
        calls[kind] += 1
        if calls[kind] == last:
            raise Killed

    def dying_update(self: Step, batches: Any, count: int, at: Any) -> float:
        if at is not None:
            dying("lap" if inside else "step", 4)
        return update(self, batches, count, at)

    def watched_laps(self: Loop) -> Any:
        inside.append(True)
        try:
            return laps(self)
        finally:
            inside.clear()

    def dying_measure(self: Loop, marks: Any) -> None:
        if self.record.step == 6:
            dying("measure", 1)
        measure(self, marks)

    monkeypatch.setattr(Step, "update", dying_update)
    monkeypatch.setattr(Loop, "laps", watched_laps)
    monkeypatch.setattr(Loop, "_measure", dying_measure)
    lived = []
    for _ in range(3):
        with pytest.raises(Killed):
            run_it(bench, tmp_path / "killed", mixture)
        lived.append(dict(calls))
    assert lived[0] == {"lap": 4, "step": 0, "measure": 0} and lived[1]["step"] == 4 and lived[2]["measure"] == 1
    found, again = run_it(bench, tmp_path / "killed", mixture)
    assert found == whole
    assert again.facts["measurements"] == run.facts["measurements"]
    assert again.facts["laps"] == run.facts["laps"]


def test_a_text_without_calibration_is_measured_on_its_own_and_said(trained) -> None:
    given = [d for d in pico.documents() if d.role == "target" or d.split == "train"]
    made = trained(spec(by="role", lap_steps=1, measurements=1), rows=4, documents=given)
    assert any(line.startswith("no kept text for calibration") for line in made.said)
    assert set(made.facts["measurements"][0]["losses"]) == {"target", "kept"}
