# SPDX-License-Identifier: Apache-2.0
"""The true continuation among four: fair questions, and who is right."""

from __future__ import annotations

import numpy as np

from lect.artefacts import Document
from lect.ops.scoring import Reader
from lect.stages.evaluate.choice import Choice, chosen
from lect.testing import pico


def silent(_):
    pass


def test_questions_are_fair(documents):
    questions = list(Choice().questions(documents, 0))
    texts = {d.id: d.text for d in documents}
    assert len(questions) >= 30
    for q in questions:
        ends = (q.answer, *q.others)
        assert len(set(ends)) == 4
        assert q.prompt + q.answer in texts[q.document]
        assert all(q.prompt + other not in texts[q.document] for other in q.others)
        sizes = [len(end.encode()) for end in ends]
        assert max(sizes) <= 48 and min(sizes) >= 24
        assert all(end.startswith(" ") and not end.startswith("  ") for end in ends)


def test_others_are_from_like_places(documents):
    """A false continuation comes from text that shares words with the beginning, not from anywhere."""
    strangers = [
        Document(
            id=f"s{n}", text=f"{n} Wholly other words stand here, {n} of them, " + "quite unlike the rest of it " * 9
        )
        for n in range(10)
    ]
    questions = [q for q in Choice().questions([*documents, *strangers], 0) if q.document.startswith("doc")]
    assert not any("unlike" in other for q in questions for other in q.others)


def test_same_questions_whatever_the_order(documents):
    one = list(Choice().questions(documents, 3))
    other = list(Choice().questions(documents[::-1], 3))
    assert [(q.prompt, q.answer) for q in one] == [(q.prompt, q.answer) for q in other]
    assert one != list(Choice().questions(documents, 4))


def test_too_little_text_gives_no_question():
    assert list(Choice().questions([Document(id="d", text="short")], 0)) == []
    assert list(Choice().questions([], 0)) == []


def test_who_knows_is_right_always(oracle, documents):
    questions = list(Choice().questions(documents, 0))
    assert np.mean(Choice().answers(oracle, questions, silent)) == 1.0


def test_who_knows_nothing_is_right_in_a_quarter(ignorant, documents):
    """Equal costs a byte are told apart by a fixed draw; a pool of many questions shows its share."""
    many = [q for seed in range(6) for q in Choice(prompt_bytes=64 + 8 * seed).questions(documents, seed)]
    assert len(many) > 200
    assert 0.15 < np.mean(Choice().answers(ignorant, many, silent)) < 0.35
    draws = [chosen(np.ones(4), str(n)) for n in range(2000)]
    assert all(0.21 < draws.count(k) / 2000 < 0.29 for k in range(4))


def test_score_is_the_probability_of_the_continuation(documents):
    """Four costs differ as the bits of the four whole strings do, whatever of the beginning they share."""
    live, tokenizer = pico.build("qwen3")
    reader = Reader(live=live, tokenizer=tokenizer)
    questions = list(Choice().questions(documents, 0))[:10]
    ticks = []
    costs = Choice().costs(reader, questions, ticks.append)
    assert costs.shape == (10, 4) and sum(ticks) == 40
    for q, row in zip(questions, costs, strict=True):
        ends = (q.answer, *q.others)
        whole = [reader.bits([reader.start + reader.encode([q.prompt + end])[0]], [1])[0].sum() for end in ends]
        part = row * np.array([len(end.encode()) for end in ends])
        np.testing.assert_allclose(part - part[0], np.array(whole) - whole[0], atol=1e-3)
        assert (part > 0).all() and (part < whole).all()
