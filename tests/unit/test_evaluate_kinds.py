# SPDX-License-Identifier: Apache-2.0
"""How test text becomes windows, words and questions, and how results become a fragment of the report."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.artefacts import Corpus, Document, Model
from lect.method import Run
from lect.stages.evaluate import kinds
from lect.stages.evaluate.bits_per_byte import BitsPerByte
from lect.stages.evaluate.cloze import Cloze
from lect.stages.evaluate.kinds import Question, shuffled, size_of, test_documents, windows, words
from lect.testing import pico

test_documents.__test__ = False  # a function of the kind, not a test


@given(st.text(max_size=300), st.integers(1, 64))
def test_windows_are_the_text(text, size):
    pieces = list(windows(text, size))
    assert "".join(pieces) == text
    assert all(piece and (size_of(piece) <= size or len(piece) == 1) for piece in pieces)


def test_windows_end_before_white_space():
    pieces = list(windows("one two three four five six seven", 12))
    assert pieces[0] == "one two" and all(p.startswith(" ") for p in pieces[1:])
    assert list(windows("数字数字", 6)) == ["数字", "数字"]


@given(st.text(max_size=200))
def test_words_hold_every_letter_and_do_not_overlap(text):
    spans = list(words(text))
    inside = {i for a, b in spans for i in range(a, b)}
    assert sum(b - a for a, b in spans) == len(inside)
    for i, character in enumerate(text):
        if kinds.in_word(character):
            assert i in inside
    assert all(kinds.in_word(text[a]) and kinds.in_word(text[b - 1]) for a, b in spans)


def test_words_of_many_scripts():
    def cut(text):
        return [text[a:b] for a, b in words(text)]

    assert cut("l'eau-de-vie, don't - no.") == ["l'eau-de-vie", "don't", "no"]
    assert cut("हिन्दी में") == ["हिन्दी", "में"]
    assert cut("'quoted' --") == ["quoted"]


@given(st.lists(st.text(max_size=5), unique=True, max_size=20), st.integers(0, 5))
def test_order_depends_on_names_alone(names, seed):
    order = [names[i] for i in shuffled(seed, names)]
    turned = names[::-1]
    assert order == [turned[i] for i in shuffled(seed, turned)]


def _corpus(folder, splits):
    folder.mkdir()
    documents = [Document(id=f"{n}{s}", text=f"text {n} {s}", split=s) for n, s in enumerate(splits)]
    return Corpus.write(folder, documents)


def test_only_the_test_split_is_read(tmp_path):
    chosen = test_documents(_corpus(tmp_path / "a", ["train", "test", "calibration", ""]), "target")
    assert [d.split for d in chosen] == ["test"]
    assert test_documents(_corpus(tmp_path / "b", ["train", "calibration"]), "target") == []
    assert len(test_documents(_corpus(tmp_path / "c", ["", ""]), "target")) == 2


class Listener:
    def __init__(self):
        self.lines, self.steps = [], []

    def say(self, text):
        self.lines.append(text)

    def progress(self, done, total, unit, values):
        self.steps.append((done, total))

    def gate(self, gate):
        self.lines.append(gate.name)


def _run(folder):
    (folder / "out").mkdir(parents=True)
    return Run(folder=folder / "out", scratch=folder, listener=Listener())


def test_one_model_is_measured_once_and_judged_by_no_gate(tmp_path):
    model = pico.model("gemma3", tmp_path / "m")
    corpus = pico.corpus(tmp_path / "c")
    run = _run(tmp_path / "r")
    report = BitsPerByte().apply(run, base=model, model=model, corpus=corpus)
    assert set(report.data) == {"target", "kept"} and set(report.data["target"]) == {"base"}
    assert run.gates == []
    assert run.listener.steps[-1][0] == run.listener.steps[-1][1]


def test_two_models_are_judged(tmp_path):
    base, other = pico.model("gemma3", tmp_path / "a"), pico.model("gemma3", tmp_path / "b", seed=1)
    corpus = pico.corpus(tmp_path / "c")
    run = _run(tmp_path / "r")
    run.limits = {"kept": 0.5}
    part = BitsPerByte().apply(run, base=base, model=other, corpus=corpus).data["target"]
    change = part["difference"]
    assert change["mean"] == pytest.approx(part["adapted"]["bits_per_byte"] - part["base"]["bits_per_byte"])
    assert change["relative"]["mean"] == pytest.approx(change["mean"] / part["base"]["bits_per_byte"])
    assert change["low"] <= change["mean"] <= change["high"]
    assert [(g.name, g.limit) for g in run.gates] == [("target", 0.0), ("kept", 0.5)]
    assert run.gates[0].value == change["relative"]["high"]


class Known(Cloze):
    """An exam whose answers are told beforehand."""

    def questions(self, documents, seed):
        yield from (Question(document=f"d{i % 5}", prompt=str(i), answer="x") for i in range(20))

    def answers(self, reader, questions, tick):
        return [int(q.prompt) < 15 for q in questions]


def test_exam_report(tmp_path):
    exam = Known(items=16)
    questions = exam.material(_run(tmp_path / "r"), pico.corpus(tmp_path / "c"))
    assert len(questions) == 16
    results = {"base": [True] * 4 + [False] * 12, "adapted": [True] * 12 + [False] * 4}
    part = exam.report(_run(tmp_path / "s"), questions, results)["exams"]["cloze"]
    assert part["base"]["accuracy"] == 0.25 and part["adapted"]["items"] == 16
    assert part["base"]["low"] < 0.25 < part["base"]["high"]
    assert part["difference"]["mean"] == 0.5


def test_an_exam_without_questions_loads_no_model_and_says_so(tmp_path):
    corpus = _corpus(tmp_path / "c", ["test"])
    run = _run(tmp_path / "r")
    nowhere = Model(tmp_path / "missing")
    report = Cloze().apply(run, base=nowhere, model=nowhere, corpus=corpus)
    assert report.data == {"exams": {}}
    assert "no question" in run.listener.lines[0]
