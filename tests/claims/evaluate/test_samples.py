# SPDX-License-Identifier: Apache-2.0
"""Samples: the same start for both, what really follows, and the likeliest token always."""

from __future__ import annotations

from lect.method import Run
from lect.ops.scoring import Reader
from lect.stages.evaluate.samples import Samples
from lect.testing import pico


def run_in(folder):
    (folder / "out").mkdir(parents=True)
    return Run(folder=folder / "out", scratch=folder)


def test_prompt_and_truth_are_the_document(tmp_path):
    corpus = pico.corpus(tmp_path / "c")
    method = Samples(each=2, prompt_bytes=40, follow_bytes=30)
    found = method.material(run_in(tmp_path / "r"), corpus)
    assert [b.role for b in found] == ["target", "target", "kept", "kept"]
    for beginning in found:
        assert any(t.startswith(beginning.prompt + beginning.truth) for t in corpus.texts(beginning.role, "test"))
        assert len(beginning.prompt.encode()) <= 40 and len(beginning.truth.encode()) <= 30
    assert found == method.material(run_in(tmp_path / "s"), corpus)


def test_both_continue_greedily(tmp_path):
    base, other = pico.model("gemma3", tmp_path / "a"), pico.model("gemma3", tmp_path / "b", seed=1)
    corpus = pico.corpus(tmp_path / "c")
    method = Samples(each=1, prompt_bytes=40, follow_bytes=24)
    rows = method.apply(run_in(tmp_path / "r"), base=base, model=other, corpus=corpus).data["samples"]
    assert len(rows) == 2 and all(set(r) == {"role", "prompt", "truth", "base", "adapted"} for r in rows)
    assert any(r["base"] != r["adapted"] for r in rows)
    for name, model in (("base", base), ("adapted", other)):
        alone = Reader.open(model)
        for row in rows:
            [free] = alone.greedy([row["prompt"]], lambda i, text: False, 40)
            assert free.startswith(row[name]) and len(row[name].encode()) <= 24
