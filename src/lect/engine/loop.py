# SPDX-License-Identifier: Apache-2.0
"""The training loop: the same weights however often it was killed.

The rows of a step are a function of seed and step, so that what :class:`lect.engine.step.Step` holds is, with the
record, all the state there is. Warm-up steps, which compile and time the code, run at a learning rate of zero, and the
moments are set back afterwards: they leave no trace.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lect import machine
from lect.engine import checkpoint, curve
from lect.engine.cost import training_flops
from lect.engine.data import Batch, Mixed, Stream
from lect.engine.step import Step
from lect.engine.track import Tracker
from lect.parts.schedule.kind import Moment

if TYPE_CHECKING:
    from torch import Tensor

    from lect.method import Run

POINTS = 400


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
    step: Step
    data: Mixed
    probes: dict[str, Probe]
    rows: int
    """Rows of one update."""
    batch_tokens: int
    """Tokens of one update, padding included."""
    evaluations: int
    checkpoint_seconds: float
    matmul_parameters: int
    attention_width: int
    texts: dict[str, Probe] = field(default_factory=dict)
    """A sample of each text that the mixture wants the loss of."""
    record: Record = field(default_factory=Record)
    tracker: Tracker | None = None
    quantity: str = "bits_per_byte"
    """What an evaluation is called in the tracker's curves."""
    matmul_flops: float = 0.0
    """Operations per second that the machine could do; 0 where nobody measured."""

    def warm_up(self) -> tuple[float, float]:
        """Get ready: seconds to compile, and seconds that a step at the run's start takes."""
        return self.step.warm_up(lambda step: self._rows(step, self.data))

    def _rows(self, step: int, text: Mixed | Stream) -> list[Batch]:
        """The rows of step ``step`` (from 0)."""
        return [text.batch(step * self.rows + row) for row in range(self.rows)]

    def _moment(self, step: int, steps: int) -> Moment:
        """The middle of step ``step`` of so many."""
        return Moment((step + 0.5) * self.batch_tokens, steps * self.batch_tokens, self.batch_tokens)

    def laps(self) -> dict[str, Any]:
        """The losses after a lap on each text, and the tokens of all laps; nothing where none is wanted.

        Every lap has the whole schedule for itself, begins with the weights as they are, and leaves them as they were.
        """
        length = self.data.mixture.lap_steps if self.texts else 0
        if not length:
            return {}
        data = self.data
        masters = {name: tensor.clone() for name, tensor in self.step.weights().items()}
        after: dict[str, dict[str, float]] = {}
        tokens = 0
        for name, stream in data.streams.items():
            self.run.say(f"mixture: a lap of {length} steps on {name}, {len(after) + 1} of {len(data.streams)}")
            for step in range(length):
                batches = self._rows(step, stream)
                self.step.update(batches, step + 1, self._moment(step, length))
                tokens += sum(batch.tokens for batch in batches)
            after[name] = self._losses()
            self.step.restart(masters)
        self.run.say(f"mixture: the laps read {tokens} tokens; the run begins with the weights from before them")
        return {"losses": after, "tokens": tokens}

    def _losses(self) -> dict[str, float]:
        """Mean loss of each text's sample, in nats a token."""
        return {
            name: sum(self.step.nats(p.batches)) / sum(batch.tokens for batch in p.batches)
            for name, p in self.texts.items()
        }

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
                batches = self._rows(step, self.data)
                value = self.step.update(batches, step + 1, self._moment(step, steps))
                numbers = self._count(value, batches, began, started)
                whole = True
                if step + 1 in due:
                    self._evaluate(started, steps)
                self._track(numbers)
                self._show(steps, value)
                if step + 1 == steps:
                    self._save(started, self.step.weights())
                elif self._late(saved):
                    self._save(started, self.step.state())
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if whole and self.record.step and self.step.world.size == 1:
                self._save(started, self.step.state())
            raise
        finally:
            if self.tracker:
                self.tracker.close()
        self.record.seconds = time.monotonic() - started
        return self.record

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
            groups = zip(self.step.optimizer.groups, self.step.rates, strict=True)
            numbers |= {f"learning_rate/{group.kind}": group.learning_rate * rate for group, rate in groups}
            numbers |= {"gradient_norm": self.step.norm, "peak_memory_bytes": machine.peak_memory_bytes()}
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
        """Bits per byte of a sample."""
        return sum(self.step.nats(probe.batches)) / math.log(2) / probe.bytes

    def _late(self, saved: float) -> bool:
        """Whether it is time for the next checkpoint; of several processes the first decides."""
        return self.step.world.told(lambda: time.monotonic() - saved > self.checkpoint_seconds)

    def _save(self, started: float, tensors: dict[str, Tensor]) -> None:
        """Write a checkpoint; that of the last step needs no more than the weights."""
        if self.tracker:
            self.tracker.flush()
        self.record.seconds = time.monotonic() - started
        record = asdict(self.record) | {"round": self.step.round}
        checkpoint.save(self.run.scratch, self.record.step, tensors, record, self.step.world)

    def _resume(self) -> None:
        """Take over the newest checkpoint, if there is one."""
        held = checkpoint.load(self.run.scratch, self.step.world)
        if held is None:
            return
        tensors, record = held
        self.step.restore(tensors, record.pop("round"))
        self.record = Record(**record)
        self.run.say(f"goes on from step {self.record.step}")
