# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from lect.engine.optimizer import AdamW, Group, update

KNOBS = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8}


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((30, 20), (20,))]


def build(pair, dtype=torch.float32, clip=0.0, moments=torch.float32):
    groups = [
        Group(names=("matrix",), parameters=(pair[0],), learning_rate=1e-2, weight_decay=0.1),
        Group(names=("vector",), parameters=(pair[1],), learning_rate=1e-3, weight_decay=0.0),
    ]
    return AdamW(groups, clip=clip, dtype=dtype, moments=moments, **KNOBS)


def gradients(step):
    generator = torch.Generator().manual_seed(100 + step)
    return {
        "matrix": torch.randn(30, 20, generator=generator),
        "vector": torch.randn(20, generator=generator),
    }


def test_equals_torch_adamw_with_clipping():
    ours, theirs = parameters(), parameters()
    optimizer = build(ours, clip=1.0)
    groups = [
        {"params": [theirs[0]], "lr": 1e-2, "weight_decay": 0.1},
        {"params": [theirs[1]], "lr": 1e-3, "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    for step in range(20):
        grads = gradients(step)
        optimizer.step(step + 1, [1.0, 1.0], grads, optimizer.norm(grads))
        for parameter, grad in zip(theirs, grads.values(), strict=True):
            parameter.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_moments_in_bf16_take_half_the_bytes_and_hardly_change_the_path():
    pairs = parameters(), parameters()
    optimizers = [build(pairs[0]), build(pairs[1], moments=torch.bfloat16)]
    for step in range(200):
        for optimizer in optimizers:
            grads = gradients(step % 7)
            optimizer.step(step + 1, [1.0, 1.0], grads, optimizer.norm(grads))
    whole, half = (sum(t.nbytes for n, t in o.state().items() if "master" not in n) for o in optimizers)
    assert half * 2 == whole
    for one, other, start in zip(*pairs, parameters(), strict=True):
        moved = (one - start).norm()
        assert 0 < (one - other).norm() < 0.02 * moved


def test_small_updates_are_not_lost_in_bf16():
    pair = parameters()
    start = pair[0].detach().clone()
    optimizer = build(pair, dtype=torch.bfloat16)
    for step in range(200):
        grads = {name: torch.ones_like(g) for name, g in gradients(0).items()}
        optimizer.step(step + 1, [1e-4, 1e-4], grads, optimizer.norm(grads))
    assert pair[0].dtype == torch.bfloat16
    optimizer.release()
    assert pair[0].dtype == torch.float32
    moved = start - pair[0].detach()
    assert moved.mean().item() == pytest.approx(200 * 1e-2 * 1e-4, rel=0.01)


def test_matrices_and_vectors_share_one_compiled_kernel():
    torch.compiler.reset()
    counter = CompileCounter()
    optimizer = build(parameters(), dtype=torch.bfloat16)
    optimizer.kernel = torch.compile(update, dynamic=True, backend=counter)
    grads = {name: grad.bfloat16() for name, grad in gradients(0).items()}
    for step in range(3):
        optimizer.step(step + 1, [1.0, 1.0], grads, 1.0)
    assert counter.frame_count == 1, "code for small tensors runs on one thread, and would run for large ones too"
    torch.compiler.reset()


def test_a_rate_of_zero_changes_nothing_and_reset_forgets():
    pair = parameters()
    start = [p.detach().clone() for p in pair]
    optimizer = build(pair, dtype=torch.bfloat16)
    optimizer.step(1, [0.0, 0.0], gradients(0), 1.0)
    optimizer.reset()
    assert all(not m.any() for m in (*optimizer.first.values(), *optimizer.second.values()))
    optimizer.release()
    assert all(torch.equal(a, b) for a, b in zip(start, pair, strict=True))


def test_restored_state_goes_on_bit_identically():
    whole, broken = parameters(), parameters()
    one, other = build(whole, dtype=torch.bfloat16), build(broken, dtype=torch.bfloat16)
    for step in range(6):
        one.step(step + 1, [1.0, 1.0], gradients(step), 1.0)
        if step < 3:
            other.step(step + 1, [1.0, 1.0], gradients(step), 1.0)
    fresh = parameters()
    again = build(fresh, dtype=torch.bfloat16)
    again.restore({name: tensor.clone() for name, tensor in other.state().items()})
    assert torch.equal(fresh[0].float(), broken[0].float())
    for step in range(3, 6):
        again.step(step + 1, [1.0, 1.0], gradients(step), 1.0)
    assert all(torch.equal(one.state()[name], again.state()[name]) for name in one.state())


def test_rows_of_one_table_move_each_at_their_own_rate():
    """Two groups that share a table, against two tables of their own."""
    generator = torch.Generator().manual_seed(3)
    table = torch.nn.Parameter(torch.randn(10, 4, generator=generator))
    parts = [torch.nn.Parameter(table.detach()[rows].clone()) for rows in ([0, 1, 2, 6, 7, 8, 9], [3, 4, 5])]
    shared = AdamW(
        [
            Group(names=("t",), parameters=(table,), learning_rate=1e-3, weight_decay=0.0, rows=((0, 3), (6, 10))),
            Group(names=("t",), parameters=(table,), learning_rate=1e-1, weight_decay=0.0, rows=((3, 6),)),
        ],
        clip=0.0,
        **KNOBS,
    )
    apart = AdamW(
        [
            Group(names=("old",), parameters=(parts[0],), learning_rate=1e-3, weight_decay=0.0),
            Group(names=("new",), parameters=(parts[1],), learning_rate=1e-1, weight_decay=0.0),
        ],
        clip=0.0,
        **KNOBS,
    )
    for step in range(5):
        grad = torch.randn(10, 4, generator=generator)
        shared.step(step + 1, [1.0, 0.5], {"t": grad}, 1.0)
        apart.step(step + 1, [1.0, 0.5], {"old": grad[[0, 1, 2, 6, 7, 8, 9]], "new": grad[3:6]}, 1.0)
    assert torch.equal(table[[0, 1, 2, 6, 7, 8, 9]], parts[0])
    assert torch.equal(table[3:6], parts[1])
    assert len(shared.named()) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_entries_are_zero_with_their_moments_and_stay_so_without_a_gradient(dtype):
    pair = parameters()
    optimizer = build(pair, dtype=dtype)
    optimizer.step(1, [1.0, 1.0], gradients(0), 1.0)
    kept = torch.rand(30, 20, generator=torch.Generator().manual_seed(1)) < 0.3
    optimizer.mask({"matrix": kept})
    grads = gradients(1)
    optimizer.step(2, [1.0, 1.0], grads | {"matrix": grads["matrix"] * kept}, 1.0)
    state = optimizer.state()
    for tensor in (pair[0].data, *(state[f"{kind}/matrix"] for kind in ("master", "first", "second"))):
        assert not tensor[~kept].any()
        assert tensor[kept].all()
