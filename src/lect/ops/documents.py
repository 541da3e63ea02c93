# SPDX-License-Identifier: Apache-2.0
"""Texts as units: words where a script writes spaces, characters where it does not; n-grams of them; languages."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import count, islice
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

# Scripts written without spaces between words: Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Balinese, Javanese,
# kana, Han, Yi. One character is one unit there.
UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f"
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua980-\ua9ff\uaa60-\uaa7f\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
# What parts words: white space, punctuation of ASCII and Latin-1, general and CJK punctuation, full-width forms.
# The joiners U+200C and U+200D stand inside words and do not.
PARTING = (
    r"\s!-/:-@\[-`{-\u00a0\u00a1-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u2010-\u206f\u200b"
    r"\u3000-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
UNIT = re.compile(f"[{UNSPACED}]|[^{PARTING}{UNSPACED}]+")
STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing modulo 2**64


def units(text: str) -> list[str]:
    """The words of a text, case-folded; characters where the script has no spaces; punctuation is left out."""
    return UNIT.findall(text.casefold())


@cache
def _hash(unit: str) -> int:
    return zlib.crc32(unit.encode("utf-8", "surrogatepass"))


def unit_hashes(words: list[str]) -> Hashes:
    """One number for each unit, the same in every process."""
    if _hash.cache_info().currsize > 1_000_000:
        _hash.cache_clear()
    return np.fromiter(map(_hash, words), dtype=np.uint64, count=len(words))


def growing_ngrams(hashes: Hashes) -> Iterator[Hashes]:
    """One number for each run of 1 unit, of 2 units, and so on, each from the one before; then empty ones."""
    total = np.zeros(len(hashes), dtype=np.uint64)
    for n in count():
        total = total[: max(0, len(hashes) - n)] + hashes[n:]
        total *= STEP
        total ^= total >> np.uint64(29)
        yield total


def ngram_hashes(hashes: Hashes, n: int) -> Hashes:
    """One number for each run of ``n`` units, ``len(hashes) - n + 1`` of them; none if there are too few units."""
    return next(islice(growing_ngrams(hashes), n - 1, None))


def shingles(text: str, n: int) -> Hashes:
    """The set of a text's n-grams as sorted numbers; a text of fewer than ``n`` units is one shingle."""
    hashes = unit_hashes(units(text))
    return np.unique(ngram_hashes(hashes, min(n, len(hashes)))) if len(hashes) else hashes


def jaccard(a: Hashes, b: Hashes) -> float:
    """Size of the intersection over size of the union of two sets of sorted numbers; 0 when both are empty."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(1, len(a) + len(b) - common)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def likeliest_language(text: str) -> tuple[str, float]:
    """The ISO 639 code of the likeliest of the identifier's languages, and how likely it is (0 to 1)."""
    language, likelihood = _identifier().classify(text)
    return str(language), float(likelihood)


def language_evidence(text: str) -> tuple[float, float]:
    """How likely the likeliest language is (0 to 1), and the power of ten by which it beats all others together."""
    (_, first), *others = _identifier().rank(text)
    return float(first), -math.log10(max(1e-30, sum(float(p) for _, p in others)))
