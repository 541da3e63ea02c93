# SPDX-License-Identifier: Apache-2.0
"""The shares that you name yourself, for roles, languages or sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from lect.errors import UserError
from lect.method import OneOf, Range, knobs, nearest
from lect.parts.mixture.kind import Feedback, Mixture

if TYPE_CHECKING:
    from lect.artefacts import Document

CARD = {
    "title": "Fixed shares by name",
    "paper": "arXiv:2101.00027",
    "claim": "at any time no text is a whole row ahead of the share that was named for it",
    "differs": [
        "shares are of rows, the paper's weights (its table 1) of bytes; rows are laid evenly instead of drawn",
        "the paper's shares follow from epochs that were chosen for each source; here the shares are given",
        "without shares every text has the same, as in the skill-stratified sampling of arXiv:2307.14430",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}


@knobs
class Fixed(Mixture):
    """Rows shared out as you say, such as ``ratio: {eu: 3, es: 1, en: 1}``; only the ratios count.

    By ``language``, target and kept text of one language are one text; documents without a language are ``und``. The
    corpus names several languages of a role where ``corpus/language`` is asked to (its knob ``own_share``). By
    ``source`` the names are those of the files, as the corpus has them. A text that is not named is not read, and the
    run says so. Raises UserError for a name that no text for training has, and lists the names that there are.
    """

    by: Annotated[str, OneOf("role", "language", "source")] = "role"
    """What the names are: roles (target, kept), languages of documents, or the files that they come from."""
    ratio: Annotated[dict[str, float] | None, Range(at_least=0)] = None
    """The share of each text by its name, in any unit; null gives every text the same."""

    def group(self, document: Document) -> str:
        """The document's role, language or source."""
        return str(getattr(document, self.by)) or "und"

    def shares(self, tokens: Mapping[str, int], progress: float, feedback: Feedback) -> Mapping[str, float]:
        """The same all the time."""
        if self.ratio is None:
            return dict.fromkeys(tokens, 1.0)
        named = {name: share for name, share in self.ratio.items() if share > 0}
        if not named:
            raise UserError("fixed.ratio: every share is 0; give one text a share above 0")
        for name in named:
            if name not in tokens:
                raise UserError(
                    f"fixed.ratio: no text for training has the {self.by} {name!r}.{nearest(name, tokens)} "
                    f"There are: {', '.join(tokens)}"
                )
        return named
