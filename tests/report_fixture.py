# SPDX-License-Identifier: Apache-2.0
"""A made-up run folder for the tests of the report: its figures are invented, no model was trained for them."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lect.report import charts

WIDTH, ROWS_BEFORE, ROWS_AFTER, BODY = 640, 262_144, 36_864, 100_326_016
TOTAL_BEFORE, TOTAL_AFTER = WIDTH * ROWS_BEFORE + BODY, WIDTH * ROWS_AFTER + BODY


def bits(base: float, adapted: float, per_token: tuple[float, float]) -> dict[str, Any]:
    mean = adapted - base
    relative = {"mean": mean / base, "low": mean / base - 0.005, "high": mean / base + 0.005}
    return {
        "base": {"bits_per_byte": base, "bytes_per_token": per_token[0]},
        "adapted": {"bits_per_byte": adapted, "bytes_per_token": per_token[1]},
        "difference": {"mean": mean, "low": mean - 0.011, "high": mean + 0.012, "relative": relative},
    }


def score(accuracy: float, items: int = 200) -> dict[str, Any]:
    margin = 1.96 * math.sqrt(accuracy * (1 - accuracy) / items)
    return {"accuracy": accuracy, "low": accuracy - margin, "high": accuracy + margin, "items": items}


SAMPLES = [
    {
        "role": "target",
        "prompt": "Dokumentu bat inprimatzeko, hautatu Fitxategia menua eta",
        "truth": "egin klik Inprimatu aukeran. Elkarrizketa-koadroan inprimagailua hauta dezakezu.",
        "base": " egin klik egin egin klik. Dokumentu bat da egin, eta egin da dokumentuaren klik bat egin.",
        "adapted": " sakatu Inprimatu. Inprimatu elkarrizketa-koadroan, zehaztu orri-barrutia eta kopia kopurua.",
    },
    {
        "role": "target",
        "prompt": "Gelaxka baten formatua aldatzeko, egin klik eskuineko botoiarekin eta aukeratu",
        "truth": "Formateatu gelaxkak. Zenbakiak fitxan, hautatu nahi duzun kategoria.",
        "base": " da. Gelaxka baten formatua: 1. Gelaxka 2. Gelaxka 3. Gelaxka 4.",
        "adapted": " Formateatu gelaxkak. Letra-tipoa fitxan, hautatu letra-tamaina eta kolorea.",
    },
    {
        "role": "kept",
        "prompt": "To insert a table into a text document, place the cursor where you want the table and",
        "truth": "choose Table - Insert Table. Enter the number of columns and rows.",
        "base": " then click on the Insert Table button. The table will be inserted at the cursor.",
        "adapted": " choose Insert - Table. In the dialogue, enter the number of rows and columns.",
    },
]


def point(rows: int) -> dict[str, Any]:
    shares = {"target": 0.09 * math.exp(-(rows - 18_000) / 9_500), "kept": 0.05 * math.exp(-(rows - 18_000) / 9_000)}
    return {"rows": rows, "estimate": shares, "calibration": {r: s * 1.07 for r, s in shares.items()}}


def trim() -> dict[str, Any]:
    """What the trim would have recorded."""

    def segments(documents: int, changed: int, before: float, after: float) -> dict[str, Any]:
        return {
            "documents": documents,
            "resegmented_documents": changed,
            "resegmented_tokens": changed / documents / 90,
            "bytes_per_token": {"before": before, "after": after},
        }

    return {
        "rows": {"before": ROWS_BEFORE, "after": ROWS_AFTER},
        "parameters": {"before": TOTAL_BEFORE, "after": TOTAL_AFTER},
        "unseen": {
            "chosen": point(36_480),
            "curve": [point(18_000 + round(120_000 * 2.0**-k)) for k in range(9)] + [point(18_000)],
            "budgets": {"target": 0.005, "kept": 0.01},
        },
        "text": {
            "target": {"bytes_per_token": 2.712, "test": segments(623, 31, 2.708, 2.699)},
            "kept": {"bytes_per_token": 4.42, "test": segments(74, 5, 4.418, 4.407)},
        },
    }


def sizes(rows: int, tokenizer: int) -> dict[str, Any]:
    parts = {"embedding": rows * WIDTH, "head": 0, "body": BODY}
    total = sum(parts.values())
    return {"parameters": total, "bytes": 2 * total + tokenizer, **parts, "rows": rows, "tied": True}


def fragment() -> dict[str, Any]:
    """What the evaluation steps would have reported."""
    return {
        "target": bits(2.412, 1.594, (2.71, 2.71)),
        "kept": bits(0.984, 0.972, (4.42, 4.41)),
        "exams": {
            "cloze": {"base": score(0.185), "adapted": score(0.43)},
            "choice": {"base": score(0.515), "adapted": score(0.785)},
        },
        "size": {
            "base": sizes(ROWS_BEFORE, 33_384_568),
            "adapted": sizes(ROWS_AFTER, 4_021_117),
        },
        "speed": {
            "base": {"prefill_bytes_per_second": 1_912.4, "decode_bytes_per_second": 38.6},
            "adapted": {"prefill_bytes_per_second": 6_214.9, "decode_bytes_per_second": 67.9},
        },
        "memory": {"base": {"peak_bytes": 2_412_000_000}, "adapted": {"peak_bytes": 1_004_000_000}},
        "samples": copy.deepcopy(SAMPLES),
    }


def training() -> dict[str, Any]:
    chance = random.Random(7)
    losses = [
        {
            "step": s,
            "tokens": s * 2048,
            "seconds": 14 + s * 1.31,
            "loss": 2.1 + 2.9 * math.exp(-s / 70) + chance.gauss(0, 0.13),
        }
        for s in range(1, 441)
    ]
    evaluations = [
        {
            "step": s,
            "tokens": s * 2048,
            "seconds": 14 + s * 1.31,
            "target": 1.594 + 0.818 * math.exp(-s / 90),
            "kept": 0.984 + 0.02 * math.exp(-(((s - 60) / 60) ** 2)) - 0.012 * s / 440,
        }
        for s in range(0, 441, 55)
    ]
    return {
        "losses": losses,
        "evaluations": evaluations,
        "trained_tokens": 440 * 2048,
        "trained_bytes": 2_504_113,
        "tokens_per_second": 1563.4,
        "bytes_per_second": 4341.0,
        "utilisation": 0.312,
        "compile_seconds": 21.4,
        "peak_memory_bytes": 3_120_000_000,
    }


def step(use: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "name": use.split("/")[1],
        "use": use,
        "version": 1,
        "knobs": {},
        "fingerprint": "9f" * 32,
        "inputs": [],
        "folder": f"steps/{use.split('/')[1]}",
        "seconds": seconds,
        "skipped": False,
        "peak_memory_bytes": 900_000_000,
        "gates": [],
        "facts": {},
    } | more


def funnel(read: int, dropped: dict[str, int], size: int) -> dict[str, Any]:
    """What a corpus step records; nine tenths of the documents are target text, all drops are too."""
    kept = read - sum(dropped.values())
    tenth = read // 10
    roles = {
        "target": {"read": read - tenth, "kept": kept - tenth, "dropped": dropped, "bytes": size * 9 // 10},
        "kept": {"read": tenth, "kept": tenth, "dropped": {}, "bytes": size // 10},
    }
    return {"read": read, "kept": kept, "dropped": dropped, "bytes": size, "examples": {}, "roles": roles}


def gate(name: str, value: float, limit: float) -> dict[str, Any]:
    return {"name": name, "limit": limit, "value": value, "pass": value <= limit}


def record() -> dict[str, Any]:
    """The made-up ``record.json``."""
    steps = [
        step("corpus/read", 3.2, facts=funnel(9_412, {"not text": 3, "bad_line:not JSON": 12}, 9_931_442)),
        step("corpus/deduplicate", 4.9, facts=funnel(9_397, {"exact copy": 1_204, "near copy": 611}, 8_120_001)),
        step("corpus/language", 2.2, facts=funnel(7_582, {"other language": 148}, 8_011_233)),
        step("corpus/quality", 1.1, facts=funnel(7_434, {"too_short": 402, "repeats itself": 57}, 7_812_664)),
        step(
            "corpus/split",
            0.4,
            facts={
                "read": 6_975,
                "kept": 6_975,
                "dropped": {},
                "bytes": 7_812_664,
                "splits": {
                    role: {
                        split: {"documents": n, "bytes": n * 1_120}
                        for split, n in (
                            ("train", count * 8 // 10),
                            ("calibration", count // 10),
                            ("test", count // 10),
                        )
                    }
                    for role, count in (("target", 6_230), ("kept", 740))
                },
            },
        ),
        step(
            "vocab/trim",
            31.7,
            peak_memory_bytes=2_210_000_000,
            facts=trim(),
            gates=[
                gate("segmentation", 0, 0),
                gate("unknown", 0, 0),
                gate("kept_logits", 3.8e-6, 1e-4),
                gate("reload", 0, 0),
            ],
        ),
        step(
            "pretrain/continue",
            591.3,
            peak_memory_bytes=3_120_000_000,
            facts=training(),
            gates=[gate("reload", 0, 0)],
        ),
        step(
            "evaluate/bits_per_byte",
            148.0,
            peak_memory_bytes=2_412_000_000,
            facts={"precision": "bfloat16"},
            gates=[gate("target", -0.3341, 0.0), gate("kept", -0.0072, 0.03)],
        ),
        step("export/gguf", 6.4, peak_memory_bytes=1_010_000_000),
    ]
    plans = [
        ("corpus/read", 4, 4e8, 9e6, "2 inputs, 9.9 MB"),
        ("corpus/deduplicate", 5, 4e8, 9e6, "copies are learnt by heart"),
        ("corpus/language", 3, 4e8, 9e6, "keeps Basque apart from English"),
        ("corpus/quality", 2, 4e8, 9e6, "fitted on this text"),
        ("vocab/trim", 40, 2.4e9, 2.6e8, "the embedding holds 63 % of the parameters"),
        ("pretrain/continue", 600, 3.4e9, 1.9e9, "10 minutes were asked for"),
        ("evaluate/bits_per_byte", 160, 2.4e9, 1e5, "paired over the same bytes"),
        ("export/gguf", 10, 1.2e9, 2.5e8, "for llama.cpp"),
    ]
    return {
        "lect": "0.1.0",
        "verb": "adapt",
        "started": "2026-05-04T09:12:44+02:00",
        "seconds": 791.2,
        "seed": 0,
        "command": ["lect", "adapt", "gemma-3-270m", "help-eu", "--keep", "help-en", "--out", "out"],
        "machine": {
            "cpu": "AMD EPYC 7B13",
            "cores": 2,
            "memory_bytes": 8_340_000_000,
            "os": "Linux 6.1",
            "python": "3.11.7",
            "load_average": [1.92, 1.61, 1.2],
        },
        "versions": {"torch": "2.13.0", "transformers": "5.1.0", "tokenizers": "0.23.1", "gguf": "0.19.0"},
        "inputs": {
            "model": {
                "name": "gemma-3-270m",
                "fingerprint": "3c" * 32,
                "licence": "Gemma is provided under and subject to the Gemma Terms of Use.",
            },
            "files": [
                {"role": "target", "path": "help-eu/help.jsonl.zst", "bytes": 1_204_882, "sha256": "a1" * 32},
                {"role": "kept", "path": "help-en/help.jsonl.zst", "bytes": 1_310_220, "sha256": "b2" * 32},
            ],
        },
        "plan": {
            "steps": [
                {"use": use, "seconds": s, "memory_bytes": m, "disk_bytes": d, "why": why}
                for use, s, m, d, why in plans
            ],
            "seconds": sum(p[1] for p in plans),
            "memory_bytes": max(p[2] for p in plans),
            "disk_bytes": sum(p[3] for p in plans),
        },
        "steps": steps,
        "status": "done",
    }


DRAWN: dict[str, str] = {}


@pytest.fixture(autouse=True, scope="module")
def drawn_once() -> Iterator[None]:
    """Draw each chart once in all tests: most pages here differ in words only."""
    true = charts.svg

    def svg(spec: dict[str, Any], width: int, height: int) -> str:
        key = json.dumps([spec, width, height])
        if key not in DRAWN:
            DRAWN[key] = true(spec, width, height)
        return DRAWN[key]

    charts.svg = svg
    yield
    charts.svg = true


def write_run(folder: Path, data: dict[str, Any] | None = None, measured: dict[str, Any] | None = None) -> Path:
    """Write the made-up run folder with ``data`` as its record and ``measured`` as its evaluation; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    data = record() if data is None else data
    (folder / "record.json").write_text(json.dumps(data), encoding="utf-8")
    (folder / "recipe.yaml").write_text("lect: 1\nsteps: []\n", encoding="utf-8")
    (folder / "steps" / "bits_per_byte").mkdir(parents=True, exist_ok=True)
    report = fragment() if measured is None else measured
    (folder / "steps" / "bits_per_byte" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    for name, size in {"trim": 250_111_222, "continue": 1_700_123_456, "gguf": 248_999_100}.items():
        (folder / "steps" / name).mkdir(parents=True, exist_ok=True)
        with open(folder / "steps" / name / "weights", "wb") as file:
            file.truncate(size)
    return folder
