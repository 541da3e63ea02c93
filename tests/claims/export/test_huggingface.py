# SPDX-License-Identifier: Apache-2.0
"""export/huggingface: a plain folder, exact, readable, with card, terms and sums."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

from lect.artefacts import Model, sha256
from lect.method import Run
from lect.stages.export.huggingface import Huggingface
from lect.testing import pico

IDS = [[5, 300, 41, 77, 599]]
PLAIN = """
import json, sys, torch, transformers
folder = sys.argv[1]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model, report = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, output_loading_info=True
)
assert "lect" not in sys.modules
ids = tokenizer(sys.argv[2]).input_ids
logits = model(torch.tensor([ids])).logits[0, -1, :9].tolist()
faults = [sorted(report[k]) for k in ("missing_keys", "unexpected_keys")]
print(json.dumps([ids, logits, faults]))
"""


def exported(model, folder, base=None, **knobs):
    run = Run(folder=folder / "out", scratch=folder / "scratch")
    run.folder.mkdir(parents=True)
    return Huggingface(**knobs).apply(run, base=base or model, model=model), run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    model = pico.model("gemma3", tmp_path_factory.mktemp("base") / "m")
    (model.folder / "NOTICE").write_text("terms of the base")
    (model.folder / "README.md").write_text("---\nlicense: gemma\nbase_model: someone/pico-1\n---\n")
    return model


@pytest.mark.parametrize("family", pico.CAUSAL)
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_reload_is_exact_after_rounding(family, dtype, tmp_path):
    made, run = exported(pico.model(family, tmp_path / "m", padding=3), tmp_path, dtype=dtype)
    assert [(gate.name, gate.value) for gate in run.gates] == [("reload", 0.0)]
    assert made.load(dtype=torch.float32).config.dtype == torch.float32
    assert ("rounding" in run.facts) == (dtype != "f32")
    if dtype != "f32":
        assert 0 < run.facts["rounding"] < 0.5


@pytest.mark.parametrize("family", pico.CAUSAL)
def test_transformers_alone_loads_it(family, tmp_path):
    """A fresh process, without lect: the same ids and logits, nothing missing, nothing left over."""
    made, _ = exported(pico.model(family, tmp_path / "m"), tmp_path, dtype="f32")
    text = "Gorde fitxategia, mesedez.\n\n 12"
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(made.folder), text],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ""},
    )
    ids, logits, faults = json.loads(done.stdout)
    assert faults == [[], []]
    assert ids == made.tokenizer()(text).input_ids
    with torch.no_grad():
        wanted = made.load()(torch.tensor([ids])).logits[0, -1, :9]
    assert torch.allclose(torch.tensor(logits), wanted, atol=1e-6, rtol=0)


def test_the_model_card_is_whole(base, tmp_path):
    model = pico.model("gemma3", tmp_path / "m", seed=1)
    made, run = exported(model, tmp_path, base=base, language="eu, en")
    head, _, body = (made.folder / "README.md").read_text().removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(head) == {
        "base_model": "someone/pico-1",
        "base_model_relation": "finetune",
        "language": ["eu", "en"],
        "library_name": "transformers",
        "license": "gemma",
        "pipeline_tag": "text-generation",
        "tags": ["lect"],
    }
    live = made.load()
    assert f"{sum(p.numel() for p in live.parameters()):,}" in body
    assert "# pico-1-lect" in body
    assert "`NOTICE`" in body
    assert run.facts["licence"] == "gemma (NOTICE)"


def test_a_card_states_no_licence_that_the_base_does_not(tmp_path):
    made, _ = exported(pico.model("bert", tmp_path / "m"), tmp_path)
    head, _, body = (made.folder / "README.md").read_text().removeprefix("---\n").partition("---\n")
    assert not {"license", "base_model", "language"} & set(yaml.safe_load(head))
    assert "its folder stated none" in body
    assert "AutoModelForMaskedLM" in body


def test_terms_and_sums_of_everything(base, tmp_path):
    made, _ = exported(pico.model("gemma3", tmp_path / "m", seed=1), tmp_path, base=base)
    assert (made.folder / "NOTICE").read_text() == "terms of the base"
    files = {path.name for path in made.folder.iterdir()}
    sums = json.loads((made.folder / "manifest.json").read_text())["files"]
    assert set(sums) == files - {"manifest.json"}
    assert all(sha256(made.folder / name) == total for name, total in sums.items())
    assert made.load() is not None


def test_others_can_read_the_files(tmp_path):
    before = os.umask(0o022)
    try:
        made, _ = exported(pico.model("llama", tmp_path / "m"), tmp_path)
        assert {oct(path.stat().st_mode & 0o777) for path in made.folder.iterdir()} == {"0o644"}
    finally:
        os.umask(before)


def test_the_dtype_is_the_one_asked_for(tmp_path):
    live, tokenizer = pico.build("llama")
    model = Model.write(tmp_path / "m", live.to(torch.bfloat16), tokenizer)
    for dtype, wanted in (("same", "bfloat16"), ("f32", "float32"), ("f16", "float16")):
        made, run = exported(model, tmp_path / dtype, dtype=dtype)
        assert json.loads((made.folder / "config.json").read_text())["dtype"] == wanted
        assert run.facts["dtype"] == wanted
