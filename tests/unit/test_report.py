# SPDX-License-Identifier: Apache-2.0
"""The page and the table: whole, self-contained, readable, honest about what is missing, never broken by a text."""

from __future__ import annotations

import copy
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from lect import report
from lect.report import charts
from lect.report.page import HERE
from lect.report.shape import fit
from report_fixture import SAMPLES, drawn_once, fragment, gate, record, step, training, write_run

__all__ = ["drawn_once"]

VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}
HOSTILE = (
    '</style></script><script>alert(1)</script><img src=x onerror="alert(2)"> \' " & {{ 7 * 7 }} [bold]\u202e\ud800'
)


class Page(HTMLParser):
    """Reads a page, keeps its elements and text, and refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.faults: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.faults.append(f"</{tag}> closes {self.open[-1:]}")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def made(folder: Path, data: dict[str, Any] | None = None, measured: dict[str, Any] | None = None) -> Page:
    report.build(write_run(folder, data, measured))
    return checked((folder / "report.html").read_text(encoding="utf-8"))


def checked(html: str) -> Page:
    """A page that nests, loads nothing and runs nothing."""
    page = Page(html)
    assert page.faults == []
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "image", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "srcset", "href", "xlink:href", "action", "data"), (tag, name)
            assert "http" not in (value or "") or name in ("content", "http-equiv"), (tag, name, value)
    css = (HERE / "page.css").read_text(encoding="utf-8")
    assert "url(" not in css and "@import" not in css
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return made(tmp_path_factory.mktemp("run"))


def test_says_the_verdict_in_one_sentence(page: Page) -> None:
    sentence = (
        "The adapted model is 53.8 % smaller, writes 1.76 times as fast and needs 33.9 % fewer bits per byte on your "
        "text; kept text changed by \N{MINUS SIGN}1.2 % (interval up to \N{MINUS SIGN}0.72 %, "
        "within the budget of +3.0 %)."
    )
    assert sentence in page.text


def test_shows_every_section(page: Page) -> None:
    titles = [
        "Pass",
        "Gates",
        "Base against adapted",
        "Training",
        "Where the parameters went",
        "Vocabulary",
        "Corpus",
        "Sample continuations",
        "Plan against fact",
        "Provenance",
        "What was not measured",
    ]
    found = [page.text.find(title) for title in titles]
    assert -1 not in found
    for words in (
        SAMPLES[0]["adapted"].strip(),
        "1,204",
        "bad line: not JSON",
        "13 min 11 s",
        "a1" * 32,
        "Gemma Terms of Use",
        "torch 2.13.0",
    ):
        assert words in page.text.replace("\N{NO-BREAK SPACE}", " "), words
    assert sum(tag == "svg" for tag, _ in page.elements) == 8  # four charts, wide and narrow


def test_is_accessible(page: Page) -> None:
    tags = dict(page.elements[:1])
    assert tags["html"]["lang"] == "en"
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        if tag == "th":
            assert attributes.get("scope"), attributes
        if attributes.get("role") == "img":
            assert len(attributes.get("aria-label") or "") > 20
        if tag == "section":
            assert attributes["aria-labelledby"] in ids
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def luminance(colour: str) -> float:
    colour = colour.lstrip("#")
    colour = "".join(c * 2 for c in colour) if len(colour) == 3 else colour
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_colour_has_enough_contrast_in_every_theme() -> None:
    css = (HERE / "page.css").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r":root \{([^}]*)\}", css)]
    assert len(themes) == 3
    for theme in themes:
        for back in ("page", "raised", "tint", "bad-tint"):
            for ink in ("muted", "text", "strong", "accent", "bad"):
                light, dark = sorted((luminance(theme[ink]), luminance(theme[back])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, back, theme[ink], theme[back])


def test_every_colour_of_a_chart_follows_the_theme(page: Page) -> None:
    css = (HERE / "page.css").read_text(encoding="utf-8")
    used = {
        (name, value)
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("fill", "stroke") and value not in (None, "none", "transparent")
    }
    assert len(used) > 5
    for name, value in used:
        assert f'.chart [{name}="{value}"]' in css, (name, value)


def hostile(value: Any) -> Any:
    """Every text in a value replaced by a hostile one; names of keys that lect itself writes stay."""
    if isinstance(value, dict):
        return {k: hostile(v) for k, v in value.items()} | ({HOSTILE: 3} if "exact copy" in value else {})
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    data = hostile(record())
    data["versions"] = {HOSTILE: HOSTILE}
    data["steps"][0]["knobs"] = {HOSTILE: HOSTILE}
    for s, true in zip(data["steps"], record()["steps"], strict=True):
        s["folder"] = true["folder"]
    page = made(tmp_path, data, hostile(fragment()))
    shown = HOSTILE.replace("\ud800", "?")
    assert page.text.count("<script>alert(1)</script>") > 20
    assert page.text.count(shown) > 20
    assert "49" not in page.text.replace(shown, "")[:400]


@pytest.mark.parametrize("absent", list(record()))
def test_any_part_of_the_record_may_be_absent(tmp_path: Path, absent: str) -> None:
    data = record()
    del data[absent]
    made(tmp_path, data)


@pytest.mark.parametrize("absent", list(fragment()))
def test_any_measurement_may_be_absent(tmp_path: Path, absent: str) -> None:
    measured = fragment()
    del measured[absent]
    page = made(tmp_path, record(), measured)
    gone = {
        "target": "Bits per byte of base and adapted model on your text.",
        "kept": "Bits per byte of base and adapted model on kept text.",
        "exams": "The exam completing the last word.",
        "size": "Parameters of base and adapted model.",
        "speed": "Decoding speed of base and adapted model.",
        "memory": "Peak memory of the adapted model.",
        "samples": "Sample continuations.",
    }
    assert gone[absent] in page.text.partition("What was not measured")[2]


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}", encoding="utf-8")
    report.build(tmp_path)
    page = checked((tmp_path / "report.html").read_text(encoding="utf-8"))
    for words in (
        "Fail",
        "did not come to its end",
        "This run had no gate.",
        "No model was compared",
        "No step of this run trained.",
        "Parameters were not counted.",
        "The vocabulary was not trimmed",
        "No step of this run counted documents.",
        "No samples were written.",
        "No step was recorded.",
        "No licence was recorded",
    ):
        assert words in page.text, words
    figures = page.text.partition("What was not measured")[0]
    assert not re.search(r"\d", figures), "a figure without a measurement"


def test_a_broken_gate_is_named_first(tmp_path: Path) -> None:
    data = record()
    measured = next(s for s in data["steps"] if s["use"] == "evaluate/bits_per_byte")
    measured["gates"] = [gate("target", -0.3, 0.0), gate("kept", 0.0412, 0.03)]
    data["status"] = "broken gate"
    page = made(tmp_path, data)
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Fail The gate “kept” is broken: +4.1 % where at most +3.0 % is allowed." in text
    assert "(interval up to +4.1 %, outside the budget of +3.0 %)" in text
    assert text.index("in bits per byte on kept test text") < text.index("in bits per byte on target test text")


def test_a_difference_inside_the_noise_is_not_called_better(tmp_path: Path) -> None:
    measured = fragment()
    measured["kept"]["difference"] |= {"low": -0.02, "high": 0.004}
    assert "unclear" not in made(tmp_path / "a").text
    assert "unclear" in made(tmp_path / "b", record(), measured).text


def test_counts_that_do_not_add_up_are_said(tmp_path: Path) -> None:
    data = record()
    data["steps"][1]["facts"]["dropped"]["exact copy"] -= 4
    assert "do not add up: read minus dropped minus kept leaves 4" in made(tmp_path, data).text


def test_one_model_alone(tmp_path: Path) -> None:
    measured = {"target": {"base": {"bits_per_byte": 1.5, "bytes_per_token": 3.0}}}
    data = record() | {"verb": "eval", "steps": [step("evaluate/bits_per_byte", 3)]}
    page = made(tmp_path, data, measured)
    assert "1.500 not measured" in page.text
    assert "adapted" not in page.text.partition("Pass")[0]


def test_an_untied_head_is_shown_by_itself(tmp_path: Path) -> None:
    measured = fragment()
    for model in measured["size"].values():
        model["head"] = model["embedding"]
    assert "The head shares the rows of the embedding." in made(tmp_path / "a").text
    page = made(tmp_path / "b", record(), measured)
    assert "The head shares" not in page.text
    assert "embedding head body" in page.text


def test_a_single_point_is_drawn(tmp_path: Path) -> None:
    data = record()
    trained = next(s for s in data["steps"] if s["use"] == "pretrain/continue")
    trained["facts"] |= {"losses": training()["losses"][:1], "evaluations": training()["evaluations"][:1]}
    made(tmp_path, data)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for k, v in below for p in places(v, (*path, k)))]


def small() -> dict[str, Any]:
    data = record()
    trained = next(s for s in data["steps"] if s["use"] == "pretrain/continue")
    trained["facts"]["losses"] = trained["facts"]["losses"][:3]
    trained["facts"]["evaluations"] = trained["facts"]["evaluations"][:2]
    trim = next(s for s in data["steps"] if s["use"] == "vocab/trim")
    trim["facts"]["unseen"]["curve"] = trim["facts"]["unseen"]["curve"][:2]
    data["steps"][-1]["facts"] = {"report": fragment()}
    return data


PLACES = [p for p in places(small()) if p]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=5), x, max_size=2),
    max_leaves=3,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=6))
def test_no_record_breaks_the_report(tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    data: Any = small()
    for path, value in changes:
        place = data
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    made(tmp_path, data)
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=lambda c: pytest.fail(c))


@given(JSON, JSON)
def test_fit_keeps_what_fits_and_only_that(a: Any, b: Any) -> None:
    fitted = fit({"x": "number", "y": ["text"], "z": {"w": "flag"}}, {"x": a, "y": [a, b], "z": b, "free": a})
    assert set(fitted) == {"x", "y", "z", "free"}
    assert fitted["x"] is None or (isinstance(fitted["x"], int | float) and not isinstance(fitted["x"], bool))
    assert all(isinstance(word, str) for word in fitted["y"])
    assert isinstance(fitted["z"]["w"], bool | None)
    assert fit({"x": "number"}, fitted)["x"] == fitted["x"]


def test_charts_fit_a_phone(page: Page) -> None:
    boxes = [a["viewbox"] for tag, a in page.elements if tag == "svg"]
    widths = {float((box or "").split()[2]) for box in boxes}
    assert widths <= {charts.WIDE, charts.NARROW}


def test_table_is_short_and_says_the_same(tmp_path: Path) -> None:
    data = report.build(write_run(tmp_path))
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table(data))
    lines = console.export_text()
    console.file.close()
    assert "53.8 % smaller" in lines.replace("\N{NO-BREAK SPACE}", " ")
    assert "your text, bits per byte" in lines
    assert "1.594" in lines
    assert len(lines.splitlines()) < 24


def test_table_of_an_empty_report_and_of_hostile_gates() -> None:
    console = Console(width=80, record=True, quiet=True)
    with console.capture():
        console.print(report.table({}))
        console.print(report.table({"gates": [{"name": "[bold]a[/x]", "limit": 0, "value": 1, "pass": False}]}))


def test_shows_the_vocabularies_that_were_tried_and_the_pick(tmp_path: Path) -> None:
    data = record()
    row = {"rows": 262144, "new": 0, "bytes_per_token": 2.87, "bits_per_byte": 1.9, "speed": 1.0, "seen": 0.0}
    data["plan"] = dict(data.get("plan") or {}) | {
        "vocabularies": [
            {"name": "keep", **row, "picked": False},
            {"name": "extend 1,024", **row, "rows": 30464, "new": 1024, "speed": 3.05, "seen": 42.4, "picked": True},
        ]
    }
    text = made(tmp_path, data).text
    assert "keep 262,144 2.87 1.00 1.900 \N{EN DASH}" in text
    assert "extend 1,024 picked 30,464 2.87 3.05 1.900 42" in text


def test_two_steps_that_change_the_vocabulary_are_told_as_one(tmp_path: Path) -> None:
    def facts(before: int, after: int, tokens: tuple[float, float], split: int, new: int) -> dict[str, Any]:
        test = {"documents": 9, "resegmented_documents": split, "resegmented_tokens": 0.1}
        pair = {"before": tokens[0], "after": tokens[1]}
        return {
            "rows": {"before": before, "after": after},
            "parameters": {"before": before * 10, "after": after * 10},
            "new": {"tokens": new} if new else {},
            "text": {"target": {"bytes_per_token": tokens[0], "test": test | {"bytes_per_token": pair}}},
        }

    data = record()
    data["steps"] = [
        step("vocab/trim", 1, facts=facts(1000, 300, (2.9, 2.8), 1, 0)),
        step("vocab/extend", 1, facts=facts(300, 400, (2.8, 4.5), 8, 100)),
    ]
    folder = write_run(tmp_path, data, {})
    report.build(folder)
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))["vocabulary"]
    assert found["rows"] == {"before": 1000, "after": 400}
    assert found["parameters"] == {"before": 10000, "after": 4000}
    assert found["text"]["target"]["test"]["bytes_per_token"] == {"before": 2.9, "after": 4.5}
    text = checked((folder / "report.html").read_text(encoding="utf-8")).text
    assert "400 rows take the place of 1,000; 100 of them are new." in text
    assert "8 of 9 2.900 4.500" in text
