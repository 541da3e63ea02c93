# SPDX-License-Identifier: Apache-2.0
"""What a plan foretells: the numbers by hand, and from earlier runs only where they are of the same kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lect import recipe
from lect.forecast import Known, Row, forecast
from lect.laws import task_ladder

STEPS: list[dict[str, Any]] = [
    {"use": "corpus/read"},
    {"use": "corpus/split", "with": {"test": 0.1, "calibration": 0.2, "least_bytes": 0}},
    {"use": "vocab/trim"},
    {"use": "pretrain/continue", "with": {"tokens": 300_000}},
    {"use": "evaluate/choice"},
]


def known(**changes: Any) -> Known:
    resolved = recipe.resolve({"model": "m", "steps": STEPS})
    sizes = {"body": 100_000_000, "rows": 30_000, "width": 640, "parameters": 119_200_000, "target_bytes": 3_000_000}
    base = Known(
        steps=resolved.steps, **sizes, bytes_per_token=3.0, bits_per_byte=2.0, kept_bytes=3_000_000, matmul_flops=1e12
    )
    return replace(base, **changes)


def rows(what: Known, *runs: Path) -> dict[str, Row]:
    return {row.name: row for row in forecast(what, runs)}


def steps(**changes: Any) -> list[recipe.ResolvedStep]:
    training = {"use": "pretrain/continue", "with": {"tokens": 300_000} | changes}
    return recipe.resolve({"model": "m", "steps": [*STEPS[:3], training, STEPS[4]]}).steps


def test_tokens_and_epochs_by_hand() -> None:
    found = rows(known())
    assert found["tokens"].value == 300_000
    assert found["epochs"].value == pytest.approx(300_000 * 0.75 / (1_000_000 * 0.7))
    often = rows(known(target_bytes=30_000))
    assert often["epochs"].value == pytest.approx(100 * found["epochs"].value)
    assert often["worth of what is read"].value < 0.6 < 1 == pytest.approx(found["worth of what is read"].value)
    assert often["dropout at the end"].value > 0 == found["dropout at the end"].value


def test_minutes_become_tokens_by_the_machines_rate() -> None:
    timed = known(steps=steps(tokens=None, minutes=11.0))
    flops = 6 * 119_200_000
    assert rows(timed)["tokens"].value == pytest.approx((11 * 60 - 60) * 1e12 * 0.45 / flops)
    assert rows(known(steps=steps(tokens=None, minutes=0.01)))["tokens"].value == 10 * 512


def test_laws_stand_beside_the_recipe_and_say_where_they_were_not_studied() -> None:
    found = rows(known())
    rate = found["learning rate"]
    assert rate.recipe == 5e-5 and rate.low < rate.value < rate.high and rate.inside is False
    assert rate.value == pytest.approx(1.79 * 1e8**-0.713 * 3e5**0.307)
    assert found["tokens of an update"].recipe == 512
    assert found["bits it can hold, bits of the text"].value == 2 * 119_200_000
    assert found["bits it can hold, bits of the text"].recipe == 2.0 * 3_000_000
    assert found["worth of related languages"].value is None
    small = rows(known(parameters=20_000_000, target_bytes=4_200_000))["worth of related languages"]
    assert small.inside is True and small.value == 0.33
    studied = rows(known(body=500_000_000, steps=steps(tokens=20_000_000_000)))["learning rate"]
    assert studied.inside is True


def test_a_body_that_is_pruned_while_it_is_trained() -> None:
    assert "worth of a pruned body" not in rows(known())
    sparse = {"use": "prune", "with": {"sparsity": 0.8, "start": 0.25, "end": 0.75}}
    found = rows(known(steps=steps(parameters=sparse)))["worth of a pruned body"]
    assert found.recipe == pytest.approx(0.2 * 100_000_000) and found.inside is True
    assert found.value == pytest.approx(2 * found.recipe, rel=0.01), "up to two times smaller than a dense one as good"


def test_other_mixtures_and_recipes_without_training() -> None:
    unread = known(steps=steps(mixture={"use": "replay", "with": {"share": 0.5}}))
    assert rows(unread)["epochs"].value == pytest.approx(300_000 * 0.5 / 700_000)
    late = {"use": "upsample_late", "with": {"duration": 0.5, "kept_before": 0.4, "kept_late": 0.2}}
    assert rows(known(steps=steps(mixture=late)))["epochs"].value == pytest.approx(300_000 * 0.7 / 700_000, rel=0.01)
    for other in ({"use": "fixed", "with": {"by": "language"}}, "skill_it"):
        found = rows(known(steps=steps(mixture=other)))
        assert found["epochs"].value is None and "dropout at the end" not in found
    named = {"use": "fixed", "with": {"ratio": {"target": 3, "kept": 1}}}
    assert rows(known(steps=steps(mixture=named)))["epochs"].value == rows(known())["epochs"].value
    assert forecast(known(steps=known().steps[:3]), []) == []


def ran(folder: Path, tokens: float, after: float, base: str = "b", body: int = 100_000_000, **other: Any) -> Path:
    """The report of an earlier run, with what the forecast reads of it."""
    knobs = [{"name": s.label, "use": s.use, "knobs": s.values} for s in steps(tokens=int(tokens), evaluations=3)]
    report = {
        "run": {"seed": 0, "inputs": {"model": {"fingerprint": base}, "files": [{"sha256": "t"}, {"sha256": "k"}]}},
        "steps": knobs,
        "size": {"adapted": {"body": body, "embedding": 19_200_000}},
        "target": {"base": {"bits_per_byte": 2.0}, "adapted": {"bits_per_byte": after}},
        "cost": {"trained_tokens": tokens},
        "exams": {"choice": {"adapted": {"accuracy": 1 - after / 3}}},
    }
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report | other), encoding="utf-8")
    return folder


def test_earlier_runs_of_the_same_kind_foretell_bits(tmp_path: Path) -> None:
    me = known(base="b", files=frozenset({"t", "k"}))

    def bits(tokens: float) -> float:
        return 4.0 * (tokens + 1024) ** -0.1

    runs = [ran(tmp_path / str(n), n, bits(n), target=_target(bits(0), bits(n))) for n in (50_000, 100_000)]
    assert rows(me, *runs)["bits per byte"].value == pytest.approx(bits(300_000), rel=1e-3)
    assert rows(me, runs[0])["bits per byte"].value is None
    assert "there are 1" in rows(me, runs[0])["bits per byte"].note
    for other in ({"base": "c"}, {"seed": 1}, {"files": frozenset({"t"})}, {"steps": steps(learning_rate=1e-3)}):
        assert rows(replace(me, **other), *runs)["bits per byte"].value is None, other
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "report.json").write_text("{", encoding="utf-8")
    assert rows(me, *runs, tmp_path / "torn", tmp_path / "none")["bits per byte"].value is not None


def test_runs_of_smaller_models_foretell_the_exam(tmp_path: Path) -> None:
    law = task_ladder.LossLaw(400.0, 60.0, 0.35, 0.4, 0.5)
    me = known(base="large", body=300_000_000, files=frozenset({"t", "k"}))
    runs = []
    for body in (20_000_000, 60_000_000, 100_000_000):
        for tokens in (40_000, 100_000, 250_000):
            after = task_ladder.task_loss(law, body + 19_200_000, tokens)
            runs.append(ran(tmp_path / f"{body}-{tokens}", tokens, after, base=str(body), body=body))
    found = rows(me, *runs)
    expected = task_ladder.task_loss(law, 319_200_000, 300_000)
    assert found["bits per byte by ladder"].value == pytest.approx(expected, rel=0.01)
    assert 0 < found["choice exam"].value < 1
    assert "9 runs" in found["choice exam"].note
    few = rows(me, *runs[:5])
    assert few["choice exam"].value is None and "six or more" in few["choice exam"].note


def _target(before: float, after: float) -> dict[str, Any]:
    return {"base": {"bits_per_byte": before}, "adapted": {"bits_per_byte": after}}
