# SPDX-License-Identifier: Apache-2.0
"""Romanisation: the tokenizer sees Latin letters, and what it decodes is the text as it was."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from anyascii import anyascii
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from vocab_families import FAMILIES, SAID, family

from lect.artefacts import Corpus, Document, Model
from lect.data import path
from lect.errors import UserError
from lect.method import Run
from lect.ops.romanisation import BREAK, breaks, romanised, table
from lect.ops.text import encode
from lect.ops.tokenizer import Vocabulary
from lect.registry import build_step
from lect.testing import pico

RUSSIAN = "Привет, мир! Подъезд, яйцо, отсев и йод; тсс, цех, щука и чаща, шаг. Съёмка в Шанхае, объявление."
GREEK = "Για να αποθηκεύσετε το έγγραφο, επιλέξτε Αρχείο και μετά Αποθήκευση."
KHMER = "ខ្ញុំ\u200bចូលចិត្ត\u200bភាសា\u200bខ្មែរ។"
HINDI = "दस्तावेज़ सहेजने के लिए फ़ाइल मेनू चुनें।"
TEXTS = [RUSSIAN, GREEK, KHMER, HINDI, "안녕하세요", *SAID]
CODES = table(TEXTS, 400)


@cache
def changed(name: str) -> Tokenizer:
    """A tokenizer of the family behind the table of all the texts."""
    return Tokenizer.from_str(json.dumps(romanised(json.loads(family(name).to_str()), CODES)))


def back(tokenizer: Any, text: str) -> str:
    (ids,) = encode(tokenizer, [text])
    return str(tokenizer.decode(ids, skip_special_tokens=False))


def test_codes_are_those_of_the_library_where_no_two_characters_share_one() -> None:
    codes = table([RUSSIAN], 400)
    assert all(codes[c] == anyascii(c) for c in "абвгдеиклмнорстцчшщПШ")
    assert codes["е"] == "e" and codes["ё"] != anyascii("ё")[:1] and codes["ъ"] == "ʹ"
    assert len({*codes.values()}) == len(codes)
    assert not {*table(["Only Latin, naïve ñ ß 12 — \u200b 🙂"], 400)}
    assert [*table(["ббб аа в"], 2)] == ["б", "а"]


def test_a_romanised_stretch_stands_between_the_shifts() -> None:
    data = romanised(json.loads(family("gpt2").to_str()), table(["привет мир"], 400))
    normal = Tokenizer.from_str(json.dumps(data)).normalizer.normalize_str
    assert normal("привет, мир hello, мир") == "\x0eprivet, mir\x0f hello, \x0emir\x0f"
    assert normal("hello") == "hello"
    assert normal("мирok\n12 мир") == "\x0emir\x0fok\n12 \x0emir\x0f"


def naive(text: str, codes: dict[str, str]) -> str:
    """A plain parser of one romanised word: from the left, the longest code at each place."""
    found, at = "", 0
    named = {code: character for character, code in codes.items()}
    while at < len(text):
        if text[at] == BREAK:
            at += 1
            continue
        size = next(n for n in range(len(text) - at, 0, -1) if text[at : at + n] in named)
        found += named[text[at : at + size]]
        at += size
    return found


@settings(max_examples=300, deadline=None)
@given(word=st.text(st.sampled_from(sorted(CODES)), max_size=12))
def test_breaks_leave_one_way_to_read_a_word(word: str) -> None:
    after = breaks(CODES)
    written = "".join(
        CODES[c] + (BREAK if word[n + 1 : n + 2] in after.get(c, ()) and n + 1 < len(word) else "")
        for n, c in enumerate(word)
    )
    assert naive(written, CODES) == word


def test_every_two_characters_come_back() -> None:
    """Also where a code begins inside the first and ends inside the second."""
    codes = table([RUSSIAN, GREEK, HINDI], 400)
    tokenizer = Tokenizer.from_str(json.dumps(romanised(json.loads(family("gpt2").to_str()), codes)))
    lines = [a + b for a in codes for b in codes]
    assert back(tokenizer, "\n".join(lines)).split("\n") == lines


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=80, deadline=None)
@given(
    text=st.lists(
        st.sampled_from(TEXTS)
        | st.text(st.sampled_from(sorted(CODES)), max_size=6)
        | st.sampled_from([" ", "\n", "a", "ts", BREAK, "\u0301", "ʹ", "'", "<b>", "<unk>", "\u200d"])
        | st.text(st.characters(exclude_characters="\x0e\x0f\x10\x11", exclude_categories=["Cs"]), max_size=8),
        max_size=6,
    ).map("".join)
)
def test_any_text_decodes_as_before(name: str, text: str) -> None:
    old, unknown = family(name), Vocabulary.read(family(name)).unknown
    whole = not any(unknown in ids for tokenizer in (old, changed(name)) for ids in encode(tokenizer, [text]))
    if unknown is None or whole:
        assert back(changed(name), text) == back(old, text)


def bundled(language: str, count: int) -> list[str]:
    with path(language).open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


def run_in(folder: Path, base: Model, texts: list[str], **knobs: Any) -> tuple[Model, Run]:
    for name in ("out", "scratch", "corpus"):
        (folder / name).mkdir(parents=True)
    splits = ["train", "train", "train", "calibration", "test"]
    rows = [
        Document(
            id=str(n), text=t, source="a.txt", language="km", role="target" if n % 6 else "kept", split=splits[n % 5]
        )
        for n, t in enumerate(texts)
    ]
    run = Run(folder=folder / "out", scratch=folder / "scratch")
    step = build_step("vocab/romanise", {"multiple": 1, **knobs})
    made = step.apply(run, model=base, corpus=Corpus.write(folder / "corpus", rows))
    assert isinstance(made, Model)
    return made, run


@pytest.mark.parametrize("kind", pico.FAMILIES)
def test_held_out_text_needs_fewer_tokens_and_comes_back_from_a_loaded_model(tmp_path: Path, kind: str) -> None:
    base = pico.model(kind, tmp_path / "base", tied=None if kind == "bert" else False, padding=7)
    texts = bundled("km", 40)
    made, run = run_in(tmp_path / "run", base, texts[:30], size=1500)
    assert all(gate.passed for gate in run.gates), run.gates
    old, new = base.tokenizer(), made.tokenizer()
    one, other = base.load().get_input_embeddings().weight, made.load().get_input_embeddings().weight
    assert len(other) <= 1500
    assert new.all_special_tokens == old.all_special_tokens
    shared = {*old.get_vocab()} & {*new.get_vocab()}
    assert len(shared) == run.facts["new"]["shared"] > 60
    assert all(torch.equal(one[old.get_vocab()[token]], other[new.get_vocab()[token]]) for token in shared)
    assert any(c.isascii() and c.isalpha() for c in "".join(run.facts["table"].values()))
    if kind != "bert":
        before, after = encode(old, texts[30:]), encode(new, texts[30:])
        assert sum(map(len, after)) < 0.5 * sum(map(len, before))
        for text in texts[30:]:
            assert back(new.backend_tokenizer, text) == text


@pytest.mark.parametrize("kind", pico.FAMILIES)
def test_the_tokens_that_there_are_can_stay(tmp_path: Path, kind: str) -> None:
    base = pico.model(kind, tmp_path / "base")
    if kind == "bert":
        with pytest.raises(UserError, match="set a size"):
            run_in(tmp_path / "run", base, [RUSSIAN, GREEK] * 9, size=None)
        return
    made, run = run_in(tmp_path / "run", base, [RUSSIAN] * 9, size=None)
    assert {gate.name for gate in run.gates if not gate.passed} <= {"grown"}
    old, new = base.tokenizer(), made.tokenizer()
    assert new.get_vocab() == old.get_vocab()
    assert back(new.backend_tokenizer, RUSSIAN) == RUSSIAN
    both = new.tokenize("\u043c\u0438\u0440"), old.tokenize("\x0emir\x0f")  # three letters of Cyrillic
    assert [t for t in both[0] if t.isalpha()] == [t for t in both[1] if t.isalpha()] != []


def test_text_with_the_shifts_in_it_is_counted_and_stops_the_run(tmp_path: Path) -> None:
    base = pico.model("gpt2", tmp_path / "base")
    _, run = run_in(tmp_path / "run", base, [f"{n} {RUSSIAN}" for n in range(12)] + ["a \x0eпривет\x0f b"], size=800)
    (gate,) = [gate for gate in run.gates if gate.name == "irreversible"]
    assert (gate.value, gate.passed) == (1.0, False)


def test_text_in_latin_script_is_refused(tmp_path: Path) -> None:
    base = pico.model("gpt2", tmp_path / "base")
    with pytest.raises(UserError, match="no letter of another script than Latin"):
        run_in(tmp_path / "run", base, ["Gorde dokumentua."] * 9)
