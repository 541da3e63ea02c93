# SPDX-License-Identifier: Apache-2.0
"""From file name to method: the only place that knows where methods live.

``stages/<stage>/<name>.py`` is the step ``<stage>/<name>``; ``parts/<kind>/<name>.py`` is the part ``<kind>/<name>``.
Cards, knobs, inputs and outputs are read from the source text, so that listing imports no method and no torch.
Another package adds a folder of the same shape (``stages/``, ``parts/``) through the entry-point group
``lect.methods``, whose value names the package that holds them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from lect.errors import UserError
from lect.method import Card, Knob, Method, OneOf, Part, PartMethod, PartSpec, Range, Step, nearest

STAGES: tuple[str, ...] = ("corpus", "vocab", "pretrain", "finetune", "align", "compress")
STAGES += ("context", "retrieve", "decode", "evaluate", "trust", "export")  # the order in which data flows
ROOTS = "lect.methods"
RELOAD = {"reload": (0.0, "greatest difference of fp32 logits between the saved model and the live one")}


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """What is known of a method without importing it."""

    name: str
    step: bool
    module: str
    path: Path
    class_name: str
    card: Card
    doc: str
    knobs: dict[str, Knob]
    inputs: dict[str, str]
    output: str
    gates: dict[str, tuple[float, str]]
    bases: tuple[str, ...] = ()
    """The names of the classes that it derives from, as far as its own file and its kind's show them."""

    def load(self) -> type[Method]:
        """Import the method's file and return its class."""
        return cast(type[Method], getattr(importlib.import_module(self.module), self.class_name))


def _roots() -> Iterator[tuple[str, Path]]:
    """Yield package name and folder of lect itself and of every package that adds methods."""
    yield "lect", Path(__file__).parent
    for point in sorted(entry_points(group=ROOTS), key=lambda p: p.value):
        spec = importlib.util.find_spec(point.value)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"entry point {point.name} names {point.value}, which is not a package; reinstall it")
        yield point.value, Path(next(iter(spec.submodule_search_locations)))


@cache
def methods() -> dict[str, MethodInfo]:
    """Every method by name: steps in stage order, then parts, each read from its source."""
    found: dict[str, MethodInfo] = {}
    for package, folder in _roots():
        for group, base in (("stages", "kinds.py"), ("parts", "kind.py")):
            for path in sorted(folder.glob(f"{group}/*/*.py")):
                if path.name in ("__init__.py", base):
                    continue
                name = f"{path.parent.name}/{path.stem}"
                if name in found:
                    raise UserError(f"method {name} stands in {found[name].path} and in {path}; rename one")
                module = f"{package}.{group}.{path.parent.name}.{path.stem}"
                found[name] = _read(name, group == "stages", module, path, path.with_name(base))
    order = {stage: i for i, stage in enumerate(STAGES)}
    return dict(sorted(found.items(), key=lambda i: (not i[1].step, order.get(i[0].split("/")[0], len(order)), i[0])))


def steps() -> dict[str, MethodInfo]:
    """The methods that can stand in a recipe."""
    return {name: info for name, info in methods().items() if info.step}


def parts(kind: str) -> dict[str, MethodInfo]:
    """The parts of one kind, by their short names."""
    return {i.name.split("/")[1]: i for i in methods().values() if not i.step and i.name.split("/")[0] == kind}


def find(name: str) -> MethodInfo:
    """The method of that name, or a UserError that suggests the nearest."""
    if name not in methods():
        raise UserError(f"there is no method {name!r}.{nearest(name, methods())} See: lect list")
    return methods()[name]


def check_values(info: MethodInfo, given: dict[str, Any], where: str) -> dict[str, Any]:
    """Every knob of a method with its value, given or default; an unknown or bad one is a UserError."""
    for key in given:
        if key not in info.knobs:
            hint = nearest(str(key), info.knobs) or f" Its knobs: {', '.join(info.knobs) or 'none'}."
            raise UserError(f"{where}: {info.name} has no knob {key!r}.{hint}")
    values = {n: k.accept(given.get(n, k.default), where) for n, k in info.knobs.items()}
    for name, knob in info.knobs.items():
        if not isinstance(knob.bound, Part) or values[name] is None:
            continue
        kind, base, given_here = knob.bound.kind, knob.bound.base, values[name]
        if knob.bound.several:
            values[name] = [check_part(kind, spec, f"{where}.{name}[{n}]", base) for n, spec in enumerate(given_here)]
        else:
            values[name] = check_part(kind, given_here, f"{where}.{name}", base)
    return values


def check_part(kind: str, spec: PartSpec, where: str, base: str = "") -> PartSpec:
    """The slot's value in its long form, ``{use, with}``, with every default filled in.

    With ``base``, a part that does not derive from that class of its kind is a UserError.
    """
    long: dict[str, Any] = {"use": spec} if isinstance(spec, str) else dict(spec)
    for key in long:
        if key not in ("use", "with"):
            raise UserError(f"{where}: unknown key {key!r} in a slot; it takes a name, or use: and with:")
    name = str(long.get("use", "")).removeprefix(f"{kind}/")
    known = parts(kind)
    if name not in known:
        raise UserError(f"{where}: there is no {kind} {name!r}.{nearest(name, known)} Known: {', '.join(known)}")
    if base and base not in known[name].bases:
        fitting = ", ".join(n for n, info in known.items() if base in info.bases)
        raise UserError(f"{where}: {kind} {name!r} is for models of another kind; use one of: {fitting}")
    return {"use": name, "with": check_values(known[name], dict(long.get("with") or {}), where)}


def named_files(info: MethodInfo, values: dict[str, Any], where: str = "") -> Iterator[tuple[str, Path]]:
    """The files and model folders that knobs name, of the method and of the parts in its slots, each with its knob."""
    for name, knob in info.knobs.items():
        value, place = values.get(name), f"{where}{name}"
        if isinstance(knob.bound, Part):
            for spec in (value or ()) if knob.bound.several else [value] if value else ():
                yield from named_files(parts(knob.bound.kind)[spec["use"]], spec["with"], f"{place}.")
        elif knob.type == "str" and not isinstance(knob.bound, OneOf) and value:
            path = os.path.expanduser(value)
            inside = (os.path.join(path, name) for name in ("config.json", "tokenizer.json"))
            if os.path.isfile(path) or any(map(os.path.isfile, inside)):
                yield place, Path(path)


def build_step(name: str, values: dict[str, Any]) -> Step:
    """Make the step of that name with these knobs."""
    return cast(Step, find(name).load()(**values))


def build_part(kind: str, spec: PartSpec) -> PartMethod:
    """Make the part that fills a slot."""
    long = cast(dict[str, Any], check_part(kind, spec, kind))
    return cast(PartMethod, parts(kind)[long["use"]].load()(**long["with"]))


def _read(name: str, step: bool, module: str, path: Path, base: Path) -> MethodInfo:
    """Read a method's file; a file that breaks the contract is refused by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    card = next((n.value for n in tree.body if isinstance(n, ast.Assign) and _target(n) == "CARD"), None)
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and _is_knobs(n)]
    if card is None or len(classes) != 1:
        raise UserError(f"{path}: a method's file holds one literal CARD and one class marked @knobs")
    lineage = _lineage(classes[0], tree, base)
    output = next((v.id for cls in lineage if isinstance(v := _class_value(cls, "output"), ast.Name)), "")
    gates: dict[str, tuple[float, str]] = dict(RELOAD) if output == "Model" else {}
    for cls in reversed(lineage):
        gates |= _gates(_class_value(cls, "gates"))
    knobs: dict[str, Knob] = {}
    for cls in reversed(lineage):
        knobs.update({k.name: k for k in _knobs(cls)})
    return MethodInfo(
        name=name,
        step=step,
        module=module,
        path=path,
        class_name=classes[0].name,
        card=cast(Card, ast.literal_eval(card)),
        doc=ast.get_docstring(classes[0]) or "",
        knobs=knobs,
        inputs=next((_names(v) for cls in lineage if (v := _class_value(cls, "inputs")) is not None), {}),
        output=output,
        gates=gates,
        bases=tuple(b.id for cls in lineage for b in cls.bases if isinstance(b, ast.Name)),
    )


def _target(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


def _is_knobs(node: ast.ClassDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "knobs" for d in node.decorator_list)


def _lineage(cls: ast.ClassDef, tree: ast.Module, base: Path) -> list[ast.ClassDef]:
    """The class and its ancestors in its own file and in the kind's, nearest first."""
    known = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    if base.exists():
        kinds = ast.parse(base.read_text(encoding="utf-8"), filename=str(base))
        known = {n.name: n for n in kinds.body if isinstance(n, ast.ClassDef)} | known
    line, queue = [], [cls]
    while queue:
        current = queue.pop(0)
        line.append(current)
        queue += [known[b.id] for b in current.bases if isinstance(b, ast.Name) and b.id in known]
    return line


def _class_value(cls: ast.ClassDef, name: str) -> ast.expr | None:
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return node.value
        if isinstance(node, ast.Assign) and _target(node) == name:
            return node.value
    return None


def _names(node: ast.expr) -> dict[str, str]:
    if not isinstance(node, ast.Dict):
        return {}
    pairs = zip(node.keys, node.values, strict=True)
    return {k.value: v.id for k, v in pairs if isinstance(k, ast.Constant) and isinstance(v, ast.Name)}  # type: ignore[misc]


def _gates(node: ast.expr | None) -> dict[str, tuple[float, str]]:
    """The budgets that a class declares itself; those that it spreads from its parent come from there."""
    if not isinstance(node, ast.Dict):
        return {}
    pairs = zip(node.keys, node.values, strict=True)
    return {ast.literal_eval(k): ast.literal_eval(v) for k, v in pairs if k is not None}


def _knobs(cls: ast.ClassDef) -> Iterator[Knob]:
    """Yield the knobs that a class body declares: annotation, literal default, and the string below."""
    for node, after in zip(cls.body, [*cls.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        note = node.annotation
        if "ClassVar" in ast.unparse(note):
            continue
        kind, optional, bound = _annotation(note)
        doc = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        yield Knob(
            name=node.target.id,
            type=kind,
            optional=optional,
            bound=bound,
            default=ast.literal_eval(node.value) if node.value is not None else None,
            doc=" ".join(str(doc).split()),
        )


def _annotation(node: ast.expr) -> tuple[str, bool, Range | OneOf | Part | None]:
    """Type, whether null is allowed, and bound of an annotation."""
    bound: Range | OneOf | Part | None = None
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):  # Annotated[type, bound]
        node, *notes = node.slice.elts
        for call in notes:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                make = {"Range": Range, "OneOf": OneOf, "Part": Part}[call.func.id]
                keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
                bound = make(*[ast.literal_eval(a) for a in call.args], **keywords)
    optional = isinstance(node, ast.BinOp)
    if isinstance(node, ast.BinOp):
        node = node.left
    word = node.id if isinstance(node, ast.Name) else ast.unparse(node)
    kind = {"PartSpec": "part", "tuple[PartSpec, ...]": "parts", "dict[str, float]": "mapping"}.get(word, word)
    return kind, optional, bound
