# SPDX-License-Identifier: Apache-2.0
"""The stable names of ``report.json``, and the function that fits what a run recorded to them.

``REPORT`` says what every report holds: a dict is an object with at least these keys, a one-item list is a list of
that item, :class:`Map` is an object with free keys, and ``NUMBER``, ``TEXT``, ``FLAG``, ``ANY`` are leaves. What a
run did not record is null (an empty list or object where many are possible), never a made-up value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

NUMBER, TEXT, FLAG, ANY = "number", "text", "flag", "any"
LARGEST = 1e300


@dataclass(frozen=True)
class Map:
    """An object with free keys, each value of one shape."""

    item: Any


BITS = {"bits_per_byte": NUMBER, "bytes_per_token": NUMBER}
INTERVAL = {"mean": NUMBER, "low": NUMBER, "high": NUMBER}
ROLE = {"base": BITS, "adapted": BITS, "difference": INTERVAL | {"relative": INTERVAL}}
SCORE = {"accuracy": NUMBER, "low": NUMBER, "high": NUMBER, "items": NUMBER}
EXAM = {"base": SCORE, "adapted": SCORE, "difference": INTERVAL}
SIZE = {"parameters": NUMBER, "bytes": NUMBER, "embedding": NUMBER, "head": NUMBER, "body": NUMBER}
SPEED = {"prefill_bytes_per_second": NUMBER, "decode_bytes_per_second": NUMBER}
PAIR = {"before": NUMBER, "after": NUMBER}
POINT = {"rows": NUMBER, "estimate": Map(NUMBER), "calibration": Map(NUMBER)}
COST = {"seconds": NUMBER, "memory_bytes": NUMBER, "disk_bytes": NUMBER}
TRAINING = {
    "losses": [{"step": NUMBER, "tokens": NUMBER, "seconds": NUMBER, "loss": NUMBER}],
    "evaluations": [
        {"step": NUMBER, "tokens": NUMBER, "seconds": NUMBER, "target": NUMBER, "kept": NUMBER, "expected": NUMBER}
    ],
    "epochs": Map(NUMBER),
    "trained_tokens": NUMBER,
    "trained_bytes": NUMBER,
    "tokens_per_second": NUMBER,
    "bytes_per_second": NUMBER,
    "utilisation": NUMBER,
    "compile_seconds": NUMBER,
    "peak_memory_bytes": NUMBER,
}
FORECAST = {
    "name": TEXT,
    "value": NUMBER,
    "unit": TEXT,
    "note": TEXT,
    "low": NUMBER,
    "high": NUMBER,
    "recipe": NUMBER,
    "inside": FLAG,
}
SEGMENTS = {
    "documents": NUMBER,
    "resegmented_documents": NUMBER,
    "resegmented_tokens": NUMBER,
    "bytes_per_token": PAIR,
}
VOCABULARY = {
    "rows": PAIR,
    "parameters": PAIR,
    "new": {"tokens": NUMBER},
    "unseen": {"budgets": Map(NUMBER), "chosen": POINT, "curve": [POINT]},
    "text": Map({"bytes_per_token": NUMBER, "test": SEGMENTS}),
}
CANDIDATE = {
    "name": TEXT,
    "rows": NUMBER,
    "new": NUMBER,
    "bytes_per_token": NUMBER,
    "bits_per_byte": NUMBER,
    "parameters": NUMBER,
    "disk_bytes": NUMBER,
    "head_flops": NUMBER,
    "speed": NUMBER,
    "seen": NUMBER,
    "unknown": NUMBER,
    "picked": FLAG,
}
STEP = {
    "name": TEXT,
    "use": TEXT,
    "version": NUMBER,
    "knobs": ANY,
    "fingerprint": TEXT,
    "seconds": NUMBER,
    "skipped": FLAG,
    "peak_memory_bytes": NUMBER,
    "disk_bytes": NUMBER,
    "plan": COST | {"why": TEXT},
    "dropped": Map(NUMBER),
    "read": NUMBER,
    "kept": NUMBER,
}
FUNNEL = {"read": NUMBER, "kept": NUMBER, "dropped": Map(NUMBER), "bytes": NUMBER}
SPLIT = {"documents": NUMBER, "bytes": NUMBER}
MACHINE = {
    "cpu": TEXT,
    "cores": NUMBER,
    "memory_bytes": NUMBER,
    "os": TEXT,
    "python": TEXT,
    "load_average": [NUMBER],
}
RUN = {
    "lect": TEXT,
    "verb": TEXT,
    "started": TEXT,
    "seconds": NUMBER,
    "seed": NUMBER,
    "command": [TEXT],
    "machine": MACHINE,
    "versions": Map(TEXT),
    "inputs": {
        "model": {"name": TEXT, "fingerprint": TEXT, "licence": TEXT},
        "files": [{"role": TEXT, "path": TEXT, "bytes": NUMBER, "sha256": TEXT}],
    },
    "plan": COST | {"vocabularies": [CANDIDATE], "forecast": [FORECAST]},
    "status": TEXT,
}
REPORT: dict[str, Any] = {
    "schema": NUMBER,
    "verdict": TEXT,
    "gates": [{"name": TEXT, "limit": NUMBER, "value": NUMBER, "pass": FLAG, "step": TEXT, "about": TEXT}],
    "target": ROLE,
    "kept": ROLE,
    "exams": {"cloze": EXAM, "choice": EXAM},
    "size": {"base": SIZE, "adapted": SIZE},
    "speed": {"base": SPEED, "adapted": SPEED},
    "memory": {"base": {"peak_bytes": NUMBER}, "adapted": {"peak_bytes": NUMBER}},
    "cost": {"seconds": NUMBER, "peak_memory_bytes": NUMBER, "trained_tokens": NUMBER, "trained_bytes": NUMBER},
    "corpus": FUNNEL | {"roles": Map(FUNNEL), "splits": Map(Map(SPLIT)), "undecodable": NUMBER},
    "vocabulary": VOCABULARY,
    "training": [TRAINING],
    "samples": [{"role": TEXT, "prompt": TEXT, "truth": TEXT, "base": TEXT, "adapted": TEXT}],
    "steps": [STEP],
    "run": RUN,
    "predictions": [{"name": TEXT, "predicted": NUMBER, "measured": NUMBER, "unit": TEXT, "note": TEXT}],
    "unmeasured": [TEXT],
}


def number(value: Any) -> int | float | None:
    """The value if it is a number that can be one of a measurement, else None (true and false are no numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    return value if math.isfinite(value) and abs(value) < LARGEST else None


def text(value: Any) -> str | None:
    """The value if it is text (lone surrogates replaced, so that it can be written as UTF-8), else None."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else None


def anything(value: Any) -> Any:
    """The value with everything that JSON cannot hold replaced by null."""
    if isinstance(value, dict):
        return {text(str(k)): anything(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [anything(v) for v in value]
    if isinstance(value, str):
        return text(value)
    return value if isinstance(value, bool) else number(value)


def fit(shape: Any, value: Any) -> Any:
    """Return ``value`` in the given shape: wrong or missing leaves are None, unknown keys of objects are kept."""
    if isinstance(shape, Map):
        pairs = value.items() if isinstance(value, dict) else ()
        fitted = {text(str(k)): fit(shape.item, v) for k, v in pairs}
        return {k: v for k, v in fitted.items() if v is not None}
    if isinstance(shape, dict):
        given = value if isinstance(value, dict) else {}
        named = {key: fit(item, given.get(key)) for key, item in shape.items()}
        return named | {text(str(k)): anything(v) for k, v in given.items() if k not in shape}
    if isinstance(shape, list):
        items = value if isinstance(value, list | tuple) else ()
        kind = dict if isinstance(shape[0], dict) else object
        fitted_items = [fit(shape[0], item) for item in items if isinstance(item, kind)]
        return [item for item in fitted_items if item is not None]
    if shape == NUMBER:
        return number(value)
    if shape == TEXT:
        return text(value)
    if shape == FLAG:
        return value if isinstance(value, bool) else None
    return anything(value)


def merge(into: dict[str, Any], fragment: dict[str, Any]) -> None:
    """Put a fragment of a report into another, object by object; what comes later wins."""
    for key, value in fragment.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
