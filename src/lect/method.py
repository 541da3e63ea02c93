# SPDX-License-Identifier: Apache-2.0
"""The contract of every method: its card, its knobs with ranges, and what a running step may ask for."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, NotRequired, Protocol, TypedDict, TypeVar, dataclass_transform

from lect.artefacts import Artefact
from lect.errors import UserError

__all__ = ["Card", "Estimate", "Gate", "Knob", "Method", "OneOf", "Part", "PartMethod", "PartSpec", "Range"]
__all__ += ["Run", "Sizes", "Step", "knobs", "nearest"]

T = TypeVar("T")
PartSpec = str | dict[str, Any]
"""The value of a slot: a part's name, or ``{use: name, with: {knob: value}}``."""


class Card(TypedDict):
    """What a method says of itself, as a literal at the top of its file; ``pico`` holds knobs for pico models."""

    title: str
    paper: str
    claim: str
    differs: list[str]
    version: int
    off: dict[str, Any] | None
    needs: list[str]
    xfail: dict[str, str]
    pico: NotRequired[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a knob takes; every bound is optional."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def admits(self, value: float) -> bool:
        """Say whether ``value`` lies inside every bound (NaN lies in none)."""
        return (
            value == value
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        words = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
        return " and ".join(f"{w} {getattr(self, k):g}" for k, w in words.items() if getattr(self, k) is not None)


@dataclass(frozen=True, init=False)
class OneOf:
    """The words that a knob takes."""

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        object.__setattr__(self, "values", values)

    def __str__(self) -> str:
        return "one of " + ", ".join(self.values)


@dataclass(frozen=True)
class Part:
    """A slot that a part of this kind fills, or with ``several`` a list of them."""

    kind: str
    several: bool = False
    base: str = ""
    """The class of the kind that the part must derive from, where the kind has more than one."""

    def __str__(self) -> str:
        return f"a list of parts of kind {self.kind}" if self.several else f"a part of kind {self.kind}"


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One setting of a method: its type, what it takes, its default and its one line of documentation."""

    name: str
    type: str
    optional: bool = False
    bound: Range | OneOf | Part | None = None
    default: Any = None
    doc: str = ""

    def accept(self, value: Any, where: str) -> Any:
        """Return ``value`` in the knob's own type, or raise a UserError that names knob, value and range."""
        if value is None:
            if self.optional:
                return None
            raise UserError(f"{where}.{self.name}: needs a value ({self.takes})")
        result = _convert(self.type, value)
        bound = self.bound
        bad = result is None
        numbers = result.values() if isinstance(result, dict) else (result,)
        bad = bad or (isinstance(bound, Range) and not all(bound.admits(number) for number in numbers))
        bad = bad or (isinstance(bound, OneOf) and result not in bound.values)
        if bad:
            raise UserError(f"{where}.{self.name}: {value!r} is not allowed; it takes {self.takes}")
        return result

    @property
    def takes(self) -> str:
        """What the knob takes, in words."""
        bound = f" {self.bound}" if isinstance(self.bound, Range) else ""
        kind = "a mapping of names to numbers" if self.type == "mapping" else self.type
        word = str(self.bound) if isinstance(self.bound, OneOf | Part) else f"{kind}{bound}"
        return word + (" or null" if self.optional else "")


def _convert(kind: str, value: Any) -> Any:
    """Return ``value`` as ``kind``, or None when it is something else (YAML reads 1e-4 as a word)."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if kind == "part":
        return value if isinstance(value, str | dict) else None
    if kind == "parts":
        fits = isinstance(value, list | tuple) and all(isinstance(one, str | dict) for one in value)
        return tuple(value) if fits else None
    if kind == "str":
        return value if isinstance(value, str) else None
    if kind == "mapping":
        found = {n: _convert("float", v) for n, v in value.items()} if isinstance(value, dict) and value else {"": None}
        return found if all(isinstance(n, str) and v is not None for n, v in found.items()) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if kind == "float":
        return number
    return int(number) if number == number and abs(number) < 2**63 and number == int(number) else None


def knob_of(name: str, hint: Any, default: Any = None) -> Knob:
    """Read a knob off a type annotation such as ``Annotated[float | None, Range(above=0)]``."""
    bound = None
    if typing.get_origin(hint) is Annotated:
        hint, *notes = typing.get_args(hint)
        bound = next((n for n in notes if isinstance(n, Range | OneOf | Part)), None)
    if isinstance(bound, Part):
        optional = type(None) in typing.get_args(hint)
        kind = "parts" if bound.several else "part"
        return Knob(name=name, type=kind, optional=optional, bound=bound, default=default)
    optional = False
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [a for a in typing.get_args(hint) if a is not type(None)]
        optional, hint = len(kinds) < len(typing.get_args(hint)), kinds[0]
    kind = "mapping" if hint == dict[str, float] else hint.__name__
    return Knob(name=name, type=kind, optional=optional, bound=bound, default=default)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def knobs(cls: type[T]) -> type[T]:
    """Turn a class into a frozen, keyword-only dataclass whose fields are its knobs."""
    return dataclass(frozen=True, kw_only=True)(cls)


@knobs
class Method:
    """What steps and parts share: knobs that are checked when the method is made, and nothing else."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for f in fields(self):
            knob = knob_of(f.name, hints[f.name])
            object.__setattr__(self, f.name, knob.accept(getattr(self, f.name), type(self).__name__))


@knobs
class PartMethod(Method):
    """A part: fills a slot of a step with one pure function."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a plan knows before anything runs; bytes, counts and operations per second."""

    parameters: int
    embedding_parameters: int
    rows: int
    model_bytes: int
    target_bytes: int
    kept_bytes: int
    bytes_per_token: float
    matmul_flops: float
    base_parameters: int = 0
    """Parameters of the recipe's model, where a step before has changed their number; else 0."""
    base_embedding_parameters: int = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a step will probably cost, and what it will probably leave for the next."""

    seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    sizes: Sizes | None = None


@knobs
class Step(Method):
    """A step: artefacts in, one artefact out. A kind implements ``apply``; a method fills in its inner function."""

    inputs: ClassVar[dict[str, type[Artefact]]]
    output: ClassVar[type[Artefact]]
    apply: ClassVar[Callable[..., Artefact]]
    gates: ClassVar[dict[str, tuple[float, str]]] = {}
    """Budgets by name, each with its default limit and one line of documentation."""
    publish: ClassVar[str | None] = None
    """The name under which the run folder shows what this step made, if it does."""

    def estimate(self, sizes: Sizes) -> Estimate:
        """Predict the cost of the step; kinds that cost something say so."""
        return Estimate(seconds=1.0)

    def spread(self, processes: int) -> int:
        """How many of so many processes ``apply`` runs on; one unless a kind can do more.

        Raises UserError where its knobs do not suit that number.
        """
        return 1


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One measured quantity against its budget."""

    name: str
    limit: float
    value: float

    @property
    def passed(self) -> bool:
        """True when the value is a number inside the limit."""
        return self.value <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """The gate as the report shows it."""
        return {"name": self.name, "limit": self.limit, "value": self.value, "pass": self.passed}


class Listener(Protocol):
    """Who hears what a step says while it runs."""

    def say(self, text: str) -> None: ...
    def progress(self, done: float, total: float, unit: str, values: Mapping[str, Any]) -> None: ...
    def gate(self, gate: Gate) -> None: ...


class Silent:
    """A listener that hears nothing."""

    def say(self, text: str) -> None:
        """Hear nothing."""

    def progress(self, done: float, total: float, unit: str, values: Mapping[str, Any]) -> None:
        """Hear nothing."""

    def gate(self, gate: Gate) -> None:
        """Hear nothing."""


@dataclass(kw_only=True)
class Run:
    """What a running step may ask for: seed, device, folders, budgets, and ways to report."""

    folder: Path
    """Empty and temporary: the step writes its artefact here."""
    scratch: Path
    """Survives a kill: checkpoints go here."""
    logs: Path | None = None
    """Survives the run: curves for trackers go here; None is a folder in ``scratch``."""
    seed: int = 0
    device: str = "cpu"
    limits: Mapping[str, float] = field(default_factory=dict)
    listener: Listener = field(default_factory=Silent)
    build_part: Callable[[str, PartSpec], Any] | None = None
    processes: int = 1
    """How many processes run the step together, each with a Run of its own; all but process 0 write nothing."""
    process: int = 0
    gates: list[Gate] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Tell the user one line."""
        self.listener.say(text)

    def progress(self, done: float, total: float, unit: str = "step", **values: Any) -> None:
        """Show how far a long task is."""
        self.listener.progress(done, total, unit, values)

    def gate(self, name: str, value: float, limit: float) -> bool:
        """Record a measured quantity against its budget; the runner stops the run at a broken one."""
        gate = Gate(name=name, limit=float(limit), value=float(value))
        self.gates.append(gate)
        self.listener.gate(gate)
        return gate.passed

    def limit(self, name: str, default: float) -> float:
        """The budget of a gate: the recipe's, else ``default``."""
        return float(self.limits.get(name, default))

    def fact(self, **facts: Any) -> None:
        """Keep JSON-able facts for the record and the report."""
        self.facts.update(facts)

    def part(self, kind: str, spec: PartSpec) -> Any:
        """Make the part that fills a slot."""
        if self.build_part is None:
            from lect.registry import build_part

            return build_part(kind, spec)
        return self.build_part(kind, spec)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return `` Did you mean X?`` for the nearest of ``words``, or an empty string."""
    match = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
