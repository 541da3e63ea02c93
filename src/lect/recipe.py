# SPDX-License-Identifier: Apache-2.0
"""Parse, check and resolve a recipe: pure, no torch, no disk writes.

A recipe is YAML: ``model``, ``text``, ``keep``, ``seed``, ``gates`` (budgets by name) and ``steps``, each
``{use: stage/name, with: {knob: value}, as: label, from: {input: label}}``. Every default is filled in; an
unknown key fails and suggests the nearest. An input is, in this order: what ``from`` names; for ``base``, the
recipe's model; else the latest artefact of the type that the input needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from lect.errors import UserError
from lect.method import Knob, Range, nearest
from lect.registry import check_values, find, steps

KEYS = ("lect", "model", "text", "keep", "seed", "gates", "steps")
STEP_KEYS = ("use", "with", "as", "from")
SEED = Range(at_least=0, below=2**63)
ROOT = {"sources": "Sources", "base": "Model"}  # what every run starts from


@dataclass(frozen=True, kw_only=True)
class ResolvedStep:
    """One step with all its knobs and the labels of its inputs."""

    label: str
    use: str
    values: dict[str, Any]
    inputs: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe with every default filled in; ``as_dict`` gives what ``parse`` takes."""

    model: str
    text: list[str]
    keep: list[str]
    seed: int
    gates: dict[str, float] = field(default_factory=dict)
    steps: list[ResolvedStep] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The resolved recipe in the form of the file."""
        rows = [{"use": s.use, "as": s.label, "with": s.values, "from": s.inputs} for s in self.steps]
        return {
            "lect": 1,
            "model": self.model,
            "text": self.text,
            "keep": self.keep,
            "seed": self.seed,
            "gates": self.gates,
            "steps": rows,
        }

    def as_yaml(self) -> str:
        """The resolved recipe as text."""
        return str(yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True, width=110))


def parse(text: str, where: str = "recipe") -> dict[str, Any]:
    """The mapping in a recipe's text, or a UserError with the line."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: a recipe is a mapping with the keys {', '.join(KEYS)}")
    return value


def override(recipe: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """The recipe after ``--set`` settings: ``step.knob=value``, ``gates.name=value`` or ``seed=value``."""
    steps_now = [dict(s, **{"with": dict(s.get("with") or {})}) for s in recipe.get("steps") or []]
    result: dict[str, Any] = dict(recipe, steps=steps_now, gates=dict(recipe.get("gates") or {}))
    for setting in settings:
        target, equals, word = setting.partition("=")
        try:
            value = yaml.safe_load(word)
        except yaml.YAMLError as error:
            raise UserError(f"--set {setting}: the value is not YAML") from error
        name, dot, knob = target.rpartition(".")
        if not equals or not target:
            raise UserError(f"--set {setting}: write step.knob=value, for instance trim.max_rows=30000")
        if target == "seed":
            result["seed"] = value
        elif name == "gates":
            result["gates"][knob] = value
        else:
            match = [s for s in steps_now if name in (s.get("as"), s["use"], s["use"].split("/")[1])]
            if not dot or len(match) != 1:
                known = [*(s.get("as") or s["use"].split("/")[1] for s in steps_now), "gates"]
                fault = "names more than one step; use its label" if len(match) > 1 else "names no step"
                raise UserError(f"--set {setting}: {name or target!r} {fault}.{nearest(name, known)}")
            match[0]["with"][knob] = value
    return result


def resolve(recipe: dict[str, Any], where: str = "recipe") -> Recipe:
    """The recipe with every default filled in; anything unknown or out of range is a UserError."""
    _only(recipe, KEYS, where)
    for key in ("model", "steps"):
        if not recipe.get(key):
            raise UserError(f"{where}: needs {key!r}")
    if recipe.get("lect", 1) != 1:
        raise UserError(f"{where}: is of format {recipe['lect']!r}; this lect reads format 1")
    if not isinstance(recipe["steps"], list):
        raise UserError(f"{where}: steps: is a list of mappings such as {{use: vocab/trim}}")
    resolved = _resolve_steps(recipe["steps"], where)
    budgets = {name: limit for step in resolved for name, (limit, _) in find(step.use).gates.items()}
    gates = dict(recipe.get("gates") or {})
    _only(gates, tuple(budgets), f"{where}: gates")
    for name, value in gates.items():
        gates[name] = Knob(name=name, type="float").accept(value, f"{where}: gates")
    seed = recipe.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not SEED.admits(seed):
        raise UserError(f"{where}: seed: {seed!r} is not allowed; it takes a whole number {SEED}")
    return Recipe(
        model=str(recipe["model"]),
        text=_words(recipe.get("text") or [], f"{where}: text"),
        keep=_words(recipe.get("keep") or [], f"{where}: keep"),
        seed=seed,
        gates={name: float(gates.get(name, limit)) for name, limit in budgets.items()},
        steps=resolved,
    )


def _resolve_steps(rows: list[Any], where: str) -> list[ResolvedStep]:
    made: dict[str, str] = dict(ROOT)  # label -> type of artefact, in the order of making
    result: list[ResolvedStep] = []
    for number, row in enumerate(rows, 1):
        here = f"{where}: step {number}"
        if not isinstance(row, dict) or "use" not in row:
            raise UserError(f"{here}: a step is a mapping with use: stage/name")
        _only(row, STEP_KEYS, here)
        info = find(str(row["use"]))
        if not info.step:
            raise UserError(f"{here}: {info.name} is a part; it fills a slot of a step. See: lect list")
        label = str(row.get("as") or info.name.split("/")[1])
        if label in made:
            raise UserError(f"{here}: {label!r} is taken; give the step another name with as:")
        chosen = dict(row.get("from") or {})
        _only(chosen, tuple(info.inputs), f"{here}: from")
        inputs = {n: _input(n, kind, chosen, made, f"{here} ({label})") for n, kind in info.inputs.items()}
        values = check_values(info, dict(row.get("with") or {}), label)
        result.append(ResolvedStep(label=label, use=info.name, values=values, inputs=inputs))
        made[label] = info.output
    return result


def _input(name: str, kind: str, chosen: dict[str, Any], made: dict[str, str], here: str) -> str:
    """The label of the artefact that an input takes."""
    if name in chosen:
        label = str(chosen[name])
        if label not in made:
            raise UserError(f"{here}: from.{name}: no earlier step is called {label!r}.{nearest(label, made)}")
        if made[label] != kind:
            raise UserError(f"{here}: from.{name}: {label!r} is a {made[label]}, but the input needs a {kind}")
        return label
    if made.get(name) == kind and name in ROOT:
        return name
    fitting = [label for label, made_kind in made.items() if made_kind == kind]
    if not fitting:
        makers = ", ".join(n for n, i in steps().items() if i.output == kind)
        raise UserError(f"{here}: needs a {kind}, and no earlier step makes one; put one of these before it: {makers}")
    return fitting[-1]


def _only(given: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in known:
            hint = nearest(str(key), known) or f" Known: {', '.join(known)}."
            raise UserError(f"{where}: unknown key {key!r}.{hint}")


def _words(value: Any, where: str) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        raise UserError(f"{where}: is a path or a list of paths")
    return words
