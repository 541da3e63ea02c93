# SPDX-License-Identifier: Apache-2.0
"""The reader of GGUF files against the gguf package's own writer, and against damage."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.errors import UserError
from lect.ops.gguf_file import GgufFile

DRAW = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)


def written(path, fields=(), tensors=()):
    writer = gguf.GGUFWriter(path, "pico")
    for name, value in fields:
        {str: writer.add_string, int: writer.add_int32, float: writer.add_float64, bool: writer.add_bool}.get(
            type(value), writer.add_array
        )(name, value)
    for name, values, kind in tensors:
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@given(
    st.lists(
        st.one_of(
            st.text(min_size=1, max_size=40),
            st.integers(-(2**31), 2**31 - 1),
            st.floats(allow_nan=False),
            st.booleans(),
            st.lists(st.text(max_size=9), min_size=1, max_size=9),
            st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9),
        ),
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_fields_come_back(tmp_path_factory, values):
    values = [v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for v in values]
    path = tmp_path_factory.mktemp("gguf") / "f.gguf"
    written(path, [(f"k{i}", v) for i, v in enumerate(values)])
    read = GgufFile(path).fields
    for i, value in enumerate(values):
        back = read[f"k{i}"]
        if isinstance(value, list) and isinstance(value[0], str):
            value = [v.encode("utf-8", "replace").decode() for v in value]
        assert back == value


def test_tensors_come_back_as_the_package_decodes_them(tmp_path):
    kinds = [gguf.GGMLQuantizationType[k] for k in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1")]
    tensors = [(k.name, DRAW if k.name == "F32" else quantize(DRAW, k), k) for k in kinds]
    file = GgufFile(written(tmp_path / "t.gguf", tensors=tensors))
    for kind in kinds:
        wanted = dequantize(quantize(DRAW, kind), kind) if kind.name != "F32" else DRAW
        assert np.array_equal(file.array(kind.name), wanted)
        assert file.tensors[kind.name].shape == (6, 64)
    assert file.array("F32").flags.writeable


def test_large_tensors_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("lect.ops.gguf_file.CHUNK_VALUES", 128)
    file = GgufFile(written(tmp_path / "t.gguf", tensors=[("a", DRAW, gguf.GGMLQuantizationType.F32)]))
    assert [len(block) for block in file.blocks("a")] == [2, 2, 2]
    assert np.array_equal(file.array("a"), DRAW)


def test_what_is_no_gguf_file_is_refused(tmp_path):
    for name, data in (("empty", b""), ("text", b"hello, I am text"), ("old", b"GGUF" + struct.pack("<I", 1))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            GgufFile(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        GgufFile(tmp_path / "missing")


def test_announced_sizes_are_not_believed(tmp_path):
    path = tmp_path / "huge.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    with pytest.raises(UserError, match="more than the file can hold"):
        GgufFile(path)


def test_every_cut_is_noticed(tmp_path):
    whole = written(
        tmp_path / "whole.gguf",
        [("words", ["a", "bc"]), ("n", 3)],
        [("a", DRAW, gguf.GGMLQuantizationType.F32), ("b", DRAW[0], gguf.GGMLQuantizationType.F32)],
    ).read_bytes()
    end = 32 * (len(whole) // 32) - 32 if whole.endswith(bytes(32)) else len(whole)
    path = tmp_path / "cut.gguf"
    for size in [*range(1, 300, 7), *range(300, end - 64, 101)]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError):
            GgufFile(path)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_damage_gives_a_user_error_or_a_file(tmp_path_factory, at, noise):
    folder = tmp_path_factory.getbasetemp()
    whole = folder / "noise.gguf"
    if not whole.exists():
        written(whole, [("words", ["a", "bc"]), ("n", 3)], [("a", DRAW, gguf.GGMLQuantizationType.F32)])
    data = bytearray(whole.read_bytes())
    data[at : at + len(noise)] = noise
    path = folder / "damaged.gguf"
    path.write_bytes(bytes(data))
    try:
        file = GgufFile(path)
        for name in file.tensors:
            file.array(name)
    except UserError as error:
        assert "\n" not in str(error)
