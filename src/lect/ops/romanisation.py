# SPDX-License-Identifier: Apache-2.0
"""Romanisation that comes back: a table, a normaliser that writes text in Latin, and a decoder that undoes it.

Every character of the table has a code of Latin letters, no two the same: of characters that sound alike, the rarer
ones carry a combining mark. A romanised stretch stands between SHIFT OUT (U+000E) and SHIFT IN (U+000F), the control
characters made for switching between two character sets; it also ends with the line. So Latin text stays apart from
romanised text. Where two neighbouring codes could be read in another way, :data:`BREAK` stands between them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain, product
from typing import Any

from lect.errors import UserError
from lect.ops.tokenizer import script

__all__ = ["BREAK", "IN", "OUT", "breaks", "romanised", "table"]

OUT, IN = "\x0e", "\x0f"
BREAK = "ʻ"
AGAIN, JOINT = "\x10", "\x11"  # inside the normaliser alone
MARKS = "\u0301\u0300\u0302\u0308\u0304\u030c\u0307\u0323\u0331\u0306"
SOFT = {"'": "ʹ", '"': "ʺ", "`": "ʿ"}


def table(texts: Iterable[str], most: int) -> dict[str, str]:
    """Character -> code, for the ``most`` frequent letters and marks of other scripts in the text.

    Codes are those of anyascii, of which letters and signs of softness stay; characters without one are left out, and
    stay what they are in the text.
    """
    try:
        from anyascii import anyascii
    except ImportError:
        raise UserError("romanisation needs the package anyascii: pip install 'lect[languages]'") from None
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    codes: dict[str, str] = {}
    taken: set[str] = set()
    foreign = (c for c in sorted(counts, key=lambda c: (-counts[c], c)) if script(c) not in ("", "LATIN"))
    for character in foreign:
        said = "".join(SOFT.get(c, c) for c in anyascii(character))
        said = "".join(c for c in said if (c.isascii() and c.isalpha()) or c in SOFT.values())
        if not said:
            continue
        endings = chain([""], MARKS, ("".join(pair) for pair in product(MARKS, repeat=2)))
        code = next((said + ending for ending in endings if said + ending not in taken), None)
        if code is not None and len(codes) < most:
            codes[character] = code
            taken.add(code)
    return codes


def breaks(codes: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """The characters before each of which, when they follow the key, :data:`BREAK` has to stand.

    That is where some code could begin inside the first and go on into the second.
    """
    ending, starting = defaultdict(set), defaultdict(set)
    for character, code in codes.items():
        for n in range(len(code)):
            ending[code[n:]].add(character)
            starting[code[: n + 1]].add(character)
    result: defaultdict[str, set[str]] = defaultdict(set)
    for code in codes.values():
        for n in range(1, len(code)):
            rest = code[n:]
            after = set(starting[rest]) if rest in starting else set()
            for m in range(1, len(rest) + 1):
                after |= {c for c in starting.get(rest[:m], ()) if codes[c] == rest[:m]}
            for first in ending.get(code[:n], ()):
                result[first] |= after
    return {first: frozenset(after) for first, after in result.items() if after}


def romanised(data: Mapping[str, Any], codes: Mapping[str, str]) -> dict[str, Any]:
    """The ``tokenizer.json`` with the table behind its normaliser, and the way back behind its decoder."""
    if not data.get("decoder"):
        raise UserError("tokenizer: has no decoder that the way back could follow; give a model with one")
    between = rf"[^{_class({*''.join(codes.values()), BREAK})}\n{OUT}{IN}{AGAIN}]*"
    steps = [_replace(f"{c}(?=[{_class(after)}])", c + JOINT) for c, after in sorted(breaks(codes).items())]
    steps += [{"type": "Replace", "pattern": {"String": c}, "content": OUT + code + IN} for c, code in codes.items()]
    # The library loses count of a text in which nothing is replaced by something: so stretches are joined, not framed.
    steps += [_replace(f"(?<={IN}{between}){OUT}", AGAIN), _replace(f"{IN}(?={between}{AGAIN})", "")]
    steps += [_replace(AGAIN, ""), _replace(JOINT, BREAK)]
    inside = rf"(?<={OUT}[^{IN}\n]*)"
    back = [
        _replace(inside + code, character)
        for character, code in sorted(codes.items(), key=lambda pair: (-len(pair[1]), pair[1]))
    ]
    back += [_replace(inside + BREAK, ""), _replace(f"[{OUT}{IN}]", "")]
    before = [part for part in [data.get("normalizer")] if part]
    decoder = {"type": "Sequence", "decoders": [data["decoder"], {"type": "Fuse"}, *back]}
    return {**data, "normalizer": {"type": "Sequence", "normalizers": [*before, *steps]}, "decoder": decoder}


def _class(characters: Iterable[str]) -> str:
    """The inside of a character class of a regular expression."""
    return "".join(rf"\x{{{ord(c):X}}}" for c in sorted(characters))


def _replace(expression: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": expression}, "content": content}
