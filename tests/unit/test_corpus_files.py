# SPDX-License-Identifier: Apache-2.0
"""Folders, compression, archives, web pages: what is read, what is refused, and that nothing hangs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import time
import zipfile
from pathlib import Path

import pytest
import zstandard

from lect.stages.corpus.read import Read
from lect.stages.corpus.reading import files
from lect.stages.corpus.reading.account import Account
from lect.stages.corpus.reading.html import declared_encoding, whole_page
from lect.stages.corpus.reading.sandbox import Broken, Sandbox

TEXT = "Testu bat, ñabardura batekin.\n"
PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data) * 1,
}


def read(path: Path, **knobs: object) -> tuple[list[str], Account]:
    collector = Read(**knobs).collector()  # type: ignore[arg-type]
    texts = [t.text for t in collector.collect([path])]
    return texts, collector.account


@pytest.mark.parametrize("suffix", PACK)
def test_compressed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.txt{suffix}"
    path.write_bytes(PACK[suffix](TEXT.encode()))
    assert read(path)[0] == [TEXT]
    twice = tmp_path / f"file.jsonl{suffix}"
    twice.write_bytes(PACK[suffix](b'{"text": "a"}\n') + PACK[suffix](b'{"text": "b"}\n'))
    assert read(twice)[0] == ["a", "b"]


@pytest.mark.parametrize("suffix", PACK)
def test_truncated_compressed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.txt{suffix}"
    path.write_bytes(PACK[suffix](os.urandom(4000).hex().encode())[:-30])
    texts, account = read(path)
    assert account.texts == len(texts)
    assert dict(account.dropped) == {"damaged_file": 1}


def test_zip(tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b/one.txt", TEXT)
        archive.writestr("two.jsonl", '{"text": "a"}\n{"text": "b"}\n')
        archive.writestr("../three.md", "hiru")
        archive.writestr("inner.zip", b"PK\x03\x04 and more")
        archive.writestr("__MACOSX/._one.txt", b"\0\0")
    texts, account = read(path)
    assert texts == [TEXT, "a", "b", "hiru"]
    assert dict(account.dropped) == {"binary": 1, "hidden": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.zip"]
    assert dict(read(path, max_archive_entries=3)[1].dropped) == {"archive_bomb": 1}
    assert dict(read(path, max_expanded_bytes=20)[1].dropped) == {"archive_bomb": 1}
    path.write_bytes(path.read_bytes()[:100])
    assert dict(read(path)[1].dropped) == {"damaged_archive": 1}


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".zip"])
def test_bombs_are_refused_before_a_text_is_taken(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FREE", 1 << 20)
    data = b"a bomb of text\n" * 1_000_000
    path = tmp_path / f"bomb.txt{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb.txt", data)
    else:
        path.write_bytes(PACK[suffix](data))
    texts, account = read(path)
    assert texts == [] and dict(account.dropped) == {"archive_bomb": 1}
    assert "times its size" in account.named_files[0]["detail"]


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "two.txt").write_text("bi")
    (tmp_path / "a.unknown").write_text("bat")
    (tmp_path / "z.bin").write_bytes(b"\0\1\2")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    texts, account = read(tmp_path)
    assert texts == ["bat", "bi"]
    assert dict(account.dropped) == {"hidden": 1, "linked_folder": 1, "not_a_file": 2, "binary": 1}


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("bat")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert dict(read(tmp_path)[1].dropped) == {"unreadable": 1}


PAGE = """<html><head><title>T</title><style>p {}</style></head><body><nav>Menua</nav>
<h1>Izenburua</h1><p>Lehen <b>paragrafoa</b>\n hemen.</p><script>var x;</script><ul><li>bat<li>bi</ul>
<table><tr><td>a</td><td>b</td></tr></table><pre>x\n  y</pre><!-- ezkutua --><footer>Oina</footer></body></html>"""


def test_whole_page() -> None:
    text = whole_page(PAGE.encode()).decode()
    assert text.split("\n\n")[:2] == ["Izenburua", "Lehen paragrafoa hemen."]
    assert all(word not in text for word in ("Menua", "Oina", "var", "ezkutua"))
    assert ("bat" in text and "a\tb" in text and "x\n  y" in text) or "x\ny" in text
    assert whole_page(b"") == b"" == whole_page(b"<!-- -->")


@pytest.mark.parametrize("html", ["article", "page"])
def test_web_pages(html: str, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.html").write_text(PAGE.replace("Lehen", f"Lehen {number}"))
    (tmp_path / "30.htm").write_bytes(
        '<meta charset="iso-8859-2"><p>Łódź i gęś, a text long enough.'.encode("iso-8859-2")
    )
    (tmp_path / "31.html").write_bytes(b"")
    (tmp_path / "32.html").write_bytes(b"<script>x</script>")
    (tmp_path / "33.html").write_bytes(b"\0\1\2")
    (tmp_path / "34.html").write_text(f"<p>{'long ' * 1000}</p>")
    (tmp_path / "35.xhtml").write_text(
        '<?xml version="1.0" encoding="utf-8"?><html><body><p>Ñu bat da hau.</p></body></html>'
    )
    texts, account = read(tmp_path, html=html, max_html_bytes=4000)
    assert [f"Lehen {n} " in text for n, text in enumerate(texts[:30])] == [True] * 30
    assert "Łódź i gęś" in texts[30] and "Ñu bat da hau." in texts[31] and len(texts) == 32
    assert dict(account.dropped) == {"empty_file": 1, "no_text_in_html": 1, "binary": 1, "too_large": 1}
    assert declared_encoding(b"<meta http-equiv=x content='text/html; charset=KOI8-R'>") == "KOI8-R"


def test_hostile_pages_end_and_do_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<div>" * 200_000 + "sakona" + "</div>" * 200_000)
    (tmp_path / "b.html").write_text("<p>Testu on bat hemen dago.</p>")
    start = time.monotonic()
    texts, account = read(tmp_path)
    assert "Testu on bat hemen dago." in texts[-1]
    assert account.texts + sum(account.dropped.values()) == 2
    assert time.monotonic() - start < 60


def test_stopping_early_leaves_no_worker(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number:02}.html").write_text(PAGE)
    collector = Read().collector()
    found = collector.collect([tmp_path])
    next(found)
    workers = [sandbox._worker for sandbox in collector._sandboxes]
    start = time.monotonic()
    found.close()
    assert time.monotonic() - start < 10
    assert workers and all(worker is not None and worker.returncode is not None for worker in workers)


def sleep(data: bytes) -> bytes:
    time.sleep(float(data))
    return b"done"


def test_the_sandbox_ends_what_hangs_and_what_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    name = Path(__file__).stem
    with Sandbox(f"{name}:sleep", memory_bytes=2_000_000_000, seconds=0.5) as sandbox:
        assert sandbox.call(b"0") == b"done"
        with pytest.raises(Broken, match="timeout"):
            sandbox.call(b"30")
        assert sandbox.call(b"0") == b"done"
        with pytest.raises(Broken, match="ValueError"):
            sandbox.call(b"x")
    with Sandbox(f"{name}:grow", memory_bytes=2_000_000_000, seconds=20) as sandbox:
        with pytest.raises(Broken, match="memory"):
            sandbox.call(b"")
        with pytest.raises(Broken, match="crash"):
            sandbox.call(b"die")


def grow(data: bytes) -> bytes:
    if data == b"die":
        os._exit(3)
    return b"a" * 4_000_000_000
