# SPDX-License-Identifier: Apache-2.0
"""Training on several processes: which rows are whose, shards of the model, and what the processes tell each other.

The model is sharded with PyTorch's FSDP2: each process keeps its part of every tensor's rows (dimension 0) with the
moments that belong to it, in fp32; a layer is gathered in the compute type while it works, and gradients are summed in
fp32. All talk is of tensors and JSON; nothing is pickled. :data:`ALONE` is one process, and does nothing at all.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from lect import processes
from lect.engine.body import Body
from lect.errors import UserError

if TYPE_CHECKING:
    from lect.method import Run

T = TypeVar("T")
PATIENCE = timedelta(days=30)  # a process that ended is noticed at once; one that is slow is waited for
LOST = re.compile(r"gloo|nccl|connection|broken pipe|processgroup", re.IGNORECASE)


@dataclass(frozen=True)
class World:
    """The processes of one run of training, and which of them this is."""

    size: int = 1
    rank: int = 0

    def mine(self, rows: Sequence[T]) -> Sequence[T]:
        """The rows that this process computes; each has as many."""
        return rows[self.rank :: self.size]

    def part(self, rows: int) -> tuple[int, int]:
        """First row, and row behind the last, of this process's part of a tensor; as ``torch.chunk`` cuts it."""
        width = -(-rows // self.size)
        return min(rows, self.rank * width), min(rows, (self.rank + 1) * width)

    def joined(self, values: list[float]) -> list[float]:
        """The numbers of all processes in the order of rows, out of those of :meth:`mine`."""
        if self.size == 1:
            return values
        from torch import distributed

        own = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(found, own)
        numbers: list[float] = torch.stack(found, 1).view(-1).tolist()
        return numbers

    def total(self, value: Tensor) -> Tensor:
        """The sum of a scalar over all processes."""
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(value)
        return value

    def told(self, value: Callable[[], T]) -> T:
        """What process 0 finds, JSON-able; the others do not look."""
        if self.size == 1:
            return value()
        from torch import distributed

        data = json.dumps(value()).encode() if self.rank == 0 else b""
        length = torch.tensor(len(data))
        distributed.broadcast(length, 0)
        text = torch.tensor(list(data) or [0] * int(length), dtype=torch.uint8)
        distributed.broadcast(text, 0)
        result: T = json.loads(bytes(text.tolist()))
        return result

    def texts(self, value: str) -> list[str]:
        """A word of each process, in their order; all have the same length in ASCII."""
        codes = self.joined([float(n) for n in value.encode("ascii")])
        return [bytes(map(int, codes[rank :: self.size])).decode("ascii") for rank in range(self.size)]

    def first(self, work: Callable[[], T]) -> T:
        """What the work gives, which process 0 does first: the others find the files that it leaves."""
        if self.rank:
            self.wait()
            return work()
        made = work()
        self.wait()
        return made

    def wait(self) -> None:
        """Until all processes are here."""
        self.total(torch.zeros(1))


ALONE = World()


@contextmanager
def world(run: Run) -> Iterator[World]:
    """The processes that a run was given; a lost one is a UserError in all others."""
    if run.processes == 1:
        yield ALONE
        return
    from torch import distributed
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    here = World(run.processes, run.process)
    try:
        if not distributed.is_initialized():
            cuda = run.device.startswith("cuda")
            if cuda:
                torch.cuda.set_device(run.process % torch.cuda.device_count())
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=PrefixStore("group", processes.store()),
                rank=here.rank,
                world_size=here.size,
                timeout=PATIENCE,
            )
        yield here
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        raise UserError(
            f"process {here.rank} of {here.size} lost another one, which has ended or cannot be reached; "
            "run the same command again: it goes on from the last checkpoint"
        ) from error


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, in the same memory; a plain tensor is its own."""
    tensor = tensor.detach()
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


class Gathered(Mapping[str, Tensor]):
    """Sharded tensors by name, each whole while it is looked at; all processes look at the same ones in one order."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.parts = parts

    def __getitem__(self, name: str) -> Tensor:
        whole: Tensor = self.parts[name].full_tensor().detach()
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


class _Root(nn.Module):
    """Gathers what stands outside of the layers, embeddings, norms and head, while ``work`` runs."""

    def __init__(self, live: nn.Module) -> None:
        super().__init__()
        self.live = live

    def forward(self, work: Callable[[], Tensor]) -> Tensor:
        return work()


@contextmanager
def sharded(world: World, body: Body, dtype: torch.dtype) -> Iterator[Body]:
    """A body that computes in ``dtype`` and whose parameters are shards in fp32; alone it is the same body.

    Meanwhile the model that it was made of is empty; afterwards that has the trained parameters, whole, on every
    process. After an error it is left empty: a process cannot mend it alone.
    """
    if world.size == 1:
        yield body
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise UserError(
            "this torch is too old to train on several processes; install a newer one, or start one process"
        )
    live = body.live
    twin = copy.deepcopy(live, {id(p): p for p in live.parameters()})
    shards = Body(twin)
    shards.layout = body.layout
    shards.recompute(body.recomputes)
    mesh = init_device_mesh(torch.device(body.head.device).type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in shards.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    root = cast(_Root, fully_shard(_Root(twin), mesh=mesh, mp_policy=policy))
    shards.whole = root
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all processes
    kept = dict(live.named_parameters())
    for parameter in kept.values():
        parameter.data = parameter.data.new_empty(0)
    parts = Gathered(dict(twin.named_parameters()))
    try:
        yield shards
    finally:
        shards.uncompile()
    for name, parameter in kept.items():
        parameter.data = parts[name]
