# SPDX-License-Identifier: Apache-2.0
"""Put a run together: text into rows, parameters into groups, a budget into steps; then loop, and report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lect import machine, models
from lect.artefacts import Model
from lect.engine.body import Body, head_sizes, opened
from lect.engine.budget import Budget, planned
from lect.engine.cost import ROW_TOKENS
from lect.engine.data import Encoded, Ends, Mixed, Stream, sample, sample_batches
from lect.engine.loop import Loop, Probe, Record
from lect.engine.optimizer import AdamW, Group
from lect.engine.spread import World, sharded, world
from lect.engine.step import Rates, Step
from lect.engine.tokens import kept
from lect.engine.track import opened as tracked
from lect.errors import UserError
from lect.parts.mixture.kind import Feedback

if TYPE_CHECKING:
    from lect.artefacts import Corpus, Document
    from lect.method import Run
    from lect.parts.mixture.kind import Mixture
    from lect.parts.objective.kind import Objective
    from lect.parts.parameters.kind import Parameters
    from lect.parts.schedule.kind import Moment, Schedule

ROLES = ("target", "kept")
KINDS = ("new_rows", "embeddings", "embeddings", "matrices", "vectors")


@dataclass(frozen=True, kw_only=True)
class Settings(Budget):
    """What a run of next-token training does; the knobs of a pretraining step say what each means."""

    embedding_learning_rate: float
    new_row_learning_rate: float
    new_rows_first: float
    mixture: Mixture
    objective: Objective
    parameters: Parameters
    embedding_schedule: Schedule | None
    new_row_schedule: Schedule | None
    compile: bool
    row_tokens: int = ROW_TOKENS
    gradient_filter: float = 0.0
    activations: str = "keep"


def train(
    run: Run, live: Any, tokenizer: Any, corpus: Corpus, settings: Settings, key: str, new_rows: Sequence[int] = ()
) -> Record:
    """Train ``live`` in place, leave it in fp32, and put the facts into the run's record.

    ``new_rows`` are the rows of embeddings and head with a learning rate of their own. ``key`` names the inputs
    and knobs: what the scratch folder holds of another key is not taken over. Raises UserError where there is too
    little text or time, the loss is no number, or the model is no causal decoder.
    """
    started = time.monotonic()
    tracker = tracked(settings.tracker, run, vars(settings)) if run.process == 0 else None
    with machine.held_memory(), world(run) as here, opened(live) as body:
        body.recompute(settings.activations == "recompute")
        rows, room = split_step(settings.batch_tokens, settings.row_tokens, here.size)
        longest = _longest(run, live, min(settings.max_length, room))
        ends = Ends.of(tokenizer)
        data = here.first(lambda: _data(run, tokenizer, corpus, settings, key, ends, longest, room))
        probes = _probes(run, tokenizer, corpus, settings, ends, longest, room)
        multiplied, attended = matmul_parameters(live, body), attention_width(live, body)
        texts = _texts(run, tokenizer, corpus, settings, ends, longest, room, data)
        with (
            _teacher(run, tokenizer, body, settings, here) as (teacher, name),
            settings.parameters.opened(live, run.seed),
            _narrowed(live, settings.dtype if here.size == 1 else torch.float32),
            sharded(here, body, settings.dtype) as shards,
            _optimizer(shards, settings, stretches(new_rows), here) as (optimizer, schedules),
        ):
            step = Step(
                run=run,
                body=shards,
                optimizer=optimizer,
                schedules=schedules,
                compile=settings.compile,
                objective=settings.objective,
                parameters=settings.parameters,
                world=here,
                whole=shards.whole,
                teacher=teacher,
                least=settings.gradient_filter,
            )
            loop = Loop(
                run=run,
                step=step,
                data=data,
                probes=probes,
                rows=rows,
                batch_tokens=rows * room,
                evaluations=settings.evaluations,
                checkpoint_seconds=settings.checkpoint_seconds,
                matmul_parameters=multiplied,
                attention_width=attended,
                texts=texts,
                tracker=tracker,
            )
            rates = [sum(here.joined([machine.matmul_flops()]))]
            loop.matmul_flops = rates[0]
            run.say(f"getting ready: {'compiling and ' if settings.compile else ''}timing a step")
            compile_seconds, step_seconds = loop.warm_up()
            plan = planned(run, loop, settings, key + name, started, step_seconds)
            ready_seconds = time.monotonic() - started
            record = loop.go(plan["steps"], plan.get("laps"))
            facts = settings.parameters.facts(optimizer.whole(), plan["steps"])
            rates.append(sum(here.joined([machine.matmul_flops()])))
    if step.compile:
        torch.compiler.reset()
    rate = sum(rates) / len(rates)
    run.fact(
        losses=record.thinned(),
        evaluations=record.evaluations,
        trained_tokens=record.tokens,
        trained_bytes=round(record.bytes),
        ready_seconds=ready_seconds,
        seconds=record.seconds,
        step_seconds=record.step_seconds,
        compile_seconds=compile_seconds,
        tokens_per_second=record.tokens / record.step_seconds,
        bytes_per_second=record.bytes / record.step_seconds,
        flops=record.flops,
        matmul_flops=rate,
        utilisation=record.flops / record.step_seconds / rate,
        filled=record.tokens / (record.step * rows * room),
        epochs=data.epochs(record.step * rows),
        peak_memory_bytes=machine.peak_memory_bytes(),
        **({"measurements": record.measurements} if record.measurements else {}),
        **facts,
        **plan,
    )
    return record


@contextmanager
def _teacher(
    run: Run, tokenizer: Any, body: Body, settings: Settings, here: World
) -> Iterator[tuple[Body | None, str]]:
    """The model that the objective learns from, in the compute type, and its fingerprint; or None and nothing.

    Raises UserError where there is no such model, or its vocabulary is another.
    """
    name = settings.objective.teacher()
    if not name:
        yield None, ""
        return
    model = Model(Path(here.told(lambda: str(models.resolve(name, run.say)))))
    other, own = model.tokenizer().get_vocab(), tokenizer.get_vocab()
    if other != own:
        apart = len(other.items() ^ own.items())
        raise UserError(
            f"{name}: teaches in another vocabulary: {apart} of its tokens and the model's are not the same under the "
            "same id; give a model that was made with this model's tokenizer"
        )
    with opened(model.load(dtype=settings.dtype, device=run.device)) as teacher:
        rows = len(teacher.head), len(body.head)
        if rows[0] < rows[1]:
            raise UserError(
                f"{name}: its head has {rows[0]} rows, fewer than the {rows[1]} of the model that it is to teach; "
                "give a teacher with as many"
            )
        run.fact(teacher=model.fingerprint)
        yield teacher, model.fingerprint


def split_step(batch_tokens: int, row_tokens: int = ROW_TOKENS, processes: int = 1) -> tuple[int, int]:
    """Rows a step, and tokens a row; rows that the processes cannot share equally are a UserError."""
    rows = -(-batch_tokens // row_tokens)
    if rows % processes:
        counts = (-(-batch_tokens // n) for n in range(row_tokens, 0, -1))
        fits = (-(-batch_tokens // count) for count in counts if count % processes == 0)
        advice = f"set row_tokens to {fit}" if (fit := next(fits, None)) else f"raise batch_tokens to {processes}"
        raise UserError(
            f"row_tokens: a step of {batch_tokens} tokens runs as {rows} row{'s'[: rows > 1]} of at most {row_tokens}, "
            f"which {processes} processes cannot share; {advice}"
        )
    return rows, batch_tokens // rows


def _longest(run: Run, live: Any, wanted: int) -> int:
    """The longest sequence: what was asked for, as far as the model's positions reach."""
    reach = int(getattr(live.config, "max_position_embeddings", 0) or 0)
    if 0 < reach < wanted:
        run.say(f"max_length: the model reaches {reach} tokens, so documents are cut there")
        return reach
    return wanted


def _data(
    run: Run, tokenizer: Any, corpus: Corpus, settings: Settings, key: str, ends: Ends, longest: int, room: int
) -> Mixed:
    """Rows of all texts of the mixture; too little of one that has a share is a UserError."""
    group = settings.mixture.group

    def documents(role: str) -> Iterator[Document]:
        return (settings.objective.document(d) for d in corpus.documents(role) if d.split in ("train", ""))

    counts: Counter[str] = Counter()
    owners: dict[str, str] = {}
    for role in reversed(ROLES):
        found = Counter(group(document) for document in documents(role))
        counts += found
        owners |= dict.fromkeys(found, role)
    encoded = {}
    for number, name in enumerate(sorted(owners, key=lambda name: (ROLES.index(owners[name]), name))):
        some = (d for role in ROLES for d in documents(role) if group(d) == name)
        encoded[name] = kept(run, f"tokens-{number}", f"{key} {name}", tokenizer, some, counts[name])
    tokens = {name: found.tokens for name, found in encoded.items() if found.tokens}
    target = sum(found.tokens for name, found in encoded.items() if owners[name] == "target")
    if target < room:
        raise UserError(
            f"the target text for training has {target} tokens, fewer than one batch of {room}; "
            "add text, or lower batch_tokens"
        )
    shares = [settings.mixture.shares(tokens, progress, Feedback()) for progress in (0.0, 0.5, 1.0)]
    for name in sorted({name for found in shares for name, share in found.items() if share > 0} - tokens.keys()):
        run.say(f"no {name} text for training: the other texts take its share")
    read = [name for name in tokens if any(found.get(name, 0.0) > 0 for found in shares)]
    for name in (name for name in tokens if name not in read):
        run.say(f"the {name} text has no share of the mixture and is not read: {tokens[name]} tokens")
    streams: dict[str, Stream] = {}
    for number, name in enumerate(read):
        if tokens[name] < room:
            raise UserError(
                f"the {name} text for training has {tokens[name]} tokens, fewer than one batch of {room}; "
                "add text, lower batch_tokens, or give it no share of the mixture"
            )
        streams[name] = Stream(
            encoded[name],
            settings.packing,
            ends,
            longest=longest,
            room=room,
            seed=2 * run.seed + number,
            device=run.device,
        )
    if not streams:
        raise UserError(
            "there is no text for training that has a share of the mixture; add text, or change the mixture"
        )
    return Mixed(streams, settings.mixture)


def _probes(
    run: Run, tokenizer: Any, corpus: Corpus, settings: Settings, ends: Ends, longest: int, room: int
) -> dict[str, Probe]:
    """A fixed sample of the calibration split of each role, where it has text."""
    probes = {}
    for role in ROLES:
        documents = corpus.documents(role, "calibration")
        chosen = sample(tokenizer, documents, ends, longest=longest, tokens=settings.evaluation_tokens)
        if (probe := _probe(run, tokenizer, chosen, ends, room)) is not None:
            probes[role] = probe
    return probes


def _texts(
    run: Run, tokenizer: Any, corpus: Corpus, settings: Settings, ends: Ends, longest: int, room: int, data: Mixed
) -> dict[str, Probe]:
    """A fixed sample of the calibration split of each text, where the mixture goes by losses.

    A text without any there is measured on what it is trained on, and that is said.
    """
    probes: dict[str, Probe] = {}

    def found(name: str, *splits: str) -> Probe | None:
        documents = (d for role in ROLES for d in corpus.documents(role) if d.split in splits)
        own = (d for d in documents if settings.mixture.group(d) == name)
        chosen = sample(tokenizer, own, ends, longest=longest, tokens=settings.evaluation_tokens)
        return _probe(run, tokenizer, chosen, ends, room)

    for name in data.streams if settings.mixture.measurements else ():
        probe = found(name, "calibration")
        if probe is None:
            run.say(f"no {name} text for calibration: its loss is measured on text that the model is trained on")
            probe = found(name, "train", "")
        if probe is None:
            raise UserError(f"no {name} document has two tokens, so its loss cannot be measured; add text")
        probes[name] = probe
    return probes


def _probe(run: Run, tokenizer: Any, chosen: list[Document], ends: Ends, room: int) -> Probe | None:
    """The rows of these documents; None where there is no token to predict."""
    batches, size = sample_batches(Encoded.of(tokenizer, chosen), tokenizer, ends, room=room, device=run.device)
    return Probe(batches, size) if batches and size > 0 else None


Stretches = tuple[tuple[int, int], ...]


def stretches(rows: Iterable[int]) -> Stretches:
    """First row and row behind the last of each run of neighbours among ``rows``."""
    found: list[tuple[int, int]] = []
    for row in sorted(set(rows)):
        if found and found[-1][1] == row:
            found[-1] = found[-1][0], row + 1
        else:
            found.append((row, row + 1))
    return tuple(found)


@dataclass(frozen=True)
class _After:
    """A schedule that stays at zero for a share of the run, and then runs whole over the rest."""

    schedule: Schedule
    start: float

    def rate(self, at: Moment) -> float:
        own = at.after(self.start)
        return 0.0 if own.seen < 0 else self.schedule.rate(own)


@contextmanager
def _narrowed(live: Any, dtype: torch.dtype) -> Iterator[None]:
    """Parameters that want no gradient in the compute type; afterwards each is as it was, bit for bit.

    The old one is kept only where rounding would lose something.
    """
    held: list[tuple[nn.Parameter, torch.Tensor | None, torch.dtype]] = []
    for parameter in live.parameters():
        if not parameter.requires_grad:
            narrow = parameter.data.to(dtype)
            same = torch.equal(narrow.to(parameter.dtype), parameter.data)
            held.append((parameter, None if same else parameter.data, parameter.dtype))
            parameter.data = narrow
    try:
        yield
    finally:
        for parameter, data, before in held:
            parameter.data = parameter.data.to(before) if data is None else data


@contextmanager
def _optimizer(body: Body, settings: Settings, new: Stretches, world: World) -> Iterator[tuple[AdamW, list[Rates]]]:
    """Put the weights that want a gradient into the compute type; afterwards they are the fp32 masters again.

    Each group has its schedule. Rows in ``new`` are a group of their own; while ``new_rows_first`` lasts, the only one
    that moves.
    """
    live = body.live
    embeddings = {id(m.weight) for m in live.modules() if isinstance(m, nn.Embedding)} | {id(body.head)}
    rows = len(body.head)
    old = stretches(set(range(rows)).difference(*(range(a, b) for a, b in new)))
    kinds: dict[str, list[tuple[str, nn.Parameter]]] = {"new": [], "embeddings": [], "matrices": [], "vectors": []}
    tables: dict[str, list[tuple[str, nn.Parameter]]] = {"other": []}
    for name, parameter in live.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = "embeddings" if id(parameter) in embeddings else "matrices" if parameter.ndim > 1 else "vectors"
        if kind == "embeddings" and new and len(parameter) != rows:
            tables["other"].append((name, parameter))  # positions and the like
            continue
        kinds[kind].append((name, parameter))
    if new:
        kinds["new"] = kinds["embeddings"]
    wait = settings.new_rows_first if new else 0.0
    table_rate = settings.embedding_learning_rate
    table_schedule = _After(settings.embedding_schedule or settings.schedule, wait)
    plan: list[tuple[list[tuple[str, nn.Parameter]], float, float, Rates, Stretches | None]] = [
        (kinds["new"], settings.new_row_learning_rate, 0.0, settings.new_row_schedule or settings.schedule, new),
        (kinds["embeddings"], table_rate, 0.0, table_schedule, old if new else None),
        (tables["other"], table_rate, 0.0, table_schedule, None),
        (kinds["matrices"], settings.learning_rate, settings.weight_decay, _After(settings.schedule, wait), None),
        (kinds["vectors"], settings.learning_rate, 0.0, _After(settings.schedule, wait), None),
    ]
    names = [kind for kind, entry in zip(KINDS, plan, strict=True) if entry[0]]
    plan = [entry for entry in plan if entry[0]]
    groups = [
        Group(
            kind=kind,
            names=tuple(name for name, _ in members),
            parameters=tuple(parameter for _, parameter in members),
            learning_rate=rate,
            weight_decay=decay,
            rows=part,
        )
        for kind, (members, rate, decay, _, part) in zip(names, plan, strict=True)
    ]
    optimizer = AdamW(groups, world=world, **settings.adam)
    try:
        yield optimizer, [schedule for *_, schedule, _ in plan]
    finally:
        optimizer.release()


def matmul_parameters(live: Any, body: Body) -> int:
    """Parameters that multiply every token: matrices and the head, without tables that are only looked up."""
    tables = {id(m.weight) for m in live.modules() if isinstance(m, nn.Embedding)} - {id(body.head)}
    return sum(p.numel() for p in live.parameters() if p.ndim > 1 and id(p) not in tables)


def attention_width(live: Any, body: Body) -> int:
    """Heads times their width, summed over the layers."""
    heads, _, width = head_sizes(live)
    return heads * width * len(body.layers)
