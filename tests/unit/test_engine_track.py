# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lect.engine import checkpoint, track
from lect.errors import UserError
from lect.method import Run
from lect.registry import build_step
from lect.testing.contract import Bench

STEPS, KEPT, KILLED = 12, 5, 9
KNOBS = {"tokens": 64 * STEPS, "batch_tokens": 64, "max_length": 48, "evaluation_tokens": 64, "evaluations": 2}
KNOBS |= {"checkpoint_seconds": 1e-9, "compile": False, "schedule": {"use": "power", "with": {"highest": 1e-4}}}


class Stop(Exception):
    pass


class Listener:
    def __init__(self, step: float = math.inf) -> None:
        self.step = step

    def say(self, text):
        pass

    gate = say

    def progress(self, done, total, unit, values):
        if unit == "step" and done == self.step:
            raise Stop


def start(place: Path, step: float = math.inf) -> Run:
    for name in ("out", "scratch"):
        (place / name).mkdir(parents=True, exist_ok=True)
    return Run(folder=place / "out", scratch=place / "scratch", logs=place / "logs" / "run", listener=Listener(step))


def killed_and_resumed(bench: Bench, place: Path, monkeypatch, use: str = "pretrain/continue", **knobs) -> Run:
    """A run that is killed after step 9 with a checkpoint of step 5, and goes on to the end."""
    save = checkpoint.save
    step = build_step(use, knobs)
    family = getattr(type(step), "pico_family", "gemma3")
    given = {"base": bench.model(family), "model": bench.model(family), "corpus": bench.corpus("all")}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *a: save(*a) if a[1] <= KEPT else None)
        with pytest.raises(Stop):
            step.apply(start(place, KILLED), **given)
    run = start(place)
    step.apply(run, **given)
    return run


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve of the event files as their own reader gives it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_curves_of_tensorboard_go_on_without_double_points(bench: Bench, tmp_path: Path, monkeypatch) -> None:
    run = killed_and_resumed(bench, tmp_path, monkeypatch, tracker="tensorboard", **KNOBS)
    assert len(list((tmp_path / "logs" / "run").glob("events*"))) == 2
    curves = scalars(tmp_path / "logs" / "run")
    for name in ("loss", "tokens", "gradient_norm", "tokens_per_second", "utilisation", "peak_memory_bytes"):
        assert [step for step, _ in curves[name]] == [*range(1, STEPS + 1)], name
        assert all(value > 0 for _, value in curves[name])
    losses = run.facts["losses"]
    assert [value for _, value in curves["loss"]] == pytest.approx([point["loss"] for point in losses])
    assert [value for _, value in curves["tokens"]] == [point["tokens"] for point in losses]
    for role in ("target", "kept"):
        expected = [(point["step"], pytest.approx(point[role])) for point in run.facts["evaluations"]]
        assert curves[f"bits_per_byte/{role}"] == expected
    assert {name for name in curves if "learning" in name} == {
        f"learning_rate/{kind}" for kind in ("embeddings", "matrices", "vectors")
    }
    for step, rate in curves["learning_rate/matrices"][1:-1]:
        seen = (step - 0.5) * 64
        assert rate == pytest.approx(5e-5 * min(1.0, 64 / 4096 * 4 * seen**-0.51 / 1e-4)), "the power law in tokens"


class Fake(ModuleType):
    """A tracker's package as far as lect calls it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.runs: list[dict] = []
        self.logged: list[tuple[int, dict]] = []
        self.finished = 0

    def init(self, **options):
        self.runs.append(options)

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_services_get_every_point_once(name: str, bench: Bench, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    run = killed_and_resumed(bench, tmp_path, monkeypatch, tracker=name, **KNOBS)
    assert [step for step, _ in fake.logged] == [*range(STEPS + 1)]
    assert [values["loss"] for step, values in fake.logged if step] == [p["loss"] for p in run.facts["losses"]]
    assert fake.finished == 2, "closed when killed, too"
    first, second = fake.runs
    assert first == second and first["resume"] == "allow" and first["project"] == "lect"
    assert first["config"]["learning_rate"] == 5e-5
    assert (first.get("mode"), first.get("id")) == (("offline", first["name"]) if name == "wandb" else (None, None))
    evaluated = [step for step, values in fake.logged if "bits_per_byte/target" in values]
    assert evaluated == [point["step"] for point in run.facts["evaluations"]] == [0, 6, 12]


def test_a_masked_model_is_tracked_by_its_own_measure(bench: Bench, tmp_path: Path, monkeypatch) -> None:
    fake = Fake("trackio")
    monkeypatch.setitem(sys.modules, "trackio", fake)
    knobs = {key: KNOBS[key] for key in KNOBS if key != "compile"}
    killed_and_resumed(bench, tmp_path, monkeypatch, "pretrain/langsamp", tracker="trackio", **knobs)
    assert [step for step, _ in fake.logged] == [*range(STEPS + 1)]
    assert "bits_per_masked_token/target" in fake.logged[0][1] and "learning_rate/tags" in fake.logged[1][1]


def test_the_users_own_environment_decides_whether_wandb_is_offline(tmp_path: Path, monkeypatch) -> None:
    fake = Fake("wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_MODE", "online")
    made = track.opened("wandb", start(tmp_path), {"a": 1, "b": object()})
    made.begin(0)
    assert fake.runs[0]["mode"] == "online" and fake.runs[0]["config"] == {"a": 1}
    assert fake.runs[0]["dir"] == str(tmp_path / "logs" / "run")


def test_a_damaged_state_begins_a_run_of_its_own(tmp_path: Path, monkeypatch) -> None:
    fake = Fake("trackio")
    monkeypatch.setitem(sys.modules, "trackio", fake)
    for harm in (None, "{", json.dumps({"name": "a"})):
        made = track.opened("trackio", start(tmp_path), {})
        if harm is not None:
            (tmp_path / "logs" / "run" / "trackio.json").write_text(harm)
        made.begin(0)
        made.log(0, {"loss": 1.0})
        made.close()
    assert len({options["name"] for options in fake.runs}) == 3 and len(fake.logged) == 3


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_package_that_is_not_there_is_named(name: str, bench: Bench, tmp_path: Path, monkeypatch) -> None:
    for module in [n for n in sys.modules if n.split(".")[0] == name or n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    given = {"base": bench.model(), "model": bench.model(), "corpus": bench.corpus("all")}
    with pytest.raises(UserError, match=rf"tracker: {name} is not installed.*pip install {name}") as caught:
        build_step("pretrain/continue", KNOBS | {"tracker": name}).apply(start(tmp_path), **given)
    assert "\n" not in str(caught.value) and not (tmp_path / "logs").exists()
