# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lect.errors import UserError
from lect.ops.text import encode
from lect.ops.word_vectors import sentences
from lect.parts.init.tik_to_tok import TikToTok
from two_languages import WORDS, two

LISTED = [
    ("manzana", "table"),
    ("barco", "sheet"),
    ("barco", "menu"),
    ("guitarra", "number"),
    ("el", "the"),
    ("el", "a"),
    ("ventana", "the file"),
    ("escalera", "page of the sheet"),
    ("nunca", "never"),
    ("Mi", "to"),
    ("el", "a"),
]
PAIRS = list(dict.fromkeys(LISTED))  # a pair that is listed twice counts once


def test_words_become_their_translations(tmp_path):
    made = two()
    lines = made.dictionary(range(1, WORDS)) + f"{made.new[0]}\t{made.old[0]}\n{made.new[0]}\t{made.old[9]}\n"
    (tmp_path / "list").write_text(lines)
    for text in (lines, "".join("\t".join(line.split("\t")[::-1]) + "\n" for line in lines.splitlines())):
        (tmp_path / "list").write_text(text)
        rows_md = TikToTok(dictionary=str(tmp_path / "list")).rows(made.table_vd, made.tokens)
        for row, word in zip(rows_md, made.tokens.surfaces, strict=True):
            n = made.new.index(word)
            want = (made.table_vd[1] + made.table_vd[10]) / 2 if n == 0 else made.table_vd[1 + n]
            np.testing.assert_allclose(row, want, atol=1e-6)


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
def test_a_plain_loop_over_the_authors_steps_gives_the_same(pico_new, tmp_path, family):
    table_vd, new = pico_new(family)
    (tmp_path / "list").write_text("".join(f"{a}\t{b}\n" for a, b in LISTED))
    got_md = TikToTok(dictionary=str(tmp_path / "list")).rows(table_vd, new)
    words = [word.lower() for line in sentences(new.texts) for word in line]
    count = {}

    def add(n, i, value):
        count.setdefault(n, {}).setdefault(i, 0.0)
        count[n][i] += value

    for a, b in PAIRS:
        times = (1 + words.count(a.lower())) / sum(word == a for word, _ in PAIRS)
        for left, right in ((a, b), (" " + a, " " + b), (f" {a[0].upper()}{a[1:]}", f" {b[0].upper()}{b[1:]}")):
            fresh, old = encode(new.new_tokenizer, [left])[0], encode(new.old_tokenizer, [right])[0]
            for n, i in zip(np.repeat(fresh, len(old)), np.tile(old, len(fresh)), strict=True):
                add(int(n), int(i), times / 2 / len(old))
            common = math.gcd(len(fresh), len(old))
            stretched = np.repeat(fresh, len(old) // common), np.repeat(old, len(fresh) // common)
            for n, i in zip(*stretched, strict=True):
                add(int(n), int(i), times / 2 / (len(old) // common))
    for n, i in enumerate(new.origin):
        if i >= 0:
            add(n, i, 1.0)
    special = {int(token["id"]) for token in new.new.added if token["special"]}
    spelled = {new.new.strings[n]: n for n in count if n not in special}
    found = {"translated": 0, "borrowed": 0}
    for row, n in zip(got_md.numpy(), new.ids, strict=True):
        mine = dict(count.get(n, {}))
        found["translated" if mine else "borrowed"] += 1
        if not mine:
            token = new.new.strings[n]
            inside = sorted((text for text in spelled if text in token), key=len, reverse=True)
            longest = [text for at, text in enumerate(inside) if not any(text in other for other in inside[:at])]
            for text in [text for text in spelled if text.startswith(token)] + longest:
                theirs = count[spelled[text]]
                for i, value in theirs.items():
                    begins = new.old.surface(new.old.strings[i]).startswith(" ")
                    mine[i] = mine.get(i, 0) + (2 if begins else 1) * value / sum(theirs.values())
        want = sum(value * table_vd[i].numpy() for i, value in mine.items()) / sum(mine.values())
        np.testing.assert_allclose(row, want, atol=1e-5)
    assert min(found.values()) > 3, found


def test_a_token_that_nothing_helps_is_the_mean_of_its_pieces(tmp_path):
    made = two()
    (tmp_path / "list").write_text(made.dictionary([0]) + f"{made.new[1]}\tunheard\n")
    other = replace(made.tokens, pieces=[[1 + n % WORDS, 2] for n in range(len(made.tokens.ids))])
    rows_md = TikToTok(dictionary=str(tmp_path / "list")).rows(made.table_vd, other)
    for m, (row, word) in enumerate(zip(rows_md, other.surfaces, strict=True)):
        want = made.table_vd[1] if word == made.new[0] else (made.table_vd[1 + m % WORDS] + made.table_vd[2]) / 2
        np.testing.assert_allclose(row, want, atol=1e-6)


def test_a_dictionary_that_does_not_fit_is_refused_in_one_line(tmp_path):
    made = two(sentences=50)
    (tmp_path / "other").write_text("un\tone\ndeux\ttwo\n")
    (tmp_path / "empty").write_text("\n")
    for path, what in (
        (None, "is null; name a word list or a dictd dictionary"),
        (str(tmp_path / "none"), "no such file"),
        (str(tmp_path / "empty"), "has no usable pair; give lines"),
        (str(tmp_path / "other"), "has no usable pair: none of its words stands in the target text"),
    ):
        with pytest.raises(UserError, match=f"^init/tik_to_tok: dictionary .*{what}") as error:
            TikToTok(dictionary=path).rows(made.table_vd, made.tokens)
        assert "\n" not in str(error.value)
