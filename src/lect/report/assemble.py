# SPDX-License-Identifier: Apache-2.0
"""From a run folder to the one object that ``report.json`` holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lect.artefacts import read_json
from lect.errors import UserError
from lect.registry import find
from lect.report.shape import REPORT, STEP, VOCABULARY, fit, merge, number
from lect.report.verdict import unmeasured

Object = dict[str, Any]


def assemble(folder: Path) -> Object:
    """Return the report of the run in ``folder``, in the shape of :data:`lect.report.shape.REPORT`.

    Raises a UserError when ``record.json`` is missing or is no JSON object; everything else may be absent.
    """
    record = read_json(folder / "record.json")
    steps = [s for s in _list(record.get("steps")) if isinstance(s, dict)]
    facts = [_dict(s.get("facts")) for s in steps]
    data: Object = {}
    for step, fact in zip(steps, facts, strict=True):
        merge(data, _dict(fact.get("report")))
        merge(data, _fragment(folder, step.get("folder")))
    data["gates"] = [_gate(_dict(g), s) for s in steps for g in _list(s.get("gates"))]
    data["run"] = {k: v for k, v in record.items() if k not in ("steps", "plan")}
    data["run"]["plan"] = {k: v for k, v in _dict(record.get("plan")).items() if k != "steps"}
    data["training"] = [fact for fact in facts if "losses" in fact or "trained_tokens" in fact]
    data["vocabulary"] = _vocabulary([f for f in facts if "before" in _dict(f.get("rows"))])
    data["corpus"] = _corpus(facts)
    data["steps"] = _steps(folder, steps, _list(_dict(record.get("plan")).get("steps")))
    data["schema"] = 1
    report: Object = fit(REPORT, data)
    report["cost"] = _cost(report)
    report["predictions"] = fit(REPORT["predictions"], _predictions(report))
    report["verdict"] = _verdict(report)
    report["unmeasured"] = unmeasured(report)
    return report


def _vocabulary(changes: list[Object]) -> Object:
    """What all steps that changed the vocabulary did together: from before the first to after the last."""
    fitted: list[Object] = [fit(VOCABULARY, change) for change in changes]
    if not fitted:
        return {}
    whole = fitted[0]
    for change in fitted[1:]:
        whole["new"] = change["new"]
        for name in ("rows", "parameters"):
            whole[name]["after"] = change[name]["after"]
        for role, text in change["text"].items():
            before = whole["text"].get(role, text)["test"]["bytes_per_token"]["before"]
            text["test"]["bytes_per_token"]["before"] = before
            whole["text"][role] = text
    return whole


def _predictions(report: Object) -> list[Object]:
    """What the plan and the training itself predicted of the whole run, each with what was measured."""
    plan, cost, used = report["run"]["plan"], report["cost"], [s["disk_bytes"] for s in report["steps"]]
    trained: Object = report["training"][-1] if report["training"] else {}
    bits, disk = report["target"]["adapted"]["bits_per_byte"], [size for size in used if size is not None]
    measured = {
        "tokens": cost["trained_tokens"],
        "epochs": trained.get("epochs", {}).get("target"),
        "bits per byte": bits,
        "bits per byte by ladder": bits,
        "choice exam": report["exams"]["choice"]["adapted"]["accuracy"],
    }
    rows = [
        ("time", plan["seconds"], cost["seconds"], "seconds", "the whole run"),
        ("memory", plan["memory_bytes"], cost["peak_memory_bytes"], "bytes", "its greediest step"),
        ("disk", plan["disk_bytes"], sum(disk) if disk else None, "bytes", "all steps together"),
    ]
    rows = [row for row in rows if row[1] is not None]
    rows += [
        (row["name"], row["value"], measured.get(row["name"]), row["unit"], row["note"])
        for row in plan["forecast"]
        if row["inside"] is None
    ]
    points = trained.get("evaluations", [])
    early = next((p for p in points if p["expected"] is not None and p["tokens"] is not None), None)
    if early is not None:
        note = f"of the calibration sample, by a power law through the first {early['tokens']:,} tokens"
        rows.append(("bits per byte while training", early["expected"], points[-1]["target"], "bits", note))
    names = ("name", "predicted", "measured", "unit", "note")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _verdict(report: Object) -> str:
    """``pass`` when the run came to its end and no gate is broken."""
    whole = report["run"]["status"] == "done"
    return "pass" if whole and all(gate["pass"] is True for gate in report["gates"]) else "fail"


def _dict(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _gate(gate: Object, step: Object) -> Object:
    """A gate with its step and with what the method says that it measures."""
    try:
        about = find(step["use"]).gates[gate["name"]][1]
    except (UserError, KeyError, TypeError, AttributeError):
        about = None
    return gate | {"step": step.get("name"), "about": about}


def _corpus(facts: list[Object]) -> Object:
    """The funnel of all documents, of each role's, and how many each split holds."""
    steps = [f for f in facts if _counts(f)]
    named = [_dict(f.get("roles")) for f in steps]
    roles = {role: _funnel([_dict(r.get(role)) for r in named]) for role in ("target", "kept")}
    undecodable = [_dict(_dict(part).get("undecodable")).get("count") for r in named for part in r.values()]
    counted = [n for n in map(number, undecodable) if n is not None]
    return _funnel(steps) | {
        "roles": {role: funnel for role, funnel in roles.items() if funnel},
        "splits": next((f["splits"] for f in reversed(steps) if "splits" in f), {}),
        "undecodable": sum(counted) if counted else None,
    }


def _counts(facts: Object) -> bool:
    return number(facts.get("read")) is not None and number(facts.get("kept")) is not None


def _funnel(steps: list[Object]) -> Object:
    """Add the steps up: read by the first, kept by the last, dropped by any."""
    steps = [f for f in steps if _counts(f)]
    if not steps:
        return {}
    dropped: dict[str, float] = {}
    for facts in steps:
        for reason, times in _dict(facts.get("dropped")).items():
            dropped[reason] = dropped.get(reason, 0) + (number(times) or 0)
    sizes = [f["bytes"] for f in steps if number(f.get("bytes")) is not None]
    return {
        "read": steps[0]["read"],
        "kept": steps[-1]["kept"],
        "dropped": {reason: times for reason, times in dropped.items() if times},
        "bytes": sizes[-1] if sizes else None,
    }


def _steps(folder: Path, steps: list[Object], plans: list[Any]) -> list[Object]:
    """Each step with its plan (matched by method, in order), the bytes it left, and its funnel."""
    waiting = [p for p in plans if isinstance(p, dict)]
    result = []
    for step in steps:
        plan = next((p for p in waiting if p.get("use") == step.get("use")), None)
        if plan is not None:
            waiting.remove(plan)
        facts = _dict(step.get("facts"))
        kept = {k: v for k, v in step.items() if k in STEP}
        kept |= {k: facts.get(k) for k in ("read", "kept", "dropped")}
        result.append(kept | {"plan": plan, "disk_bytes": _bytes(folder, step.get("folder"))})
    unrun = [{"name": None, "use": p.get("use"), "seconds": None, "plan": p} for p in waiting]
    return result + unrun


def _fragment(folder: Path, where: Any) -> Object:
    """What a measuring step wrote as its own ``report.json``."""
    try:
        return _dict(json.loads((folder / where / "report.json").read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return {}


def _bytes(folder: Path, where: Any) -> int | None:
    """The size of a step's folder, in bytes, if it is still there."""
    try:
        place = folder / where
        return sum(p.stat().st_size for p in place.rglob("*") if p.is_file()) if place.is_dir() else None
    except (OSError, TypeError, ValueError):
        return None


def _cost(report: Object) -> Object:
    """Time, peak memory and trained text of the whole run; work that an earlier run left counts too."""
    seconds = [s["seconds"] for s in report["steps"] if s["seconds"] is not None]
    whole = report["run"]["seconds"]
    peaks = [s["peak_memory_bytes"] for s in report["steps"] if s["peak_memory_bytes"] is not None]

    def trained(key: str) -> float | None:
        values = [t[key] for t in report["training"] if t[key] is not None]
        return sum(values) if values else None

    return {
        "seconds": max([sum(seconds)] * bool(seconds) + [whole] * (whole is not None), default=None),
        "peak_memory_bytes": max(peaks, default=None),
        "trained_tokens": trained("trained_tokens"),
        "trained_bytes": trained("trained_bytes"),
    }
