# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lect.artefacts import Document
from lect.stages.corpus.exact_duplicates import ExactDuplicates
from lect.stages.corpus.kinds import document_id


def naive(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for role, text in pairs:
        if (role, text) not in out and not (role == "kept" and ("target", text) in pairs):
            out.append((role, text))
    return out


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["target", "kept"]), st.sampled_from(["a", "b", "c ", "c"])), min_size=1))
def test_same_as_a_naive_loop(apply, pairs: list[tuple[str, str]]) -> None:
    """equation: the first of equal texts within a role, kept text without what the target has."""
    pairs = [("target", "one"), ("kept", "other"), *pairs]
    documents, _ = apply(ExactDuplicates(), [Document(document_id(r, t), t, role=r) for r, t in pairs])
    assert [(d.role, d.text) for d in documents] == naive(pairs)
