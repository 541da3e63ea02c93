# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest
from test_engine_data import ENDS, TOKENIZER, documents

from lect.artefacts import read_json
from lect.engine import data, tokens
from lect.engine.data import Encoded, Stream
from lect.errors import UserError
from lect.method import Run
from lect.parts.packing.one_document import OneDocument

TEXTS = [f"{n} gelaxka bat hautatzeko" * (1 + n % 4) for n in range(20)] + ["", "🙂 naïve", "a"]


class Shown:
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def progress(self, done, total, unit, values):
        self.lines.append((done, total, unit, values["tokens"]))


def run_in(folder):
    folder.mkdir(exist_ok=True)
    return Run(folder=folder, scratch=folder, listener=Shown())


def kept(run, texts=TEXTS, key="k", tokenizer=TOKENIZER):
    return tokens.kept(run, "tokens-0", key, tokenizer, iter(documents(texts)), len(texts))


class Forbidden:
    """A tokenizer and a text that nobody may touch."""

    def __getattr__(self, name):
        raise AssertionError(f"the tokenizer was asked for {name}")

    def __iter__(self):
        raise AssertionError("the text was read")


def again(run, key="k"):
    return tokens.kept(run, "tokens-0", key, Forbidden(), Forbidden(), len(TEXTS))


def test_the_same_batches_as_from_memory_and_the_ids_stay_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 7)
    run = run_in(tmp_path)
    first, second, memory = kept(run), again(run), Encoded.of(TOKENIZER, documents(TEXTS))
    assert [(done, total, unit) for done, total, unit, _ in run.listener.lines] == [
        (done, 23, "document") for done in (7, 14, 21, 23)
    ]
    assert run.listener.lines[-1][3] == memory.tokens
    for found in (first, second):
        assert isinstance(found.ids, np.memmap) and not found.ids.flags.writeable
        assert np.array_equal(found.ids, memory.ids) and found.ids.dtype == memory.ids.dtype
        assert np.array_equal(found.starts, memory.starts) and np.array_equal(found.bytes, memory.bytes)
        assert found.names == memory.names
    streams = [Stream(e, OneDocument(), ENDS, longest=32, room=64, seed=0, device="cpu") for e in (memory, second)]
    for number in range(40):
        one, other = (stream.batch(number) for stream in streams)
        assert one.row.ids_t.tolist() == other.row.ids_t.tolist() and one.documents == other.documents
        assert one.target_t.tolist() == other.target_t.tolist() and one.bytes == other.bytes


def test_another_key_is_encoded_anew(tmp_path):
    run = run_in(tmp_path)
    kept(run)
    with pytest.raises(AssertionError, match="the text was read"):
        again(run, key="another")
    assert kept(run, TEXTS[:2], key="another").names == ["000", "001"]
    assert kept(run_in(tmp_path / "none"), []).tokens == 0


@pytest.mark.parametrize("name", [tokens.IDS, tokens.STARTS, tokens.BYTES, tokens.NAMES, tokens.MANIFEST])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_damaged_tokens_are_made_again(tmp_path, name, harm):
    run = run_in(tmp_path)
    expected = kept(run).ids.tolist()
    path = tmp_path / "tokens-0" / name
    held = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(held[: len(held) // 2] if harm == "cut" else held[:-5] + bytes([held[-5] ^ 1]) + held[-4:])
    with pytest.raises(AssertionError, match="the text was read"):
        again(run)
    assert kept(run).ids.tolist() == expected
    assert again(run).ids.tolist() == expected


def test_encoding_that_was_broken_off_is_no_whole_one(tmp_path):
    run = run_in(tmp_path)

    def broken():
        yield documents(TEXTS)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokens.kept(run, "tokens-0", "k", TOKENIZER, broken(), 1)
    assert not (tmp_path / "tokens-0").exists()
    assert kept(run).names == Encoded.of(TOKENIZER, documents(TEXTS)).names
    assert [path.name for path in tmp_path.iterdir()] == ["tokens-0"]


def test_ids_are_never_all_in_memory(tmp_path, monkeypatch):
    """A thousand documents of 5000 tokens take 20 MB on the disk; encoding and reading them take a tenth of it."""
    monkeypatch.setattr(data, "CHUNK", 10)
    monkeypatch.setattr(data, "encode", lambda _, texts: [np.arange(5000, dtype=np.int32) for _ in texts])
    run = run_in(tmp_path)
    some = (document for n in range(1000) for document in documents([str(n)]))
    tracemalloc.start()
    try:
        found = tokens.kept(run, "tokens-0", "k", None, some, 1000)
        stream = Stream(found, OneDocument(), ENDS, longest=32, room=64, seed=0, device="cpu")
        stream.sequence(999, 4990, 5000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.tokens == 5_000_000 and found.ids[-1] == 4999
    assert peak < 2_000_000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(*args):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(tokens, "write_json", full)
    with pytest.raises(UserError, match=r"tokens-0: .*No space left on device.*free the disk") as caught:
        kept(run_in(tmp_path))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_nothing_in_the_folder_is_pickled(tmp_path):
    kept(run_in(tmp_path))
    assert read_json(tmp_path / "tokens-0" / tokens.MANIFEST)["format"] == tokens.FORMAT
    for path in (tmp_path / "tokens-0").glob("*.npy"):
        np.load(path, allow_pickle=False)
