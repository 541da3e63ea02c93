# SPDX-License-Identifier: Apache-2.0
"""The whole stage on a folder: nothing is lost without a reason, and the result does not depend on file order."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pytest
import zstandard

from lect.artefacts import Corpus, Document, Sources
from lect.data import path as bundled
from lect.errors import UserError
from lect.method import Run, Step
from lect.registry import build_step, steps

ORDER = ("normalise", "exact_duplicates", "near_duplicates", "language", "length", "repetition", "split")


def run_step(step: Step, folder: Path, **given: object) -> tuple[Corpus, Run]:
    (folder / "out").mkdir(parents=True)
    (folder / "scratch").mkdir()
    run = Run(folder=folder / "out", scratch=folder / "scratch")
    made = step.apply(run, **given)
    assert isinstance(made, Corpus)
    return made, run


def test_every_document_is_accounted_for(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    for language, place in (("eu", source / "eu.jsonl.gz"), ("en", tmp_path / "en.jsonl.bz2")):
        lines = zstandard.ZstdDecompressor().stream_reader(bundled(language).read_bytes()).read().split(b"\n")[::8]
        place.write_bytes((gzip if language == "eu" else bz2).compress(b"\n".join(lines)))
    (source / "again.txt").write_text("Testu bat.\r\n\r\n\r\n" * 3, encoding="utf-16")
    sources = Sources(tmp_path, files=(("target", source), ("kept", tmp_path / "en.jsonl.bz2")))
    corpus, run = run_step(build_step("corpus/read", {}), tmp_path / "read", sources=sources)
    kept = run.facts["kept"]
    assert run.facts["read"] == kept + sum(run.facts["dropped"].values())
    for name in ORDER:
        corpus, run = run_step(build_step(f"corpus/{name}", {}), tmp_path / name, corpus=corpus)
        assert run.facts["read"] == kept
        kept = run.facts["kept"]
        assert kept == run.facts["read"] - sum(run.facts["dropped"].values()) == sum(1 for _ in corpus.documents())
        for reason, examples in run.facts.get("examples", {}).items():
            assert reason in run.facts["dropped"] and 1 <= len(examples) <= 5
    assert {(d.role, d.split) for d in corpus.documents()} == {
        (role, split) for role in ("target", "kept") for split in ("train", "calibration", "test")
    }
    share = sum(1 for _ in corpus.documents("target", "test")) / sum(1 for _ in corpus.documents("target"))
    assert 0.05 < share < 0.25
    assert kept > 300


@pytest.mark.parametrize("name", [n for n in steps() if n.startswith("corpus/") and n != "corpus/read"])
def test_an_empty_corpus_is_named(name: str, tmp_path: Path) -> None:
    step = build_step(name, {})
    given = dict.fromkeys(step.inputs) | {"corpus": Corpus.write(tmp_path, [])}  # told before a model is looked at
    with pytest.raises(UserError, match=f"{name}: the corpus is empty"):
        run_step(step, tmp_path / "run", **given)


def test_a_role_that_loses_everything_is_named(tmp_path: Path) -> None:
    corpus = Corpus.write(tmp_path, [Document("a", "a text"), Document("b", "...", role="kept")])
    with pytest.raises(UserError, match=r"corpus/length: nothing is left of the kept text \(1 no_letters\)"):
        run_step(build_step("corpus/length", {}), tmp_path / "run", corpus=corpus)
