# SPDX-License-Identifier: Apache-2.0
"""Every initialiser on the packaged model: bits per byte before any training, and after equal training for some."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from bench.harness import at_most

CONFIG: dict[str, Any] = {
    "model": "gemma-3-270m",
    "text": "bundled:eu",
    "keep": "bundled:en",
    "new_tokens": 4096,
    "max_bytes": 16_000,
    "train_tokens": 20_480,
    "initialisers": {
        "random": "random",
        "mean": "mean",
        "gaussian": "gaussian",
        "multivariate": "multivariate",
        "subword_mean": "subword_mean",
        "subword_mean_length": {"use": "subword_mean", "with": {"weight": "length"}},
        "subword_mean_rarity": {"use": "subword_mean", "with": {"weight": "rarity"}},
        "subword_mean_last": {"use": "subword_mean", "with": {"weight": "last"}},
        "subword_mean_norm": {"use": "subword_mean", "with": {"norm": 1.0}},
        "align": "align",
        "convex": "convex",
        "focus": "focus",
        "wechsel": "wechsel",
        "ofa": "ofa",
        "in_context": {"use": "in_context", "with": {"steps": 40, "batch": 16}},
    },
    "trained": ["random", "mean", "subword_mean", "align", "focus"],
}
GOALS = {"subword_mean_over_best": at_most(1.01)}
CODE = ["src/lect/stages/corpus", "src/lect/stages/vocab", "src/lect/parts/init", "src/lect/engine", "src/lect/ops"]
CODE += ["src/lect/data", "src/lect/models.py", "src/lect/artefacts.py", "src/lect/stages/pretrain"]
CORPUS = ("read", "normalise", "exact_duplicates", "near_duplicates", "language", "length", "repetition", "split")
ORDER = 65


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One trim, then one extension for each initialiser, each scored on the same test windows."""
    from lect import artefacts, inputs, models

    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "run").mkdir(parents=True)
    place = Place(folder / "run")
    base = artefacts.Model(models.resolve(config["model"]))
    corpus: Any = inputs.sources([config["text"]], [config["keep"]], folder / "run")
    for name in CORPUS:
        key = "sources" if name == "read" else "corpus"
        corpus = place.step(name, f"corpus/{name}", {}, **{key: corpus})[0]
    trimmed = place.step("trim", "vocab/trim", {}, model=base, corpus=corpus)[0]
    before = place.bits(trimmed, corpus, config["max_bytes"])
    rows: dict[str, Any] = {"trim": {"bits": before}}
    for name, spec in config["initialisers"].items():
        knobs = {"tokens": config["new_tokens"], "init": spec}
        start = time.monotonic()
        extended, facts = place.step(f"extend-{name}", "vocab/extend", knobs, model=trimmed, corpus=corpus)
        rows[name] = {"seconds": time.monotonic() - start, "bits": place.bits(extended, corpus, config["max_bytes"])}
        rows[name]["new_tokens"] = facts["new"]["tokens"]
        if name in config["trained"]:
            knobs = {"tokens": config["train_tokens"]}
            given = {"base": base, "model": extended, "corpus": corpus}
            trained, _ = place.step(f"train-{name}", "pretrain/continue", knobs, **given)
            rows[name]["trained_bits"] = place.bits(trained, corpus, config["max_bytes"])
            shutil.rmtree(trained.folder)
        shutil.rmtree(extended.folder)
        print(name, rows[name], flush=True)
    target = {name: row["bits"]["target"] for name, row in rows.items() if name != "trim"}
    best = min(target, key=lambda name: target[name])
    figures = {f"{name}_target": value for name, value in target.items()}
    figures |= {
        f"{name}_trained_target": r["trained_bits"]["target"] for name, r in rows.items() if "trained_bits" in r
    }
    figures |= {"trim_target": before["target"], "subword_mean_over_best": target["subword_mean"] / target[best]}
    return {"figures": figures, "details": {"best_untrained": best, "rows": rows}}


class Place:
    """A folder in which steps are run one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def step(self, label: str, use: str, knobs: dict[str, Any], **given: Any) -> tuple[Any, dict[str, Any]]:
        """Apply one step; the artefact and the facts that it recorded."""
        from lect.method import Run
        from lect.registry import build_step

        for name in ("out", "scratch"):
            (self.folder / label / name).mkdir(parents=True)
        run = Run(folder=self.folder / label / "out", scratch=self.folder / label / "scratch")
        made: Any = build_step(use, knobs).apply(run, **given)
        shutil.rmtree(run.scratch)
        return made, run.facts

    def bits(self, model: Any, corpus: Any, max_bytes: int) -> dict[str, float]:
        """Bits per byte of one model on a fixed sample of the test text of each role."""
        label = f"bits-{model.folder.parent.name}"
        knobs = {"max_bytes": max_bytes}
        report, _ = self.step(label, "evaluate/bits_per_byte", knobs, base=model, model=model, corpus=corpus)
        return {role: report.data[role]["base"]["bits_per_byte"] for role in ("target", "kept")}
