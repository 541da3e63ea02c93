# SPDX-License-Identifier: Apache-2.0
"""Bilingual dictionaries as pairs of words: word lists, and the dictd files that Debian packages of FreeDict hold.

A dictd dictionary is two files. ``NAME.index`` has a line for each word: the word, the place and the length of its
entry, tab-separated, the two numbers in base 64 (digits ``A-Za-z0-9+/``, highest first; dictd(8), dictfmt(1)).
``NAME.dict``, or ``NAME.dict.dz`` (gzip with an index of its own, which any gzip reader passes over), has the
entries. In FreeDict's, the first line of an entry is the word with pronunciation and grammar, and each further line
has translations separated by commas, numbered where the word has several meanings.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from lect.errors import UserError

__all__ = ["read", "turned"]

Pair = tuple[str, str]
DIGITS = {c: n for n, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
ENDINGS = (".index", ".dict.dz", ".dict")
HEADER = re.compile(r"00-?database")
ASIDE = re.compile(r"/[^/]*/|<[^<>]*>|\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}")
NUMBER = re.compile(r"^\s*\d+[.)]\s+")
SEPARATOR = re.compile(r"\s*[,;]\s*")


def read(path: str, who: str) -> list[Pair]:
    """The pairs (word, translation) of a dictionary file, each once, in the order of the file.

    ``path`` is a dictd dictionary (any of its files, or their common name), or a text with one pair a line: two
    columns separated by a tab (further columns are ignored), or two words by a space. Raises UserError, beginning
    with ``who``, where the file is missing or damaged or has no usable pair.
    """
    place = Path(path).expanduser()
    stem = next((str(place)[: -len(end)] for end in ENDINGS if str(place).endswith(end)), str(place))
    try:
        if Path(stem + ".index").is_file():
            pairs = [*_dictd(stem)]
        elif place.is_file():
            pairs = [*_listed(place.read_text(encoding="utf-8-sig"))]
        else:
            raise UserError(f"{who}: dictionary {path}: no such file")
    except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise UserError(
            f"{who}: dictionary {path}: cannot be read as a UTF-8 word list or a dictd dictionary ({error})"
        ) from error
    if not pairs:
        raise UserError(
            f"{who}: dictionary {path}: has no usable pair; give lines of a word, a tab and its translation, or a "
            "dictd dictionary (.index beside .dict or .dict.dz)"
        )
    return list(dict.fromkeys(pairs))


def turned(pairs: list[Pair], first: Collection[str], second: Collection[str]) -> list[Pair]:
    """The pairs, all turned around if that way more of their words are among ``first`` and ``second``; case is let be.

    Pairs of which neither way both words are at hand count too: a word of either side is a sign.
    """
    one, two = ({word.casefold() for word in words} for words in (first, second))
    straight = sum((a.casefold() in one) + (b.casefold() in two) for a, b in pairs)
    around = sum((b.casefold() in one) + (a.casefold() in two) for a, b in pairs)
    return [(b, a) for a, b in pairs] if around > straight else pairs


def _listed(text: str) -> Iterator[Pair]:
    """The pairs of a word list."""
    for line in text.splitlines():
        columns = line.split("\t") if "\t" in line else line.split()
        left, right = (column.strip() for column in columns[:2]) if len(columns) > 1 else ("", "")
        if left and right and ("\t" in line or len(columns) == 2):
            yield left, right


def _dictd(stem: str) -> Iterator[Pair]:
    """The pairs of a dictd dictionary."""
    packed = Path(stem + ".dict.dz")
    data = gzip.decompress(packed.read_bytes()) if packed.is_file() else Path(stem + ".dict").read_bytes()
    done: set[tuple[int, int]] = set()
    for line in Path(stem + ".index").read_text(encoding="utf-8").splitlines():
        word, start, length = line.split("\t")[:3]
        place = _number(start), _number(length)
        if HEADER.match(word) or place in done:
            continue
        done.add(place)
        if sum(place) > len(data):
            raise ValueError(f"the entry of {word!r} lies beyond the end")
        lines = data[place[0] : sum(place)].decode("utf-8").splitlines()
        heads = _parts(lines[0]) if len(lines) > 1 else [word]
        for head in heads or [word]:
            for text in lines[1:] or lines:
                # What is indented, labelled or quoted is a note, a synonym or an example.
                if not text.startswith((" ", "\t", '"', "“")) and ": " not in text:
                    yield from ((head, other) for other in _parts(text))


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = 64 * value + DIGITS[digit]
    return value


def _parts(line: str) -> list[str]:
    """The words of a line without number, pronunciation, grammar and remarks."""
    bare = NUMBER.sub("", line)
    while (less := ASIDE.sub(" ", bare)) != bare:
        bare = less
    return [part for part in (" ".join(part.split()) for part in SEPARATOR.split(bare)) if part]
