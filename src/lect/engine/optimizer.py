# SPDX-License-Identifier: Apache-2.0
"""AdamW in one pass over memory: fp32 masters and moments, gradients and live weights in the compute type.

Decoupled weight decay as in arXiv 1711.05101, algorithm 2. Nothing here keeps a count of its own: the step number and
the learning rates come from outside, so that a resumed run is the same run. Memory beyond the live weights: 12 bytes a
parameter in bf16 compute (master and two moments), 8 in fp32 (the live weights are the masters), plus the gradients;
4 less where the moments are kept in bf16. On several processes each has its own part of the rows of everything, and the
live weights are the masters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lect.engine.spread import ALONE, Gathered, World, local

SLICE = 1 << 20
STRETCH = 1024
Update = Callable[[Tensor | None, Tensor, Tensor, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters, or rows of them, that share a learning rate and a weight decay."""

    names: tuple[str, ...]
    parameters: tuple[torch.nn.Parameter, ...]
    learning_rate: float
    weight_decay: float
    kind: str = ""
    """What the curves of its learning rate are called."""
    rows: tuple[tuple[int, int], ...] | None = None
    """First row and row behind the last of each stretch that the group trains; None is all of every parameter."""


def update(live: Tensor | None, master: Tensor, first: Tensor, second: Tensor, grad: Tensor, numbers: Tensor) -> None:
    """One AdamW update in place, on flat tensors; ``live`` is None where the master itself is live.

    ``numbers`` (fp32) are: learning rate, decay factor, 1 - beta1, 1 - beta2, 1 / (1 - beta1^t),
    1 / sqrt(1 - beta2^t), epsilon, gradient scale.
    """
    rate, decay, slow1, slow2, debias1, debias2, epsilon, scale = numbers.unbind()
    wide = grad.float() * scale
    first.add_((wide - first) * slow1)
    second.add_((wide * wide - second) * slow2)
    master.mul_(decay).sub_(rate * debias1 * first / (second.float().sqrt() * debias2 + epsilon))
    if live is not None:
        live.copy_(master)


def squares(grad: Tensor) -> Tensor:
    """The sum of squares in fp32, of short stretches first: one long sum is half as fast on a CPU."""
    wide = (grad.view(-1, STRETCH) if grad.numel() % STRETCH == 0 else grad[None]).float()
    return (wide * wide).sum(-1).sum()


class AdamW:
    """Masters, moments and updates of all trained parameters; the order of ``groups`` fixes the order of work."""

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        beta1: float,
        beta2: float,
        epsilon: float,
        clip: float,
        dtype: torch.dtype = torch.float32,
        moments: torch.dtype = torch.float32,
        world: World = ALONE,
    ) -> None:
        self.groups, self.world = tuple(groups), world
        self.beta1, self.beta2, self.epsilon, self.clip = beta1, beta2, epsilon, clip
        self.kernel: Update = update
        self.squares: Callable[[Tensor], Tensor] = squares
        self.master: dict[str, Tensor] = {}
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}
        for name, parameter in self.named():
            self.master[name] = local(parameter).float()
            if world.size == 1:
                parameter.data = self.master[name].to(dtype)
            self.first[name] = torch.zeros_like(self.master[name], dtype=moments)
            self.second[name] = torch.zeros_like(self.master[name], dtype=moments)

    def named(self) -> list[tuple[str, torch.nn.Parameter]]:
        """All trained parameters with their names, each once, in the order of work."""
        pairs = {n: p for group in self.groups for n, p in zip(group.names, group.parameters, strict=True)}
        return list(pairs.items())

    def norm(self, grads: dict[str, Tensor]) -> float:
        """The Euclidean norm of the given gradients together; those of vectors are many, and laid end to end."""
        vectors = [grad.view(-1) for grad in grads.values() if grad.ndim < 2]
        flat = [grad.view(-1) for grad in grads.values() if grad.ndim > 1] + ([torch.cat(vectors)] if vectors else [])
        return math.sqrt(self.world.total(torch.stack([self.squares(grad) for grad in flat]).sum()))

    def step(self, count: int, multipliers: Sequence[float], grads: dict[str, Tensor], norm: float) -> None:
        """Update number ``count`` (from 1), each group at its rate times its multiplier, clipped by ``norm``.

        Parameters without a gradient, and their moments, stay as they are.
        """
        scale = min(1.0, self.clip / (norm + 1e-6)) if self.clip else 1.0
        for group, multiplier in zip(self.groups, multipliers, strict=True):
            rate = group.learning_rate * multiplier
            values = [rate, 1 - rate * group.weight_decay, 1 - self.beta1, 1 - self.beta2]
            values += [1 / (1 - self.beta1**count), (1 - self.beta2**count) ** -0.5, self.epsilon, scale]
            numbers = torch.tensor(values, dtype=torch.float32, device=group.parameters[0].device)
            for name, parameter in zip(group.names, group.parameters, strict=True):
                if name not in grads:
                    continue
                live = parameter.data.view(-1) if parameter.dtype != torch.float32 else None
                flat = [t.reshape(-1) for t in (self.master[name], self.first[name], self.second[name], grads[name])]
                for part in self._parts(group, parameter):
                    self._sliced(live[part] if live is not None else None, [t[part] for t in flat], numbers)

    def _parts(self, group: Group, parameter: torch.nn.Parameter) -> list[slice]:
        """Which of this process's numbers of a parameter a group trains."""
        if group.rows is None:
            return [slice(None)]
        width = parameter.numel() // max(1, len(parameter))
        first, last = self.world.part(len(parameter))
        inside = [(max(low, first) - first, min(high, last) - first) for low, high in group.rows]
        return [slice(low * width, high * width) for low, high in inside if low < high]

    def _sliced(self, live: Tensor | None, flat: list[Tensor], numbers: Tensor) -> None:
        """Run the kernel: whole where it is compiled, else in slices that stay in the processor's cache.

        It gets ``data``, which is no view of anything: compiled code is chosen by what a view is of as well, and the
        code of vectors, for one thread, would run for all.
        """
        size = flat[0].numel()
        step = SLICE if self.kernel is update and flat[0].device.type == "cpu" else max(1, size)
        for low in range(0, size, step):
            part = slice(low, low + step)
            master, first, second, grad = (t[part].data for t in flat)
            self.kernel(live[part].data if live is not None else None, master, first, second, grad, numbers)

    def mask(self, kept: Mapping[str, Tensor]) -> None:
        """Set entries that are not kept to zero: weights, live and master, and moments."""
        live = dict(self.named())
        for name, kept_here in kept.items():
            own = (self.master[name], self.first[name], self.second[name])
            for tensor in own if self.world.size > 1 else (*own, live[name].data):
                tensor.masked_fill_(~kept_here, 0.0)

    def whole(self) -> Mapping[str, Tensor]:
        """The masters whole; on several processes each is gathered when it is asked for, by all in the same order."""
        return self.master if self.world.size == 1 else Gathered(dict(self.named()))

    def release(self) -> None:
        """Make the masters the live weights, and let each have a gradient again."""
        for name, parameter in self.named():
            if self.world.size == 1:
                parameter.data = self.master[name]
            parameter.requires_grad_(True)
            parameter.grad = None

    def reset(self) -> None:
        """Set the moments back to zero."""
        for moments in (self.first, self.second):
            for tensor in moments.values():
                tensor.zero_()

    def state(self) -> dict[str, Tensor]:
        """Everything that an update depends on, by name."""
        kinds = {"master": self.master, "first": self.first, "second": self.second}
        return {f"{kind}/{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over a state of :meth:`state`, and set the live weights from the masters."""
        for key, tensor in self.state().items():
            tensor.copy_(state[key])
        for name, parameter in self.named() if self.world.size == 1 else ():
            parameter.data.copy_(self.master[name])
