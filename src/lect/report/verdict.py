# SPDX-License-Identifier: Apache-2.0
"""The verdict in words: one sentence, the four figures that matter, the gates, and what was not measured."""

from __future__ import annotations

from typing import Any

from lect.report.words import change, count, rate, ratio, relative, significant

Object = dict[str, Any]

RELATIVE = ("target", "kept")


def gate_figure(name: str | None, value: float | None) -> str:
    """A gate's value or limit: the text gates are relative changes, all others plain numbers."""
    if value is None:
        return "not a number"
    if name in RELATIVE:
        return change(value)
    text = significant(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text else text


def gate_rows(report: Object) -> list[Object]:
    """Every gate, broken ones first, in words."""
    rows = []
    for gate in sorted(report["gates"], key=lambda g: (g["pass"] is True, g["name"] not in RELATIVE)):
        name = gate["name"] or "unnamed"
        about = gate["about"] or name
        value, limit = gate_figure(name, gate["value"]), gate_figure(name, gate["limit"])
        rows.append(
            {
                "words": about[:1].upper() + about[1:],
                "name": name,
                "step": gate["step"],
                "value": value,
                "limit": limit,
                "pass": gate["pass"],
            }
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


def _gate(report: Object, name: str) -> Object:
    return next((g for g in report["gates"] if g["name"] == name and g["limit"] is not None), {})


def _percent(value: float) -> str:
    """A relative change without its sign."""
    return change(value).lstrip("+\N{MINUS SIGN}")


def _times(value: float) -> str:
    return significant(value, 3 if value >= 1 else 2)


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def sentence(report: Object) -> str:
    """Say in one or two sentences whether the run passed and what came of it."""
    found = figures(report)
    parts = []
    if (r := found["size"]) is not None:
        parts.append(
            f"is {_percent(1 - r)} {'smaller' if r < 1 else 'larger'}" if abs(1 - r) >= 5e-4 else "has the same size"
        )
    if (r := found["speed"]) is not None:
        parts.append(f"writes {_times(r)} times as fast")
    if (r := found["target"]) is not None:
        parts.append(f"needs {_percent(r)} {'fewer' if r < 0 else 'more'} bits per byte on your text")
    told = f"The adapted model {_and(parts)}" if parts else ""
    if (r := found["kept"]) is not None:
        gate = _gate(report, "kept")
        inside = ""
        if gate:
            reach = f"interval up to {change(gate['value'])}, " if gate["value"] is not None else ""
            inside = f" ({reach}{'within' if gate['pass'] else 'outside'} the budget of {change(gate['limit'])})"
        kept = f"kept text changed by {change(r)}{inside}"
        told = f"{told}; {kept}" if told else kept.capitalize()
    told = told + "." if told else ""
    broken = [row for row in gate_rows(report) if row["pass"] is not True]
    status = report["run"]["status"]
    if broken:
        first = broken[0]
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        lead = (
            f"The gate \N{LEFT DOUBLE QUOTATION MARK}{first['name']}\N{RIGHT DOUBLE QUOTATION MARK} is broken{more}: "
        )
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
        result.append(
            {"figure": _percent(1 - r), "name": word, "detail": values("size", "parameters", count) + " parameters"}
        )
    if (r := found["speed"]) is not None:
        detail = values("speed", "decode_bytes_per_second", lambda v: rate(v, "bytes"))
        result.append({"figure": f"{_times(r)}\N{MULTIPLICATION SIGN}", "name": "decoding speed", "detail": detail})
    for role, name in (("target", "your text"), ("kept", "kept text")):
        if (r := found[role]) is None:
            continue
        detail = values(role, "bits_per_byte", lambda v: significant(v, 4)) + " bits per byte"
        gate = _gate(report, role)
        if gate:
            detail += f"; budget {change(gate['limit'])}"
        result.append({"figure": change(r), "name": name, "detail": detail})
    return result


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
    need(report["vocabulary"]["rows"]["before"], "A vocabulary trim (the vocabulary is as it was, or no step says).")
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
        missing.append(
            "Sample continuations prove nothing: they are a few, shown so that you can judge with your own eyes."
        )
    return missing
