# SPDX-License-Identifier: Apache-2.0
"""Greedy continuations of test text, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from lect.artefacts import Corpus
from lect.method import Range, Run, knobs
from lect.ops.scoring import Reader, Tick
from lect.stages.evaluate.kinds import ROLES, Reading, shuffled, size_of, test_documents, windows

CARD = {
    "title": "Sample continuations of base and adapted model",
    "paper": "",
    "claim": "both models continue the same 160 bytes of test text, always with the likeliest token",
    "differs": [],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
    "pico": {"follow_bytes": 24},
}


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The start of a test document and how it goes on."""

    role: str
    prompt: str
    truth: str


@knobs
class Samples(Reading):
    """Shows what each model writes after the start of a few of your test documents, beside what really follows."""

    each: Annotated[int, Range(at_least=1, at_most=1000)] = 3
    """Samples of each role."""
    prompt_bytes: Annotated[int, Range(at_least=8, at_most=100000)] = 160
    """Bytes of the document's start that the models are given."""
    follow_bytes: Annotated[int, Range(at_least=8, at_most=100000)] = 160
    """Bytes after which a continuation ends."""

    def material(self, run: Run, corpus: Corpus) -> list[Beginning]:
        """The first documents of each role, in a fixed random order, that go on after the prompt."""
        return [beginning for role in ROLES for beginning in self._beginnings(run, corpus, role)]

    def _beginnings(self, run: Run, corpus: Corpus, role: str) -> Iterator[Beginning]:
        documents = test_documents(corpus, role)
        left = self.each
        for i in shuffled(run.seed, (d.id for d in documents)):
            pieces = windows(documents[i].text.strip(), self.prompt_bytes)
            prompt = next(pieces, "").rstrip()
            truth = next(windows("".join(pieces), self.follow_bytes), "")
            if left and prompt and len(truth.split()) > 1:
                left -= 1
                yield Beginning(role=role, prompt=prompt, truth=truth)

    def read(self, reader: Reader, material: Any, tick: Tick) -> list[str]:
        """What the model writes, cut at ``follow_bytes``."""
        if not material:
            return []
        made = reader.greedy(
            [b.prompt for b in material],
            lambda _, text: size_of(text) >= self.follow_bytes,
            self.follow_bytes,
            tick=tick,
        )
        return [next(windows(text, self.follow_bytes), "") for text in made]

    def report(self, run: Run, material: Any, results: dict[str, Any]) -> dict[str, Any]:
        """Prompt, truth and each model's continuation."""
        return {
            "samples": [
                {"role": b.role, "prompt": b.prompt, "truth": b.truth}
                | {name: texts[i] for name, texts in results.items()}
                for i, b in enumerate(material)
            ]
        }
