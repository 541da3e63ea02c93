# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.artefacts import Sources
from lect.errors import UserError
from lect.stages.corpus.read import Read
from lect.stages.corpus.reading.collect import Collector

SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".zst", ".zip", ".dat")


def collect(path: Path, **knobs: object) -> tuple[list[str], Collector]:
    collector = Read(**knobs).collector()  # type: ignore[arg-type]
    return [t.text for t in collector.collect([path])], collector


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(SUFFIXES))
def test_any_bytes_under_any_name_are_kept_or_dropped_with_a_reason(data: bytes, suffix: str) -> None:
    """invariant: no input crashes the reader, and read = kept + dropped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(data)
        texts, collector = collect(path)
    facts = collector.account.facts()
    assert facts["kept"] == len(texts)
    assert facts["read"] == len(texts) + sum(facts["dropped"].values())
    assert texts or facts["dropped"] or not data.strip(b"\xef\xbb\xbf\x1e\r\n \t\xfe\xff\0") or suffix == ".parquet"
    for text in texts:
        text.encode("utf-8")


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda t: t.strip()))
def test_text_in_utf8_comes_back_as_it_is(text: str) -> None:
    """invariant: a UTF-8 text file of one document is not altered, special tokens included."""
    text = f"<bos>{text}</s>"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.txt"
        path.write_text(text, encoding="utf-8")
        lines = Path(folder) / "file.jsonl"
        lines.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
        assert collect(path)[0] == [text]
        assert collect(lines)[0] == [text]


def test_roles_places_and_counts(apply, tmp_path: Path) -> None:
    """worked example: two roles from a folder and a JSON Lines file with one bad line."""
    folder = tmp_path / "mine"
    (folder / "deeper").mkdir(parents=True)
    (folder / "b.txt").write_text("Bigarren testua", encoding="utf-8")
    (folder / "deeper" / "a.md").write_text("# Lehenengo testua", encoding="utf-8")
    (folder / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (folder / "page.html").write_text("<html><body><p>Hirugarren testua hemen dago.</p></body></html>")
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": 1, "content": "one"}\n{"id": 2, "content": \n{"id": 3, "content": "three"}\n')
    documents, run = apply(Read(), Sources(tmp_path, files=(("target", folder), ("kept", other))))
    found = [(d.role, d.text, json.loads(d.meta)) for d in documents]
    assert found == [
        ("target", "Bigarren testua", {}),
        ("target", "# Lehenengo testua", {}),
        ("target", "Hirugarren testua hemen dago.", {}),
        ("kept", "one", {"line": 1}),
        ("kept", "three", {"line": 3}),
    ]
    assert run.facts["dropped"] == {"binary": 1, "bad_line:not JSON": 1}
    kept = run.facts["roles"]["kept"]
    assert kept["bad_lines"]["named"] == [{"file": other.as_posix(), "line": 2, "reason": "not JSON"}]
    assert kept["columns"] == {other.as_posix(): "content"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("absent.txt", None, "there is no such file"),
        ("empty.txt", b"", "1 empty_file"),
        ("blank.txt", b" \n\n", "1 empty_file"),
        ("only.pdf", b"%PDF-1.7 \0\0\0", "1 binary"),
        ("only.jsonl", b"{\n[1]\n", "bad_line"),
    ],
)
def test_nothing_readable_is_one_clear_line(apply, tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    """worked example: the error names the file, the reason and the fix."""
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        apply(Read(), Sources(tmp_path, files=(("target", tmp_path / name),)))
    assert name in str(error.value) and "\n" not in str(error.value)
