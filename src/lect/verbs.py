# SPDX-License-Identifier: Apache-2.0
"""What each verb does: small functions that put plan, recipe, runner and report together and print the outcome."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from lect import recipe as recipes
from lect import registry
from lect.errors import UserError

CORPUS = ("read", "normalise", "exact_duplicates", "split")
WIDE = 120
MEASURES = ("bits_per_byte", "cloze", "choice", "speed", "size", "samples")


def adapt(
    model: str,
    text: Sequence[str],
    keep: Sequence[str],
    out: Path,
    minutes: float | None,
    tokens: int | None,
    settings: Sequence[str],
) -> None:
    """Plan, show the plan, run it, and print the short table and where the report is."""
    from lect import plan as planning

    scratch, console = out / "steps", Console(stderr=True)
    plan = planning.adapt(model, text, keep, minutes, tokens, settings, scratch, _beside(out), console.print)
    _print_plan(plan, console)
    _room(plan, out)
    _run(plan.recipe, out, plan.as_dict(), "adapt")


def plan(
    model: str,
    text: Sequence[str],
    keep: Sequence[str],
    minutes: float | None,
    tokens: int | None,
    settings: Sequence[str],
) -> None:
    """Print the plan."""
    from lect import plan as planning

    say = Console(stderr=True).print
    with tempfile.TemporaryDirectory(prefix="lect-plan-") as scratch:
        made = planning.adapt(model, text, keep, minutes, tokens, settings, Path(scratch), _beside(Path("plan")), say)
    _print_plan(made, Console())


def run_recipe(path: Path, out: Path, settings: Sequence[str]) -> None:
    """Run a recipe from its file."""
    _run(_recipe(path, settings), out, None, "run")


def check_recipe(path: Path, settings: Sequence[str]) -> None:
    """Resolve a recipe, build its steps, and say that it holds."""
    resolved = _recipe(path, settings)
    for step in resolved.steps:
        registry.build_step(step.use, step.values)
    print(f"{path}: holds; {len(resolved.steps)} steps, {', '.join(s.label for s in resolved.steps)}")


def list_methods(stage: str | None) -> None:
    """Print every method, or those of one stage or kind of part."""
    found = [i for i in registry.methods().values() if stage in (None, i.name.split("/")[0])]
    if not found:
        known = dict.fromkeys(name.split("/")[0] for name in registry.methods())
        raise UserError(f"there is no stage or part {stage!r}; known: {', '.join(known)}")
    table = Table("method", "", "what it is", box=None, pad_edge=False)
    for info in found:
        table.add_row(info.name, "step" if info.step else "part", escape(info.card["title"]))
    Console().print(table)


def show_method(name: str) -> None:
    """Print one method's card and knobs."""
    info = registry.find(name)
    card, console = info.card, Console(highlight=False)
    console.print(f"[bold]{info.name}[/] (version {card['version']}): {escape(card['title'])}")
    console.print(f"\n{escape(info.doc)}\n")
    console.print(f"Claim: {escape(card['claim'])}")
    if card["paper"]:
        console.print(f"Paper: {escape(card['paper'])}")
    for sentence in card["differs"]:
        console.print(f"Differs: {escape(sentence)}")
    if info.step:
        takes = ", ".join(f"{n}: {kind}" for n, kind in info.inputs.items())
        console.print(f"Takes {takes}; gives {info.output}")
    table = Table("knob", "default", "takes", "what it does", box=None, pad_edge=False)
    for knob in info.knobs.values():
        default = "null" if knob.default is None else str(knob.default).lower() if knob.type == "bool" else knob.default
        table.add_row(knob.name, str(default), escape(knob.takes), escape(knob.doc))
    console.print("")
    console.print(table if info.knobs else "No knobs.")
    for gate, (limit, doc) in info.gates.items():
        console.print(f"Budget gates.{gate} = {limit:g}: {escape(doc)}")


def evaluate(model: str, text: Sequence[str], keep: Sequence[str], out: Path | None, settings: Sequence[str]) -> None:
    """Measure one model on text that it was not trained on here: all of it is test text."""
    steps: list[dict[str, Any]] = [{"use": f"corpus/{name}"} for name in CORPUS]
    steps += [{"use": f"evaluate/{name}"} for name in MEASURES]
    steps[len(CORPUS) - 1]["with"] = {"test": 1.0}
    raw = {"model": model, "text": list(text), "keep": list(keep), "steps": steps}
    resolved = recipes.resolve(recipes.override(raw, list(settings)), "eval")
    with tempfile.TemporaryDirectory(prefix="lect-eval-") as scratch:
        _run(resolved, out or Path(scratch), None, "eval", keep=out is not None)


def generate(model: str, prompt: str, tokens: int) -> None:
    """Print a greedy continuation."""
    import torch

    from lect import models
    from lect.artefacts import Model
    from lect.ops.text import encode

    if tokens < 1:
        raise UserError(f"--tokens: {tokens} is not allowed; it takes a whole number from 1")
    artefact = Model(models.resolve(model, say=_say))
    tokenizer = artefact.tokenizer()
    live = artefact.load(dtype=torch.bfloat16)
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids_bt = torch.tensor([start + encode(tokenizer, [prompt])[0]])
    if ids_bt.shape[1] == 0:
        raise UserError("the prompt is empty and the model has no start token; give some text")
    made_bt = live.generate(ids_bt, max_new_tokens=tokens, do_sample=False)
    print(prompt + tokenizer.decode(made_bt[0, ids_bt.shape[1] :], skip_special_tokens=True))


def export(model: str, to: str, out: Path, settings: Sequence[str]) -> None:
    """Write a model in another format, as a run of one step."""
    from lect import runner
    from lect.console import Screen

    raw = {"model": model, "text": [], "steps": [{"use": f"export/{to}"}]}
    resolved = recipes.resolve(recipes.override(raw, list(settings)), "export")
    runner.run(resolved, out, Screen(), verb="export")
    print(out / f"model.{to}")


def report(folder: Path) -> None:
    """Write the report anew and print the short table."""
    from lect.report import build, table

    if not (folder / "record.json").exists():
        raise UserError(f"{folder}: holds no record.json; name a folder that lect adapt or lect run wrote")
    Console().print(table(build(folder)))
    print(folder / "report.html")


def _recipe(path: Path, settings: Sequence[str]) -> recipes.Recipe:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); name a recipe in YAML") from error
    return recipes.resolve(recipes.override(recipes.parse(text, str(path)), list(settings)), str(path))


def _run(resolved: recipes.Recipe, out: Path, plan: dict[str, Any] | None, verb: str, keep: bool = True) -> None:
    from lect import runner
    from lect.artefacts import read_json
    from lect.console import Screen
    from lect.errors import BrokenGate
    from lect.report import table

    screen = Screen()
    broken: BrokenGate | None = None
    try:
        data = runner.run(resolved, out, screen, plan, verb)
    except BrokenGate as error:
        broken, data = error, read_json(out / "report.json")
    finally:
        screen.close()
    Console().print(table(data))
    if keep:
        print(f"report: {out / 'report.html'}")
    if broken is not None:
        raise broken


def _print_plan(plan: Any, console: Console) -> None:
    if plan.candidates:
        console.print(_vocabularies(plan.candidates, console.width))
    columns = ("step", "why", "minutes", "memory", "disk")
    table = Table(*columns, box=None, pad_edge=False, title="plan", title_justify="left")
    for row in plan.rows:
        memory, disk = f"{row.memory_bytes / 1e9:.1f} GB", f"{row.disk_bytes / 1e6:.0f} MB"
        table.add_row(row.use, escape(row.why), f"{row.seconds / 60:.1f}", memory, disk)
    total = (f"{plan.seconds / 60:.0f}", f"{plan.memory_bytes / 1e9:.1f} GB", f"{plan.disk_bytes / 1e6:.0f} MB")
    table.add_row("[bold]together[/]", f"matrix products at {plan.sizes.matmul_flops / 1e9:.0f} GFLOP/s", *total)
    console.print(table)
    if plan.forecast:
        console.print(_predictions([row for row in plan.forecast if row.inside is None]))
        console.print(_laws([row for row in plan.forecast if row.inside is not None]))


def _predictions(rows: Sequence[Any]) -> Table:
    """What training will probably come to; the report sets it against what it came to."""
    from lect.report.words import quantity

    table = Table(*_sides("predicted", "value"), box=None, pad_edge=False, title="prediction", title_justify="left")
    for row in rows:
        table.add_row(row.name, quantity(row.value, row.unit), escape(row.note))
    return table


def _laws(rows: Sequence[Any]) -> Table:
    """What published laws say beside what the recipe has."""
    from lect.report.words import quantity, span

    columns = _sides("published law", "says", "recipe", "sizes studied")
    table = Table(*columns, box=None, pad_edge=False, title="laws, for comparison: no step follows them")
    table.title_justify = "left"
    for row in rows:
        recipe = "" if row.recipe is None else quantity(row.recipe, row.unit)
        says = span(row.value, row.low, row.high, row.unit)
        table.add_row(row.name, says, recipe, "yes" if row.inside else "no", escape(row.note))
    return table


def _sides(first: str, *numbers: str) -> list[Column]:
    """A name, numbers, and a reason that may be long."""
    return [Column(first), *(Column(name, justify="right") for name in numbers), Column("because")]


def _vocabularies(candidates: Sequence[Any], width: int) -> Table:
    """What each vocabulary would give, the pick marked, and how a recipe spells it; less of it where it is narrow."""
    columns: dict[str, Callable[[Any], str]] = {
        "vocabulary": lambda c: f"[bold]{c.name} *[/]" if c.picked else c.name,
        "rows": lambda c: f"{c.rows:,}",
        "bytes/token": lambda c: f"{c.bytes_per_token:.2f}",
        "parameters": lambda c: f"{c.parameters / 1e6:.0f} M",
        "disk": lambda c: f"{c.disk_bytes / 1e6:.0f} MB",
        "head MFLOP": lambda c: f"{c.head_flops / 1e6:.0f}",
        "speed": lambda c: f"{c.speed:.2f}",
        "bits/byte": lambda c: f"{c.bits_per_byte:.2f}" if c.bits_per_byte is not None else "",
        "met": lambda c: f"{c.seen:.0f}" if c.new else "",
        "unknown": lambda c: f"{c.unknown:.1%}",
        "in the recipe": lambda c: escape("; ".join(map(_spelled, c.steps)) or "neither"),
    }
    if not any(c.unknown for c in candidates):
        del columns["unknown"]
    for name in ("in the recipe", "head MFLOP", "disk") if width < WIDE else ():
        del columns[name]
    title = "vocabularies, tried on a sample of the text"
    sides = [Column(name, justify="left" if name in ("vocabulary", "in the recipe") else "right") for name in columns]
    table = Table(*sides, box=None, pad_edge=False, title=title, title_justify="left")
    for c in candidates:
        table.add_row(*(cell(c) for cell in columns.values()))
    words = {
        "head MFLOP": "head: operations for a token",
        "speed": "speed: bytes in the same time, against keep",
        "bits/byte": "bits/byte: of the target, before any training",
        "met": "met: how often training meets each new token",
        "unknown": "unknown: tokens that stand for text that cannot be written",
    }
    table.caption = "; ".join(text for name, text in words.items() if name in columns)
    table.caption_justify = "left"
    return table


def _spelled(step: dict[str, Any]) -> str:
    return " ".join([step["use"], *(f"{k}={v}" for k, v in step.get("with", {}).items())])


def _beside(out: Path) -> list[Path]:
    """The folders beside ``out``, where earlier runs may be."""
    here = out.resolve()
    return sorted(path for path in here.parent.glob("*") if path.is_dir() and path != here)


def _room(plan: Any, out: Path) -> None:
    """Refuse to start what the disk or the memory cannot hold."""
    import psutil

    from lect.plan import free_disk

    free = free_disk(out)
    if plan.disk_bytes > free:
        need = f"{plan.disk_bytes / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free"
        raise UserError(f"{out}: the disk is too full: {need}; make room or give another --out")
    memory = psutil.virtual_memory()
    if plan.memory_bytes > memory.total:
        need = f"{plan.memory_bytes / 1e9:.1f} GB are needed and the machine has {memory.total / 1e9:.1f} GB"
        raise UserError(f"not enough memory: {need}; take a smaller model or --set continue.batch_tokens=512")


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(escape(text), soft_wrap=True)
