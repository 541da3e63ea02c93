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


def test_no_basque_page_holds_a_paragraph_of_the_english_pages() -> None:
    english = {line for d in documents("en") for line in d["text"].split("\n") if len(line.split()) >= 3}
    assert not [line for d in documents("eu") for line in d["text"].split("\n") if line in english]


def test_there_is_enough_text_and_it_is_small() -> None:
    sizes = {language: sum(len(d["text"].encode()) for d in documents(language)) for language in lect.data.FILES}
    assert sizes["eu"] > 3_000_000 and sizes["en"] > 1_400_000
    assert sum(lect.data.path(language).stat().st_size for language in lect.data.FILES) <= 3_000_000


def test_the_licence_lies_beside_the_text() -> None:
    assert (FOLDER / "LICENSE-MPL-2.0.txt").read_text().startswith("Mozilla Public License Version 2.0")
    assert {d["licence"] for d in documents("eu")} == {"MPL-2.0"}
    assert {d["licence"] for d in documents("en")} == {"MPL-2.0", "public domain"}


def test_the_reader_takes_a_bundled_file_like_any_other() -> None:
    assert lect.data.resolve("bundled:eu") == str(lect.data.path("eu"))
    assert lect.data.GENERAL["en"] == "bundled:en"


@given(st.text().filter(lambda text: not text.startswith(lect.data.PREFIX)))
def test_anything_but_an_alias_stays_as_it_is(text: str) -> None:
    assert lect.data.resolve(text) == text


@given(st.text().filter(lambda name: name.removeprefix(lect.data.PREFIX) not in lect.data.FILES))
def test_an_unknown_alias_names_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"bundled:e[un]"):
        lect.data.path(name)
