# SPDX-License-Identifier: Apache-2.0
"""From the report's object to one self-contained HTML page: no script, no font, no image from elsewhere."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from lect.report import charts, verdict, words
from lect.report.compare import compare_rows

Object = dict[str, Any]
HERE = Path(__file__).parent
ROLES = {"target": "Your text", "kept": "Kept text"}
TRIED = ("Rows", "Bytes per token", "Speed", "Bits per byte, untrained", "Meetings")


def page(report: Object) -> str:
    """Render the whole page; every text of the run is escaped by the template engine."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    context = {
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "passed": report["verdict"] == "pass",
        "title": _title(report),
        "started": _date(report["run"]["started"]),
        "took": words.duration(report["cost"]["seconds"]),
        "sentence": verdict.sentence(report),
        "tiles": verdict.tiles(report),
        "gates": verdict.gate_rows(report),
        "compare": _groups(compare_rows(report)),
        "training": [_training(t) for t in report["training"]],
        "parameters": _parameters(report),
        "vocabulary": _vocabulary(report),
        "corpus": _corpus(report),
        "samples": [_sample(s) for s in report["samples"]],
        "predictions": _predictions(report),
        "laws": _laws(report),
        "plan": _plan(report),
        "provenance": _provenance(report),
        "files": _files(report),
        "versions": report["run"]["versions"],
        "steps": [s | {"knobs": _knobs(s["knobs"])} for s in report["steps"] if s["name"]],
        "licence": report["run"]["inputs"]["model"]["licence"],
        "unmeasured": report["unmeasured"],
    }
    return environment.get_template("page.html").render(context)


def _title(report: Object) -> str:
    given = report["run"]["inputs"]["model"]["name"] or "A model"
    name = given if given.endswith((".", "/")) else given.rsplit("/", 1)[-1]
    return name if report["size"]["adapted"]["parameters"] is None else f"{name}, adapted"


def _date(value: str | None) -> str:
    """An ISO time as day and minute, in its own time zone."""
    try:
        moment = datetime.fromisoformat(value or "")
    except ValueError:
        return "at a time not recorded"
    zone = moment.strftime(" %Z") if moment.tzinfo else ""
    return f"{moment.day} {moment.strftime('%B %Y, %H:%M')}{zone}"


def _groups(rows: list[Object]) -> list[tuple[str, list[Object]]]:
    names = list(dict.fromkeys(r["group"] for r in rows))
    return [(name, [r for r in rows if r["group"] == name]) for name in names]


def _figure(drawn: tuple[str, str], label: str, caption: str) -> Object:
    return {"wide": drawn[0], "narrow": drawn[1], "label": label, "caption": caption}


def _training(training: Object) -> Object:
    """Charts and figures of one training step."""
    figures = []
    losses = [r for r in training["losses"] if r["step"] is not None and r["loss"] is not None]
    if losses:
        first, last = losses[0]["loss"], losses[-1]["loss"]
        label = f"Training loss over {words.count(losses[-1]['step'])} steps, from {first:.3g} to {last:.3g}."
        caption = "Training loss. The thin line is the loss as it came, the strong one its running mean."
        figures.append(_figure(charts.losses(losses), label, caption))
    points = [r for r in training["evaluations"] if r["seconds"] is not None]
    points = [r for r in points if r["target"] is not None or r["kept"] is not None]
    if points:
        said = [
            f"{name.lower()} from {values[0]:.3g} to {values[-1]:.3g}"
            for role, name in ROLES.items()
            if (values := [r[role] for r in points if r[role] is not None])
        ]
        caption = "Bits per byte on a sample of the calibration text; lower is better. Dashed: before training."
        label = f"Bits per byte while training: {'; '.join(said)}."
        figures.append(_figure(charts.evaluations(points), label, caption) | {"rows": _points(points)})
    facts = [
        ("Trained on", words.count(training["trained_tokens"]), "tokens"),
        ("That is", words.size(training["trained_bytes"]), "of text"),
        ("Speed", words.rate(training["tokens_per_second"], "tokens"), ""),
        ("In bytes", words.rate(training["bytes_per_second"], "bytes"), ""),
        ("Utilisation", words.share(training["utilisation"]), "of the machine's own matrix-product rate"),
        ("Compiling", words.duration(training["compile_seconds"]), ""),
        ("Peak memory", words.size(training["peak_memory_bytes"]), ""),
    ]
    return {"figures": figures, "facts": [f for f in facts if f[1] != words.MISSING]}


def _points(points: list[Object]) -> list[list[str]]:
    rows = []
    for r in points:
        rows.append(
            [
                words.duration(r["seconds"]),
                *(words.MISSING if r[k] is None else words.significant(r[k], 4) for k in ("target", "kept")),
            ]
        )
    return rows


def _parameters(report: Object) -> Object | None:
    """Embedding, head and body of base and adapted model."""
    models = {m: report["size"][m] for m in ("base", "adapted")}
    models = {m: parts for m, parts in models.items() if all(v is not None and v >= 0 for v in _three(parts))}
    models = {m: parts for m, parts in models.items() if sum(_three(parts)) > 0}
    if not models:
        return None
    shared = all(parts["head"] == 0 for parts in models.values())
    said = []
    for model, parts in models.items():
        total = sum(_three(parts))
        said.append(f"{model}: {words.share(parts['embedding'] / total)} embedding of {words.count(total)} parameters")
    caption = "The head shares the rows of the embedding." if shared else ""
    rows = [
        [model, *(words.count(v) for v in _three(parts)), words.count(sum(_three(parts)))]
        for model, parts in models.items()
    ]
    return _figure(charts.parameters(models), "; ".join(said) + ".", caption.strip()) | {"rows": rows}


def _three(parts: Object) -> list[Any]:
    return [parts["embedding"], parts["head"], parts["body"]]


def _vocabulary(report: Object) -> Object | None:
    """How many rows were kept, the curve behind the choice, and what changed on the text."""
    trim = report["vocabulary"]
    before, after = trim["rows"]["before"], trim["rows"]["after"]
    if before is None or after is None:
        return None
    rows = (words.count(before), words.count(after))
    result: Object = {"before": rows[0], "after": rows[1], "figure": None, "text": _segments(trim["text"])}
    result["new"] = words.count(trim["new"]["tokens"]) if trim["new"]["tokens"] else None
    result["tried"] = _tried(report["run"]["plan"]["vocabularies"])
    kinds = ("estimate", "calibration")
    curve = [p for p in trim["unseen"]["curve"] if p["rows"] is not None and any(set(p[k]) & set(ROLES) for k in kinds)]
    curve.sort(key=lambda p: p["rows"])
    if curve:
        label = f"Share of further tokens split otherwise, against rows kept; {rows[1]} of {rows[0]} rows were kept."
        caption = (
            "Share of the tokens of further text that the smaller vocabulary splits otherwise than the full one. "
            "Lines: estimated from the training text. Dots: counted on calibration text that the estimate never saw."
        )
        table = [
            [ROLES[role], words.count(p["rows"]), *(words.share(p[kind].get(role)) for kind in kinds)]
            for role in ROLES
            for p in curve
            if role in p["estimate"] or role in p["calibration"]
        ]
        figure = _figure(charts.vocabulary(curve, trim["unseen"]["chosen"]["rows"]), label, caption)
        result["figure"] = figure | {"rows": table}
    return result


def _tried(candidates: list[Object]) -> list[Object]:
    """The vocabularies that the plan tried on a sample of the text, and which of them it picked."""
    rows = []
    for c in candidates:
        numbers = [
            words.count(c["rows"]),
            *(words.MISSING if c[key] is None else words.significant(c[key]) for key in ("bytes_per_token", "speed")),
            words.MISSING if c["bits_per_byte"] is None else words.significant(c["bits_per_byte"], 4),
            words.count(round(c["seen"])) if c["new"] and c["seen"] is not None else "\N{EN DASH}",
        ]
        rows.append({"name": c["name"], "picked": c["picked"] is True, "cells": list(zip(TRIED, numbers, strict=True))})
    return rows


def _segments(text: Object) -> list[list[str]]:
    """Per role: test documents split otherwise, and bytes per token before and after."""
    rows = []
    for role, found in text.items():
        test = found["test"]
        if test["documents"] is None:
            continue
        tokens = [test["bytes_per_token"][k] for k in ("before", "after")]
        bytes_per_token = [words.MISSING if v is None else words.significant(v, 4) for v in tokens]
        split = f"{words.count(test['resegmented_documents'])} of {words.count(test['documents'])}"
        rows.append([ROLES.get(role, role), split, *bytes_per_token])
    return rows


def _corpus(report: Object) -> Object | None:
    """The funnel: what was read, what was dropped and why, what was kept."""
    corpus = report["corpus"]
    read, kept, dropped = corpus["read"], corpus["kept"], corpus["dropped"]
    if read is None or kept is None:
        return None

    def bar(name: str, value: float, kind: str) -> Object:
        part = min(1.0, max(0.0, value / read)) if read > 0 else 0.0
        return {
            "name": name,
            "value": words.count(value),
            "share": words.share(part, 2),
            "width": 100 * part,
            "kind": kind,
        }

    roles = {role: corpus["roles"][role] for role in ROLES if role in corpus["roles"]}
    drops = sorted(dropped.items(), key=lambda item: -item[1])
    rows = [bar("Read", read, "all"), *(bar(_reason(r), n, "drop") for r, n in drops), bar("Kept", kept, "kept")]
    for row, key in zip(rows, ["read", *(r for r, _ in drops), "kept"], strict=True):
        places = [f["dropped"] if row["kind"] == "drop" else f for f in roles.values()]
        row["roles"] = [words.count(place.get(key, 0)) for place in places]
    gap = read - kept - sum(dropped.values())
    return {
        "rows": rows,
        "roles": [ROLES[role] for role in roles],
        "gap": words.count(gap) if gap else "",
        "bytes": words.size(corpus["bytes"]),
        "undecodable": words.count(corpus["undecodable"]) if corpus["undecodable"] else "",
        "splits": _splits(corpus["splits"]),
    }


def _reason(reason: str) -> str:
    """A reason such as ``bad_line:not JSON`` as people write it."""
    return reason.replace("_", " ").replace(":", ": ")


def _splits(splits: Object) -> list[list[str]]:
    rows = []
    for role, parts in splits.items():
        for split, part in parts.items():
            row = [ROLES.get(role, role), split or "none", words.count(part["documents"]), words.size(part["bytes"])]
            rows.append(row)
    return rows


def _sample(sample: Object) -> Object:
    """One prompt with its continuations, without the white space around them."""
    texts = {key: (sample[key] or "").strip() for key in ("prompt", "truth", "base", "adapted")}
    return texts | {"name": ROLES.get(sample["role"] or "", "Text")}


def _predictions(report: Object) -> list[Object]:
    """What was predicted of the whole run beside what was measured; nothing where nothing was predicted."""
    rows = report["predictions"]
    if all(row["predicted"] is None for row in rows):
        return []
    return [
        {"name": row["name"], "note": row["note"]}
        | {key: words.quantity(row[key], row["unit"] or "") for key in ("predicted", "measured")}
        for row in rows
    ]


def _laws(report: Object) -> list[Object]:
    """What published laws say beside what the recipe has."""
    return [
        {
            "name": row["name"],
            "note": row["note"],
            "says": words.span(row["value"], row["low"], row["high"], row["unit"] or ""),
            "recipe": words.quantity(row["recipe"], row["unit"] or ""),
            "inside": "yes" if row["inside"] else "no",
        }
        for row in report["run"]["plan"]["forecast"]
        if row["inside"] is not None
    ]


def _plan(report: Object) -> list[Object]:
    """Each step's plan beside what it took, and a last row for the whole run."""
    rows = []
    for s in report["steps"]:
        note = "not run" if s["name"] is None else "taken from an earlier run" if s["skipped"] else ""
        rows.append(_plan_row(s["use"] or s["name"] or "unnamed", s["plan"], s, note, s["plan"]["why"] or ""))
    if rows:
        used = [s["disk_bytes"] for s in report["steps"] if s["disk_bytes"] is not None]
        whole = {
            "seconds": report["cost"]["seconds"],
            "peak_memory_bytes": report["cost"]["peak_memory_bytes"],
            "disk_bytes": sum(used) if used else None,
        }
        rows.append(_plan_row("The whole run", report["run"]["plan"], whole, "", ""))
    return rows


def _plan_row(name: str, plan: Object, fact: Object, note: str, why: str) -> Object:
    cells = []
    for title, planned, taken, say in (
        ("Time", plan["seconds"], fact["seconds"], words.duration),
        ("Memory", plan["memory_bytes"], fact["peak_memory_bytes"], words.size),
        ("Disk", plan["disk_bytes"], fact["disk_bytes"], words.size),
    ):
        dash = "\N{EN DASH}"
        cells.append((title, dash if planned is None else say(planned), dash if taken is None else say(taken)))
    return {"name": name, "cells": cells, "note": note, "why": why}


def _provenance(report: Object) -> list[tuple[str, str]]:
    run = report["run"]
    machine = run["machine"]
    load = ", ".join(f"{v:.2f}" for v in machine["load_average"])
    rows = [
        ("Command", " ".join(_quoted(c) for c in run["command"])),
        ("lect", run["lect"]),
        ("Model", run["inputs"]["model"]["name"]),
        ("Model fingerprint", run["inputs"]["model"]["fingerprint"]),
        ("Seed", None if run["seed"] is None else str(run["seed"])),
        ("Processor", machine["cpu"]),
        ("Cores", None if machine["cores"] is None else str(machine["cores"])),
        ("Memory", None if machine["memory_bytes"] is None else words.size(machine["memory_bytes"])),
        ("System", machine["os"]),
        ("Python", machine["python"]),
        ("Load average at the start", load or None),
    ]
    return [(name, value if value else "not recorded") for name, value in rows]


def _knobs(values: Any) -> str:
    """Knobs as ``name=value``, the way ``--set`` takes them."""
    if not isinstance(values, dict):
        return ""
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


def _quoted(word: str) -> str:
    return shlex.quote(word)


def _files(report: Object) -> list[Object]:
    files = report["run"]["inputs"]["files"]
    return [
        {
            "role": ROLES.get(f["role"] or "", "Text"),
            "path": f["path"] or "not recorded",
            "size": "not recorded" if f["bytes"] is None else words.size(f["bytes"]),
            "sha256": f["sha256"] or "not recorded",
        }
        for f in files
    ]
