# SPDX-License-Identifier: Apache-2.0
"""The training loop: the same weights however often it was killed.

The data of a step is a function of seed and step, dropout is off, and no random number is drawn, so masters, moments
and masks are all the state there is. Warm-up steps, which compile and time the code, run at a learning rate of zero,
and the moments are set back afterwards: they leave no trace.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from lect import machine
from lect.engine import checkpoint, curve, loss
from lect.engine.body import Body, Whole, itself
from lect.engine.cost import training_flops
from lect.engine.data import Batch, Mixed, Stream
from lect.engine.optimizer import AdamW, squares, update
from lect.engine.spread import ALONE, World, local
from lect.engine.track import Tracker
from lect.errors import UserError
from lect.parts.schedule.kind import Moment

if TYPE_CHECKING:
    from lect.method import Run
    from lect.parts.objective.kind import Objective
    from lect.parts.parameters.kind import Parameters

TIMED_STEPS = 3
POINTS = 400


class Rates(Protocol):
    """What says how high a group's learning rate is."""

    def rate(self, at: Moment) -> float:
        """The multiplier of the peak at a moment of the run."""


@dataclass
class Record:
    """What a run leaves behind besides weights; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    bytes: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0
    step_seconds: float = 0.0
    losses: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float | None]] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    """Where the mixture asks for them: a step, the losses of the texts before it, and their shares from it on."""
    round: int = -1
    """The round of parameters that the last step was in; -1 before the first."""

    def thinned(self) -> list[dict[str, float]]:
        """At most ``POINTS`` losses, each the mean of its stretch of steps."""
        width = -(-len(self.losses) // POINTS) or 1
        groups = [self.losses[i : i + width] for i in range(0, len(self.losses), width)]
        return [group[-1] | {"loss": statistics.fmean(point["loss"] for point in group)} for group in groups]


@dataclass(frozen=True)
class Probe:
    """A fixed sample of one role or text: its rows and the bytes that their targets stand for."""

    batches: list[Batch]
    bytes: float


@dataclass(kw_only=True)
class Loop:
    """Everything a run needs, put together by :func:`lect.engine.train.train`."""

    run: Run
    body: Body
    optimizer: AdamW
    data: Mixed
    probes: dict[str, Probe]
    schedules: Sequence[Rates]
    """One for each group of the optimizer."""
    rows: int
    batch_tokens: int
    """Tokens of one update, padding included."""
    compile: bool
    evaluations: int
    checkpoint_seconds: float
    matmul_parameters: int
    attention_width: int
    objective: Objective | None = None
    """None counts every token the same."""
    parameters: Parameters | None = None
    """None trains all of them."""
    world: World = ALONE
    whole: Whole = itself
    """The body's, where it may be sharded."""
    texts: dict[str, Probe] = field(default_factory=dict)
    """A sample of each text that the mixture wants the loss of."""
    teacher: Body | None = None
    """The model that the objective's ``teacher`` names."""
    least: float = 0.0
    """Softmax below which the loss leaves out blocks of its gradient; zero leaves out none."""
    record: Record = field(default_factory=Record)
    masks: dict[str, Tensor] = field(default_factory=dict)
    """Where entries of a parameter may differ from zero in this round; all of them where there is no mask."""
    tracker: Tracker | None = None
    quantity: str = "bits_per_byte"
    """What an evaluation is called in the tracker's curves."""
    matmul_flops: float = 0.0
    """Operations per second that the machine could do; 0 where nobody measured."""
    latest: tuple[float, list[float]] = (0.0, [])
    """Gradient norm and each group's learning rate multiplier of the last step."""
    _turns: dict[int, Collection[str]] = field(default_factory=dict)
    kernels: loss.Kernels = loss.PLAIN

    def warm_up(self) -> tuple[float, float]:
        """Compile, fall back where that fails, time a few steps; seconds to compile and seconds a step."""
        start = time.monotonic()
        if self.compile:
            self._compile()
        try:
            with warnings.catch_warnings(action="ignore"):  # the compiler's own, on gradients it looks at
                self._step(0, 1, None)
        except UserError:
            raise
        except Exception as error:
            if not self.compile or self.world.size > 1:  # shards are left in no known state
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            self.run.say(f"torch.compile does not work here, so training runs uncompiled and slower: {reason[0][:200]}")
            self._uncompile()
            self._step(0, 1, None)
        compiled = time.monotonic() - start
        seconds = self._timed()
        if (teacher := self.teacher) is not None and self.objective is not None:
            taught = statistics.fmean(self.objective.soft((n + 0.5) / POINTS)[0] > 0 for n in range(POINTS))
            self.teacher = None
            seconds = taught * seconds + (1 - taught) * self._timed()
            self.teacher = teacher
        self.optimizer.reset()
        return compiled, seconds

    def _timed(self) -> float:
        """Seconds that a step at the run's start takes."""
        times = []
        for number in range(TIMED_STEPS):
            start = time.monotonic()
            self._step(number, 1, None)
            times.append(time.monotonic() - start)
        return statistics.median(times)

    def _compile(self) -> None:
        self.body.compile()
        self.kernels = loss.Kernels.compiled()
        self.optimizer.kernel = torch.compile(update, dynamic=True)
        self.optimizer.squares = torch.compile(squares, dynamic=True)

    def _uncompile(self) -> None:
        self.compile = False
        self.body.uncompile()
        self.kernels = loss.PLAIN
        self.optimizer.kernel, self.optimizer.squares = update, squares
        self._turns = {}
        for _, parameter in self.optimizer.named():
            parameter.grad = None

    def laps(self) -> dict[str, Any]:
        """The losses after a lap on each text, and the tokens of all laps; nothing where none is wanted.

        Every lap has the whole schedule for itself, begins with the weights as they are, and leaves them as they were.
        """
        length = self.data.mixture.lap_steps if self.texts else 0
        if not length:
            return {}
        data = self.data
        masters = {name: t.clone() for name, t in self.optimizer.state().items() if name.startswith("master/")}
        after: dict[str, dict[str, float]] = {}
        tokens = 0
        for name, stream in data.streams.items():
            self.run.say(f"mixture: a lap of {length} steps on {name}, {len(after) + 1} of {len(data.streams)}")
            for step in range(length):
                at = Moment((step + 0.5) * self.batch_tokens, length * self.batch_tokens, self.batch_tokens)
                _, batches = self._step(step, step + 1, at, stream)
                tokens += sum(batch.tokens for batch in batches)
            after[name] = self._losses()
            self.optimizer.reset()
            self.optimizer.restore(self.optimizer.state() | masters)
            self.masks, self.record.round = {}, -1
        self.run.say(f"mixture: the laps read {tokens} tokens; the run begins with the weights from before them")
        return {"losses": after, "tokens": tokens}

    def _losses(self) -> dict[str, float]:
        """Mean loss of each text's sample, in nats a token."""
        return {name: self._nats(p) / sum(batch.tokens for batch in p.batches) for name, p in self.texts.items()}

    def _measure(self, marks: Sequence[int]) -> None:
        """At a step of ``marks`` that was not measured yet: the losses, for the mixture and the record."""
        record = self.record
        if len(record.measurements) < len(marks) and marks[len(record.measurements)] == record.step:
            losses = self._losses()
            self.data.learn(record.step * self.rows, losses)
            record.measurements.append({"step": record.step, "losses": losses, "shares": self.data.shares()})

    def go(self, steps: int, laps: Mapping[str, Any] | None = None) -> Record:
        """Run from the last checkpoint, or the start, to step ``steps``; ``laps`` is what :meth:`laps` gave."""
        self._resume()
        marks: list[int] = []
        if self.texts:
            count = self.data.mixture.measurements
            marks = sorted({steps * n // count for n in range(count)})
            self.data.begin(steps * self.rows, (laps or {}).get("losses"))
            for point in self.record.measurements:
                self.data.learn(point["step"] * self.rows, point["losses"])
        else:
            self.data.begin(steps * self.rows)
        started = time.monotonic() - self.record.seconds
        saved = time.monotonic()
        due = {round(steps * n / max(1, self.evaluations)) for n in range(self.evaluations + 1)}
        whole = True
        try:
            if self.tracker:
                self.tracker.begin(self.record.step)
            if not self.record.evaluations:
                self._evaluate(started, steps)
                self._track({})
            while self.record.step < steps:
                step = self.record.step
                self._measure(marks)
                began = time.monotonic()
                whole = False
                size = self.batch_tokens
                value, batches = self._step(step, step + 1, Moment((step + 0.5) * size, steps * size, size))
                numbers = self._count(value, batches, began, started)
                whole = True
                if step + 1 in due:
                    self._evaluate(started, steps)
                self._track(numbers)
                self._show(steps, value)
                if step + 1 == steps or self.world.told(lambda: time.monotonic() - saved > self.checkpoint_seconds):  # noqa: B023
                    self._save(started)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if whole and self.record.step and self.world.size == 1:
                self._save(started)
            raise
        finally:
            if self.tracker:
                self.tracker.close()
        self.record.seconds = time.monotonic() - started
        return self.record

    def _step(self, step: int, count: int, at: Moment | None, text: Stream | None = None) -> tuple[float, list[Batch]]:
        """Gradients of step ``step`` (from 0), and update number ``count``; the mean loss in nats a token.

        The moment ``at`` sets the learning rates; None sets them to zero. ``text`` is read in place of the mixture.
        """
        progress = at.progress if at else 0.0
        batches = [(text or self.data).batch(step * self.rows + row) for row in range(self.rows)]
        weight = 1.0 / sum(batch.tokens for batch in batches)
        grads: dict[str, Tensor] = {}
        trained = self._trained(at)
        values: list[float] = []
        for batch in self.world.mine(batches):
            value = self.whole(lambda: self._loss(batch, weight, progress))  # noqa: B023
            torch.autograd.backward(value)
            values.append(value.item())
            for name, parameter in self.optimizer.named():
                if name not in trained:
                    parameter.grad = None
                    continue
                grad = local(parameter.grad) if parameter.grad is not None else torch.zeros_like(local(parameter))
                if self.rows > 1:
                    grad = grads[name].add_(grad) if name in grads else grad.float()
                grads[name] = grad
                parameter.grad = None
        total = sum(self.world.joined(values))
        for name in self.masks.keys() & grads.keys():
            grads[name].mul_(self.masks[name])
        norm = self.optimizer.norm(grads)
        if not (math.isfinite(total) and math.isfinite(norm)):
            names = [name for batch in batches for name in batch.documents]
            raise UserError(
                f"step {step + 1}: the loss is {total:g} and the gradient norm {norm:g}, in documents "
                f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}; the last checkpoint is kept; "
                "lower learning_rate, or drop these documents"
            )
        rates = [0.0 if at is None else schedule.rate(at) for schedule in self.schedules]
        self.optimizer.step(count, rates, grads, norm)
        self.latest = norm, rates
        return total, batches

    def _loss(self, batch: Batch, weight: float, progress: float) -> Tensor:
        """The loss of a row, times ``weight``."""
        return loss.blocked_loss(
            self.body.hidden(batch.row),
            self.body.head,
            batch.target_t,
            batch.weight_t * weight,
            self.body.cap,
            self.kernels,
            self._weigh(batch, progress),
            self._taught(batch, progress),
            self.least,
        )

    def _trained(self, at: Moment | None) -> Collection[str]:
        """The names of the parameters that move in this part of the run; where a round begins, its masks are made.

        A warm-up step (None) is one of the first round, without masks.
        """
        turn = self.parameters.round(at.progress if at else 0.0) if self.parameters else 0
        if turn not in self._turns:
            named = {name: tuple(parameter.shape) for name, parameter in self.optimizer.named()}
            found = self.parameters.trained(named, turn, self.run.seed) if self.parameters else named
            self._turns = {turn: frozenset(found)}
            if self.world.size == 1:  # FSDP2 fixes at its start which tensors have gradients
                self._freeze(self._turns[turn])
        if self.parameters and at and turn != self.record.round:
            kept = self.parameters.kept(self.optimizer.whole(), turn, self.run.seed)
            self.masks = {name: mask[slice(*self.world.part(len(mask)))] for name, mask in kept.items()}
            self.optimizer.mask(self.masks)
            self.record.round = turn
        return self._turns[turn]

    def _freeze(self, trained: Collection[str]) -> None:
        """Let no gradient be computed for what stands still.

        Compiled layers share their code, and another set of moving tensors needs other code: there a tensor of a layer
        is frozen only where its like stands still in all layers.
        """
        alike = {_unnumbered(name) for name in trained} if self.compile else set()
        for name, parameter in self.optimizer.named():
            parameter.requires_grad_(name in trained or _unnumbered(name) in alike)

    def _weigh(self, batch: Batch, progress: float) -> loss.Weigh | None:
        """What the objective makes of the losses of a row's tokens; padding keeps its weight of zero."""
        if self.objective is None or not self.objective.weighs:
            return None
        objective, real_n = self.objective, batch.weight_t > 0
        lengths = batch.row.offsets.diff().to(real_n.device)
        sequence_n = torch.repeat_interleave(torch.arange(len(lengths), device=real_n.device), lengths)

        def weigh(loss_n: Tensor) -> Tensor:
            factor_n = torch.ones_like(loss_n)
            factor_n[real_n] = objective.weights(loss_n[real_n], sequence_n[real_n], progress).to(factor_n)
            return factor_n

        return weigh

    def _taught(self, batch: Batch, progress: float) -> loss.Teacher | None:
        """What the teacher says of a row, where it has a share in this part of the run."""
        if self.teacher is None or self.objective is None:
            return None
        share, temperature = self.objective.soft(progress)
        if not share:
            return None
        with torch.no_grad():
            hidden_te = self.teacher.hidden(batch.row)
        return loss.Teacher(
            hidden_ne=hidden_te,
            head_ve=self.teacher.head.detach(),
            share=share,
            temperature=temperature,
            cap=self.teacher.cap,
        )

    def _count(self, value: float, batches: list[Batch], began: float, started: float) -> dict[str, float]:
        """Add a step to the record; what a tracker shows of it."""
        record, now = self.record, time.monotonic()
        tokens = sum(batch.tokens for batch in batches)
        attended = sum(batch.attended for batch in batches)
        record.step += 1
        record.tokens += tokens
        record.bytes += sum(batch.bytes for batch in batches)
        flops = training_flops(tokens, self.matmul_parameters, attended, self.attention_width)
        record.flops += flops
        record.step_seconds += now - began
        record.losses.append(
            {"step": record.step, "tokens": record.tokens, "seconds": round(now - started, 3), "loss": value}
        )
        numbers = {"loss": value, "tokens": record.tokens, "tokens_per_second": tokens / (now - began)}
        if self.matmul_flops:
            numbers["utilisation"] = flops / (now - began) / self.matmul_flops
        return numbers

    def _show(self, steps: int, value: float) -> None:
        """The live line."""
        record = self.record
        pace = record.step_seconds / record.step
        self.run.progress(
            record.step,
            steps,
            loss=round(value, 3),
            tokens_per_second=round(record.tokens / record.step_seconds),
            minutes_left=round((steps - record.step) * pace / 60, 1),
        )

    def _track(self, numbers: dict[str, float]) -> None:
        """Hand the tracker what there is to know of the step that is done, its evaluation included."""
        if self.tracker is None:
            return
        if numbers:
            norm, rates = self.latest
            groups = zip(self.optimizer.groups, rates, strict=True)
            numbers |= {f"learning_rate/{group.kind}": group.learning_rate * rate for group, rate in groups}
            numbers |= {"gradient_norm": norm, "peak_memory_bytes": machine.peak_memory_bytes()}
        point = self.record.evaluations[-1]
        if point["step"] == self.record.step:
            found = {role: point[role] for role in ("target", "kept")}
            numbers |= {f"{self.quantity}/{role}": bits for role, bits in found.items() if bits is not None}
        self.tracker.log(self.record.step, numbers)

    def _evaluate(self, started: float, steps: int) -> None:
        """Bits per byte of the samples, added to the record, and what the target's will probably be at the end."""
        record = self.record
        point: dict[str, float | None] = {"step": record.step, "tokens": record.tokens}
        for role in ("target", "kept"):
            point[role] = self.bits_per_byte(self.probes[role]) if role in self.probes else None
        seen = [(p["tokens"], p["target"]) for p in [*record.evaluations, point]]
        points = [(tokens, bits) for tokens, bits in seen if tokens is not None and bits is not None]
        expected = None
        if 0 < record.step < steps:
            expected = curve.extrapolate(points, record.tokens * steps / record.step)
        if expected is not None:
            self.run.say(f"sample of the target: {points[-1][1]:.3f} bits, {expected:.3f} expected at the end")
        point["expected"] = expected
        record.evaluations.append(point | {"seconds": round(time.monotonic() - started, 3)})

    def bits_per_byte(self, probe: Probe) -> float:
        """Bits per byte of a sample; runs the training code, so that nothing is compiled for it alone."""
        return self._nats(probe) / math.log(2) / probe.bytes

    def _nats(self, probe: Probe) -> float:
        """The sum of a sample's losses."""
        batches = probe.batches + probe.batches[-1:] * (-len(probe.batches) % self.world.size)
        values = [float(self.whole(lambda: self._probed(batch))) for batch in self.world.mine(batches)]  # noqa: B023
        return sum(self.world.joined(values)[: len(probe.batches)])

    def _probed(self, batch: Batch) -> Tensor:
        """Nats of a row's targets, each times its weight; no gradient flows."""
        hidden_td, head_vd = self.body.hidden(batch.row).detach(), self.body.head.detach()
        return loss.blocked_loss(hidden_td, head_vd, batch.target_t, batch.weight_t, self.body.cap, self.kernels)

    def _save(self, started: float) -> None:
        if self.tracker:
            self.tracker.flush()
        self.record.seconds = time.monotonic() - started
        state = self.optimizer.state() | {f"mask/{name}": mask for name, mask in self.masks.items()}
        checkpoint.save(self.run.scratch, self.record.step, state, asdict(self.record), self.world)

    def _resume(self) -> None:
        """Take over the newest checkpoint, if there is one."""
        held = checkpoint.load(self.run.scratch, self.world)
        if held is None:
            return
        tensors, state = held
        self.optimizer.restore(tensors)
        places = {f"mask/{name}": (name, parameter.device) for name, parameter in self.optimizer.named()}
        self.masks = {name: tensors[key].to(where) for key, (name, where) in places.items() if key in tensors}
        self.record = Record(**state)
        self.run.say(f"goes on from step {self.record.step}")


def _unnumbered(name: str) -> str:
    """The name of a tensor without the number of its layer."""
    return ".".join(part for part in name.split(".") if not part.isdecimal())
