# SPDX-License-Identifier: Apache-2.0
"""Forward and slopes are those of the plain sum; only factors and values are trained; the folder has no trace."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lect.engine import optimizer
from lect.errors import UserError
from lect.parts.parameters.sparse_plus_low_rank import SparsePlusLowRank, Summed
from lect.testing import pico
from lect.testing.contract import Bench

IDS = torch.tensor([[5, 9, 30, 11, 7, 80, 14]])


def spec(**knobs: Any) -> dict[str, Any]:
    return {"use": "sparse_plus_low_rank", "with": {"rank": 4} | knobs}


@pytest.mark.parametrize("family", pico.CAUSAL)
def test_logits_and_slopes_are_those_of_the_plain_sum(family: str) -> None:
    """W = W0 + (factor / rank) B A + S written densely in the model's own weights, and what autograd makes of it."""
    live, plain = pico.build(family)[0], pico.build(family)[0]
    before = {name: p.detach().clone() for name, p in live.named_parameters()}
    logits_btv = live(input_ids=IDS).logits.detach()
    part, draw = SparsePlusLowRank(rank=4, share=0.05, factor=6.0), torch.Generator().manual_seed(0)
    with part.opened(live, 3):
        summed = {name: m for name, m in live.named_modules() if isinstance(m, Summed)}
        assert torch.equal(live(input_ids=IDS).logits, logits_btv), "the model begins as it was"
        with torch.no_grad():
            for module in summed.values():
                for tensor in (module.left, module.right, module.values_n):
                    tensor.copy_(0.1 * torch.randn(tensor.shape, generator=draw))
        for name, module in summed.items():
            sparse = torch.zeros(module.inner.weight.numel())
            for place, value in zip(module.index_n.tolist(), module.values_n.tolist(), strict=True):
                sparse[place] += value
            total = module.inner.weight + 6.0 / 4 * module.left @ module.right + sparse.view(module.inner.weight.shape)
            plain.get_submodule(name).weight.data = total.detach()
        after = live(input_ids=IDS, labels=IDS)
        expected = plain(input_ids=IDS, labels=IDS)
        torch.testing.assert_close(after.logits, expected.logits, rtol=1e-4, atol=1e-5)
        after.loss.backward()
        expected.loss.backward()
        for name, module in summed.items():
            slope = plain.get_submodule(name).weight.grad
            assert module.inner.weight.grad is None
            torch.testing.assert_close(module.left.grad, 1.5 * slope @ module.right.T, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(module.right.grad, 1.5 * module.left.T @ slope, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(module.values_n.grad, slope.view(-1)[module.index_n], rtol=1e-3, atol=1e-5)
        table = plain.get_input_embeddings().weight.grad
        torch.testing.assert_close(live.get_input_embeddings().weight.grad, table, rtol=1e-3, atol=1e-5)
    assert {*dict(live.named_parameters())} == {*before}
    assert all(p.requires_grad for p in live.parameters())
    torch.testing.assert_close(live(input_ids=IDS).logits, expected.logits, rtol=1e-4, atol=1e-5)
    moved = {name for name, p in live.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"{name}.weight" for name in summed}


def test_first_factors_and_places() -> None:
    """Kaiming-uniform over the inputs against zero; a support of exactly that share, uniform, the same for a seed."""
    part, inner = SparsePlusLowRank(rank=8, share=0.1), torch.nn.Linear(400, 50)
    one, again, other = (Summed(inner, part, np.random.default_rng([seed, 0])) for seed in (0, 0, 1))
    assert one.left.shape == (50, 8) and one.right.shape == (8, 400)
    assert not one.left.any() and not one.values_n.any()
    assert 0.99 / 20 < float(one.right.detach().abs().max()) <= 1 / math.sqrt(400)
    assert float(one.right.detach().var()) == pytest.approx(1 / 400 / 3, rel=0.1)
    assert len(one.index_n.unique()) == len(one.index_n) == 2000
    assert torch.bincount(one.index_n // 5000, minlength=4).tolist() == pytest.approx([500] * 4, abs=80)
    assert torch.equal(one.index_n, again.index_n) and torch.equal(one.right, again.right)
    assert not torch.equal(one.index_n, other.index_n)


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_what_is_held_and_what_is_saved(
    family: str, bench: Bench, trained: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No moments of the matrices; the change of each has at most the rank of the factors and the count of values."""
    held: list[set[str]] = []
    release = optimizer.AdamW.release
    monkeypatch.setattr(
        optimizer.AdamW, "release", lambda self: (held.append({*self.master} | {*self.first}), release(self))
    )
    made, run = trained(spec(rank=2, share=0.002), steps=6, family=family)
    before, after = (dict(m.load().named_parameters()) for m in (bench.model(family), made))
    assert before.keys() == after.keys()
    inside = {n for n in before if before[n].ndim == 2 and any(part.isdecimal() for part in n.split("."))}
    assert not {n for n in held[0] if n.endswith("inner.weight")}
    assert len({n for n in held[0] if n.endswith((".left", ".right", ".values_n"))}) == 3 * len(inside)
    count = sum(2 * sum(before[n].shape) + int(0.002 * before[n].numel()) for n in inside)
    assert run.facts["trained_parameters"] == count + sum(before[n].numel() for n in before.keys() - inside)
    for name in before:
        change = (after[name] - before[name]).detach()
        assert change.any(), name
        if name in inside:
            singular = torch.linalg.svdvals(change.double())
            most = 2 + int(0.002 * change.numel())
            assert most >= len(singular) or singular[most] < 1e-4 * singular[0]


def test_learns_more_than_with_still_matrices(trained: Callable[..., Any]) -> None:
    """Bits per byte of the target over three seeds, against factors and values that hardly move the matrices."""
    for seed in range(3):
        ends = []
        for factor, share in ((32.0, 0.03), (1e-6, 1e-9)):
            _, run = trained(spec(factor=factor, share=share), steps=30, seed=seed)
            ends.append(run.facts["evaluations"][-1]["target"])
        assert ends[0] < ends[1] - 0.02


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_resumed_run_has_the_same_bytes(precision: str, trained: Callable[..., Any]) -> None:
    whole, _ = trained(spec(), steps=6, precision=precision)
    broken, _ = trained(spec(), steps=6, precision=precision, stops=(2, 4))
    assert broken.fingerprint == whole.fingerprint


def test_refusals_and_failures_leave_the_model_as_it_was() -> None:
    live, _ = pico.build("llama")
    shape = copy.deepcopy([(n, type(m)) for n, m in live.named_modules()])
    with pytest.raises(UserError, match=r"q_proj is 32 x 32; lower rank"), SparsePlusLowRank().opened(live, 0):
        pass
    with pytest.raises(UserError, match="no numbered layers"), SparsePlusLowRank().opened(torch.nn.Linear(2, 2), 0):
        pass
    with pytest.raises(KeyError), SparsePlusLowRank(rank=2).opened(live, 0):
        raise KeyError
    assert [(n, type(m)) for n, m in live.named_modules()] == shape
    assert all(p.requires_grad for p in live.parameters())
