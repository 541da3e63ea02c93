# SPDX-License-Identifier: Apache-2.0
"""Every recipe in the repository resolves; the tiny ones run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lect import choice, plan, recipe, registry, runner
from lect.testing import pico

RECIPES = sorted(Path(__file__).parents[2].glob("recipes/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_resolves_and_its_steps_are_built(path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "lect", "check", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "holds" in done.stdout


def test_the_main_recipe_is_what_adapt_decides_on() -> None:
    main = recipe.parse((RECIPES[0].parent / "adapt.yaml").read_text())
    decided, _ = plan._decide({"minutes": 10}, _sizes(), _trim())
    assert [s["use"] for s in main["steps"]] == [s["use"] for s in decided]


def test_initialisers_race_where_there_are_new_tokens_and_time() -> None:
    grown = replace(_trim(), new=5, steps=({"use": "vocab/trim"}, {"use": "vocab/extend", "with": {"tokens": 5}}))
    for pick, minutes, races in ((grown, 120, True), (grown, 10, False), (_trim(), 120, False)):
        uses = [s["use"] for s in plan._decide({"minutes": minutes}, _sizes(), pick)[0]]
        assert ("pretrain/race" in uses) is races
        assert ("vocab/extend" in uses) is (pick is grown)


def test_a_file_that_a_knob_names_counts_by_its_bytes(tmp_path: Path) -> None:
    """In a slot's part too; a folder of a model as well, any other text as it is."""
    pico.model("bert", tmp_path / "model")
    rows = [json.dumps({"text": d.text}) for d in pico.messy() if d.role == "target"]
    (tmp_path / "text.jsonl").write_text("\n".join(rows), encoding="utf-8")
    words = [word for row in rows for word in json.loads(row)["text"].split() if word.isalpha()]
    terms = tmp_path / "terms.txt"
    objective = {"use": "masked_terms", "with": {"terms": str(terms)}}
    told = {"tokens": 64, "batch_tokens": 64, "max_length": 48, "evaluation_tokens": 64, "objective": objective}
    raw = {"model": str(tmp_path / "model"), "text": [str(tmp_path / "text.jsonl")], "steps": [{"use": "corpus/read"}]}
    raw["steps"] += [{"use": "corpus/split", "with": {"least_bytes": 0}}, {"use": "pretrain/masked", "with": told}]
    resolved, out = recipe.resolve(raw, "test"), tmp_path / "out"
    for word, folders in ((words[0], 1), (words[0], 1), (words[1], 2)):
        terms.write_text(word, encoding="utf-8")
        runner.run(resolved, out)
        assert len([*out.glob("steps/masked-*")]) == folders
    info = registry.find("pretrain/continue")
    given = {"objective": {"use": "distil_small", "with": {"model": str(tmp_path / "model")}}}
    found = dict(registry.named_files(info, registry.check_values(info, given, "test")))
    assert found == {"objective.model": tmp_path / "model"}


def test_half_of_a_short_run_stands_still() -> None:
    for budget, half in (({"minutes": 3}, True), ({"minutes": 3.5}, False), ({"tokens": 20_000}, True)):
        steps, why = plan._decide(budget, _sizes(), _trim())
        knobs = next(s["with"] for s in steps if s["use"] == "pretrain/continue")
        assert (knobs.get("parameters") == "half") is half is ("stands still" in why["pretrain/continue"])
        assert registry.build_step("pretrain/continue", knobs)
    steps, _ = plan._decide({"tokens": 40_000}, _sizes(), _trim())
    assert not any("parameters" in step["with"] for step in steps)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_process_gets_a_row_of_an_update(count: int) -> None:
    steps = plan._decide({"minutes": 10} | plan._rows(count), _sizes(), _trim())[0]
    knobs = next(s["with"] for s in steps if s["use"] == "pretrain/continue")
    assert ("row_tokens" in knobs) is (count > 1)
    assert registry.build_step("pretrain/continue", knobs).spread(count) == count


def _sizes() -> plan.Sizes:
    numbers = {"parameters": 10, "embedding_parameters": 5, "rows": 3, "model_bytes": 20, "target_bytes": 9}
    return plan.Sizes(**numbers, kept_bytes=9, bytes_per_token=3.0, matmul_flops=1e9)


def _trim() -> choice.Candidate:
    steps = ({"use": "vocab/trim"},)
    numbers = {"rows": 2, "new": 0, "parameters": 9, "disk_bytes": 18, "bytes_per_token": 3.0, "bits_per_byte": 2.0}
    return choice.Candidate(name="trim", steps=steps, **numbers, head_flops=4.0, speed=1.1, seen=0.0)


def test_tiny_recipe_runs(tmp_path: Path) -> None:
    pico.model("llama", tmp_path / "model")
    for name, role in (("text", "target"), ("kept", "kept")):
        rows = [json.dumps({"text": d.text}) for d in pico.messy() if d.role == role]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    path = RECIPES[0].parent / "tiny.yaml"
    command = [sys.executable, "-m", "lect", "run", path, "--out", "tiny-out", "--set", "continue.tracker=tensorboard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "tiny-out" / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert report["target"]["adapted"]["bits_per_byte"] < report["target"]["base"]["bits_per_byte"]
    (curves,) = (tmp_path / "tiny-out" / "logs").iterdir()
    assert (tmp_path / "tiny-out" / "steps" / curves.name / "step.json").exists(), "one name for step and curves"
    assert list(curves.glob("events*"))
