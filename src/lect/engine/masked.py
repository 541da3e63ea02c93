# SPDX-License-Identifier: Apache-2.0
"""Masked-token training with the engine's loop, with or without vectors of a document's tags under the head.

One padded row a document, all of it attended to. The objective chooses some tokens and how much each counts, and how
many of them are masked or replaced; the loss is the weighted mean over the chosen ones. Calibration text is measured
the same way under all objectives: with the defaults of :class:`lect.parts.objective.kind.Masking`, uniform and at 15 %.
To the states under the head comes one vector for each tag of the document, its language for example, where the step
asks for tags; the model itself does not have these vectors, and is saved without them.

Shapes: T tokens of a row, M chosen ones, D width, V vocabulary, K names of a tag.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lect import machine
from lect.engine.body import TOLERANCE, Row
from lect.engine.budget import Budget, planned
from lect.engine.data import Batch, Encoded, Ends, Epochs, sample
from lect.engine.loop import Loop, Probe, Record
from lect.engine.optimizer import AdamW, Group
from lect.engine.step import Rates, Step
from lect.engine.tokens import kept
from lect.engine.track import opened as tracked
from lect.engine.train import attention_width, split_step
from lect.errors import UserError
from lect.ops.terms import Matcher
from lect.ops.text import encode_spans
from lect.parts.objective.kind import Masking, Texts
from lect.parts.packing.kind import Frame

if TYPE_CHECKING:
    from lect.artefacts import Corpus, Document
    from lect.method import Run

ROLES = ("target", "kept")
SHOWN_TERMS = 100
Tag = Callable[["Document"], str]


@dataclass(frozen=True, kw_only=True)
class MaskedSettings(Budget):
    """What a run does; the knobs of the step say what each means."""

    objective: Masking
    tag_learning_rate: float = 0.0


@dataclass(frozen=True)
class Classes:
    """What is listed among the tokens of all documents, laid end to end as in :class:`Encoded`."""

    class_n: NDArray[np.int8]
    first_n: NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Any, documents: Sequence[Document], listing: Mapping[str, int] | None, size: int) -> Classes:
        """The classes of ``size`` tokens; without a listing all are of class 0 and stand alone."""
        class_n, first_n = np.zeros(size, np.int8), np.ones(size, bool)
        if listing is not None:
            matcher, place = Matcher(listing), 0
            for text, spans_t2 in encode_spans(tokenizer, [d.text for d in documents]):
                stop = place + len(spans_t2)
                class_n[place:stop], first_n[place:stop] = matcher.tokens(text, spans_t2)
                place = stop
            assert place == size
        return cls(class_n, first_n)


@dataclass(frozen=True)
class MaskedRow(Row):
    """A row with the places of the chosen tokens (M), and for each tag the number of its name there (tags, M)."""

    chosen_m: Tensor
    names_gm: Tensor


class Tagged(nn.Module):
    """A masked model with a table of vectors for each tag; the tables start small and random."""

    def __init__(self, live: Any, names: Mapping[str, Sequence[str]], seed: int) -> None:
        super().__init__()
        self.live = live
        width, spread = live.get_output_embeddings().weight.shape[1], float(live.config.initializer_range)
        draw = torch.Generator().manual_seed(seed)
        tables = [torch.randn(len(found), width, generator=draw) * spread for found in names.values()]
        self.tables = nn.ParameterList([table.to(live.device) for table in tables])


class MaskedBody:
    """Everything of a masked model under its last matrix; ``head`` is that matrix with its bias as one more column."""

    cap = 0.0
    layout = "rows"

    def __init__(self, tagged: Tagged, pad: int) -> None:
        live = tagged.live
        self.tables, self.base, self.pad, self.live = tagged.tables, live.base_model, pad, live
        self.last = live.get_output_embeddings()
        self.layers = list(self.base.encoder.layer)

    @property
    def head(self) -> Tensor:
        """Weight and bias: (V, D + 1)."""
        return torch.cat([self.last.weight, self.last.bias[:, None]], 1)

    def states(self, row: Row) -> Tensor:
        """What the last block gives for each token: (T, D)."""
        lengths = row.offsets.diff().tolist()
        parts = torch.split(row.ids_t, lengths)
        ids_nt = nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=self.pad)
        seen_nt = torch.arange(ids_nt.shape[1], device=ids_nt.device) < row.offsets.diff().to(ids_nt.device)[:, None]
        states_ntd = self.base(input_ids=ids_nt, attention_mask=seen_nt.long())[0]
        return cast(Tensor, states_ntd[seen_nt])

    def transformed(self, states_md: Tensor) -> Tensor:
        """What the last matrix sees, with a one behind it for the bias: (M, D + 1)."""
        if hasattr(self.live, "cls"):
            states_md = self.live.cls.predictions.transform(states_md)
        else:
            head = self.live.lm_head
            states_md = head.layer_norm(nn.functional.gelu(head.dense(states_md)))
        return torch.cat([states_md, torch.ones_like(states_md[:, :1])], 1)

    def hidden(self, row: MaskedRow) -> Tensor:
        """Transformed states of the chosen tokens with the vectors of their tags: (M, D + 1)."""
        states_md = self.states(row)[row.chosen_m]
        for table_kd, names_m in zip(self.tables, row.names_gm, strict=True):
            states_md = states_md + table_kd[names_m]
        return self.transformed(states_md)

    def uncompile(self) -> None:
        """Nothing here is compiled."""


def opened(tagged: Tagged, pad: int) -> MaskedBody:
    """A body whose logits, without tags, are the model's own; another kind of model is a UserError."""
    live = tagged.live
    name = type(live).__name__
    try:
        if "MaskedLM" not in name:
            raise AttributeError
        body = MaskedBody(tagged, pad)
        size = len(body.head)
        row = Row.of([[(31 * i + 5) % size for i in range(n)] for n in (7, 4)], str(live.device))
        with torch.no_grad():
            found = [live(input_ids=ids[None]).logits[0] for ids in torch.split(row.ids_t, [7, 4])]
            expected_tv, logits_tv = torch.cat(found), body.transformed(body.states(row)) @ body.head.t()
        same = torch.allclose(logits_tv, expected_tv, rtol=TOLERANCE, atol=TOLERANCE * float(expected_tv.abs().max()))
    except (AttributeError, TypeError):
        same = False
    if not same:
        raise UserError(f"{name}: is no masked model of the BERT or XLM-R family; this step cannot train it")
    return body


class MaskedStream(Epochs):
    """Endless batches of one text, each a pure function of text, seed and number."""

    def __init__(
        self,
        encoded: Encoded,
        classes: Classes,
        names_gn: NDArray[np.int64],
        settings: MaskedSettings,
        tokenizer: Any,
        *,
        longest: int,
        room: int,
        seed: int,
        device: str,
    ) -> None:
        frame = Frame(min(longest, room), room, lead=2, tail=0, unread=0)  # a first and a last token at every piece
        super().__init__(encoded, settings.packing, frame, (seed, 0))
        self.classes, self.names_gn, self.objective = classes, names_gn, settings.objective
        self.seed, self.device = seed, device
        self.ends = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        self.mask, self.size = int(tokenizer.mask_token_id), len(tokenizer)

    def batch(self, number: int) -> Batch:
        """Batch ``number`` (from 0): the weights of its chosen tokens add up to its tokens."""
        pieces, chosen = self.find(number)
        rng = np.random.default_rng([self.seed, 1, number])
        return self.lay([pieces[list(members)] for members in chosen], rng, self.objective)

    def lay(self, rows: Sequence[NDArray[np.int64]], rng: np.random.Generator, objective: Masking) -> Batch:
        """A batch of sequences of pieces (document, start, stop); ``rng`` draws its chosen tokens, one at least."""
        sequences, free, documents, size = list[list[int]](), list[bool](), list[int](), 0.0
        classes, firsts = list[NDArray[np.int8]](), list[NDArray[np.bool_]]()
        for pieces in rows:
            sequences.append([])
            for document, start, stop in pieces.tolist():
                low, high = self.encoded.starts[document : document + 2]
                sequences[-1] += [self.ends[0], *self.encoded.ids[low + start : low + stop].tolist(), self.ends[1]]
                free += [False, *[True] * (stop - start), False]
                documents += [document] * (stop - start + 2)
                size += float(self.encoded.bytes[document]) * (stop - start) / int(high - low)
                classes.append(np.pad(self.classes.class_n[low + start : low + stop], 1, constant_values=-1))
                firsts.append(np.pad(self.classes.first_n[low + start : low + stop], 1, constant_values=True))
                firsts[-1][1] = True  # a piece may begin in the middle of a term
        clean_t, free_t = np.concatenate(sequences).astype(np.int64), np.asarray(free)
        count_t = objective.counts(np.concatenate(classes), np.concatenate(firsts), rng.random(len(clean_t))) * free_t
        if not count_t.any():
            count_t[rng.choice(np.flatnonzero(free_t))] = 1.0
        chosen_t = count_t > 0
        kind_t, other_t = rng.random(len(clean_t)), rng.integers(0, self.size, len(clean_t))
        either = objective.masked + objective.random
        shown_t = np.where(kind_t < objective.masked, self.mask, np.where(kind_t < either, other_t, clean_t))
        shown_t = np.where(chosen_t, shown_t, clean_t)
        chosen_m = np.flatnonzero(chosen_t)
        plain = Row.of(sequences, self.device)
        row = MaskedRow(
            torch.from_numpy(shown_t).to(self.device),
            plain.positions_t,
            plain.offsets,
            torch.from_numpy(chosen_m).to(self.device),
            torch.from_numpy(self.names_gn[:, np.asarray(documents)[chosen_m]]).to(self.device),
        )
        count_m = torch.from_numpy(count_t[chosen_m])
        weight_m = (count_m * (len(clean_t) / float(count_m.sum()))).float().to(self.device)
        named = tuple(self.encoded.names[n] for pieces in rows for n in pieces[:, 0])
        return Batch(row, torch.from_numpy(clean_t[chosen_m]).to(self.device), weight_m, len(clean_t), size, named)


def train_masked(
    run: Run,
    live: Any,
    tokenizer: Any,
    corpus: Corpus,
    settings: MaskedSettings,
    key: str,
    tags: Mapping[str, Tag],
) -> dict[str, dict[str, Tensor]]:
    """Train ``live`` in place, leave it in fp32, put the facts into the run's record; name -> vector, for each tag.

    Text of all roles is read alike. ``key`` names inputs and knobs: what the scratch folder holds of another key is not
    taken over. Raises UserError where there is too little text or time, the loss is no number, or the model is no
    masked one of the BERT or XLM-R family.
    """
    started = time.monotonic()
    tracker = tracked(settings.tracker, run, vars(settings))
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id):
        raise UserError("tokenizer: has no mask token or no tokens around a text, so it is not a masked model's")
    if (head := live.get_output_embeddings()) is None or getattr(head, "bias", None) is None:
        raise UserError(
            f"{type(live).__name__}: has no head that fills in masked tokens, so there is nothing to train it by; "
            "give the folder of the whole masked model"
        )
    documents = [d for role in ROLES for d in corpus.documents(role) if d.split in ("train", "")]
    listing = _listing(run, documents, settings.objective)
    if listing is not None:
        key = hashlib.sha256((key + json.dumps(sorted(listing.items()))).encode()).hexdigest()
    known = {tag: sorted({name(d) for d in documents}) for tag, name in tags.items()}
    tagged = Tagged(live, known, run.seed)
    training = live.training
    live.eval()
    try:
        body = opened(tagged, int(tokenizer.pad_token_id or 0))
        rows, room = split_step(settings.batch_tokens)
        longest = min(settings.max_length, room, _reach(live))

        def stream(
            some: Sequence[Document], encoded: Encoded, seed: int, listing: Mapping[str, int] | None = None
        ) -> MaskedStream:
            names = [[known[tag].index(name(d)) for d in some] for tag, name in tags.items()]
            names_gn = np.asarray(names, dtype=np.int64).reshape(len(tags), len(some))
            classes = Classes.of(tokenizer, some, listing, encoded.tokens)
            places = {"longest": longest, "room": room, "seed": seed}
            return MaskedStream(encoded, classes, names_gn, settings, tokenizer, **places, device=run.device)

        encoded = kept(run, "tokens", key, tokenizer, documents, len(documents))
        data = stream(documents, encoded, run.seed, listing)
        if data.encoded.tokens < room:
            raise UserError(
                f"the text for training has {data.encoded.tokens} tokens, fewer than one batch of {room}; "
                "add text, or lower batch_tokens"
            )
        probes = {}
        for number, role in enumerate(ROLES):
            some = corpus.documents(role, "calibration")
            cut = sample(tokenizer, some, Ends((0,), (0,)), longest=longest - 1, tokens=settings.evaluation_tokens)
            read = [d for d in cut if all(name(d) in known[tag] for tag, name in tags.items())]
            if probe := _probe(stream(read, Encoded.of(tokenizer, read), run.seed + 1 + number)):
                probes[role] = probe
        with machine.held_memory(), _optimizer(tagged, settings) as (optimizer, schedules):
            loop = Loop(
                run=run,
                step=Step(run=run, body=cast(Any, body), optimizer=optimizer, schedules=schedules),
                data=cast(Any, data),
                probes=probes,
                rows=rows,
                batch_tokens=rows * room,
                evaluations=settings.evaluations,
                checkpoint_seconds=settings.checkpoint_seconds,
                matmul_parameters=_matmul_parameters(live),
                attention_width=attention_width(live, cast(Any, body)),
                tracker=tracker,
                quantity="bits_per_masked_token",
            )
            _, step_seconds = loop.warm_up()
            plan = planned(run, loop, settings, key, started, step_seconds)
            record = loop.go(plan["steps"])
    finally:
        live.train(training)
    _report(run, record, plan)
    tables = (table.detach().float().cpu() for table in tagged.tables)
    return {
        tag: dict(zip(names, table, strict=True)) for (tag, names), table in zip(known.items(), tables, strict=True)
    }


def _listing(run: Run, documents: Sequence[Document], objective: Masking) -> dict[str, int] | None:
    """The objective's listing of words and terms, or None where it has none; the record has the first of each class."""
    if not objective.listed:
        return None
    texts = {role: [d.text for d in documents if d.role == role] for role in ROLES}
    listing = objective.listing(Texts(**texts, seed=run.seed))
    found: dict[int, list[str]] = {}
    for term, number in listing.items():
        found.setdefault(number, []).append(term)
    run.fact(listed={str(n): {"count": len(some), "first": some[:SHOWN_TERMS]} for n, some in sorted(found.items())})
    return listing


def _report(run: Run, record: Record, plan: Mapping[str, Any]) -> None:
    """The facts of the run; ``masked_evaluations`` are bits a chosen token, by role."""
    run.fact(
        losses=record.thinned(),
        masked_evaluations=record.evaluations,
        trained_tokens=record.tokens,
        trained_bytes=round(record.bytes),
        seconds=record.seconds,
        step_seconds=record.step_seconds,
        tokens_per_second=record.tokens / record.step_seconds,
        bytes_per_second=record.bytes / record.step_seconds,
        flops=record.flops,
        peak_memory_bytes=machine.peak_memory_bytes(),
        **plan,
    )


def _reach(live: Any) -> int:
    """The longest sequence that the model has positions for; RoBERTa's begin behind the padding's."""
    table = live.base_model.embeddings.position_embeddings
    return int(table.num_embeddings) - (0 if table.padding_idx is None else int(table.padding_idx) + 1)


def _matmul_parameters(live: Any) -> int:
    """Parameters that multiply every token; the last matrix multiplies chosen ones alone, and is left out."""
    tables = {id(m.weight) for m in live.modules() if isinstance(m, nn.Embedding)}
    tables.add(id(live.get_output_embeddings().weight))
    return sum(p.numel() for p in live.parameters() if p.ndim > 1 and id(p) not in tables)


def _probe(stream: MaskedStream) -> Probe | None:
    """The stream's documents once, with fixed chosen tokens, each of weight one."""
    lengths = np.diff(stream.encoded.starts)
    pieces = np.asarray([[n, 0, length] for n, length in enumerate(lengths) if length], dtype=np.int64)
    found, total, first = list[Batch](), 0, 0
    while first < len(pieces):
        filled = np.cumsum(pieces[first:, 2] + 2)
        last = first + max(1, int((filled <= stream.frame.room).sum()))
        rng = np.random.default_rng([stream.seed, 2, first])
        made = stream.lay(list(pieces[first:last, None]), rng, Masking())
        found.append(replace(made, weight_t=torch.ones_like(made.weight_t)))
        total, first = total + len(made.target_t), last
    return Probe(found, float(total)) if total else None


@contextmanager
def _optimizer(tagged: Tagged, settings: MaskedSettings) -> Iterator[tuple[AdamW, list[Rates]]]:
    """Put the live weights into the compute type; afterwards they are the fp32 masters again."""
    tables = {id(m.weight) for m in tagged.modules() if isinstance(m, nn.Embedding)}
    kinds: dict[str, list[tuple[str, nn.Parameter]]] = {"tags": [], "matrices": [], "rest": []}
    for name, parameter in tagged.named_parameters():
        plain = parameter.ndim < 2 or id(parameter) in tables
        kinds["tags" if name.startswith("tables.") else "rest" if plain else "matrices"].append((name, parameter))
    rates = {"tags": settings.tag_learning_rate}
    groups = [
        Group(
            kind=kind,
            names=tuple(name for name, _ in members),
            parameters=tuple(parameter for _, parameter in members),
            learning_rate=rates.get(kind, settings.learning_rate),
            weight_decay=settings.weight_decay if kind == "matrices" else 0.0,
        )
        for kind, members in kinds.items()
        if members
    ]
    optimizer = AdamW(groups, **settings.adam)
    try:
        yield optimizer, [settings.schedule] * len(groups)
    finally:
        optimizer.release()
