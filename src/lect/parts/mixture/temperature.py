# SPDX-License-Identifier: Apache-2.0
"""Small languages or sources of the target text are read more often than their size alone would have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from lect.errors import UserError
from lect.method import OneOf, Range, knobs
from lect.parts.mixture.kind import Feedback, Mixture

if TYPE_CHECKING:
    from lect.artefacts import Document

CARD = {
    "title": "Sampling by exponentiated size",
    "paper": "arXiv:1901.07291",
    "claim": "the smaller of two texts of the target has more than its part of the rows, and is learnt better for it",
    "differs": [
        "sizes are tokens, as in the code of arXiv:1911.02116, where the paper counts sentences",
        "kept text has a share of its own, and no part in the formula",
        "documents of unknown language or source keep their share by size",
        "rows are laid evenly instead of drawn",
        "the exponent is that of arXiv:1911.02116 (0.3); the results published with arXiv:2405.12413 speak for 0.1 "
        "where the small languages of one family count most",
        "the formula was checked against the code of both papers, not their text",
    ],
    "version": 2,
    "off": {"alpha": 1.0, "kept_share": 0.0},
    "needs": [],
    "xfail": {},
}
UNKNOWN = "target"


@knobs
class Temperature(Mixture):
    """Rows shared out by size to the power of ``alpha``, which is 1 over what others call the temperature (sec. 3.1).

    Documents of the target without a language (``und``), or without a source, are one text together, whose share is by
    size. Where all others have one language, nothing is left to share out but target and kept text;
    ``corpus/language`` names several languages of the target where its knob ``own_share`` says so. Raises UserError
    where ``least`` leaves no text.
    """

    by: Annotated[str, OneOf("language", "source")] = "language"
    """What makes a text of its own of the target's documents: their language, or the file that they come from."""
    alpha: Annotated[float, Range(at_least=0, at_most=1)] = 0.3
    """Power of a text's tokens: 1 is by size, 0 the same for all."""
    kept_share: Annotated[float, Range(at_least=0, below=1)] = 0.25
    """Share of the rows that hold kept text, in (0, 1)."""
    least: Annotated[int, Range(at_least=0)] = 0
    """Texts of the target with fewer tokens are not read at all; 0 reads all, and refuses those too small for a row."""

    def group(self, document: Document) -> str:
        """``kept``, or the target with its language or source."""
        if document.role == "kept":
            return "kept"
        if self.by == "source":
            return f"{UNKNOWN} {document.source}".strip()
        return UNKNOWN if document.language == "und" else f"{UNKNOWN} {document.language}".strip()

    def shares(self, tokens: Mapping[str, int], progress: float, feedback: Feedback) -> Mapping[str, float]:
        """The same all the time: q = p^alpha / sum of p^alpha (sec. 3.1), times what kept and unknown text leave."""
        sizes = {name: n for name, n in tokens.items() if name != "kept" and n >= self.least}
        if not sizes:
            raise UserError(f"temperature.least: no text of the target has {self.least} tokens; lower it")
        free, total = 1 - self.kept_share, sum(sizes.values())
        unknown = free * sizes.pop(UNKNOWN, 0) / total
        whole = sum(n**self.alpha for n in sizes.values())
        found = {name: (free - unknown) * n**self.alpha / whole for name, n in sizes.items()}
        return found | ({UNKNOWN: unknown} if unknown else {}) | {"kept": self.kept_share}
