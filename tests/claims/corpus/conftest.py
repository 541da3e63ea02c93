# SPDX-License-Identifier: Apache-2.0
"""A way to run one corpus step on a few texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lect.artefacts import Corpus, Document, Sources
from lect.method import Run, Step

Apply = Callable[..., tuple[list[Document], Run]]


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[], Path]:
    count = [0]

    def new() -> Path:
        count[0] += 1
        folder = tmp_path / f"folder-{count[0]}"
        folder.mkdir()
        return folder

    return new


@pytest.fixture
def apply(folders: Callable[[], Path]) -> Apply:
    """Run a step on documents (or on sources) and give back what it wrote and the run."""

    def run_step(step: Step, given: Iterable[Document] | Sources, seed: int = 0) -> tuple[list[Document], Run]:
        run = Run(folder=folders(), scratch=folders(), seed=seed)
        if isinstance(given, Sources):
            written = step.apply(run, sources=given)
        else:
            written = step.apply(run, corpus=Corpus.write(folders(), given))
        assert isinstance(written, Corpus)
        documents = list(written.documents())
        facts = run.facts
        assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
        assert facts["kept"] == len(documents)
        assert facts["bytes"] == sum(len(d.text.encode()) for d in documents)
        return documents, run

    return run_step
