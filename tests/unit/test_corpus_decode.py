# SPDX-License-Identifier: Apache-2.0
"""From bytes to text: encodings, faults counted, lines, and cuts that lose nothing."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.stages.corpus.reading.decode import BORDERS, Decoder, cut, is_binary, lines, replaced, texts

CHUNKS = st.integers(1, 64)
SENTENCES = {
    "cp1252": "El niño compró una piña en la estación más próxima. Mañana será otro día, según él. ¿Qué pasó después?",
    "cp1251": "Съешь же ещё этих мягких французских булок, да выпей чаю. Вчера шёл дождь, сегодня светит солнце.",
    "koi8-r": "Съешь же ещё этих мягких французских булок, да выпей чаю. Вчера шёл дождь, сегодня светит солнце.",
    "iso8859-2": "Zażółć gęślą jaźń. Wczoraj padał deszcz, dziś świeci słońce, a jutro będzie śnieg, więc weź kurtkę.",
    "cp932": "昨日は雨が降りました。今日は晴れています。明日は雪が降るでしょう。だからコートを持って行ってください。",
    "cp1254": "Dün yağmur yağdı, bugün güneş parlıyor, yarın kar yağacak; bu yüzden ceketini al. İstanbul çok güzel.",
    "utf-16-le": "Plain text without a mark, as some editors write it: ñ.",
    "utf-16-be": "Plain text without a mark, as some editors write it: ñ.",
}


def split(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), CHUNKS, st.sampled_from(["utf-8", "utf-8-sig"]))
def test_utf8_in_any_chunks(text: str, size: int, encoding: str) -> None:
    text = "ñ" + text
    decoder = Decoder()
    assert "".join(texts(split(text.encode(encoding), size), decoder)) == text
    assert decoder.encoding == "utf-8" and decoder.bad == 0


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    CHUNKS,
    st.sampled_from([("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)]),
)
def test_marked_utf16_in_any_chunks(text: str, size: int, form: tuple[str, bytes]) -> None:
    text = "a" + text  # a mark before a zero character would be that of UTF-32
    data = form[1] + text.encode(form[0])
    decoder = Decoder()
    first, rest = data[:4], data[4:]
    assert "".join(texts([first, *split(rest, size)], decoder)) == text
    assert decoder.encoding == form[0] and decoder.bad == 0


@pytest.mark.parametrize("encoding", SENTENCES)
def test_legacy_encodings_are_found_out(encoding: str) -> None:
    text = SENTENCES[encoding]
    decoder = Decoder()
    assert "".join(texts([text.encode(encoding)], decoder)) == text
    assert decoder.encoding == encoding and decoder.bad == 0


def test_damage_in_utf8_is_counted_not_taken_for_another_encoding() -> None:
    data = ("Iruñean bizi naiz, eta ñabardura asko daude. " * 20).encode() + b"\xff\xfe bat \xc3"
    decoder = Decoder()
    text = "".join(texts([data], decoder))
    assert decoder.encoding == "utf-8" and decoder.bad == 3 == text.count("\ufffd")
    assert replaced("a\ufffd".encode(), "a\ufffd") == 0


def test_a_page_may_say_its_encoding() -> None:
    assert Decoder("iso-8859-2")("Łódź i gęś".encode("iso-8859-2"), True) == "Łódź i gęś"
    assert Decoder("no-such-code")("Łódź i gęś".encode(), True) == "Łódź i gęś"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), CHUNKS)
def test_any_bytes_become_text(data: bytes, size: int) -> None:
    "".join(texts(split(data, size), Decoder())).encode("utf-8")


@given(st.text(), CHUNKS)
def test_lines_in_any_pieces(text: str, size: int) -> None:
    found = list(lines(text[i : i + size] for i in range(0, len(text), size)))
    expected = text.split("\n")
    expected = expected[:-1] if expected[-1] == "" else expected
    assert found == [line.removesuffix("\r") for line in expected]


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from("ab \n\r.é雨🙂\ud800")),
    st.integers(4, 40),
    CHUNKS,
)
def test_cut_loses_nothing_and_ignores_the_pieces(text: str, most: int, size: int) -> None:
    parts = list(cut([text], most))
    assert "".join(parts) == text
    assert all(parts)
    assert all(len(p.encode("utf-8", "surrogatepass")) <= most for p in parts)
    assert list(cut((text[i : i + size] for i in range(0, len(text), size)), most)) == parts


def test_cut_at_blank_lines_first() -> None:
    paragraphs = [f"{'hitz ' * 30}{i}.\n\n" for i in range(40)]
    parts = list(cut(["".join(paragraphs)], 1000))
    assert all(part.endswith(".\n\n") for part in parts) and len(parts) < 10
    assert min(map(len, parts)) > 300
    assert BORDERS[0].search("a\r\n\r\nb")


def test_binary_is_told_from_text() -> None:
    for data in (b"%PDF-1.7", b"\x89PNG", b"a\0b\0\0c" * 9, bytes(range(32)) * 10):
        assert is_binary(data)
    for data in (b"", b"abc", "ñ".encode("utf-16"), "añb".encode("utf-16-le") * 9, "Łódź".encode("cp1250"), b"\x1b[1m"):
        assert not is_binary(data)
