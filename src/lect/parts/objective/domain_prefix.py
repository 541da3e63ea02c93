# SPDX-License-Identifier: Apache-2.0
"""Every training document begins with the name of where it comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lect.method import knobs
from lect.ops.templates import placeholders
from lect.parts.objective.kind import Objective

if TYPE_CHECKING:
    from lect.artefacts import Document

CARD = {
    "title": "Documents that begin with the name of their domain",
    "paper": "arXiv:2404.05405",
    "claim": "a model trained on named documents reads one better under its own name than under another's",
    "differs": [
        "the paper trains from scratch on synthetic facts among junk and counts facts; here a trained model goes on",
        "of a web address the name is its host, as in the paper; of a file it is the folder, or what the knobs say",
        "a document that is longer than a sequence is cut, and only its first piece has the name",
        "the name is learnt as the text is, and its bytes count as trained; text that is measured has no name",
        "only the abstract was at hand: how the paper sets the name off from the text was not found",
    ],
    "version": 1,
    "off": {"target": "", "kept": ""},
    "needs": [],
    "xfail": {},
}
FIELDS = ("origin", "source", "language")


@knobs
class DomainPrefix(Objective):
    """Documents under the name of their source, so that the model can tell sources apart.

    Raises UserError for a name with a placeholder that documents do not have.
    """

    target: str = "{origin}"
    """Name of target documents; {origin}, {source} (path or address) and {language} are the document's; "" is none."""
    kept: str = "{origin}"
    """Name of kept documents, in the same way."""
    separator: str = "\n\n"
    """What stands between the name and the text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for knob in ("target", "kept"):
            placeholders(getattr(self, knob), FIELDS, f"objective/domain_prefix.{knob}")

    def document(self, document: Document) -> Document:
        """The document with name and separator before its text; as it is where the name comes out empty."""
        place = origin(document.source)
        template = self.kept if document.role == "kept" else self.target
        name = template.format(origin=place, source=document.source, language=document.language)
        return replace(document, text=name + self.separator + document.text) if name else document


def origin(source: str) -> str:
    """The host of a web address, else the folder (or archive) that holds the file, else the source itself."""
    if "://" in source:
        try:
            return urlsplit(source).hostname or source
        except ValueError:
            return source
    return PurePosixPath(source.replace(":", "/")).parent.name or source
