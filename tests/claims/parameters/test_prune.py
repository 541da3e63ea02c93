# SPDX-License-Identifier: Apache-2.0
"""The saved model has exactly that share of zeros; the schedule is the law's; a naive loop picks the same entries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lect.errors import UserError
from lect.laws.average_parameters import plan
from lect.parts.parameters.prune import Prune


def spec(**knobs: Any) -> dict[str, Any]:
    return {"use": "prune", "with": knobs}


def layers_of(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in model.load().named_parameters() if p.ndim == 2 and "layers." in n}


@pytest.mark.parametrize(
    ("sparsity", "steps", "first", "last"), [(0.4, 13_050, 2500, 8875), (0.8, 25_050, 2500, 12600)]
)
def test_the_schedules_of_the_model_cards(sparsity: float, steps: int, first: int, last: int) -> None:
    """Dense for the first 2500 steps of the authors' models of 1.14 billion, pruned to the end by the last."""
    part = Prune(sparsity=sparsity, prunings=(last - first) // 100)
    rounds = [part.round((step + 0.5) / steps) for step in range(steps)]
    assert rounds == sorted(rounds)
    assert abs(rounds.index(1) - (first + 100)) < 15
    assert abs(rounds.index(part.prunings) - last) < 55
    assert part.density(part.prunings) == pytest.approx(1 - sparsity)
    mean = sum(part.density(n) for n in rounds) / steps
    assert mean == pytest.approx(plan(1.0, sparsity, steps).average, rel=0.01)


def test_each_pruning_takes_an_equal_share_of_what_is_left() -> None:
    part = Prune(sparsity=0.8, prunings=10)
    left = [part.density(n) for n in range(11)]
    assert [a / b for a, b in zip(left[1:], left, strict=False)] == pytest.approx([0.2**0.1] * 10)


def test_the_smallest_of_all_layers_go_and_never_come_back() -> None:
    """Against a loop over all entries, sorted; what is zero goes first, so that masks only shrink."""
    part = Prune(sparsity=0.7, prunings=5)
    draw = torch.Generator().manual_seed(0)
    given = {f"layers.{n}.w": torch.randn(6, 8, generator=draw) * (n + 1) for n in range(3)}
    given |= {"embed": torch.randn(9, 8, generator=draw), "layers.0.norm": torch.ones(8)}
    matrices = [name for name in given if name.endswith(".w")]
    assert part.kept(given, 0, 0) == {}
    before = {name: torch.ones_like(given[name], dtype=torch.bool) for name in matrices}
    for turn in range(1, 6):
        masks = part.kept(given, turn, 0)
        entries = sorted((abs(v), name, n) for name in matrices for n, v in enumerate(given[name].flatten().tolist()))
        gone = {(name, n) for _, name, n in entries[: round((1 - 0.3 ** (turn / 5)) * len(entries))]}
        for name in matrices:
            expected = [(name, n) not in gone for n in range(48)]
            assert masks[name].flatten().tolist() == expected
            assert not (masks[name] & ~before[name]).any()
            given[name] = (given[name] + torch.randn(6, 8, generator=draw)) * masks[name]
        before = masks
    assert before["layers.0.w"].sum() < before["layers.2.w"].sum(), "smaller weights are pruned more"


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_saved_model_has_that_share_of_zeros_and_the_facts_say_so(
    trained: Callable[..., Any], precision: str
) -> None:
    made, run = trained(spec(sparsity=0.6, prunings=4), steps=24, weight_decay=0.1, precision=precision)
    matrices = layers_of(made)
    total = sum(t.numel() for t in matrices.values())
    zeros = sum(int((t == 0).sum()) for t in matrices.values())
    assert zeros == round(0.6 * total)
    facts = run.facts["pruning"]
    json.dumps(facts, allow_nan=False)
    assert (facts["prunable"], facts["left"]) == (total, total - zeros)
    assert facts["as_good_as_dense"] == pytest.approx(plan(total, 0.6, 24).average)
    assert total - zeros < facts["average"] < total
    assert facts["average"] == pytest.approx(facts["as_good_as_dense"], rel=0.1)


def test_a_resumed_run_has_the_same_bytes(trained: Callable[..., Any]) -> None:
    """Broken off before the first pruning, between prunings and while the model recovers."""
    whole, _ = trained(spec(sparsity=0.6, prunings=3), steps=16)
    broken, run = trained(spec(sparsity=0.6, prunings=3), steps=16, stops=(2, 5, 7, 14))
    assert broken.fingerprint == whole.fingerprint
    assert run.facts["pruning"]["sparsity"] == pytest.approx(0.6, abs=1e-3)


def test_a_start_behind_the_end_is_refused() -> None:
    with pytest.raises(UserError, match=r"start 0\.8, end 0\.5"):
        Prune(start=0.8, end=0.5).round(0.1)
