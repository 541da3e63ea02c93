# SPDX-License-Identifier: Apache-2.0
"""Licences are read, never guessed, and carried."""

from __future__ import annotations

import pytest

from lect.ops import licence


def test_a_folder_without_a_card_states_nothing(tmp_path):
    found = licence.read(tmp_path)
    assert (found.name, found.link, found.base_model, found.files) == (None, None, None, ())
    assert str(found) == "not stated"


@pytest.mark.parametrize(
    ("head", "name", "base"),
    [
        ("license: gemma\nbase_model: google/x", "gemma", "google/x"),
        ("license: other\nlicense_name: my-terms\nbase_model: [a/b, c/d]", "my-terms", "a/b"),
        ("language: eu", None, None),
        ("license: [unclosed", None, None),
        ("just words", None, None),
    ],
)
def test_the_card_is_read(tmp_path, head, name, base):
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# Title\n\nlicense: mit\n")
    assert licence.read(tmp_path).name == name
    assert licence.read(tmp_path).base_model == base


def test_a_snapshot_of_the_hub_knows_its_name(tmp_path):
    folder = tmp_path / "models--someone--their-model" / "snapshots" / "0a1b"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nbase_model: older/one\n---\n")
    assert licence.read(folder).base_model == "someone/their-model"


def test_files_are_carried_and_never_overwritten(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir(), target.mkdir()
    for name in ("LICENSE", "LICENCE.txt", "NOTICE", "GEMMA_TERMS.html", "USE_POLICY.md", "weights.bin"):
        (source / name).write_text(name)
    (target / "NOTICE").write_text("mine")
    assert licence.carry(source, target) == ["GEMMA_TERMS.html", "LICENCE.txt", "LICENSE", "NOTICE", "USE_POLICY.md"]
    assert (target / "NOTICE").read_text() == "mine"
    assert not (target / "weights.bin").exists()
    assert (target / "LICENCE.txt").read_text() == "LICENCE.txt"
