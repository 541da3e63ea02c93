# SPDX-License-Identifier: Apache-2.0
"""Parameters and bytes add up."""

from __future__ import annotations

import pytest
from safetensors import safe_open

from lect.method import Run
from lect.stages.evaluate.size import Size
from lect.testing import pico


def sizes(folder, model):
    (folder / "out").mkdir(parents=True)
    run = Run(folder=folder / "out", scratch=folder)
    return Size().apply(run, base=model, model=model, corpus=pico.corpus(folder / "c")).data["size"]["base"]


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_counts_are_those_of_the_file(family, tmp_path):
    model = pico.model(family, tmp_path / "m")
    found = sizes(tmp_path / "r", model)
    with safe_open(model.folder / "model.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert found["parameters"] == stored
    assert found["embedding"] + found["head"] + found["body"] == found["parameters"]
    assert found["bytes"] == sum(p.stat().st_size for p in model.folder.rglob("*") if p.is_file())
    assert found["embedding"] == found["rows"] * 32


def test_a_tied_head_counts_once(tmp_path):
    tied = sizes(tmp_path / "r", pico.model("llama", tmp_path / "a", tied=True))
    untied = sizes(tmp_path / "s", pico.model("llama", tmp_path / "b", tied=False))
    assert tied["tied"] and tied["head"] == 0
    assert not untied["tied"] and untied["head"] == untied["embedding"]
    assert untied["parameters"] - tied["parameters"] == untied["head"] and untied["body"] == tied["body"]
