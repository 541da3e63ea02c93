# SPDX-License-Identifier: Apache-2.0
"""The kinds of the corpus stage: readers, text maps, filters, and assigners of splits.

Every kind writes one corpus and one account: read = kept + dropped by reason, bytes, and a few dropped examples.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

from lect.artefacts import Artefact, Corpus, Document, Sources
from lect.errors import UserError
from lect.method import Estimate, Run, Sizes, Step, knobs

EXAMPLES = 5
EXCERPT = 160
EMPTY = "the corpus is empty; give at least one file with text in it"
Verdict = tuple[Document, str | None]  # the document, perhaps annotated, and why it is dropped


def document_id(role: str, text: str) -> str:
    """The SHA-256 of role and text, in hexadecimal."""
    return hashlib.sha256(f"{role}\0{text}".encode()).hexdigest()


class Funnel:
    """Counts documents as they pass: read, kept, dropped by reason, per role, with examples."""

    def __init__(self) -> None:
        self.kept: Counter[str] = Counter()
        self.kept_bytes: Counter[str] = Counter()
        self.dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self.examples: dict[str, list[dict[str, str]]] = defaultdict(list)

    def passing(self, verdicts: Iterable[Verdict]) -> Iterator[Document]:
        """Yield the documents that are kept."""
        for document, reason in verdicts:
            if reason is None:
                self.kept[document.role] += 1
                self.kept_bytes[document.role] += len(document.text.encode())
                yield document
                continue
            self.dropped[document.role][reason] += 1
            if len(self.examples[reason]) < EXAMPLES:
                excerpt = " ".join(document.text[: 4 * EXCERPT].split())[:EXCERPT]
                self.examples[reason].append({"source": document.source, "excerpt": excerpt})

    def facts(self) -> dict[str, Any]:
        """The counts as JSON-able facts."""
        total: Counter[str] = sum(self.dropped.values(), Counter())
        roles = {}
        for role in sorted(set(self.kept) | set(self.dropped)):
            lost = self.dropped.get(role, Counter())
            read = self.kept[role] + sum(lost.values())
            size = self.kept_bytes[role]
            roles[role] = {"read": read, "kept": self.kept[role], "dropped": dict(lost), "bytes": size}
        return {
            "read": sum(self.kept.values()) + sum(total.values()),
            "kept": sum(self.kept.values()),
            "dropped": dict(total),
            "bytes": sum(self.kept_bytes.values()),
            "roles": roles,
            "examples": dict(self.examples),
        }

    def close(self, run: Run, step: Step) -> None:
        """Report the counts; a role that lost all of its documents is a UserError."""
        facts = self.facts()
        name = "corpus/" + type(step).__module__.rpartition(".")[2]
        run.fact(**facts)
        if not facts["read"]:
            raise UserError(f"{name}: {EMPTY}")
        for role, counts in facts["roles"].items():
            if not counts["kept"]:
                why = ", ".join(f"{n} {reason}" for reason, n in counts["dropped"].items())
                raise UserError(f"{name}: nothing is left of the {role} text ({why}); give more text or loosen {name}")
        lost = facts["read"] - facts["kept"]
        if lost:
            why = ", ".join(f"{n} {reason}" for reason, n in facts["dropped"].items())
            run.say(f"{facts['kept']} of {facts['read']} documents kept; dropped: {why}")


@knobs
class CorpusStep(Step):
    """A step from corpus to corpus that only reads and writes text."""

    inputs: ClassVar[dict[str, type[Artefact]]] = {"corpus": Corpus}
    output: ClassVar[type[Artefact]] = Corpus

    def estimate(self, sizes: Sizes) -> Estimate:
        """A second for every 5 MB of text."""
        size = sizes.target_bytes + sizes.kept_bytes
        return Estimate(seconds=0.1 + size / 5e6, disk_bytes=size // 2, memory_bytes=200_000_000)


@knobs
class Reader(Step):
    """Files in, corpus out; a reader yields the documents and fills in the facts."""

    inputs: ClassVar[dict[str, type[Artefact]]] = {"sources": Sources}
    output: ClassVar[type[Artefact]] = Corpus

    def apply(self, run: Run, sources: Sources) -> Corpus:
        """Write what the reader yields."""
        return Corpus.write(run.folder, self.read(run, sources))

    def estimate(self, sizes: Sizes) -> Estimate:
        """A second for every 2 MB of text, as HTML takes."""
        size = sizes.target_bytes + sizes.kept_bytes
        return Estimate(seconds=2 + size / 2e6, disk_bytes=size // 2, memory_bytes=400_000_000)

    @abstractmethod
    def read(self, run: Run, sources: Sources) -> Iterator[Document]:
        """Yield every document in the sources; facts go to ``run`` before the last."""


@knobs
class DocMap(CorpusStep):
    """A text in, a text out; a document whose text becomes empty is dropped as ``empty``."""

    def apply(self, run: Run, corpus: Corpus) -> Corpus:
        """Change every document; the id follows the text."""
        funnel = Funnel()
        changed = 0

        def verdicts() -> Iterator[Verdict]:
            nonlocal changed
            for document in corpus.documents():
                text = self.change(document.text)
                if text != document.text:
                    changed += 1
                    document = replace(document, id=document_id(document.role, text), text=text)
                yield document, None if text else "empty"

        written = Corpus.write(run.folder, funnel.passing(verdicts()))
        run.fact(changed=changed)
        funnel.close(run, self)
        return written

    @abstractmethod
    def change(self, text: str) -> str:
        """The new text; calling it again changes nothing more."""


@knobs
class CorpusFilter(CorpusStep):
    """A filter that may look at the whole corpus: one verdict for each document, in order."""

    def apply(self, run: Run, corpus: Corpus) -> Corpus:
        """Write the documents that the verdicts keep."""
        funnel = Funnel()
        written = Corpus.write(run.folder, funnel.passing(self.verdicts(run, corpus)))
        funnel.close(run, self)
        return written

    @abstractmethod
    def verdicts(self, run: Run, corpus: Corpus) -> Iterator[Verdict]:
        """Yield every document of ``corpus``, in its order, with None or the reason why it is dropped."""


@knobs
class DocFilter(CorpusFilter):
    """A filter that fits its thresholds on each role's own texts, then judges document by document."""

    def verdicts(self, run: Run, corpus: Corpus) -> Iterator[Verdict]:
        """Fit on each role, then judge."""
        fitted: dict[str, Any] = {}
        for document in corpus.documents():
            if document.role not in fitted:
                fitted[document.role] = self.fit(d.text for d in corpus.documents(role=document.role))
                run.fact(**{f"fitted_{document.role}": self.show(fitted[document.role])})
            yield document, self.drop(document.text, fitted[document.role])

    @abstractmethod
    def fit(self, texts: Iterable[str]) -> Any:
        """What the texts of one role teach: thresholds, or anything that ``drop`` understands."""

    def show(self, fitted: Any) -> Any:
        """What was fitted, as JSON-able facts."""
        return fitted

    @abstractmethod
    def drop(self, text: str, fitted: Any) -> str | None:
        """Why the text is dropped, or None when it is kept."""


@knobs
class Assign(CorpusStep):
    """Gives every document a split; drops none."""

    def apply(self, run: Run, corpus: Corpus) -> Corpus:
        """Find the borders, then write every document with its split."""
        borders = self.borders(corpus)
        if not borders:
            raise UserError(f"corpus/split: {EMPTY}")
        count: Counter[tuple[str, str]] = Counter()
        size: Counter[tuple[str, str]] = Counter()

        def assigned() -> Iterator[Document]:
            for document in corpus.documents():
                split = self.split(document, borders)
                count[document.role, split] += 1
                size[document.role, split] += len(document.text.encode())
                yield replace(document, split=split)

        written = Corpus.write(run.folder, assigned())
        splits: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
        for role, split in sorted(count):
            splits[role][split] = {"documents": count[role, split], "bytes": size[role, split]}
        total = sum(count.values())
        run.fact(read=total, kept=total, dropped={}, bytes=sum(size.values()), splits=dict(splits))
        return written

    @abstractmethod
    def borders(self, corpus: Corpus) -> dict[str, Any]:
        """What divides the documents of each role; no roles when the corpus is empty."""

    @abstractmethod
    def split(self, document: Document, borders: dict[str, Any]) -> str:
        """The split of one document: train, calibration or test."""
