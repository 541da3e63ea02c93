# SPDX-License-Identifier: Apache-2.0
"""From bytes to text: which encoding, what could not be decoded, lines, and long texts cut where they breathe."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MAGIC: tuple[bytes, ...] = (b"%PDF-", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"\x7fELF", b"MZ\x90", b"PK\x03\x04")
MAGIC += (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PAR1", b"SQLite format", b"OggS", b"RIFF", b"ID3")
ASCII = bytes(range(128))
CONTROLS = bytes(b for b in range(32) if b not in b"\t\n\r\f\b\x1b")
SAMPLE = 65_536
LEGACY: tuple[str, ...] = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257")
LEGACY += ("cp1258", "cp874", "iso8859_2", "iso8859_5", "koi8_r", "koi8_u", "cp932", "euc_jp", "gb18030")
LEGACY += ("big5", "cp949", "cp866")
RARE = ("mac_roman", "cp850", "cp437")
LEGACY_SAMPLE = 16_384
REPLACEMENT = "\ufffd"
LONGEST_LINE = 1 << 28
LONGEST_WAIT = 1 << 24


def mark(data: bytes) -> tuple[str, int]:
    """The encoding that a byte-order mark names and the mark's length, or ``("", 0)``."""
    return next(((name, len(bom)) for bom, name in BOMS if data.startswith(bom)), ("", 0))


def unmarked_utf16(data: bytes) -> str:
    """The UTF-16 form whose zero bytes stand at every second place, as in any text with ASCII in it."""
    head = data[:SAMPLE]
    if len(head) < 8:
        return ""
    half = len(head) / 2
    even, odd = head[0::2].count(0) / half, head[1::2].count(0) / half
    if odd > 0.4 and even < 0.02:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 and odd < 0.02 else ""


def is_binary(data: bytes) -> bool:
    """Say whether the beginning of a file is something other than text."""
    head = data[:SAMPLE]
    if data.startswith(MAGIC):
        return True
    if not head or mark(head)[0] or unmarked_utf16(head):
        return False
    return b"\0" in head or len(head) - len(head.translate(None, CONTROLS)) > len(head) * 0.02


def replaced(data: bytes, text: str) -> int:
    """How many U+FFFD the decoder put into ``text`` (those that ``data`` itself spelled do not count)."""
    return max(0, text.count(REPLACEMENT) - data.count(b"\xef\xbf\xbd"))


def legacy_encoding(data: bytes) -> str:
    """The likeliest encoding of bytes that are neither UTF-8 nor UTF-16, or "" when every one reads as noise.

    Only lines with bytes past ASCII are looked at. Of the encodings in use, the one wins whose text the language
    identifier knows best and whose letters follow each other least strangely (charset-normalizer's mess ratio);
    on a tie the commoner one.
    """
    from charset_normalizer.md import mess_ratio

    from lect.ops.documents import language_evidence

    sample = b"\n".join(line for line in data.split(b"\n") if not line.isascii())[:LEGACY_SAMPLE]
    scores: dict[str, float] = {}
    for name in LEGACY + RARE:
        text = sample.decode(name, errors="replace")
        past = sum(c > "\x7f" for c in text) or 1
        faults = sum(c == REPLACEMENT or "\x80" <= c < "\xa0" for c in text) / past
        known, odds = language_evidence(text)
        scores[name] = round(known, 2) + min(odds, 10.0) / 50 - mess_ratio(text) - faults - 0.1 * (name in RARE)
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > 0.3 else ""


class Decoder:
    """Decode the chunks of one file: UTF-8 first, else what its bytes suggest; faults are replaced and counted."""

    def __init__(self, hint: str = "") -> None:
        self.encoding = ""
        self.bad = 0
        self._hint = hint
        self._decoder: codecs.IncrementalDecoder | None = None
        self._first = True

    def __call__(self, data: bytes, final: bool = False) -> str:
        """The text of the next chunk; ``final`` flushes a sequence that was cut short."""
        if self._first and data:
            self._first = False
            name, skip = mark(data)
            data = data[skip:]
            self._use(name or unmarked_utf16(data))
        if self._decoder is None:
            if data.isascii():
                return data.decode("ascii")  # the same in every candidate: decide at the next chunk
            self._use(self._choice(data))
        assert self._decoder is not None
        text = self._decoder.decode(data, final)
        if REPLACEMENT in text:
            self.bad += replaced(data, text) if self.encoding == "utf-8" else text.count(REPLACEMENT)
        return text

    def _use(self, name: str) -> None:
        if name:
            self.encoding = name
            self._decoder = codecs.getincrementaldecoder(name)(errors="replace")

    def _choice(self, data: bytes) -> str:
        """UTF-8, unless more than one in ten sequences past ASCII is broken and another encoding fits."""
        text = data.decode("utf-8", errors="replace")
        bad = replaced(data, text) - text.endswith(REPLACEMENT)  # the chunk may end inside a character
        whole = sum(c > "\x7f" for c in text) - bad
        if bad <= 0 or whole >= 10 * bad:
            return "utf-8"
        for name in (self._hint, legacy_encoding(data)):
            try:
                if name and codecs.lookup(name).name != "utf-8":
                    return codecs.lookup(name).name
            except LookupError:
                continue
        return "utf-8"


def texts(chunks: Iterable[bytes], decoder: Decoder) -> Iterator[str]:
    """The decoded chunks of one file, each cut at a line's end where there is one."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        border = data.rfind(b"\n") + 1
        if border == 0 and len(data) < LONGEST_WAIT:
            rest = data
            continue
        border = border or len(data)
        rest = data[border:]
        yield decoder(data[:border])
    yield decoder(rest, True)


def lines(pieces: Iterable[str]) -> Iterator[str | None]:
    """The lines of a text that comes in pieces, without their ends; None stands for one past all bounds."""
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        *whole, rest = piece.split("\n")
        for line in whole:
            waiting.append(line)
            size += len(line)
            yield "".join(waiting).removesuffix("\r") if size <= LONGEST_LINE else None
            waiting, size = [], 0
        size += len(rest)
        if rest and size <= LONGEST_LINE:
            waiting.append(rest)
    if size:
        yield "".join(waiting).removesuffix("\r") if size <= LONGEST_LINE else None


BORDERS = (re.compile(r"\n[ \t\r]*\n+|\r\r+"), re.compile(r"\n"), re.compile(r"[.!?\u3002\uff01\uff1f][\s]*|\s+"))


def border(text: str, least: int, most: int) -> int:
    """Where to cut ``text`` between two counts of characters: after a blank line, else a line, else a word."""
    for pattern in BORDERS:
        for start in (max(least, most - most // 16), least):  # most texts have one near the end
            ends = [m.end() for m in pattern.finditer(text, start, most)]
            if ends:
                return ends[-1]
    return most


def cut(pieces: Iterable[str], most_bytes: int) -> Iterator[str]:
    """Join ``pieces`` and cut what is longer than ``most_bytes`` of UTF-8; joined again, the parts are the whole.

    The last two parts share what is left, so that no crumb remains; how the text came in pieces does not matter.
    """
    waiting, parts, size = "", [], 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size < 4 * most_bytes:
            continue
        waiting, start = "".join(parts), 0
        while len(waiting) - start > 2 * most_bytes:
            part = _part(waiting[start : start + most_bytes], most_bytes)
            yield part
            start += len(part)
        parts, size = [waiting[start:]], len(waiting) - start
    rest = "".join(parts)
    while len(rest) > 2 * most_bytes:
        part = _part(rest[:most_bytes], most_bytes)
        yield part
        rest = rest[len(part) :]
    while (left := _bytes(rest)) > most_bytes:
        share = min(most_bytes, max(4, (left // -(-left // most_bytes)) * 5 // 4))
        part = _part(rest[:share], share)
        yield part
        rest = rest[len(part) :]
    if rest:
        yield rest


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _part(window: str, most_bytes: int) -> str:
    """The beginning of ``window`` up to a border, within ``most_bytes`` of UTF-8 and never empty."""
    fits = window.encode("utf-8", "surrogatepass")[:most_bytes].decode("utf-8", "ignore")
    most = max(1, len(fits))
    return window[: max(1, border(window, most // 4, most))]
