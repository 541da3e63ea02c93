# SPDX-License-Identifier: Apache-2.0
"""The verdict in words: one sentence, the four figures that matter, the gates, and what was not measured."""

from __future__ import annotations

from typing import Any

from lect.report.words import change, count, rate, ratio, relative, share, significant, size

Object = dict[str, Any]

GATES = {
    "target": "Your text: bits per byte against the base",
    "kept": "Kept text: bits per byte against the base",
    "reload": "Saved and loaded again: greatest difference of logits",
    "segmentation": "Corpus texts split differently after the trim",
    "logits": "Kept logits: greatest difference after the trim",
    "unknown": "Texts that became unknown",
}
RELATIVE = ("target", "kept")


def gate_figure(name: str | None, value: float | None) -> str:
    """A gate's value or limit: the text gates are relative changes, all others plain numbers."""
    if value is None:
        return "not a number"
    return change(value) if name in RELATIVE else significant(value, 4)


def gate_rows(report: Object) -> list[Object]:
    """Every gate, broken ones first, in words."""
    rows = []
    for gate in sorted(report["gates"], key=lambda g: g["pass"] is True):
        name = gate["name"] or "unnamed"
        words = GATES.get(name.rsplit(".", 1)[-1], name)
        value, limit = gate_figure(name, gate["value"]), gate_figure(name, gate["limit"])
        rows.append(
            {"words": words, "name": name, "step": gate["step"], "value": value, "limit": limit, "pass": gate["pass"]}
        )
    return rows


def figures(report: Object) -> dict[str, float | None]:
    """The four numbers that matter: size ratio, decode speed ratio, and the changes in bits per byte."""

    def pair(section: Object, key: str) -> tuple[float | None, float | None]:
        return section["base"][key], section["adapted"][key]

    return {
        "size": ratio(*pair(report["size"], "parameters")),
        "speed": ratio(*pair(report["speed"], "decode_bytes_per_second")),
        "target": relative(*pair(report["target"], "bits_per_byte")),
        "kept": relative(*pair(report["kept"], "bits_per_byte")),
    }


def _budget(report: Object, name: str) -> float | None:
    return next((g["limit"] for g in report["gates"] if g["name"] == name), None)


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def sentence(report: Object) -> str:
    """Say in one or two sentences whether the run passed and what came of it."""
    found = figures(report)
    parts = []
    if (r := found["size"]) is not None:
        parts.append(
            f"is {share(abs(1 - r))} {'smaller' if r < 1 else 'larger'}" if abs(1 - r) >= 5e-4 else "has the same size"
        )
    if (r := found["speed"]) is not None:
        parts.append(f"writes {significant(r, 3)} times as fast")
    if (r := found["target"]) is not None:
        parts.append(f"needs {share(abs(r))} {'fewer' if r < 0 else 'more'} bits per byte on your text")
    told = f"The adapted model {_and(parts)}" if parts else ""
    if (r := found["kept"]) is not None:
        limit = _budget(report, "kept")
        inside = "" if limit is None else f" ({'within' if r <= limit else 'outside'} the budget of {change(limit)})"
        kept = f"kept text changed by {change(r)}{inside}"
        told = f"{told}; {kept}" if told else kept.capitalize()
    told = told + "." if told else ""
    broken = [row for row in gate_rows(report) if row["pass"] is not True]
    status = report["run"]["status"]
    if broken:
        first = broken[0]
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        lead = f"The gate \N{LEFT DOUBLE QUOTATION MARK}{first['name']}\N{RIGHT DOUBLE QUOTATION MARK} is broken{more}: "
        lead += f"{first['value']} where at most {first['limit']} is allowed."
    elif status != "done":
        lead = "The run did not come to its end; this page shows what was measured until then."
    elif not parts and not told:
        lead = "The run came to its end, but compared no model with its base."
    elif not report["gates"]:
        lead = "The run came to its end; it had no gate to judge by."
    else:
        lead = ""
    return " ".join(s for s in (lead, told) if s)


def tiles(report: Object) -> list[Object]:
    """The four figures, each with its name and the values behind it."""
    found = figures(report)
    result = []

    def values(section: str, key: str, words: Any) -> str:
        before, after = report[section]["base"][key], report[section]["adapted"][key]
        return f"{words(before)} \N{RIGHTWARDS ARROW} {words(after)}"

    if (r := found["size"]) is not None:
        word = "smaller" if r <= 1 else "larger"
        result.append({"figure": share(abs(1 - r)), "name": word, "detail": values("size", "parameters", count) + " parameters"})
    if (r := found["speed"]) is not None:
        detail = values("speed", "decode_bytes_per_second", lambda v: rate(v, "bytes"))
        result.append({"figure": f"{significant(r)}\N{MULTIPLICATION SIGN}", "name": "decoding speed", "detail": detail})
    for role, name in (("target", "your text"), ("kept", "kept text")):
        if (r := found[role]) is None:
            continue
        detail = values(role, "bits_per_byte", lambda v: significant(v, 4)) + " bits per byte"
        limit = _budget(report, role)
        if limit is not None:
            detail += f"; budget {change(limit)}"
        result.append({"figure": change(r), "name": name, "detail": detail})
    return result


def compare_rows(report: Object) -> list[Object]:
    """Base against adapted, row by row; a row that neither model has is left out."""
    rows: list[Object] = []

    def row(group: str, name: str, before: float | None, after: float | None, words: Any, better: int, note: str = "") -> None:
        if before is None and after is None:
            return
        moved = relative(before, after)
        word = ""
        if moved is not None and better and abs(moved) >= 5e-5:
            word = "better" if (moved > 0) == (better > 0) else "worse"
        rows.append(
            {
                "group": group,
                "name": name,
                "base": words(before),
                "adapted": words(after),
                "change": "" if moved is None else change(moved),
                "judged": word,
                "note": note,
            }
        )

    for role, group in (("target", "Your text"), ("kept", "Kept text")):
        base, adapted = report[role]["base"], report[role]["adapted"]
        gap = report[role]["difference"]
        note = ""
        if gap["low"] is not None and gap["high"] is not None:
            note = f"difference {signed(gap['mean'])}, interval {signed(gap['low'])} to {signed(gap['high'])}"
        row(group, "bits per byte", base["bits_per_byte"], adapted["bits_per_byte"], lambda v: significant_or(v, 4), -1, note)
        row(group, "bytes per token", base["bytes_per_token"], adapted["bytes_per_token"], significant_or, 1)
    for exam, name in (("cloze", "last word completed"), ("choice", "true continuation chosen of four")):
        base, adapted = report["exams"][exam]["base"], report["exams"][exam]["adapted"]
        row("Exams", name, base["accuracy"], adapted["accuracy"], lambda v: share(v), 1, _score(base, adapted))
        if rows and rows[-1]["name"] == name and base["accuracy"] is not None and adapted["accuracy"] is not None:
            points = 100 * (adapted["accuracy"] - base["accuracy"])
            rows[-1]["change"] = f"{signed(points, 1)} points"
    speed = report["speed"]
    for key, unit, name in (
        ("prefill_bytes_per_second", "bytes", "reading a prompt"),
        ("prefill_tokens_per_second", "tokens", "reading a prompt"),
        ("decode_bytes_per_second", "bytes", "writing"),
        ("decode_tokens_per_second", "tokens", "writing"),
    ):
        before, after = _number(speed["base"].get(key)), _number(speed["adapted"].get(key))
        row("Speed", f"{name}, {unit}", before, after, lambda v, u=unit: rate(v, u), 1 if unit == "bytes" else 0)
    sizes = report["size"]
    row("Size", "parameters", sizes["base"]["parameters"], sizes["adapted"]["parameters"], count, -1)
    row("Size", "bytes on disk", sizes["base"]["bytes"], sizes["adapted"]["bytes"], size, -1)
    memory = report["memory"]
    row("Size", "peak memory", memory["base"]["peak_bytes"], memory["adapted"]["peak_bytes"], size, -1)
    return rows


def significant_or(value: float | None, digits: int = 3) -> str:
    """The value with its significant digits, or that it is missing."""
    return "not measured" if value is None else significant(value, digits)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign and ``digits`` decimals."""
    if value is None:
        return "not measured"
    return f"{value:+,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _score(base: Object, adapted: Object) -> str:
    """Intervals and number of questions of an exam."""
    parts = []
    for name, score in (("base", base), ("adapted", adapted)):
        if score["low"] is not None and score["high"] is not None:
            parts.append(f"{name} {share(score['low'])} to {share(score['high'])}")
    items = adapted["items"] if adapted["items"] is not None else base["items"]
    if items is not None:
        parts.append(f"{count(items)} questions")
    return "; ".join(parts)


def unmeasured(report: Object) -> list[str]:
    """What this report does not know, in sentences."""
    missing = []

    def need(value: Any, words: str) -> None:
        if value is None or value == []:
            missing.append(words)

    found = figures(report)
    need(found["target"], "Bits per byte of base and adapted model on your text.")
    need(found["kept"], "Bits per byte of base and adapted model on kept text.")
    for role, name in (("target", "your text"), ("kept", "kept text")):
        if found[role] is not None:
            need(report[role]["difference"]["low"], f"The interval of the difference on {name}.")
    for exam, name in (("cloze", "completing the last word"), ("choice", "choosing the true continuation")):
        need(report["exams"][exam]["adapted"]["accuracy"], f"The exam {name}.")
    need(found["size"], "Parameters of base and adapted model.")
    need(found["speed"], "Decoding speed of base and adapted model.")
    prefill = [report["speed"][m]["prefill_bytes_per_second"] for m in ("base", "adapted")]
    need(None if None in prefill else prefill, "Prompt reading speed of base and adapted model.")
    need(report["memory"]["adapted"]["peak_bytes"], "Peak memory of the adapted model.")
    need(report["cost"]["peak_memory_bytes"], "Peak memory of the run.")
    need(report["corpus"]["read"], "What happened to the documents on their way into the corpus.")
    need(report["vocabulary"]["rows_before"], "A vocabulary trim (the vocabulary is as it was, or no step says).")
    need(report["training"], "Training (no step trained).")
    need(report["samples"], "Sample continuations.")
    need(report["run"]["seed"], "The seed of the run.")
    if found["target"] is not None:
        missing.append(
            "Truthfulness, safety, and skill at tasks other than those shown: bits per byte and the two exams say how "
            "well the model knows this kind of text, and nothing more."
        )
    if found["speed"] is not None:
        missing.append("Speed and memory on any machine but the one named above, or under another load.")
    if report["samples"]:
        missing.append("Sample continuations prove nothing: they are a few, shown so that you can judge with your own eyes.")
    return missing
