# SPDX-License-Identifier: Apache-2.0
"""Keep every text once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from lect.artefacts import Corpus
from lect.method import Run, knobs
from lect.stages.corpus.kinds import CorpusFilter, Verdict

CARD = {
    "title": "Exact duplicate removal",
    "paper": "arXiv:2107.06499",
    "claim": "Of equal texts in one role one is kept, and no kept text equals a target text.",
    "differs": ["whole documents are compared, not substrings (the paper's section 4.1)"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


def digest(text: str) -> bytes:
    """Sixteen bytes that two different texts share with a chance below 2**-90, at 2**19 documents."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@knobs
class ExactDuplicates(CorpusFilter):
    """Every text once: the first of equal texts within a role, and none of the kept text that the target has too.

    Lee et al. 2021 (arXiv:2107.06499) show what repeats cost a language model. Memory: 16 bytes and a set entry a
    document.
    """

    def verdicts(self, run: Run, corpus: Corpus) -> Iterator[Verdict]:
        """Drop ``duplicate`` and ``duplicate_of_target``."""
        target = {digest(d.text) for d in corpus.documents(role="target")}
        seen: dict[str, set[bytes]] = {}
        for document in corpus.documents():
            key = digest(document.text)
            before = seen.setdefault(document.role, set())
            if document.role != "target" and key in target:
                yield document, "duplicate_of_target"
            elif key in before:
                yield document, "duplicate"
            else:
                before.add(key)
                yield document, None
