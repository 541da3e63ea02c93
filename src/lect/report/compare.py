# SPDX-License-Identifier: Apache-2.0
"""Base against adapted, row by row, with intervals, and with a judgement only where the interval allows one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lect.report.shape import number
from lect.report.words import MISSING, change, count, rate, relative, share, significant, size

Object = dict[str, Any]
Words = Callable[[float | None], str]

SPEEDS = (
    ("prefill_bytes_per_second", "bytes", "reading a prompt (prefill)"),
    ("prefill_tokens_per_second", "tokens", "reading a prompt (prefill)"),
    ("forward_bytes_per_second", "bytes", "scoring a text (forward)"),
    ("decode_bytes_per_second", "bytes", "writing (greedy decode)"),
    ("decode_tokens_per_second", "tokens", "writing (greedy decode)"),
)
EXAMS = (("cloze", "last word completed"), ("choice", "true continuation chosen of four"))


def compare_rows(report: Object) -> list[Object]:
    """Every measure with base, adapted, change and judgement in words; what neither model has is left out."""
    rows = [
        row for role, group in (("target", "Your text"), ("kept", "Kept text")) for row in _text(report[role], group)
    ]
    rows += [_exam(report["exams"][exam], name) for exam, name in EXAMS]
    speed, sizes, memory = report["speed"], report["size"], report["memory"]
    for key, unit, name in SPEEDS:
        before, after = number(speed["base"].get(key)), number(speed["adapted"].get(key))
        better = 1 if unit == "bytes" else 0  # tokens of two vocabularies are no common measure
        rows.append(_row("Speed", name, before, after, _per_second(unit), better))
    for section, key, name, words in (
        (sizes, "parameters", "parameters", count),
        (sizes, "bytes", "bytes on disk", size),
        (memory, "peak_bytes", "peak memory", size),
    ):
        rows.append(_row("Size", name, section["base"][key], section["adapted"][key], words, -1))
    return [row for row in rows if row]


def _row(
    group: str,
    name: str,
    before: float | None,
    after: float | None,
    words: Words,
    better: int,
    note: str = "",
    clear: bool = True,
) -> Object:
    """One row; ``better`` is the direction in which the measure improves, ``clear`` false where the noise is larger."""
    if before is None and after is None:
        return {}
    moved = relative(before, after)
    judged = ""
    if moved is not None and better and abs(moved) >= 5e-5:
        judged = "unclear" if not clear else "better" if (moved > 0) == (better > 0) else "worse"
    told = "" if moved is None else change(moved)
    cells = {"base": words(before), "adapted": words(after), "change": told}
    return {"group": group, "name": name, "judged": judged, "note": note} | cells


def _text(role: Object, group: str) -> list[Object]:
    """Bits per byte with the interval of the paired difference, and bytes per token."""
    base, adapted, gap = role["base"], role["adapted"], role["difference"]
    note, clear = "", True
    if gap["low"] is not None and gap["high"] is not None:
        part = gap["relative"]
        ends = f"{signed(gap['low'])} to {signed(gap['high'])} bits"
        if part["low"] is not None and part["high"] is not None:
            ends = f"{change(part['low'])} to {change(part['high'])}"
        note = f"paired, interval {ends}"
        clear = gap["low"] > 0 or gap["high"] < 0
    bits = (base["bits_per_byte"], adapted["bits_per_byte"])
    tokens = (base["bytes_per_token"], adapted["bytes_per_token"])
    return [
        _row(group, "bits per byte", *bits, lambda v: MISSING if v is None else significant(v, 4), -1, note, clear),
        _row(group, "bytes per token", *tokens, lambda v: MISSING if v is None else significant(v), 1),
    ]


def _exam(exam: Object, name: str) -> Object:
    """Accuracy with intervals; a paired difference that may be nothing leaves the judgement open."""
    base, adapted = exam["base"], exam["adapted"]
    parts = [
        f"{who} {share(score['low'])} to {share(score['high'])}"
        for who, score in (("base", base), ("adapted", adapted))
        if score["low"] is not None and score["high"] is not None
    ]
    clear = True
    gap = exam["difference"]
    if gap["low"] is not None and gap["high"] is not None:
        clear = gap["low"] > 0 or gap["high"] < 0
    elif len(parts) == 2:
        clear = base["high"] < adapted["low"] or adapted["high"] < base["low"]
    items = base["items"] if adapted["items"] is None else adapted["items"]
    if items is not None:
        parts.append(f"{count(items)} questions")
    row = _row("Exams", name, base["accuracy"], adapted["accuracy"], share, 1, "; ".join(parts), clear)
    if row and base["accuracy"] is not None and adapted["accuracy"] is not None:
        row["change"] = f"{signed(100 * (adapted['accuracy'] - base['accuracy']), 1)} points"
        if not base["accuracy"] and adapted["accuracy"]:
            row["judged"] = "better" if clear else "unclear"
    return row


def _per_second(unit: str) -> Words:
    return lambda value: rate(value, unit)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign and ``digits`` decimals; what rounds to nothing has no sign."""
    if value is None:
        return MISSING
    text = f"{value:+,.{digits}f}"
    return text[1:] if not float(text.replace(",", "")) else text.replace("-", "\N{MINUS SIGN}")
