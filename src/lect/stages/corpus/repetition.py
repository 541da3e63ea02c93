# SPDX-License-Identifier: Apache-2.0
"""Drop texts that repeat themselves far more than the others of their role."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from lect.method import Range, knobs
from lect.ops.documents import growing_ngrams, unit_hashes, units
from lect.stages.corpus.kinds import DocFilter

CARD = {
    "title": "Repetition filter, fitted on the text",
    "paper": "arXiv:2112.11446",
    "claim": "Drops texts whose repeated share lies far outside what the role's own texts show.",
    "differs": [
        "thresholds are fitted on each role and length, not the English constants of table A1",
        "an n-gram that occurs once is not the top n-gram; the share is 0 then",
        "the first of several occurrences does not count as a duplicate, for lines as for n-grams",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

NAMES = ("lines", "line_characters", "paragraphs", "paragraph_characters")
TOP = (2, 3, 4)
LATER = (5, 6, 7, 8, 9, 10)
STATISTICS = NAMES + tuple(f"top_{n}_gram" for n in TOP) + tuple(f"repeated_{n}_grams" for n in LATER)
REASONS = ("lines", "lines", "paragraphs", "paragraphs") + ("top_ngram",) * len(TOP)
REASONS += ("repeated_ngrams",) * len(LATER)
REASONS = ("lines", "lines", "paragraphs", "paragraphs") + ("top_ngram",) * len(TOP)
REASONS += ("repeated_ngrams",) * len(LATER)
FEWEST = 50  # texts in a length group, else the whole role is the group
PARAGRAPH = re.compile(r"\n\s*\n")


def statistics(text: str) -> npt.NDArray[np.float64]:
    """The shares of table A1, 0 to 1: repeated lines and paragraphs, top n-grams, characters in repeated n-grams."""
    words = units(text)
    sizes = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    ends = np.concatenate([[0], np.cumsum(sizes)])
    total = max(1, int(ends[-1]))
    shares = [*_repeats(text.split("\n")), *_repeats(PARAGRAPH.split(text))]
    repeated = True  # a run of n + 1 units is never repeated where no run of n is
    for n, grams in enumerate(islice(growing_ngrams(unit_hashes(words)), LATER[-1]), 1):
        if n == 1:
            continue
        if not repeated:
            shares.append(0.0)
            continue
        _, first, count = np.unique(grams, return_index=True, return_counts=True)
        repeated = len(first) < len(grams)
        if n in TOP:
            best = int(count.max(initial=0))
            spans = ends[first + n] - ends[first]
            shares.append(min(1.0, best * int(spans[count == best].max()) / total) if best > 1 else 0.0)
            continue
        later = np.ones(len(grams), dtype=bool)
        later[first] = False
        covered = np.zeros(len(words), dtype=bool)
        for i in range(n):
            covered[i : i + len(grams)] |= later
        shares.append(int(sizes[covered].sum()) / total)
    return np.array(shares)


def _repeats(parts: list[str]) -> tuple[float, float]:
    """The share of parts that stood before, and the share of characters in them; blank parts do not count."""
    seen: set[str] = set()
    count = again = size = size_again = 0
    for part in filter(None, map(str.strip, parts)):
        count, size = count + 1, size + len(part)
        if part in seen:
            again, size_again = again + 1, size_again + len(part)
        seen.add(part)
    return (again / count, size_again / size) if count else (0.0, 0.0)


def group(text: str) -> int:
    """The length group: texts whose lengths in characters lie within the same power of four."""
    return int(math.log2(len(text) + 1)) // 2


@knobs
class Repetition(DocFilter):
    """No stuck records: texts that repeat lines, paragraphs or phrases far more than others of their role.

    The 13 shares of Rae et al. 2021 (arXiv:2112.11446), appendix A1, over words, or characters in scripts without
    spaces. Each share's threshold is fitted on the role's own texts of like length (powers of four; the whole role
    where a group has fewer than 50): median plus ``deviations`` times s, where s is 1.4826 times the distance from
    the median to the upper quartile, the standard deviation if the upper half is normal, and untouched by up to a
    quarter of bad texts. It is never below ``always_keep``, which is all there is for a role of fewer than 50 texts.
    Reasons: ``repetition:`` and the sort of the share that passes its threshold furthest, ``lines``,
    ``paragraphs``, ``top_ngram`` or ``repeated_ngrams``.
    """

    deviations: Annotated[float, Range(above=0)] = 6.0
    """How many standard deviations above the median a share may lie."""
    always_keep: Annotated[float, Range(at_least=0, at_most=1)] = 0.5
    """A text is never dropped for a share up to this."""

    def fit(self, texts: Iterable[str]) -> dict[int, npt.NDArray[np.float64]]:
        """The thresholds of every length group; group -1 is the whole role."""
        shares: list[npt.NDArray[np.float64]] = []
        groups: list[int] = []
        for text in texts:
            shares.append(statistics(text).astype(np.float32))
            groups.append(group(text))
        shares_ds, groups_d = np.array(shares), np.array(groups)
        if len(shares) < FEWEST:
            return {-1: np.full(len(STATISTICS), self.always_keep)}
        fitted = {-1: self.thresholds(shares_ds)}
        for g in sorted(set(groups)):
            if int((groups_d == g).sum()) >= FEWEST:
                fitted[g] = self.thresholds(shares_ds[groups_d == g])
        return fitted

    def thresholds(self, shares_ds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """One threshold for each share, from documents x shares."""
        middle, upper = np.quantile(shares_ds, [0.5, 0.75], axis=0)
        return np.asarray(np.maximum(self.always_keep, middle + self.deviations * 1.4826 * (upper - middle)))

    def show(self, fitted: dict[int, npt.NDArray[np.float64]]) -> Any:
        """The thresholds by length group and share."""
        return {
            "all" if g < 0 else f"{4**g - 1} characters and more": dict(
                zip(STATISTICS, t.round(4).tolist(), strict=True)
            )
            for g, t in fitted.items()
        }

    def drop(self, text: str, fitted: dict[int, npt.NDArray[np.float64]]) -> str | None:
        """``repetition:...`` or None."""
        limit = fitted.get(group(text), fitted[-1])
        excess = statistics(text) - limit
        worst = int(np.argmax(excess))
        return f"repetition:{REASONS[worst]}" if excess[worst] > 1e-6 else None
