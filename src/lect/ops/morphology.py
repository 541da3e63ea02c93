# SPDX-License-Identifier: Apache-2.0
"""Bytes with codes for morphemes (MYTE): an inventory of morphs, a code table, and a ``tokenizer.json`` that uses both.

A capital letter is written as its small letter and the byte 0x41, so that the bytes 0x42 to 0x59 are free. Each of
them leads the codes of one group of scripts and one length; the bytes behind it are 0x80 to 0xBE, which follow no such
byte in UTF-8. So a text in codes can be read in one way only.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import groupby, product
from typing import Any
from unicodedata import category

from lect.errors import UserError
from lect.ops.tokenizer import BYTE_OF, script

__all__ = ["capitals", "codes", "decomposed", "group", "lexicon", "morphs", "spelled", "transcoding"]

MARKER = "A"  # 0x41
LEADS = {2: 0x42, 3: 0x4A, 4: 0x52}  # bytes of a code -> its first byte in group 0
FOLLOWING = range(0x80, 0xBF)
SHORTEST = 4  # bytes of a morph
MIXED, OTHER = 1, 7
GROUPS = [
    "LATIN",
    "",
    "GREEK CYRILLIC ARMENIAN GEORGIAN",
    "HEBREW ARABIC SYRIAC THAANA TIFINAGH",
    "DEVANAGARI GURMUKHI GUJARATI ORIYA BENGALI SINHALA TIBETAN",
    "TELUGU KANNADA TAMIL MALAYALAM THAI LAO MYANMAR TAI TAGALOG KHMER",
    "HANGUL CJK YI KATAKANA HIRAGANA BOPOMOFO",
]
GROUP_OF = {name: n for n, names in enumerate(GROUPS) for name in names.split()}
CHARACTER = {byte: character for character, byte in BYTE_OF.items()}


def spelled(text: str) -> str:
    """The bytes of the text in UTF-8, each as the character that byte-level tokenizers show it by."""
    return "".join(CHARACTER[byte] for byte in text.encode())


def capitals(texts: Iterable[str]) -> dict[str, str]:
    """Capital -> its small letter, for those of ASCII and of the text; only pairs that name each other alone."""
    seen = {chr(c) for c in range(0x41, 0x5B)}.union(*texts)
    return {c: c.lower() for c in sorted(seen) if len(c.lower()) == 1 and c.lower() != c == c.lower().upper()}


def decomposed(text: str, small: Mapping[str, str]) -> str:
    """The text with each capital of the table as its small letter and the marker."""
    return "".join(small[c] + MARKER if c in small else c for c in text)


def lexicon(texts: Iterable[str], most: int) -> list[str]:
    """The ``most`` frequent words: letters with their marks, and numbers."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update("".join(g) for inside, g in groupby(text, lambda c: category(c)[0] in "LMN") if inside)
    return sorted(counts, key=lambda word: (-counts[word], word))[:most]


def morphs(words: Iterable[str], *, types: int, epochs: int, seed: int) -> dict[str, float]:
    """Morph -> score, from Morfessor Baseline on distinct words with a corpus weight tuned to so many ``types``.

    The score is what the cost of the model, ``-log P(lexicon) - weight * log P(words | lexicon)`` in nats, falls by
    when the morph is taken out of lexicon and corpus, over the sum of all scores.
    """
    baseline: Any
    utils: Any
    try:
        baseline, utils = import_module("morfessor.baseline"), import_module("morfessor.utils")
    except ImportError:
        raise UserError("morphology needs the package morfessor: pip install 'lect[languages]'") from None
    state, shown = random.getstate(), utils.show_progress_bar
    utils.show_progress_bar = False
    random.seed(seed)
    try:
        model = baseline.BaselineModel(corpusweight=baseline.NumMorphCorpusWeight(types))
        model.load_data([(1, word) for word in words])
        model.train_batch(max_epochs=epochs)
    finally:
        random.setstate(state)
        utils.show_progress_bar = shown
    whole, scores = model.get_cost(), dict[str, float]()
    for morph, node in sorted(model._analyses.items()):
        if not node.splitloc and len(morph) > 1:
            model._modify_construction_count(morph, -node.count)
            scores[morph] = whole - model.get_cost()
            model._modify_construction_count(morph, node.count)
    total = sum(scores.values())
    return {morph: score / total for morph, score in scores.items()}


def group(morph: str) -> int | None:
    """The number of its scripts' group, 0 to 7; morphs of several scripts are in 1, mere markers in none."""
    scripts = {script(c) for c in morph if c != MARKER}
    if not scripts:
        return None
    return MIXED if len(scripts) > 1 or scripts == {""} else GROUP_OF.get(scripts.pop(), OTHER)


def codes(languages: Iterable[Mapping[str, float]]) -> dict[str, bytes]:
    """Morph -> code, given the scores of each language's morphs; of equal scores the earlier spelling is first.

    A morph has the best of its scores. In each group the first 63 by score have a code of two bytes, the next
    63 * 63 one of three, the next 63 ** 3 one of four. Morphs that a code would not make shorter have none, but
    leave theirs unused (as in the official code).
    """
    best: dict[str, float] = {}
    for scores in languages:
        for morph, score in scores.items():
            if len(morph.encode()) >= SHORTEST:
                best[morph] = max(score, best.get(morph, score))
    slots = {n: _slots(n) for n in range(OTHER + 1)}
    table: dict[str, bytes] = {}
    for morph in sorted(best, key=lambda m: (-best[m], m)):
        if (number := group(morph)) is None:
            continue
        code = next(slots[number], None)
        if code is not None and len(code) < len(morph.encode()):
            table[morph] = code
    return table


def _slots(number: int) -> Iterator[bytes]:
    """The codes of a group, in the order in which they are given out."""
    for length, lead in LEADS.items():
        for rest in product(FOLLOWING, repeat=length - 1):
            yield bytes([lead + number, *rest])


def transcoding(small: Mapping[str, str], table: Mapping[str, bytes], names: Iterable[str]) -> dict[str, Any]:
    """Normaliser, pre-tokeniser and decoder of a ``tokenizer.json`` whose model has a token for each byte.

    Longer morphs are replaced before shorter ones, in bytes, and of equal lengths those with lesser codes. ``names``
    are the tokens that are no bytes; the decoder brings them through what it does to bytes. The capital A comes back
    last: the A of another capital is a marker, and one that has come back is not.
    """
    coded = {spelled(morph): "".join(CHARACTER[b] for b in code) for morph, code in table.items()}
    order = sorted(coded, key=lambda m: (-len(m), coded[m]))
    letters = sorted(small, key=lambda c: (c != MARKER, c))
    there = [_replace(c, small[c] + MARKER) for c in letters] + [{**LEVEL, "type": "ByteLevel"}]
    there += [_replace(morph, coded[morph]) for morph in order]
    ways = {name: spelled(decomposed(name, small)) for name in sorted(names, key=lambda n: (-len(n), n))}
    back = [_replace(name, way) for name, way in ways.items() if way != name]
    back += [_replace(coded[morph], morph) for morph in order]
    back += [_replace(spelled(small[c]) + MARKER, spelled(c)) for c in reversed(letters)]
    return {
        "normalizer": {"type": "Sequence", "normalizers": there},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, *back, {**LEVEL, "type": "ByteLevel"}]},
    }


LEVEL = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def _replace(what: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": what}, "content": content}
