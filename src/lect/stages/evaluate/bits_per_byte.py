# SPDX-License-Identifier: Apache-2.0
"""Bits per byte on test text, and whether the adapted model may be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lect.artefacts import Corpus
from lect.errors import UserError
from lect.method import Range, Run, knobs
from lect.ops.scoring import Reader, Tick
from lect.ops.statistics import cluster_interval
from lect.stages.evaluate.kinds import ROLES, Reading, shuffled, size_of, test_documents, windows

CARD = {
    "title": "Bits per byte, paired over the same windows",
    "paper": "arXiv:2101.00027",
    "claim": "equal terms for all tokenizers: a uniform model over v rows costs log2(v) times tokens per byte",
    "differs": [
        "windows are cut at byte counts, not token counts: every model reads the same bytes after its start token",
        "text that a tokenizer turns into its unknown token is charged 8 bits a byte",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@dataclass(frozen=True, kw_only=True)
class Window:
    """A piece of test text that is scored alone."""

    role: str
    document: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One model's bits, tokens and unknown tokens in every window."""

    bits: NDArray[np.float64]
    tokens: NDArray[np.float64]
    unknown: int


@knobs
class BitsPerByte(Reading):
    """Shows how well each model predicts your text and the text to keep, with a verdict on both.

    Test documents are cut into windows of the same bytes for both models; each is scored alone after the start
    token. Bits are summed and divided by bytes (section 3.1 of the paper). The difference is paired, with whole
    documents drawn anew for its 95 % interval. The gates look at the upper end of the relative difference, so a
    model passes when it is inside the budget with 97.5 % confidence, not when it was lucky.
    """

    window_bytes: Annotated[int, Range(at_least=64, at_most=1000000)] = 1024
    """Bytes that are scored together, without what stands before them."""
    max_bytes: Annotated[int, Range(at_least=1)] = 32000
    """Most bytes of test text to score for each role; a fixed sample of windows is drawn where there is more."""
    gates: ClassVar[dict[str, tuple[float, str]]] = {
        "target": (0.0, "upper end of the relative change in bits per byte on target test text"),
        "kept": (0.03, "upper end of the relative change in bits per byte on kept test text"),
    }

    def material(self, run: Run, corpus: Corpus) -> list[Window]:
        """The windows of every role that has test text."""
        found = [window for role in ROLES for window in self._windows(run, corpus, role)]
        if not any(window.role == "target" for window in found):
            raise UserError(
                "evaluate/bits_per_byte: no target text is in the test split; give more, or raise split.test"
            )
        return found

    def _windows(self, run: Run, corpus: Corpus, role: str) -> list[Window]:
        every = [
            Window(role=role, document=d.id, text=text)
            for d in test_documents(corpus, role)
            for text in windows(d.text, self.window_bytes)
        ]
        chosen: list[Window] = []
        used, total = 0, sum(size_of(w.text) for w in every)
        for i in shuffled(run.seed, (f"{n}\0{w.document}" for n, w in enumerate(every))):
            if chosen and used + size_of(every[i].text) > self.max_bytes:
                continue
            chosen.append(every[i])
            used += size_of(every[i].text)
        if every:
            documents = len({w.document for w in chosen})
            sample = {"bytes": used, "of_bytes": total, "windows": len(chosen), "documents": documents}
            run.fact(**{f"{role}_sample": sample})
        return chosen

    def read(self, reader: Reader, material: Any, tick: Tick) -> Scores:
        """Bits and tokens of every window."""
        texts = [window.text for window in material]
        ids, start = reader.encode(texts), reader.start
        scored = reader.bits([start + one for one in ids], [len(start)] * len(ids), tick)
        bits = np.array([one.sum() for one in scored])
        unknown, missing = reader.tokenizer.unk_token_id, 0
        for i, one in enumerate(ids):
            if unknown is not None and unknown in one:
                missing += one.count(unknown)
                seen = reader.tokenizer.decode([t for t in one if t != unknown], clean_up_tokenization_spaces=False)
                bits[i] += 8 * max(0, size_of(texts[i]) - size_of(seen))
        return Scores(bits=bits, tokens=np.array([float(len(one)) for one in ids]), unknown=missing)

    def report(self, run: Run, material: Any, results: dict[str, Any]) -> dict[str, Any]:
        """Bits per byte and bytes per token by role, the paired difference, and the gates."""
        run.fact(unknown_tokens={name: scores.unknown for name, scores in results.items()})
        fragment: dict[str, Any] = {}
        for role in ROLES:
            at = [i for i, window in enumerate(material) if window.role == role]
            if not at:
                continue
            size = np.array([float(size_of(material[i].text)) for i in at])
            part: dict[str, Any] = {}
            for name, scores in results.items():
                part[name] = {
                    "bits_per_byte": float(scores.bits[at].sum() / size.sum()),
                    "bytes_per_token": float(size.sum() / scores.tokens[at].sum()),
                }
            if "adapted" in results:
                base, adapted = results["base"].bits[at], results["adapted"].bits[at]
                names = [material[i].document for i in at]
                change = cluster_interval(lambda b, a, n: (a - b) / n, [base, adapted, size], names, run.seed)
                relative = cluster_interval(lambda b, a: a / b - 1, [base, adapted], names, run.seed)
                part["difference"] = change.as_dict() | {"relative": relative.as_dict(), "documents": len(set(names))}
                run.gate(role, relative.high, run.limit(role, self.gates[role][0]))
            fragment[role] = part
        return fragment

    def reads(self) -> tuple[float, bool]:
        """The sample of either role."""
        return 2.0 * self.max_bytes, True
