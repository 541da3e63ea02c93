# SPDX-License-Identifier: Apache-2.0
"""The bundled text: there, whole, licensed, and what its README says."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from scripts import build_bundled_text as script

import lect.data
from lect.errors import UserError

FOLDER = Path(lect.data.__file__).parent
README = (FOLDER / "README.md").read_text("utf-8")


@cache
def unpacked(language: str) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(lect.data.path(language).read_bytes()).read()


@cache
def documents(language: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in unpacked(language).splitlines()]


@pytest.mark.parametrize("language", lect.data.FILES)
def test_the_readme_names_the_sum_of_each_file(language: str) -> None:
    assert f"{hashlib.sha256(unpacked(language)).hexdigest()}  {language}.jsonl" in README


@pytest.mark.parametrize("language", lect.data.FILES)
def test_the_readme_counts_the_documents_of_each_source(language: str) -> None:
    rows = re.findall(rf"^\| `{language}\.jsonl\.zst` \| (.+?) \| (.+?) \| ([\d,]+) \| ([\d,]+) \|$", README, re.M)
    items = documents(language)
    assert {row[0] for row in rows} == {d["source"] for d in items}
    for source, licence, count, size in rows:
        own = [d for d in items if d["source"] == source]
        assert len(own) == int(count.replace(",", ""))
        assert sum(len(d["text"].encode()) for d in own) == int(size.replace(",", ""))
        assert {d["licence"] for d in own} == {licence}


@pytest.mark.parametrize("language", lect.data.FILES)
def test_documents_are_whole_and_distinct(language: str) -> None:
    items = documents(language)
    assert all(set(d) == {"id", "text", "source", "licence"} and d["id"].startswith(f"{language}/") for d in items)
    assert len({d["id"] for d in items}) == len({d["text"] for d in items}) == len(items)
    assert all(len(d["text"]) >= 200 and d["text"] == d["text"].strip() for d in items)
    assert not any("\ufffd" in d["text"] or "Project Gutenberg" in d["text"] for d in items)


def test_no_long_help_paragraph_stands_in_two_documents() -> None:
    for language in lect.data.FILES:
        helps = [d for d in documents(language) if "/help/" in d["id"]]
        lines = [line for d in helps for line in d["text"].split("\n") if len(line) >= 40]
        assert len(lines) == len(set(lines))


@pytest.mark.parametrize("language", sorted(set(lect.data.FILES) - {"en"}))
def test_no_page_holds_a_paragraph_of_the_english_pages(language: str) -> None:
    english = {line for d in documents("en") for line in d["text"].split("\n") if len(line.split()) >= 3}
    assert not [line for d in documents(language) for line in d["text"].split("\n") if line in english]


def test_khmer_pages_are_in_khmer() -> None:
    """Counted here by the block of code points, in the script that built the file by the names of characters."""

    def share(text: str) -> float:
        own = sum("\u1780" <= char <= "\u17d3" or char == "\u17dd" for char in text)
        return own / (own + len(re.findall(r"[A-Za-z\u00aa-\u024f]", text)))

    texts = [d["text"] for d in documents("km")]
    assert min(map(share, texts)) >= 0.48 and share("".join(texts)) >= 0.92
    lines = [line for text in texts for line in text.split("\n")]
    assert all(re.search("[\u1780-\u17d7]", line) for line in lines if len(line.split()) >= 3)
    assert not any(re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", line) for line in lines)
    marks = sum(len(re.findall("[\u17b4-\u17d3]", text)) for text in texts)
    assert marks / sum(map(len, texts)) > 0.2


def test_the_share_of_a_script_counts_letters_and_marks_only() -> None:
    assert script.own_share("\u1780\u17b6 ab, 12!\u200b", "KHMER") == 0.5
    assert script.own_share("12 !", "KHMER") == 0.0
    assert script.own_share("\u6f22\u304b\u30ab\u30fc", ("CJK", "HIRAGANA", "KATAKANA")) == 1.0


def test_what_is_not_translated_is_left_out_and_counted() -> None:
    word = "\u1797\u17b6\u179f\u17b6"
    khmer, english = " ".join([word] * 40), "an English sentence that was never translated"
    pages = {
        "whole": [khmer, english, "SUM", "two words", f"{word}\x9e"],
        "english": [english, "Name"],
        "names": [word, *(f"Name{number}" for number in range(60))],
    }
    kept, counts = script.only_translated(pages, "KHMER")
    assert kept == {"whole": [khmer, "SUM", "two words"], "english": ["Name"]}
    assert counts == {"broken": 1, "foreign": 2, "foreign_pages": 1}


def test_there_is_enough_text_and_it_is_small() -> None:
    sizes = {language: sum(len(d["text"].encode()) for d in documents(language)) for language in lect.data.FILES}
    assert sizes["eu"] > 3_000_000 and sizes["en"] > 1_400_000 and sizes["km"] > 4_000_000
    assert sum(lect.data.path(language).stat().st_size for language in lect.data.FILES) <= 3_000_000


def test_the_licence_lies_beside_the_text() -> None:
    assert (FOLDER / "LICENSE-MPL-2.0.txt").read_text().startswith("Mozilla Public License Version 2.0")
    assert {d["licence"] for language in ("eu", "km") for d in documents(language)} == {"MPL-2.0"}
    assert {d["licence"] for d in documents("en")} == {"MPL-2.0", "public domain"}


def test_the_reader_takes_a_bundled_file_like_any_other() -> None:
    assert lect.data.resolve("bundled:eu") == str(lect.data.path("eu"))
    assert lect.data.GENERAL["en"] == "bundled:en"


@given(st.text().filter(lambda text: not text.startswith(lect.data.PREFIX)))
def test_anything_but_an_alias_stays_as_it_is(text: str) -> None:
    assert lect.data.resolve(text) == text


@given(st.text().filter(lambda name: name.removeprefix(lect.data.PREFIX) not in lect.data.FILES))
def test_an_unknown_alias_names_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"bundled:(eu|en|km)"):
        lect.data.path(name)
