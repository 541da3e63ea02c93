# SPDX-License-Identifier: Apache-2.0
"""Prompts around texts: what is written, how words are scored, and what a model learns from it."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Corpus, Document, Model
from lect.engine.data import Ends
from lect.errors import UserError
from lect.method import Run
from lect.ops.prompts import Labeller, around
from lect.stages.corpus.kinds import document_id
from lect.stages.corpus.prompted import Prompted, likeliest, read_examples, read_words
from lect.testing import pico
from lect.testing.contract import Bench

TEMPLATE = "{text} It was {label}."


def corpus(place: Path, texts: Sequence[str], split: str = "train", role: str = "target") -> Corpus:
    place.mkdir(parents=True)
    return Corpus.write(place, [Document(id=document_id(role, t), text=t, role=role, split=split) for t in texts])


def run(place: Path, seed: int = 0) -> Run:
    for name in ("out", "scratch"):
        (place / name).mkdir(parents=True)
    return Run(folder=place / "out", scratch=place / "scratch", seed=seed)


def file(place: Path, rows: Sequence[tuple[str, object]]) -> str:
    place.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows), encoding="utf-8")
    return str(place)


def labeller(model: Model, words: Sequence[str], longest: int = 64) -> Labeller:
    live, tokenizer = model.load(), model.tokenizer()
    ends = Ends.of(tokenizer)
    return Labeller.of(live, tokenizer, words, (ends.lead, ends.tail), longest)


@cache
def small() -> Labeller:
    """Prompts of at most 40 tokens."""
    live, tokenizer = pico.build("gemma3")
    ends = Ends.of(tokenizer)
    return Labeller.of(live, tokenizer, ["yes", "no"], (ends.lead, ends.tail), 40)


def test_prompts_as_the_authors_write_them() -> None:
    """Templates of the authors' code, filled in by hand; braces of a text, and doubled ones, are braces."""
    assert "great".join(around("{text} It was {label}.", "A film.")) == "A film. It was great."
    assert "Number".join(around("{label}: {text}", "How far?")) == "Number: How far?"
    assert "x".join(around("{{{text}}} {{label}} {label}", "{label} {text} {")) == "{{label} {text} {} {label} x"


def test_what_is_wrapped(bench: Bench, tmp_path: Path) -> None:
    """Target training text alone; what an example says goes before what the model finds; at most so many."""
    model, shown = bench.model(), [(f"Save {n}.", n % 2) for n in range(8)]
    plain = corpus(tmp_path / "corpus", [text for text, _ in shown])
    others = [d for d in bench.corpus("all").documents() if d.role == "kept" or d.split != "train"]
    (tmp_path / "both").mkdir()
    both = Corpus.write(tmp_path / "both", [*plain.documents(), *others])
    knobs = {"labels": "no: terrible, yes: great", "examples": file(tmp_path / "shown.jsonl", shown), "steps": 0}
    at = run(tmp_path / "run")
    made = [*Prompted(**knobs).apply(at, model, both).documents()]
    assert [d.text for d in made[:8]] == [f"{text} It was {('terrible', 'great')[n]}." for text, n in shown]
    assert made[8:] == others
    assert all(d.id == document_id("target", d.text) for d in made[:8])
    assert at.facts["labels"] == {"terrible": 4, "great": 4}
    some = [
        *Prompted(**knobs, most=3, template="{text} {label}\n---\n{label}:\n\n{text}")
        .apply(run(tmp_path / "few"), model, plain)
        .documents()
    ]
    assert sum(d.text in dict(shown) for d in some) == 5
    ways = {(f"{text} {word}", f"{word}:\n\n{text}") for (text, n) in shown for word in [("terrible", "great")[n]]}
    assert all(d.text in dict(shown) or any(d.text in way for way in ways) for d in some)


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
@pytest.mark.parametrize("template", [TEMPLATE, "{label}: {text}", "So {label}, {text}"])
def test_scores_are_the_probabilities_of_whole_prompts(bench: Bench, family: str, template: str) -> None:
    """Costs of words differ as the negative log-probabilities of their whole prompts do, and have the same slope."""
    found = labeller(bench.model(family), ["cell", "the menu", "x"])
    prompt = around(template, "To save the document, choose Save")
    whole = []
    for word in found.words:
        ids = [*found.ends[0], *found.tokenizer(word.join(prompt), add_special_tokens=False).input_ids, *found.ends[1]]
        with torch.no_grad():
            log_tv = found.live(torch.tensor([ids])).logits[0].log_softmax(-1)
        first = 0 if not found.ends[0] and template.startswith("{label}") else 1
        whole.append(-sum(log_tv[i - 1, ids[i]].item() for i in range(max(1, first), len(ids))))
    costs = found.costs([prompt])[0]
    assert [c - costs[0] for c in costs] == pytest.approx([w - whole[0] for w in whole], abs=1e-3)
    assert [found.nats(r).item() for r in found.readings(prompt)] == pytest.approx(costs, abs=1e-3)


def test_a_masked_model_is_asked_for_the_word_alone(bench: Bench) -> None:
    """The word's own tokens are masked and nothing else, and their log-probabilities at the masks are the score."""
    found = labeller(bench.model("bert"), ["cell", "the menu"])
    prompt = around(TEMPLATE, "To save, choose")
    mask = found.tokenizer.mask_token
    for word, reading, cost in zip(found.words, found.readings(prompt), found.costs([prompt])[0], strict=True):
        pieces = found.tokenizer.tokenize(word)
        expected = found.tokenizer(" ".join([mask] * len(pieces)).join(prompt)).input_ids
        assert reading.ids == expected and reading.targets == found.tokenizer.convert_tokens_to_ids(pieces)
        with torch.no_grad():
            log_tv = found.live(torch.tensor([expected])).logits[0].log_softmax(-1)
        places = [i for i, token in enumerate(expected) if token == found.tokenizer.mask_token_id]
        assert cost == pytest.approx(
            -sum(log_tv[i, t].item() for i, t in zip(places, reading.targets, strict=True)), abs=1e-4
        )


def test_without_examples_the_empty_prompt_is_taken_off() -> None:
    """A word that is likely anyway does not win by that; without a prior it does."""
    assert likeliest([1.0, 2.0], [0.5, 3.0]) == 1
    assert likeliest([1.0, 2.0], [0.0, 0.0]) == 0


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.sampled_from([TEMPLATE, "{label}: {text}"]))
def test_every_character_survives(text: str, template: str) -> None:
    """In one prompt, or in several that each fit; the template is whole around every piece."""
    found = small()
    pieces = found.pieces(template, text)
    assert "".join(pieces) == text
    for piece in pieces:
        for word in found.words:
            prompt = word.join(around(template, piece))
            assert prompt == template.replace("{label}", word).replace("{text}", piece)
            assert len(found.tokenizer(prompt, add_special_tokens=False).input_ids) <= 40 - 2
    if len(pieces) > 1:
        assert len(found.tokenizer(text, add_special_tokens=False).input_ids) > 15


def test_long_texts_are_cut_and_templates_are_not(bench: Bench, tmp_path: Path) -> None:
    """At white space, and into prompts that the training reads as one piece each."""
    text = "Kalkulu-orriko gelaxka bat hautatzeko, egin klik gelaxkan. " * 6
    made = Prompted(labels="yes, no", max_length=48).apply(
        run(tmp_path / "run"), bench.model(), corpus(tmp_path / "c", [text])
    )
    prompts = made.texts()
    assert len(prompts) > 2
    assert "".join(p[: p.rindex(" It was ")] for p in prompts) == text
    assert all(p.endswith((" It was yes.", " It was no.")) for p in prompts)
    assert all(p.startswith(" ") for p in prompts[1:])
    data = importlib.import_module("lect.engine.data")
    frame = importlib.import_module("lect.parts.packing.kind").Frame(48, 48, lead=1, tail=1)
    sizes = data.Encoded.of(bench.model().tokenizer(), [*made.documents()]).starts
    lengths = sizes[1:] - sizes[:-1]
    pieces = importlib.import_module("lect.parts.packing.one_document").OneDocument().cut(lengths, frame)
    assert len(pieces) == len(prompts)


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"template": "It was {label}."}, "has {text} 0 times"),
        ({"template": "{text} It was."}, "has {label} 0 times"),
        ({"template": "{text} {text} {label}"}, "has {text} 2 times"),
        ({"template": "{text} {label}\n---\n{text}"}, "has {label} 0 times"),
        ({"template": "{text} {label} {text_b}"}, "{text_b} is not known here; use {text}, {label}"),
        ({"template": "{text!r} {label}"}, "{text} is not known here; use {text}, {label}"),
        ({"template": "{text} {label"}, "braces that mean themselves"),
        ({}, "is no list of two words"),
        ({"labels": "great"}, "is no list of two words"),
        ({"labels": "great, "}, "is no list of two words"),
        ({"labels": "great, great"}, "twice"),
        ({"labels": "good: great, bad: great"}, "twice"),
        ({"labels": "good: great, good: fine"}, "twice"),
        ({"labels": "good, great", "examples": "no such file"}, "cannot be read"),
        ({"labels": "good, great", "max_length": 8}, "leave no room for a text"),
    ],
)
def test_bad_input_is_one_line(knobs: dict[str, object], line: str, bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError) as found:
        Prompted(**knobs).apply(run(tmp_path), bench.model(), bench.corpus("all"))
    assert line in str(found.value) and "\n" not in str(found.value)


def test_words_that_the_tokenizer_does_not_tell_apart(bench: Bench) -> None:
    with pytest.raises(UserError, match="are the same tokens"):
        labeller(bench.model("bert"), ["Cell", "cell"]).costs([around(TEMPLATE, "a")])


def test_examples_and_their_faults(tmp_path: Path) -> None:
    """A label is a name, a word, or a number; a line without one is named."""
    words = read_words("bad: terrible, good: great")
    rows = [("a", "good"), ("b", "terrible"), ("c", 1), ("d", "0")]
    expected = [("a", "great"), ("b", "terrible"), ("c", "great"), ("d", "terrible")]
    assert read_examples(file(tmp_path / "a", rows), words) == expected
    for n, bad in enumerate(['{"text": "a"}', '{"text": 3, "label": 0}', "[]", "{", '{"text": "a", "label": "fine"}']):
        (tmp_path / str(n)).write_text(f'{{"text": "a", "label": 0}}\n\n{bad}\n', encoding="utf-8")
        with pytest.raises(UserError, match=f"corpus/prompted.examples: .*{n}, line 3: "):
            read_examples(str(tmp_path / str(n)), words)
    with pytest.raises(UserError, match="no example of great"):
        read_examples(file(tmp_path / "one", [("a", "bad")]), words)


KINDS = {
    "File": ["cell", "sheet", "mouse", "document", "menu"],
    "Page": ["table", "formula", "number", "size", "format"],
}


def task(name: str, count: int) -> dict[str, str]:
    """Texts of three words of one kind and one of none, with the kind's label."""
    draw, found = random.Random(name), dict[str, str]()
    while len(found) < count:
        label = draw.choice([*KINDS])
        words = [*draw.choices(KINDS[label], k=3), draw.choice(["the", "and", "of"])]
        found[" ".join(draw.sample(words, 4))] = label
    return found


def trained(model: Model, texts: Corpus, place: Path, seed: int) -> Model:
    step = importlib.import_module("lect.stages.pretrain.continue").Continue(
        tokens=64 * 80,
        batch_tokens=64,
        max_length=64,
        learning_rate=3e-3,
        embedding_learning_rate=3e-3,
        evaluations=1,
        precision="fp32",
        compile=False,
    )
    return step.apply(run(place, seed), base=model, model=model, corpus=texts)


def right(model: Model, held: dict[str, str]) -> float:
    """The share of texts whose word the model finds by itself, against the prompt without a text."""
    found = labeller(model, [*KINDS])
    prior, *costs = found.costs([around(TEMPLATE, text) for text in ("", *held)])
    return sum(found.words[likeliest(c, prior)] == word for c, word in zip(costs, held.values(), strict=True)) / len(
        held
    )


def test_a_model_learns_to_answer_from_its_own_labels(bench: Bench, tmp_path: Path) -> None:
    """Three seeds, equal tokens: better than after plain text, and than after the same prompts with random labels."""
    model, held = bench.model("gemma3", 1), task("held", 60)
    for seed in range(3):
        place = tmp_path / str(seed)
        texts = task(f"train {seed}", 120)
        plain = corpus(place / "corpus", [*texts])
        shown = file(place / "shown.jsonl", [*task(f"shown {seed}", 16).items()])
        step = Prompted(labels=", ".join(KINDS), examples=shown, steps=25, learning_rate=1e-3)
        prompted = step.apply(run(place / "step", seed), model, plain)
        gold = {TEMPLATE.format(text=text, label=label) for text, label in texts.items()}
        assert sum(text in gold for text in prompted.texts()) >= 108
        draw = random.Random(seed)
        chance = [TEMPLATE.format(text=text, label=draw.choice([*KINDS])) for text in texts]
        arms = {"plain": plain, "prompted": prompted, "chance": corpus(place / "chance", chance)}
        share = {name: right(trained(model, some, place / f"run-{name}", seed), held) for name, some in arms.items()}
        assert share["prompted"] > max(share["plain"], share["chance"]) + 0.15 and share["prompted"] > 0.7
