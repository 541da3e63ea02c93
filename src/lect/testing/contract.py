# SPDX-License-Identifier: Apache-2.0
"""The contract, as checks that run over every method there is: lect's own and those of other packages.

``for name, check in CHECKS.items(): check(info, bench)`` runs them all; a check raises AssertionError. A step runs
with the knobs of its card's ``pico`` entry, on pico models of every family and the pico corpus.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lect import artefacts
from lect.artefacts import Artefact, Corpus, Document, Model, Report, Sources
from lect.errors import UserError
from lect.method import OneOf, Part, Range, Run
from lect.registry import MethodInfo, build_step, check_part, find, parts
from lect.testing import pico


class Bench:
    """Pico artefacts in a folder, made once, and a place to run steps in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs = 0

    @cache  # noqa: B019
    def model(self, family: str = "gemma3", seed: int = 0) -> Model:
        """A pico model of ``family``."""
        folder = self.folder / f"{family}-{seed}"
        return Model(folder) if folder.exists() else pico.model(family, folder, seed=seed)

    @cache  # noqa: B019
    def grown(self, family: str = "gemma3") -> Model:
        """The same model with tokens that it did not have."""
        made, _ = self.run(find("vocab/extend"), {"model": self.model(family), "corpus": self.corpus("all")})
        assert isinstance(made, Model)
        return made

    @cache  # noqa: B019
    def corpus(self, name: str = "all") -> Corpus:
        """The pico corpus, whole (``all``), ``messy``, with no document, with one, or with one of one letter."""
        documents = list(pico.documents())
        one = [d for d in documents if d.split == "train"][:1]
        chosen = {
            "all": documents,
            "messy": [*pico.messy()],
            "empty": [],
            "one": one,
            "letter": [replace(d, text="a") for d in one],
        }[name]
        (self.folder / f"corpus-{name}").mkdir(parents=True)
        return Corpus.write(self.folder / f"corpus-{name}", chosen)

    @cache  # noqa: B019
    def sources(self, name: str = "all") -> Sources:
        """The texts of a pico corpus as one file for each role."""
        place = self.folder / f"sources-{name}"
        place.mkdir(parents=True)
        for role in ("target", "kept"):
            texts = self.corpus(name).texts(role)
            (place / f"{role}.txt").write_text("\n\n".join(texts), encoding="utf-8")
        return Sources(folder=place, files=tuple((p.stem, p) for p in sorted(place.iterdir())))

    def inputs(self, info: MethodInfo, family: str | None = None, corpus: str = "all") -> dict[str, Artefact]:
        """What a step takes; ``model`` beside ``base`` has other weights, or new tokens.

        A step's class may name its pico family (``pico_family``), and ask for new tokens (``pico_grown``).
        """
        family = family or str(getattr(info.load(), "pico_family", "gemma3"))
        given: dict[str, Artefact] = {}
        if corpus == "all" and info.output == "Corpus":
            corpus = "messy"
        for name, kind in info.inputs.items():
            if kind == "Sources":
                given[name] = self.sources(corpus)
            elif kind == "Corpus":
                given[name] = self.corpus(corpus)
            elif kind == "Model" and name == "model" and getattr(info.load(), "pico_grown", False):
                given[name] = self.grown(family)
            elif kind == "Model":
                given[name] = self.model(family, 1 if name == "model" and "base" in info.inputs else 0)
            else:
                raise AssertionError(f"{info.name}: the contract suite has no pico {kind}; add one")
        return given

    def run(self, info: MethodInfo, inputs: dict[str, Artefact], seed: int = 0, **knobs: Any) -> tuple[Artefact, Run]:
        """Apply a step in a new folder."""
        self._runs += 1
        place = self.folder / f"run-{self._runs}"
        (place / "out").mkdir(parents=True)
        (place / "scratch").mkdir()
        run = Run(folder=place / "out", scratch=place / "scratch", seed=seed)
        step = build_step(info.name, dict(info.card.get("pico", {})) | knobs)
        made = step.apply(run, **inputs)
        assert type(made) is getattr(artefacts, info.output), f"{info.name} made a {type(made).__name__}"
        return made, run


def card(info: MethodInfo, bench: Bench) -> None:
    """The card is whole, the class documented, every knob documented and bounded."""
    for key, kind in (("title", str), ("paper", str), ("claim", str), ("differs", list), ("version", int)):
        assert isinstance(info.card.get(key), kind), f"{info.name}: CARD[{key!r}] is no {kind.__name__}"
    assert info.card["title"] and info.card["claim"] and info.doc, f"{info.name}: title, claim or docstring is empty"
    assert {"off", "needs", "xfail"} <= set(info.card), f"{info.name}: CARD lacks off, needs or xfail"
    for knob in info.knobs.values():
        assert knob.doc, f"{info.name}.{knob.name} has no docstring"
        if knob.type in ("int", "float"):
            assert isinstance(knob.bound, Range), f"{info.name}.{knob.name} has no Range"
    for name in [*info.card.get("pico", {}), *(info.card["off"] or {})]:
        assert name in info.knobs, f"{info.name}: CARD names an unknown knob {name!r}"
    assert len(info.path.read_text(encoding="utf-8").splitlines()) <= 350, f"{info.path}: over 350 lines"


def construct(info: MethodInfo, bench: Bench) -> None:
    """The defaults construct; each value outside its range is refused by the knob's name."""
    cls = info.load()
    cls()
    for knob in info.knobs.values():
        for value in _outside(knob.bound, knob.type):
            try:
                cls(**{knob.name: value})
            except UserError as error:
                assert knob.name in str(error), f"{info.name}.{knob.name}: the error does not name the knob: {error}"
            else:
                raise AssertionError(f"{info.name}.{knob.name} took {value!r}")
        if isinstance(knob.bound, Part):
            for default in (knob.default or ()) if knob.bound.several else (knob.default,):
                assert default is None or check_part(knob.bound.kind, default, knob.name)
            assert parts(knob.bound.kind), f"{info.name}.{knob.name}: no part of kind {knob.bound.kind}"


def inputs_unchanged(info: MethodInfo, bench: Bench) -> None:
    """Running changes no input, and no hook, environment variable or random state stays behind."""
    given = bench.inputs(info)
    before = {name: _content(artefact) for name, artefact in given.items()}
    state = _state()
    bench.run(info, given)
    assert {name: _content(artefact) for name, artefact in given.items()} == before, f"{info.name} changed its input"
    assert _state() == state, f"{info.name} left the environment or a random state changed"


def clean_after_failure(info: MethodInfo, bench: Bench) -> None:
    """After an exception in the middle, too, environment and random states are as before."""
    given = bench.inputs(info)

    class Stop(Exception):
        pass

    class Listener:
        def say(self, *_: Any) -> None:
            raise Stop

        progress = gate = say

    place = bench.folder / f"failure-{info.name.replace('/', '-')}"
    (place / "out").mkdir(parents=True)
    (place / "scratch").mkdir()
    state = _state()
    step = build_step(info.name, dict(info.card.get("pico", {})))
    with contextlib.suppress(Stop):
        step.apply(Run(folder=place / "out", scratch=place / "scratch", listener=Listener()), **given)
    assert _state() == state, f"{info.name} left the environment or a random state changed after a failure"


def same_seed(info: MethodInfo, bench: Bench) -> None:
    """The same inputs and seed give the same bytes."""
    given = bench.inputs(info)
    first, second = (bench.run(info, given, seed=3)[0] for _ in range(2))
    assert first.fingerprint == second.fingerprint, f"{info.name}: same seed, another result"


def loads(info: MethodInfo, bench: Bench) -> None:
    """What was made loads again and is finite, for every family that the step does not refuse, fp32 and bf16."""
    import torch

    families = pico.FAMILIES if "Model" in info.inputs.values() else pico.FAMILIES[:1]
    refused = []
    for family in families:
        try:
            made, run = bench.run(info, bench.inputs(info, family))
        except UserError:
            refused.append(family)
            continue
        for gate in run.gates:
            if gate.name not in ("target", "kept"):  # random weights promise nothing of quality
                assert gate.passed, f"{info.name} on {family}: gate {gate.name} is {gate.value}, limit {gate.limit}"
        if isinstance(made, Model):
            tokenizer = made.tokenizer()
            for dtype in (torch.float32, torch.bfloat16):
                live = made.load(dtype=dtype)
                ids_bt = torch.tensor([tokenizer("Taula bat txertatzeko").input_ids])
                with torch.no_grad():
                    assert torch.isfinite(live(input_ids=ids_bt).logits).all(), f"{info.name} on {family}: not finite"
        elif isinstance(made, Corpus):
            assert all(isinstance(d, Document) for d in made.documents())
        elif isinstance(made, Report):
            assert made.data, f"{info.name} on {family}: empty report"
            assert all(math.isfinite(n) for n in _numbers(made.data))
    assert len(refused) < len(families), f"{info.name} refused every family"


def off_is_identity(info: MethodInfo, bench: Bench) -> None:
    """With the knobs of ``off`` the output equals the input; without them it differs."""
    same = [n for n, k in info.inputs.items() if k == info.output]
    if not same:
        return
    given = bench.inputs(info)
    before = _content(given[same[-1]])
    if info.card["off"] is not None:
        made, _ = bench.run(info, given, **info.card["off"])
        assert _content(made) == before, f"{info.name} at off is not the identity"
    made, _ = bench.run(info, given)
    assert _content(made) != before, f"{info.name} changes nothing"


def small_inputs(info: MethodInfo, bench: Bench) -> None:
    """No document, one document and one letter are handled or refused with a UserError."""
    for corpus in ("empty", "one", "letter"):
        try:
            bench.run(info, bench.inputs(info, corpus=corpus))
        except UserError as error:
            assert str(error) and "\n" not in str(error), f"{info.name}: an error of more than one line"


CHECKS: dict[str, Callable[[MethodInfo, Bench], None]] = {check.__name__: check for check in (card, construct)}
"""Checks for every method."""
STEP_CHECKS: dict[str, Callable[[MethodInfo, Bench], None]] = {
    check.__name__: check
    for check in (inputs_unchanged, clean_after_failure, same_seed, loads, off_is_identity, small_inputs)
}
"""Further checks for steps."""


def _outside(bound: Any, kind: str) -> Iterator[Any]:
    """Yield values that a bound refuses."""
    if isinstance(bound, OneOf):
        yield "no such word"
    if isinstance(bound, Range):
        yield float("nan")
        yield "word"
        edges = ((bound.above, 0), (bound.below, 0), (bound.at_least, -1), (bound.at_most, 1))
        yield from (edge + shift for edge, shift in edges if edge is not None)
    if kind == "bool":
        yield "perhaps"


def _state() -> tuple[Any, ...]:
    """What a method could leave changed behind it."""
    import numpy
    import torch

    places = numpy.random.get_state()
    torch_state = torch.random.get_rng_state().numpy().tobytes()
    switches = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    return dict(os.environ), random.getstate(), str(places), torch_state, switches


def _content(artefact: Artefact) -> Any:
    """What is in an artefact, apart from how it is laid out on disk; nothing is taken from a cache."""
    if isinstance(artefact, Sources):
        return [(role, path.read_bytes()) for role, path in artefact.files]
    if isinstance(artefact, Corpus):
        return list(artefact.documents())
    if isinstance(artefact, Model):
        state = artefact.load().state_dict()
        tokens = artefact.tokenizer().get_vocab()
        return tokens, {name: tensor.float().numpy().tobytes() for name, tensor in state.items()}
    return type(artefact)(artefact.folder).fingerprint


def _numbers(value: Any) -> Iterator[float]:
    """Yield every number in nested JSON."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, int | float):
        yield value
