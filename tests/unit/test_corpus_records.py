# SPDX-License-Identifier: Apache-2.0
"""The record readers: every case of a malformed file, row by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.stages.corpus.read import Read
from lect.stages.corpus.reading.account import Account
from lect.stages.corpus.reading.records import choose_column, json_fields

GOOD = [json.dumps({"id": i, "text": f"line {i}"}) for i in range(50)]
TEXTS = [f"line {i}" for i in range(50)]


def read(path: Path, **knobs: object) -> tuple[list[str], Account]:
    collector = Read(**knobs).collector()  # type: ignore[arg-type]
    texts = [t.text for t in collector.collect([path])]
    facts = collector.account.facts()
    assert facts["read"] == len(texts) + sum(facts["dropped"].values())
    return texts, collector.account


def joined(*, after: list[bytes] = [], end: bytes = b"\n", tail: bytes = b"\n") -> bytes:  # noqa: B006
    """25 good lines, the given ones, 25 good lines."""
    lines = [line.encode() for line in GOOD]
    return end.join([*lines[:25], *after, *lines[25:]]) + tail


NASTY = {
    "clean": (joined(), 0, {}, 0),
    "broken line": (joined(after=[b'{"text": "x"']), 0, {"bad_line:not JSON": 1}, 0),
    "bad UTF-8 byte": (joined(after=[b'{"text": "caf\xe9 bat"}']), 1, {}, 1),
    "truncated tail": (joined(tail=b'\n{"id": 51, "text": "lin'), 0, {"bad_line:not JSON": 1}, 0),
    "no last line end": (joined(tail=b""), 0, {}, 0),
    "lone surrogate": (joined(after=[rb'{"text": "a\ud800b"}']), 1, {}, 1),
    "byte-order mark": (b"\xef\xbb\xbf" + joined(), 0, {}, 0),
    "CRLF": (joined(end=b"\r\n", tail=b"\r\n"), 0, {}, 0),
    "blank lines": (joined(after=[b"", b"   ", b"\t"]), 0, {}, 0),
    "null text": (joined(after=[b'{"text": null}']), 0, {"bad_line:text is missing": 1}, 0),
    "list for text": (joined(after=[b'{"text": ["a"]}']), 0, {"bad_line:text is a list": 1}, 0),
    "number for text": (joined(after=[b'{"text": 5}']), 0, {"bad_line:text is a number": 1}, 0),
    "true for text": (joined(after=[b'{"text": true}']), 0, {"bad_line:text is true or false": 1}, 0),
    "object for text": (joined(after=[b'{"text": {}}']), 0, {"bad_line:text is an object": 1}, 0),
    "empty text": (joined(after=[b'{"text": ""}']), 0, {"bad_line:empty": 1}, 0),
    "no such field": (joined(after=[b'{"txet": "a"}']), 0, {"bad_line:no column text": 1}, 0),
    "not an object": (joined(after=[b"[1, 2]", b"7"]), 0, {"bad_line:not an object": 2}, 0),
    "bare string": (joined(after=[b'"a whole text"']), 1, {}, 0),
    "nested too deep": (joined(after=[b"[" * 200_000]), 0, {"bad_line:nested too deep": 1}, 0),
    "number too long": (joined(after=[b'{"text": "a", "n": ' + b"9" * 6000 + b"}"]), 0, {"bad_line:not JSON": 1}, 0),
    "zero byte": (joined(after=[b'{"text": "a\\u0000b"}']), 1, {}, 0),
    "line separator": (joined(after=['{"text": "a\u2028b"}'.encode()]), 1, {}, 0),
    "special token": (joined(after=[b'{"text": "<eos> </s>"}']), 1, {}, 0),
}


@pytest.mark.parametrize("case", NASTY)
def test_jsonl_loses_one_line_at_most(case: str, tmp_path: Path) -> None:
    data, more, dropped, undecodable = NASTY[case]
    path = tmp_path / "file.jsonl"
    path.write_bytes(data)
    texts, account = read(path)
    assert [t for t in texts if t in TEXTS] == TEXTS
    assert len(texts) == 50 + more
    assert dict(account.dropped) == dropped
    assert sum(account.undecodable.values()) == undecodable
    if any(reason.startswith("bad_line") for reason in dropped):
        expected = 51 if case == "truncated tail" else 26
        assert account.named_lines[0]["line"] == expected and account.named_lines[0]["file"] == path.as_posix()


def test_a_line_of_forty_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    long = "hitz bat. " * 4_000_000
    path.write_bytes(joined(after=[json.dumps({"text": long}).encode()]))
    texts, account = read(path, max_document_bytes=1_000_000)
    assert [t for t in texts if t in TEXTS] == TEXTS
    assert "".join(t for t in texts if t not in TEXTS) == long
    assert not account.dropped


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b"")
    assert read(path)[0] == []
    assert dict(read(path)[1].dropped) == {"empty_file": 1}


@settings(max_examples=100)
@given(st.text())
def test_json_fields_never_raise(line: str) -> None:
    fields, fault = json_fields(line)
    assert (fields is None) == bool(fault)


def test_the_text_column_is_found_out(tmp_path: Path) -> None:
    assert choose_column([{"url": "http://a/" * 9, "Content": "short"}]) == "Content"
    assert choose_column([{"kop": "a", "lichaam": "een lange tekst"}, {"kop": "b", "lichaam": ""}]) == "lichaam"
    assert choose_column([{"n": 1}]) == ""
    path = tmp_path / "file.jsonl"
    path.write_text('{"kop": "a", "lichaam": "een lange tekst"}\n')
    assert read(path)[0] == ["een lange tekst"]
    assert read(path, column="kop")[0] == ["a"]
    assert dict(read(path, column="none")[1].dropped) == {"bad_line:no column none": 1}


def test_json_documents(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for value, expected in (([{"text": "a"}, {"text": "b"}, 3], ["a", "b"]), ({"body": "c"}, ["c"]), (["d"], ["d"])):
        path.write_text(json.dumps(value))
        assert read(path)[0] == expected
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert read(path)[0] == ["a", "b"]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text('id,text\n1,"one, with ""quotes""\nand a line end"\n2,two\n3\n', encoding="utf-8-sig")
    texts, account = read(path)
    assert texts == ['one, with "quotes"\nand a line end', "two"]
    assert dict(account.dropped) == {"bad_line:no column text": 1}
    path.write_text("naam;zin\nJan;Een lange zin, met een komma.\nPiet;Nog een lange zin hier.\n")
    assert read(path)[0] == ["Een lange zin, met een komma.", "Nog een lange zin hier."]
    path.write_text("Esaldi bat, koma batekin.\tbi\nBeste esaldi bat hemen.\tlau\n")
    assert read(path)[0] == ["Esaldi bat, koma batekin.", "Beste esaldi bat hemen."]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "file.parquet"
    text = pa.array(["one", None, "three"]).dictionary_encode()
    pq.write_table(pa.table({"n": [1, 2, 3], "text": text, "url": ["u" * 99] * 3}), path)
    texts, account = read(path)
    assert texts == ["one", "three"] and dict(account.dropped) == {"bad_line:text is missing": 1}
    assert read(path, column="url")[0] == ["u" * 99] * 3
    path.write_bytes(path.read_bytes()[:-20])
    texts, account = read(path)
    assert texts == [] and dict(account.dropped) == {"damaged_file": 1}
    pq.write_table(pa.table({"n": [1]}), path)
    assert dict(read(path)[1].dropped) == {"bad_line:no column of text": 1}
