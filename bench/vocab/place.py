# SPDX-License-Identifier: Apache-2.0
"""Steps outside of a recipe: a folder in which they run one after another, the main job's corpus, bits per byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

CORPUS = ("read", "normalise", "exact_duplicates", "near_duplicates", "language", "length", "repetition", "split")


class Place:
    """A folder in which steps are run one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def step(
        self, label: str, use: str, knobs: dict[str, Any], seed: int = 0, **given: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Apply one step; the artefact and the facts that it recorded."""
        from lect.method import Run
        from lect.registry import build_step

        for name in ("out", "scratch"):
            (self.folder / label / name).mkdir(parents=True)
        run = Run(folder=self.folder / label / "out", scratch=self.folder / label / "scratch", seed=seed)
        made: Any = build_step(use, knobs).apply(run, **given)
        shutil.rmtree(run.scratch)
        return made, run.facts

    def bits(self, model: Any, corpus: Any, max_bytes: int) -> dict[str, float]:
        """Bits per byte of one model on a fixed sample of the test text of each role."""
        label = f"bits-{model.folder.parent.name}"
        knobs = {"max_bytes": max_bytes}
        report, _ = self.step(label, "evaluate/bits_per_byte", knobs, base=model, model=model, corpus=corpus)
        return {role: report.data[role]["base"]["bits_per_byte"] for role in ("target", "kept")}


def corpus(place: Place, target: str | list[str], keep: str, **language: Any) -> Any:
    """Target and kept text, as the main job prepares them; ``language`` are knobs of ``corpus/language``."""
    from lect import inputs

    place.folder.mkdir(parents=True, exist_ok=True)
    made: Any = inputs.sources([target] if isinstance(target, str) else target, [keep], place.folder)
    for name in CORPUS:
        knobs = language if name == "language" else {}
        made = place.step(name, f"corpus/{name}", knobs, **{"sources" if name == "read" else "corpus": made})[0]
    return made
