# SPDX-License-Identifier: Apache-2.0
"""Parts of tensors and of rows; tests/e2e/test_spread.py has real processes, here threads stand in for them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier

import pytest
import torch

from lect.engine import checkpoint
from lect.engine.optimizer import AdamW, Group
from lect.engine.spread import ALONE, World


@dataclass(frozen=True)
class Thread(World):
    barrier: Barrier | None = None
    board: dict = field(default_factory=dict)

    def wait(self):
        self.barrier.wait(timeout=10)

    def _all(self, value):
        self.board[self.rank] = value
        self.wait()
        found = [self.board[rank] for rank in range(self.size)]
        self.wait()
        return found

    def texts(self, value):
        return self._all(value)

    def told(self, value):
        return self._all(value() if self.rank == 0 else None)[0]

    def total(self, value):
        return sum(self._all(value))


def together(size, work):
    """What ``work`` gives in each of ``size`` processes."""
    barrier, board = Barrier(size), {}
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(Thread(size, rank, barrier, board)), range(size)))


def cut(tensors, world):
    return {name: tensor[slice(*world.part(len(tensor)))].clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_are_those_of_torch_chunk(size):
    for rows in range(12):
        found = [torch.arange(rows)[slice(*World(size, rank).part(rows))].tolist() for rank in range(size)]
        expected = [chunk.tolist() for chunk in torch.arange(rows).chunk(size)] if rows else []
        assert found == expected + [[]] * (size - len(expected))
        assert sorted(n for rank in range(size) for n in World(size, rank).mine(range(rows))) == list(range(rows))


@pytest.mark.parametrize("writers", [1, 2, 3])
@pytest.mark.parametrize("readers", [1, 2, 4])
def test_any_number_of_processes_reads_what_any_number_wrote(tmp_path, writers, readers):
    draw = torch.Generator().manual_seed(0)
    shapes = [(7, 3), (1, 4), (2,), (5,)]
    tensors = {f"kind/{shape}": torch.randn(shape, generator=draw) for shape in shapes}

    def write(world):
        checkpoint.save(tmp_path, 4, cut(tensors, world), {"tokens": world.rank}, world)

    together(writers, write) if writers > 1 else write(ALONE)
    files = {path.name for path in (tmp_path / "checkpoint-000000004").iterdir()}
    assert files == {"state.json", "manifest.json", *(checkpoint.TENSORS.format(rank) for rank in range(writers))}
    found = together(readers, lambda world: checkpoint.load(tmp_path, world))
    for rank, (parts, state) in enumerate(found):
        assert state == {"tokens": 0, "step": 4}
        expected = cut(tensors, World(readers, rank))
        assert parts.keys() == expected.keys()
        assert all(
            torch.equal(part, expected[name]) and part.shape == expected[name].shape for name, part in parts.items()
        )


def test_a_checkpoint_without_the_part_of_one_process_is_passed_over(tmp_path):
    tensors = {"a": torch.arange(6.0)}
    for step in (1, 2):
        together(2, lambda world, step=step: checkpoint.save(tmp_path, step, cut(tensors, world), {}, world))
    path = tmp_path / "checkpoint-000000002" / checkpoint.TENSORS.format(1)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert checkpoint.load(tmp_path)[1]["step"] == 1
    path.unlink()
    assert checkpoint.load(tmp_path)[1]["step"] == 1


class Cut(torch.nn.Parameter):
    """A parameter of which this process has some rows; to the optimizer what FSDP2's are."""

    def __new__(cls, whole, world):
        made = super().__new__(cls, whole)
        made.part = whole[slice(*world.part(len(whole)))].clone()
        return made

    def detach(self):
        return self

    def to_local(self):
        return self.part


@pytest.mark.parametrize("size", [2, 3])
def test_rows_of_groups_are_found_on_shards(size):
    """Two groups share a table of seven rows, each with a rate of its own; clipped by the norm of all parts."""
    draw = torch.Generator().manual_seed(0)
    table, grad = torch.randn(7, 3, generator=draw), torch.randn(7, 3, generator=draw)

    def trained(world):
        whole = torch.nn.Parameter(table.clone())
        parameter = whole if world is ALONE else Cut(table.clone(), world)
        stretches = ((0, 2), (5, 6)), ((2, 5), (6, 7))
        groups = [
            Group(names=("t",), parameters=(parameter,), learning_rate=rate, weight_decay=0.1, rows=rows)
            for rate, rows in zip((0.1, 0.01), stretches, strict=True)
        ]
        optimizer = AdamW(groups, beta1=0.9, beta2=0.95, epsilon=1e-8, clip=1.0, world=world)
        grads = {"t": grad[slice(*world.part(7))].clone()}
        norm = optimizer.norm(grads)
        optimizer.step(1, [1.0, 1.0], grads, norm)
        return norm, optimizer.master["t"], optimizer.state()

    norm, expected, _ = trained(ALONE)
    moved_v = (expected - table).abs().mean(1)
    assert moved_v[0] > 5 * moved_v[2]
    found = together(size, trained)
    assert all(one[0] == pytest.approx(norm, rel=1e-6) for one in found)
    torch.testing.assert_close(torch.cat([one[1] for one in found]), expected, rtol=1e-6, atol=1e-7)


def test_one_process_imports_nothing_for_several():
    code = "import sys, lect.engine.train as t; print('torch.distributed.fsdp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
