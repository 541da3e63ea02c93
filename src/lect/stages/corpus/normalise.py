# SPDX-License-Identifier: Apache-2.0
"""Write the same text the same way everywhere."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from lect.method import Range, knobs
from lect.stages.corpus.kinds import DocMap

CARD = {
    "title": "Unicode and white-space normalisation",
    "paper": "Unicode Standard Annex 15 (normalisation form C)",
    "claim": "Texts that a reader sees as equal become equal byte by byte; doing it twice changes nothing.",
    "differs": [],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028]")
PARAGRAPH_ENDS = re.compile("\u2029")
SPACES = re.compile("[\u2000-\u200a\u205f]")  # typographic widths; U+00A0, U+202F, U+3000 and U+1680 stay
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u00ad\ufeff\ufff9-\ufffb]|\ufffe|\uffff")
TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)


@knobs
class Normalise(DocMap):
    """Texts in Unicode form C with one kind of line end, no trailing spaces, no control characters.

    Line ends of every sort become U+000A (a paragraph separator, two of them). Spaces of typographic width become
    U+0020. Kept, because they carry meaning: the no-break spaces U+00A0 and U+202F (French, Mongolian), the
    ideographic space U+3000, the Ogham space U+1680, the zero-width space U+200B (word border in Khmer, Thai and
    Burmese), the joiners U+200C and U+200D (Persian, Indic scripts, emoji), direction marks, tabs, and spaces at
    the beginning of and inside a line (code, tables, verse). Removed: control characters, byte-order marks, soft
    hyphens, interlinear marks, white space at the end of a line, blank lines around the text and past ``blank_lines``
    in a run. Text that spells a special token is left as it is. A text that becomes empty is dropped.
    """

    blank_lines: Annotated[int, Range(at_least=0)] = 1
    """Greatest number of blank lines that are kept in a run."""

    def change(self, text: str) -> str:
        """The normalised text; idempotent."""
        text = PARAGRAPH_ENDS.sub("\n\n", LINE_ENDS.sub("\n", text))
        text = INVISIBLE.sub("", SPACES.sub(" ", text))
        text = unicodedata.normalize("NFC", text)  # last but white space: what was removed may have parted an accent
        text = TRAILING.sub("", text).strip("\n")
        return re.sub(rf"\n{{{self.blank_lines + 2},}}", "\n" * (self.blank_lines + 1), text)
