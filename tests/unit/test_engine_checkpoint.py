# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest
import torch

from lect.engine import checkpoint
from lect.errors import UserError


def put(folder, step):
    checkpoint.save(folder, step, {"a/b": torch.full((3,), float(step))}, {"tokens": step * 10})


def test_the_last_two_are_kept_and_the_newest_comes_back(tmp_path):
    assert checkpoint.load(tmp_path) is None
    for step in (1, 2, 10):
        put(tmp_path, step)
    assert [p.name for p in checkpoint.found(tmp_path)] == ["checkpoint-000000002", "checkpoint-000000010"]
    tensors, state = checkpoint.load(tmp_path)
    assert tensors["a/b"].tolist() == [10.0, 10.0, 10.0]
    assert state == {"tokens": 100, "step": 10}
    assert not any(path.suffix in (".pt", ".bin", ".pkl") for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", [checkpoint.TENSORS.format(0), checkpoint.STATE, checkpoint.MANIFEST])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, name, harm):
    put(tmp_path, 1)
    put(tmp_path, 2)
    path = tmp_path / "checkpoint-000000002" / name
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    _, state = checkpoint.load(tmp_path)
    assert state["step"] == 1


def test_torn_leftovers_are_removed(tmp_path):
    torn = tmp_path / ".checkpoint-000000007.tmp"
    torn.mkdir()
    (torn / checkpoint.TENSORS.format(0)).write_bytes(b"half")
    assert checkpoint.load(tmp_path) is None
    assert not torn.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_clear_line_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    put(tmp_path, 1)

    def full(*args):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(UserError, match=r"No space left on device.*free the disk"):
        put(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000000001"]
    assert checkpoint.load(tmp_path)[1]["step"] == 1
