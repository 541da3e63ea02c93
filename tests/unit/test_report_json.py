# SPDX-License-Identifier: Apache-2.0
"""The names in ``report.json`` are a promise: they may grow, they never change or go away."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lect import report
from lect.errors import UserError
from report_fixture import drawn_once, fragment, gate, record, step, write_run

__all__ = ["drawn_once"]

BITS = {"bits_per_byte", "bytes_per_token"}
PROMISED: dict[str, Any] = {
    "schema": None,
    "verdict": None,
    "gates": [{"name", "limit", "value", "pass"}],
    "target": {"base": BITS, "adapted": BITS, "difference": {"mean", "low", "high"}},
    "kept": {"base": BITS, "adapted": BITS, "difference": {"mean", "low", "high"}},
    "exams": {"cloze": {"base", "adapted"}, "choice": {"base", "adapted"}},
    "size": {"base": {"parameters", "bytes"}, "adapted": {"parameters", "bytes"}},
    "speed": {
        "base": {"prefill_bytes_per_second", "decode_bytes_per_second"},
        "adapted": {"prefill_bytes_per_second", "decode_bytes_per_second"},
    },
    "cost": {"seconds", "peak_memory_bytes", "trained_tokens", "trained_bytes"},
    "corpus": {"read", "kept", "dropped", "bytes"},
}


def missing(promise: Any, data: Any, where: str = "") -> list[str]:
    if promise is None:
        return []
    if isinstance(promise, list):
        return [m for i, item in enumerate(data) for m in missing(promise[0], item, f"{where}[{i}]")]
    names = set(promise)
    absent = [f"{where}.{name}" for name in names - set(data)]
    below = promise.items() if isinstance(promise, dict) else ()
    return absent + [m for name, part in below if name in data for m in missing(part, data[name], f"{where}.{name}")]


def built(folder: Path, data: dict[str, Any] | None = None, measured: dict[str, Any] | None = None) -> dict[str, Any]:
    return report.build(write_run(folder, data, measured))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, built(folder)


def test_every_promised_name_is_there(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, data = whole
    assert missing(PROMISED, data) == []
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == data


def test_every_promised_name_is_there_when_nothing_was_measured(tmp_path: Path) -> None:
    data = built(tmp_path, {"status": "stopped: KeyboardInterrupt", "steps": []}, {})
    assert missing(PROMISED, data) == []
    assert data["target"]["base"]["bits_per_byte"] is None
    assert data["cost"]["seconds"] is None
    assert data["corpus"]["dropped"] == {}
    assert data["verdict"] == "fail"


def test_promise_would_notice_a_lost_name(whole: tuple[Path, dict[str, Any]]) -> None:
    data = copy.deepcopy(whole[1])
    del data["speed"]["adapted"]["decode_bytes_per_second"]
    assert missing(PROMISED, data) == [".speed.adapted.decode_bytes_per_second"]


def test_figures_are_the_measured_ones(whole: tuple[Path, dict[str, Any]]) -> None:
    data = whole[1]
    for key, value in fragment().items():
        if key == "exams":
            assert data[key]["cloze"]["base"] == value["cloze"]["base"]
        else:
            assert data[key] == value, key
    assert data["schema"] == 1
    assert data["verdict"] == "pass"
    assert data["cost"]["trained_tokens"] == 440 * 2048
    assert data["cost"]["trained_bytes"] == 2_504_113
    assert data["cost"]["peak_memory_bytes"] == 3_120_000_000
    assert data["cost"]["seconds"] == 791.2
    assert data["unmeasured"]


def test_funnel_adds_up(whole: tuple[Path, dict[str, Any]]) -> None:
    corpus = whole[1]["corpus"]
    assert corpus["read"] == 9_412
    assert corpus["read"] == corpus["kept"] + sum(corpus["dropped"].values())
    assert corpus["dropped"]["exact copy"] == 1_204
    assert set(corpus["roles"]) == {"target", "kept"}


def test_fragments_of_many_steps_are_joined(tmp_path: Path) -> None:
    data = record()
    data["steps"] = [
        step("evaluate/a", 1, facts={"report": {"exams": {"cloze": {"base": {"accuracy": 0.25}}}}}),
        step("evaluate/b", 1, facts={"report": {"exams": {"choice": {"base": {"accuracy": 0.5}}}}}),
        step("evaluate/c", 1, facts={"report": {"exams": {"cloze": {"adapted": {"accuracy": 0.75}}}}}),
    ]
    exams = built(tmp_path, data, {})["exams"]
    assert exams["cloze"]["base"]["accuracy"] == 0.25
    assert exams["cloze"]["adapted"]["accuracy"] == 0.75
    assert exams["choice"]["base"]["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("status", "gates", "verdict"),
    [
        ("done", [gate("kept", 0.03, 0.03)], "pass"),
        ("done", [], "pass"),
        ("done", [gate("kept", 0.031, 0.03)], "fail"),
        ("broken gate", [gate("kept", 0.01, 0.03)], "fail"),
        ("stopped: UserError", [gate("kept", 0.01, 0.03)], "fail"),
        ("done", [{"name": "kept", "limit": 0.03, "value": None}], "fail"),
        (None, [], "fail"),
    ],
)
def test_verdict(tmp_path: Path, status: str | None, gates: list[dict[str, Any]], verdict: str) -> None:
    data = record() | {"status": status, "steps": [step("evaluate/bits_per_byte", 1, gates=gates)]}
    assert built(tmp_path, data)["verdict"] == verdict


def test_numbers_that_are_none_become_null(tmp_path: Path) -> None:
    measured = fragment()
    measured["target"]["adapted"]["bits_per_byte"] = float("nan")
    measured["kept"]["base"]["bits_per_byte"] = "0.9"
    measured["size"] = 5
    data = built(tmp_path, record(), measured)
    assert data["target"]["adapted"]["bits_per_byte"] is None
    assert data["kept"]["base"]["bits_per_byte"] is None
    assert data["size"]["base"]["parameters"] is None
    assert missing(PROMISED, data) == []


def test_steps_that_never_ran_stand_in_the_plan(tmp_path: Path) -> None:
    data = record()
    data["steps"] = data["steps"][:2]
    steps = built(tmp_path, data, {})["steps"]
    assert [s["use"] for s in steps[:3]] == ["corpus/read", "corpus/deduplicate", "corpus/language"]
    assert steps[2]["name"] is None
    assert steps[2]["seconds"] is None
    assert steps[2]["plan"]["seconds"] == 3


def test_what_was_predicted_stands_beside_what_was_measured(tmp_path: Path) -> None:
    data = record()
    rows = [{"name": "tokens", "value": 280_000.0, "unit": "tokens", "note": "by rate", "inside": None}]
    rows += [{"name": "epochs", "value": 0.3, "unit": "epochs", "note": "of the text", "inside": None}]
    rows += [{"name": "bits per byte", "value": None, "unit": "bits", "note": "needs runs", "inside": None}]
    rows += [{"name": "learning rate", "value": 1e-4, "unit": "rate", "note": "a law", "recipe": 5e-5, "inside": False}]
    data["plan"]["forecast"] = rows
    trained = next(s["facts"] for s in data["steps"] if "losses" in s["facts"])
    trained["epochs"] = {"target": 0.25, "kept": 0.1}
    trained["evaluations"][2]["expected"] = 1.75
    made = built(tmp_path, data)
    found = {row["name"]: (row["predicted"], row["measured"]) for row in made["predictions"]}
    assert found == {
        "time": (data["plan"]["seconds"], made["cost"]["seconds"]),
        "memory": (data["plan"]["memory_bytes"], made["cost"]["peak_memory_bytes"]),
        "disk": (data["plan"]["disk_bytes"], sum(s["disk_bytes"] for s in made["steps"] if s["disk_bytes"])),
        "tokens": (280_000, trained["trained_tokens"]),
        "epochs": (0.3, 0.25),
        "bits per byte": (None, 1.594),
        "bits per byte while training": (1.75, trained["evaluations"][-1]["target"]),
    }
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for words in ("Predicted and measured", "What published laws say", "needs runs", "a law", ">280,000<", ">0.300<"):
        assert words in page, words
    assert "Nothing was predicted" not in page
    data["plan"] = None
    assert [row["name"] for row in built(tmp_path, data)["predictions"]] == ["bits per byte while training"]
    del trained["evaluations"][2]["expected"]
    built(tmp_path, data)
    assert "Nothing was predicted" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_no_record_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"record\.json"):
        report.build(tmp_path)
