# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.errors import UserError
from lect.ops.dictionary import read, turned

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
ENTRIES = [
    ("00databaseinfo", "A dictionary, made for this test\nof nothing, really\n"),
    ("casa", "casa /kˈasa/ <n, f>\nhouse, home\n"),
    ("ínclito", "ínclito, ínclita /ˈinklito/ /ˈinklita/ <adj>\nfamous (of persons) <adj>\n"),
    ("banco", "banco\n1. bank [money]; bench\n2. shoal\n   Synonym: {escaño}\n"),
    ("hola", "hello"),
    ("a bordo", 'a bordo\non board\n"subir a bordo" - go on board\n'),
]
PAIRS = [("casa", "house"), ("casa", "home"), ("ínclito", "famous"), ("ínclita", "famous"), ("banco", "bank")]
PAIRS += [("banco", "bench"), ("banco", "shoal"), ("hola", "hello"), ("a bordo", "on board")]


def base64(number):
    digits = DIGITS[number % 64]
    while number := number // 64:
        digits = DIGITS[number % 64] + digits
    return digits


def dictd(folder, entries, packed="gzip"):
    data, lines = b"", []
    for word, text in entries:
        raw = text.encode()
        lines.append(f"{word}\t{base64(len(data))}\t{base64(len(raw))}\n")
        data += raw
    (folder / "d.index").write_text("".join(sorted(lines)), encoding="utf-8")
    if packed == "none":
        (folder / "d.dict").write_bytes(data)
    else:
        (folder / "d.dict.dz").write_bytes(gzip.compress(data) if packed == "gzip" else dictzip(data))
    return folder / "d"


def dictzip(data, size=1000):
    """gzip with an extra field RA: version, length and number of the chunks, and how long each is when packed."""
    packer, chunks = zlib.compressobj(9, zlib.DEFLATED, -15), []
    for start in range(0, len(data), size):
        chunks.append(packer.compress(data[start : start + size]) + packer.flush(zlib.Z_FULL_FLUSH))
    field = struct.pack(f"<HHH{len(chunks)}H", 1, size, len(chunks), *map(len, chunks))
    extra = b"RA" + struct.pack("<H", len(field)) + field
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x02\x03" + struct.pack("<H", len(extra)) + extra
    return head + b"".join(chunks) + packer.flush() + struct.pack("<II", zlib.crc32(data), len(data) % 2**32)


@pytest.mark.parametrize("packed", ["gzip", "dictzip", "none"])
@pytest.mark.parametrize("ending", ["", ".index", ".dict"])
def test_a_dictd_dictionary_gives_its_pairs(tmp_path, packed, ending):
    stem = dictd(tmp_path, ENTRIES, packed)
    assert sorted(read(str(stem) + ending, "test")) == sorted(PAIRS)


def test_places_past_one_digit_are_read(tmp_path):
    entries = [(f"w{n}", f"w{n} /x/\n{n}th\n") for n in range(500)]
    assert sorted(read(str(dictd(tmp_path, entries, "dictzip")), "test")) == sorted(
        (f"w{n}", f"{n}th") for n in range(500)
    )


def test_word_lists_with_tabs_and_with_spaces(tmp_path):
    list_ = tmp_path / "list"
    list_.write_text("\ufeffguten Tag\tgood day\tgreeting\n\nHaus\thouse\nHaus\thouse\nleer\t\n", encoding="utf-8")
    assert read(str(list_), "test") == [("guten Tag", "good day"), ("Haus", "house")]
    list_.write_text("Haus house\nguten Tag good day\n")
    assert read(str(list_), "test") == [("Haus", "house")]


words = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=8)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_word_list_comes_back(tmp_path_factory, pairs):
    place = tmp_path_factory.mktemp("list") / "list"
    place.write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    want = [(a.strip("\ufeff") if n == 0 else a, b) for n, (a, b) in enumerate(pairs)]
    if all(a for a, _ in want):
        assert read(str(place), "test") == list(dict.fromkeys(want))


def test_the_side_of_each_language_is_found():
    pairs = [("casa", "house"), ("Perro", "dog")]
    assert turned(pairs, {"casa", "perro"}, {"house"}) == pairs
    assert turned(pairs, {"house"}, {"perro", "el"}) == [("house", "casa"), ("dog", "Perro")]
    assert turned(pairs, {"nothing"}, set()) == pairs


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    def refused(path, what):
        with pytest.raises(UserError, match=what) as error:
            read(str(path), "init/x")
        assert str(error.value).startswith("init/x: dictionary ") and "\n" not in str(error.value)

    refused(tmp_path / "none", "no such file")
    (tmp_path / "bad").write_bytes(b"\xff\xfe\xff")
    refused(tmp_path / "bad", "cannot be read")
    (tmp_path / "empty").write_text("one\ntwo three four\n\n")
    refused(tmp_path / "empty", "has no usable pair")
    stem = dictd(tmp_path, ENTRIES)
    for index in ("casa\tA\t////\n", "casa\t!\tB\n", "casa\tA\n"):
        (tmp_path / "d.index").write_text(index)
        refused(stem, "cannot be read")
    dictd(tmp_path, ENTRIES)
    whole = (tmp_path / "d.dict.dz").read_bytes()
    for broken in (whole[:-20], b"plain", whole[:20] + b"\x00\x00" + whole[22:]):
        (tmp_path / "d.dict.dz").write_bytes(broken)
        refused(stem, "cannot be read")
    dictd(tmp_path, ENTRIES[:1])
    refused(stem, "has no usable pair")
