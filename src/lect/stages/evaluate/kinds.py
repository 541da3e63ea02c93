# SPDX-License-Identifier: Apache-2.0
"""The kinds of the evaluate stage: one measurement of one model, made on base and adapted alike and joined.

Everything that the models are asked is made from test text as strings, before any model is loaded, so that both
answer the same questions whatever their tokenizers.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, ClassVar

import numpy as np

from lect.artefacts import Artefact, Corpus, Document, Model, Report
from lect.method import Estimate, OneOf, Range, Run, Sizes, Step, knobs
from lect.ops.scoring import Reader, Tick, compute_dtype
from lect.ops.statistics import cluster_interval, wilson

ROLES = ("target", "kept")
RESIDENT = 1_500_000_000  # what the process holds by then: libraries, text, what training left behind
JOINERS = "'\u2019-\u2010\u00b7\u200c\u200d"
"""Signs that stand inside a word when a letter follows: apostrophes, hyphens, middle dot, joiners."""


def test_documents(corpus: Corpus, role: str) -> list[Document]:
    """The documents of the test split; those of a corpus without any split are all unseen, hence all of them."""
    documents = list(corpus.documents(role))
    if any(d.split for d in corpus.documents()):
        documents = [d for d in documents if d.split == "test"]
    return [d for d in documents if d.text.strip()]


def shuffled(seed: int, names: Iterable[str]) -> list[int]:
    """Positions of ``names`` in an order that depends on seed and names alone, not on their order."""
    keys = [hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest() for name in names]
    return sorted(range(len(keys)), key=lambda i: keys[i])


def size_of(text: str) -> int:
    """The number of UTF-8 bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


def windows(text: str, size: int) -> Iterator[str]:
    """Cut a text into pieces of at most ``size`` bytes whose concatenation is the text.

    A piece ends before white space where its second half has any, else between two characters; a character of
    more bytes than ``size`` makes a piece of its own.
    """
    left = 0
    while left < len(text):
        right, used, border = left, 0, 0
        while right < len(text):
            used += size_of(text[right])
            if used > size and right > left:
                break
            if text[right].isspace() and right > left and used * 2 > size:
                border = right
            right += 1
        right = border if border and right < len(text) else right
        yield text[left:right]
        left = right


@lru_cache(maxsize=1 << 16)
def in_word(character: str) -> bool:
    """True for letters, marks and digits of any script."""
    return unicodedata.category(character)[0] in "LMN"


def words(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of every word: letters, marks and digits, with single hyphens or apostrophes inside."""
    start = None
    for i, character in enumerate(text):
        inside = in_word(character) or (
            character in JOINERS and start is not None and i + 1 < len(text) and in_word(text[i + 1])
        )
        if inside and start is None:
            start = i
        elif not inside and start is not None:
            yield start, i
            start = None
    if start is not None:
        yield start, len(text)


@knobs
class Comparison(Step):
    """A measurement of base and adapted model on the same material, and their difference."""

    inputs: ClassVar[dict[str, type[Artefact]]] = {"base": Model, "model": Model, "corpus": Corpus}
    output: ClassVar[type[Artefact]] = Report

    def apply(self, run: Run, base: Model, model: Model, corpus: Corpus) -> Report:
        """Make the material, measure each model once (one alone if both are the same), write a report fragment."""
        material = self.material(run, corpus)
        subjects = {"base": base}
        if base.folder != model.folder and base.fingerprint != model.fingerprint:
            subjects["adapted"] = model
        return Report.write(run.folder, self.report(run, material, self.measurements(run, subjects, material)))

    def measurements(self, run: Run, subjects: dict[str, Model], material: Any) -> dict[str, Any]:
        """Measure each subject in turn, one in memory at a time."""
        return {name: self.measure(run, name, model, material) for name, model in subjects.items()}

    def material(self, run: Run, corpus: Corpus) -> Any:
        """What both models are measured on, made of strings alone."""
        raise NotImplementedError

    def measure(self, run: Run, name: str, model: Model, material: Any) -> Any:
        """One model's results."""
        raise NotImplementedError

    def report(self, run: Run, material: Any, results: dict[str, Any]) -> dict[str, Any]:
        """The fragment of report.json; ``results`` has ``base`` and, unless it is the same model, ``adapted``."""
        raise NotImplementedError

    def reads(self) -> tuple[float, bool]:
        """Bytes of text that each model reads, and whether the logits of every position are needed."""
        return 0.0, False

    def estimate(self, sizes: Sizes) -> Estimate:
        """Loading both models, and two operations a parameter and token at half of the matrix product rate."""
        size, whole = self.reads()
        models = sizes.parameters + (sizes.base_parameters or sizes.parameters)
        if not whole:
            models -= sizes.embedding_parameters + (sizes.base_embedding_parameters or sizes.embedding_parameters)
        seconds = 4.0 + 2 * models * size / max(1.0, sizes.bytes_per_token) / (sizes.matmul_flops / 2)
        memory = 3 * max(sizes.parameters, sizes.base_parameters) + RESIDENT
        return Estimate(seconds=seconds, memory_bytes=memory)


@knobs
class Reading(Comparison):
    """A measurement for which the model reads test text: it is loaded once, in a chosen precision."""

    precision: Annotated[str, OneOf("auto", "float32", "bfloat16")] = "auto"
    """Number type of the computation; auto is bfloat16 for models over 100 MB where the hardware is fast at it."""

    def measurements(self, run: Run, subjects: dict[str, Model], material: Any) -> dict[str, Any]:
        """Measure each subject in turn, both in the type that fits the base."""
        dtype = compute_dtype(self.precision, subjects["base"], run.device)
        run.fact(precision=str(dtype).removeprefix("torch."))
        results: dict[str, Any] = {}
        total = self.count(material) * len(subjects)
        done = 0

        def tick(steps: int) -> None:
            nonlocal done
            done += steps
            run.progress(done, total, "item", model=name)

        for name, model in subjects.items():
            results[name] = self.read(Reader.open(model, dtype, run.device), material, tick)
        return results

    def count(self, material: Any) -> int:
        """How many ticks one model's measurement makes."""
        return len(material)

    def read(self, reader: Reader, material: Any, tick: Tick) -> Any:
        """The pure inner function: one model's results on the material."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Question:
    """One item of an exam, made of strings: what the model is given, and what is right."""

    document: str
    prompt: str
    answer: str
    others: tuple[str, ...] = ()


@knobs
class Exam(Reading):
    """Questions made from the test text itself, the share answered right, and the paired difference.

    A method writes ``questions(documents, seed)`` and ``answers(reader, questions, tick)``.
    """

    name: ClassVar[str]
    """The exam's key in the report."""
    role: Annotated[str, OneOf("target", "kept")] = "target"
    """Whose test text the questions are made from."""
    items: Annotated[int, Range(at_least=1, at_most=100000)] = 160
    """The greatest number of questions; fewer are asked where the text has fewer."""

    def material(self, run: Run, corpus: Corpus) -> list[Question]:
        """Up to ``items`` questions in an order that depends on seed and text alone."""
        chosen = list(islice(self.questions(test_documents(corpus, self.role), run.seed), self.items))
        run.fact(questions=len(chosen), documents=len({q.document for q in chosen}))
        if not chosen:
            run.say(f"{self.name}: the {self.role} test text gives no question; the exam is left out of the report")
        return chosen

    def read(self, reader: Reader, material: Any, tick: Tick) -> list[bool]:
        """Right or wrong, question by question."""
        return self.answers(reader, material, tick)

    def questions(self, documents: Sequence[Document], seed: int) -> Iterator[Question]:
        """Yield every question that the documents give, in an order that depends on seed and text alone."""
        raise NotImplementedError

    def answers(self, reader: Reader, questions: Sequence[Question], tick: Tick) -> list[bool]:
        """Whether the model answers each question right."""
        raise NotImplementedError

    def measurements(self, run: Run, subjects: dict[str, Model], material: Any) -> dict[str, Any]:
        """Load no model where there is nothing to ask."""
        return super().measurements(run, subjects, material) if material else {}

    def report(self, run: Run, material: Any, results: dict[str, Any]) -> dict[str, Any]:
        """Accuracies with Wilson's intervals; the difference with documents drawn anew."""
        if not material:
            return {"exams": {}}
        score: dict[str, Any] = {}
        for name, right in results.items():
            share = wilson(sum(right), len(right))
            score[name] = {"accuracy": share.mean, "low": share.low, "high": share.high, "items": len(right)}
        if "adapted" in results:
            gain = np.asarray(results["adapted"], dtype=float) - np.asarray(results["base"], dtype=float)
            documents = [q.document for q in material]
            interval = cluster_interval(lambda a, n: a / n, [gain, np.ones(len(gain))], documents, run.seed)
            score["difference"] = interval.as_dict()
        return {"exams": {self.name: score}}
