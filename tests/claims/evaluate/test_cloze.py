# SPDX-License-Identifier: Apache-2.0
"""The last word of a passage: what is asked, and who is right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.ops.scoring import Reader
from lect.stages.evaluate.cloze import Cloze, commonest, first_word, settled
from lect.testing import pico


def silent(_):
    pass


def test_worked_example():
    """The word asked for closes a sentence, stands in an earlier one, and is no common word."""
    text = (
        "The captain saw the harbour light. She turned the wheel and steered the boat to the harbour. All slept well."
    )
    questions = list(Cloze(common=0.2).questions([Document(id="d", text=text)], 0))
    assert [(q.prompt, q.answer) for q in questions] == [
        ("The captain saw the harbour light. She turned the wheel and steered the boat to the", "harbour")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "The captain left. She turned the wheel and steered the boat to the harbour.",  # not seen before
        "All slept. The harbour is old and nobody steered the boat to the harbour.",  # seen in the last sentence alone
        "The harbour light. They saw harbour",  # no third word before it
        "A sea of salt. She saw far and wide the sea.",  # too short
        "See README.file first. Then they all went and opened README.md now",  # no end of a sentence
    ],
)
def test_not_asked(text):
    assert list(Cloze(common=0.0).questions([Document(id="d", text=text)], 0)) == []


def test_everything_asked_is_determined(documents):
    questions = list(Cloze().questions(documents, 0))
    texts = {d.id: d.text for d in documents}
    assert len(questions) >= 40
    for q in questions:
        assert q.prompt + " " + q.answer in texts[q.document]
        assert q.answer.casefold() in q.prompt.casefold() and not q.prompt.endswith(" ")
        assert len(q.prompt.encode()) <= 384


def test_who_knows_is_right_always(oracle, documents):
    questions = list(Cloze().questions(documents, 0))
    assert all(Cloze().answers(oracle, questions, silent))


def test_who_knows_nothing_is_right_never(ignorant, documents):
    questions = list(Cloze().questions(documents, 0))
    assert not any(Cloze().answers(ignorant, questions, silent))


def test_a_real_model_is_judged_by_its_first_whole_word(documents):
    live, tokenizer = pico.build("qwen3", seed=2)
    reader = Reader(live=live, tokenizer=tokenizer)
    asked = list(Cloze().questions(documents, 0))[:8]
    free = [first_word(text) for text in reader.greedy([q.prompt for q in asked], lambda i, text: False, 16)]
    right = [replace(q, answer=word) for q, word in zip(asked, free, strict=True) if word]
    wrong = [replace(q, answer=q.answer + "x") for q in right]
    ticks = []
    assert len(right) > 3 and all(Cloze().answers(reader, right, ticks.append))
    assert not any(Cloze().answers(reader, wrong, silent))
    assert sum(ticks) == len(right)


@given(st.text(max_size=30), st.text(alphabet="abcdeé'-", min_size=1, max_size=8))
def test_what_is_settled_stays(text, answer):
    """However the continuation goes on after it is settled, the verdict is the same."""
    for n in range(len(text)):
        if settled(text[:n], answer):
            assert (first_word(text[:n]) == answer) == (first_word(text) == answer)
            break


def test_first_word():
    assert first_word("\n menua. Gero") == "menua"
    assert first_word(" don't go") == "don't"
    assert first_word("...") == first_word("") == ""
    assert not settled(" men", "menua") and settled(" men.", "menua") and settled(" mena", "menua")
    assert not settled(" menua", "menua") and settled(" menua.", "menua")


def test_commonest():
    counts = Counter({"the": 5, "a": 3, "cat": 1, "sat": 1})
    assert commonest(counts, 0.5) == {"the"}
    assert commonest(counts, 0.8) == {"the", "a"}
    assert commonest(counts, 0.0) == set()
