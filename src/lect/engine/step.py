# SPDX-License-Identifier: Apache-2.0
"""One update: the gradients of a few rows under the objective, and what the optimizer makes of them.

Dropout is off and no random number is drawn: an update is a function of weights, moments, masks and rows.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from lect import machine
from lect.engine import loss
from lect.engine.body import Body, Whole, itself
from lect.engine.data import Batch
from lect.engine.optimizer import AdamW, squares, update
from lect.engine.spread import ALONE, World, local
from lect.errors import UserError
from lect.parts.schedule.kind import Moment

if TYPE_CHECKING:
    from lect.method import Run
    from lect.parts.objective.kind import Objective
    from lect.parts.parameters.kind import Parameters

TIMED_ROWS = (1, 0, 1)  # what is new in a row costs the library time once, and the first updates are slower
PROGRESS_POINTS = 400  # where a run is asked whether a teacher has a share


class Rates(Protocol):
    """What says how high a group's learning rate is."""

    def rate(self, at: Moment) -> float:
        """The multiplier of the peak at a moment of the run."""


@dataclass(kw_only=True)
class Step:
    """A model, how it learns from rows of text, and what has to be saved of that beside the weights."""

    run: Run
    body: Body
    optimizer: AdamW
    schedules: Sequence[Rates]
    """One for each group of the optimizer."""
    compile: bool = False
    objective: Objective | None = None
    """None counts every token the same."""
    parameters: Parameters | None = None
    """None trains all of them."""
    world: World = ALONE
    whole: Whole = itself
    """The body's, where it may be sharded."""
    teacher: Body | None = None
    """The model that the objective's ``teacher`` names."""
    least: float = 0.0
    """Softmax below which the loss leaves out blocks of its gradient; zero leaves out none."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """Where entries of a parameter may differ from zero in this round; all of them where there is no mask."""
    round: int = -1
    """The round of parameters that the last update was in; -1 before the first."""
    norm: float = 0.0
    """Gradient norm of the last update, before clipping."""
    rates: list[float] = field(default_factory=list)
    """Each group's learning rate multiplier in the last update."""
    kernels: loss.Kernels = loss.PLAIN
    growth: machine.Growth = field(default_factory=machine.Growth)
    _turns: dict[int, Collection[str]] = field(default_factory=dict)

    def update(self, batches: Sequence[Batch], count: int, at: Moment | None) -> float:
        """Update number ``count`` (from 1) on these rows; the mean loss in nats a token.

        The moment ``at`` sets the learning rates; None sets them to zero. Raises UserError where loss or gradient is
        no number, before anything moves.
        """
        progress = at.progress if at else 0.0
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
                if len(batches) > 1:
                    grad = grads[name].add_(grad) if name in grads else grad.float()
                grads[name] = grad
                parameter.grad = None
        total = sum(self.world.joined(values))
        for name in self.masks.keys() & grads.keys():
            grads[name].mul_(self.masks[name])
        self.norm = self.optimizer.norm(grads)
        if not (math.isfinite(total) and math.isfinite(self.norm)):
            names = [name for batch in batches for name in batch.documents]
            raise UserError(
                f"step {count}: the loss is {total:g} and the gradient norm {self.norm:g}, in documents "
                f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}; the last checkpoint is kept; "
                "lower learning_rate, or drop these documents"
            )
        self.rates = [0.0 if at is None else schedule.rate(at) for schedule in self.schedules]
        self.optimizer.step(count, self.rates, grads, self.norm)
        self.growth.check()
        return total

    def warm_up(self, rows: Callable[[int], Sequence[Batch]]) -> tuple[float, float]:
        """Compile, fall back where that fails, time a few updates; seconds to compile and seconds an update.

        ``rows`` are those of an update, by its number from 0. No weight moves, and the moments are set back.
        """
        start = time.monotonic()
        if self.compile:
            self.body.compile()
            self.kernels = loss.Kernels.compiled()
            self.optimizer.kernel = torch.compile(update, dynamic=True)
            self.optimizer.squares = torch.compile(squares, dynamic=True)
        try:
            with warnings.catch_warnings(action="ignore"):  # the compiler's own, on gradients it looks at
                self.update(rows(0), 1, None)
        except UserError:
            raise
        except Exception as error:
            if not self.compile or self.world.size > 1:  # shards are left in no known state
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            self.run.say(f"torch.compile does not work here, so training runs uncompiled and slower: {reason[0][:200]}")
            self._uncompile()
            self.update(rows(0), 1, None)
        compiled = time.monotonic() - start
        seconds = self._timed(rows)
        if (teacher := self.teacher) is not None and self.objective is not None:
            points = ((n + 0.5) / PROGRESS_POINTS for n in range(PROGRESS_POINTS))
            taught = statistics.fmean(self.objective.soft(progress)[0] > 0 for progress in points)
            self.teacher = None
            seconds = taught * seconds + (1 - taught) * self._timed(rows)
            self.teacher = teacher
        self.optimizer.reset()
        return compiled, seconds

    def _timed(self, rows: Callable[[int], Sequence[Batch]]) -> float:
        """Seconds that an update takes: the least of a few."""
        times = []
        for number in TIMED_ROWS:
            start = time.monotonic()
            self.update(rows(number), 1, None)
            times.append(time.monotonic() - start)
        return min(times)

    def _uncompile(self) -> None:
        self.compile = False
        self.body.uncompile()
        self.kernels = loss.PLAIN
        self.optimizer.kernel, self.optimizer.squares = update, squares
        self._turns = {}
        for _, parameter in self.optimizer.named():
            parameter.grad = None

    def restart(self, masters: dict[str, Tensor]) -> None:
        """Back to before the first update, with these weights, which :meth:`state` names."""
        self.optimizer.reset()
        self.optimizer.restore(self.optimizer.state() | masters)
        self.masks, self.round = {}, -1

    def state(self) -> dict[str, Tensor]:
        """Weights (``master/...``), moments and masks, which with :attr:`round` are all that an update leaves."""
        return {**self.optimizer.state(), **{f"mask/{name}": mask for name, mask in self.masks.items()}}

    def weights(self) -> dict[str, Tensor]:
        """Those of :meth:`state`, which are all that a run needs that has no update left."""
        return {name: tensor for name, tensor in self.optimizer.state().items() if name.startswith("master/")}

    def restore(self, tensors: dict[str, Tensor], number: int) -> None:
        """Take over what :meth:`state`, or :meth:`weights` at the end, and :attr:`round` were."""
        self.optimizer.restore(self.optimizer.state() | tensors)
        places = {f"mask/{name}": (name, parameter.device) for name, parameter in self.optimizer.named()}
        self.masks = {name: tensors[key].to(where) for key, (name, where) in places.items() if key in tensors}
        self.round = number

    def nats(self, batches: Sequence[Batch]) -> list[float]:
        """For each row the losses of its targets, each times its weight, added up; no gradient flows.

        Runs the training code, so that nothing is compiled for it alone.
        """
        padded = [*batches, *[batches[-1]] * (-len(batches) % self.world.size)]
        values = [float(self.whole(lambda: self._probed(batch))) for batch in self.world.mine(padded)]  # noqa: B023
        return self.world.joined(values)[: len(batches)]

    def _probed(self, batch: Batch) -> Tensor:
        hidden_td, head_vd = self.body.hidden(batch.row).detach(), self.body.head.detach()
        return loss.blocked_loss(hidden_td, head_vd, batch.target_t, batch.weight_t, self.body.cap, self.kernels)

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

        A warm-up (None) is one of the first round, without masks.
        """
        turn = self.parameters.round(at.progress if at else 0.0) if self.parameters else 0
        if turn not in self._turns:
            named = {name: tuple(parameter.shape) for name, parameter in self.optimizer.named()}
            found = self.parameters.trained(named, turn, self.run.seed) if self.parameters else named
            self._turns = {turn: frozenset(found)}
            if self.world.size == 1:  # FSDP2 fixes at its start which tensors have gradients
                self._freeze(self._turns[turn])
        if self.parameters and at and turn != self.round:
            kept = self.parameters.kept(self.optimizer.whole(), turn, self.run.seed)
            self.masks = {name: mask[slice(*self.world.part(len(mask)))] for name, mask in kept.items()}
            self.optimizer.mask(self.masks)
            self.round = turn
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


def _unnumbered(name: str) -> str:
    """The name of a tensor without the number of its layer."""
    return ".".join(part for part in name.split(".") if not part.isdecimal())
