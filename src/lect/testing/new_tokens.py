# SPDX-License-Identifier: Apache-2.0
"""What ``vocab/extend`` hands to an initialiser, on a pico model: for the tests of ``init/…`` parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lect.artefacts import Corpus, Document
from lect.method import Run
from lect.parts.init.kind import NewTokens
from lect.registry import build_step
from lect.testing import pico

__all__ = ["documents", "extended"]

_WHO = ["El pescador", "La maestra", "Nuestra vecina", "El carpintero", "Una enfermera", "Mi abuelo", "El panadero"]
_DOES = ["encuentra", "prepara", "recuerda", "compra", "arregla", "describe", "esconde", "regala"]
_WHAT = ["la manzana", "el barco", "una ventana", "el sombrero", "la guitarra", "un cuaderno", "la escalera"]
_WHERE = ["en el mercado", "cerca del puente", "durante la tormenta", "antes del desayuno", "detrás de la iglesia"]


def documents() -> Iterator[Document]:
    """Yield 60 target documents in a language that the pico tokenizers were not made for, and the kept pico ones.

    Every word stands in many sentences, beside other words each time.
    """
    for document in pico.documents():
        if document.role == "kept":
            yield document
    for number in range(60):
        lines = []
        for line in range(number * 5, number * 5 + 5):
            words = [part[line * step % len(part)] for part, step in ((_WHO, 1), (_DOES, 3), (_WHAT, 5), (_WHERE, 2))]
            lines.append(" ".join(words) + ".")
        text, split = "\n".join(lines), ("train", "train", "train", "calibration", "test")[number % 5]
        name = hashlib.sha256(f"{number}\0{text}".encode()).hexdigest()
        yield replace(document, id=name, text=text, source="target.txt", language="es", role="target", split=split)


def extended(
    family: str, folder: Path, count: int = 40, side: str = "input", seed: int = 0
) -> tuple[Tensor, NewTokens]:
    """The old table (v, d), in fp32, and the new tokens that an initialiser gets when a pico model is extended.

    Runs ``vocab/extend`` for ``count`` tokens in ``folder``, which is made, with a stand-in for the initialiser, on
    the text of :func:`documents`. ``side="output"`` makes the head a table of its own and returns that table.
    ``seed`` is that of the pico model and of the run. A ``bert`` has no head of its own: ValueError.
    """
    if side == "output" and family not in pico.CAUSAL:
        raise ValueError(f"a pico {family} has one table, for both sides")
    seen: dict[str, tuple[Tensor, NewTokens]] = {}

    class Listening:
        def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
            seen[new.side] = table_vd, new
            return table_vd.mean(0).expand(len(new.ids), -1)

    def listening(*_: Any) -> Listening:
        return Listening()

    model = pico.model(family, folder / "model", tied=False if side == "output" else None, seed=seed)
    for name in ("corpus", "out", "scratch"):
        (folder / name).mkdir()
    corpus = Corpus.write(folder / "corpus", documents())
    run = Run(folder=folder / "out", scratch=folder / "scratch", seed=seed, build_part=listening)
    build_step("vocab/extend", {"tokens": count, "least": 2, "multiple": 1}).apply(run, model=model, corpus=corpus)
    assert all(gate.passed for gate in run.gates), run.gates
    return seen[side]
