# SPDX-License-Identifier: Apache-2.0
"""Exactly that share of each matrix is zero until the sparse part ends; then the zeros learn, and it pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lect.errors import UserError
from lect.parts.parameters.kind import largest
from lect.parts.parameters.sparse_then_dense import SparseThenDense
from lect.testing import pico


def spec(**knobs: Any) -> dict[str, Any]:
    return {"use": "sparse_then_dense", "with": knobs}


def weights(family: str) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in pico.build(family)[0].named_parameters()}


@pytest.mark.parametrize("family", pico.CAUSAL)
@pytest.mark.parametrize("pick", ["random", "magnitude"])
def test_the_same_share_of_every_matrix_of_the_layers(family: str, pick: str) -> None:
    """Uniform sparsity in attention and feed-forward; embeddings, norms, biases and head stay whole."""
    given = weights(family)
    part = SparseThenDense(sparsity=0.75, pick=pick)
    masks = part.kept(given, 0, 3)
    inside = [n for n, t in given.items() if t.ndim == 2 and ("layers." in n or ".h." in n)]
    assert sorted(masks) == sorted(inside)
    assert all(int((~masks[n]).sum()) == round(0.75 * given[n].numel()) for n in inside)
    again = part.kept(given, 0, 3)
    assert all(torch.equal(masks[n], again[n]) for n in inside)
    other = part.kept(given, 0, 4)
    assert all(torch.equal(masks[n], other[n]) for n in inside) == (pick == "magnitude")
    if pick == "magnitude":
        assert all(given[n][masks[n]].abs().min() >= given[n][~masks[n]].abs().max() for n in inside)
    assert part.kept(given, 1, 3) == {}


def test_random_zeros_are_uniform() -> None:
    given = {"layers.0.w": torch.randn(20, 30)}
    count = sum(SparseThenDense(sparsity=0.5).kept(given, 0, s)["layers.0.w"].float() for s in range(400))
    assert 140 < count.min() < count.max() < 260


def test_parts_of_the_run_and_models_without_layers() -> None:
    assert [SparseThenDense(sparse=0.75).round(p) for p in (0.0, 0.74, 0.75, 1.0)] == [0, 0, 1, 1]
    assert {SparseThenDense(sparse=1.0).round(p) for p in (0.0, 0.5, 1.0)} == {0}
    with pytest.raises(UserError, match="no numbered layers; use parameters: full"):
        SparseThenDense().kept({"a": torch.zeros(2, 2)}, 0, 0)


def test_equal_scores_are_cut_exactly() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.0], [1.0, 3.0, 0.0]])
    assert largest(scores, 3).tolist() == [[True, False, False], [True, True, False]]
    assert largest(scores, 0).all()


def test_zeros_stay_while_sparse_and_learn_when_dense(trained: Callable[..., Any]) -> None:
    """Weight decay and momentum do not move them; the base's entries that are kept go on from where they were."""
    sparse, _ = trained(spec(sparse=1.0), steps=12, weight_decay=0.1)
    dense, _ = trained(spec(sparse=0.5), steps=12, weight_decay=0.1)
    masks = SparseThenDense().kept(weights("gemma3"), 0, 0)
    for model, zero in ((sparse, True), (dense, False)):
        after = dict(model.load().named_parameters())
        for name, mask in masks.items():
            assert (after[name][~mask] == 0).all() if zero else (after[name][~mask] != 0).float().mean() > 0.99
            assert (after[name][mask] != 0).all()


def test_dense_training_pays_and_magnitude_costs_less(trained: Callable[..., Any]) -> None:
    """Bits per byte of the target at the end, over three seeds: dense behind sparse beats sparse throughout."""
    for seed in range(3):
        ends = {}
        for name, knobs in (("sparse", {"sparse": 1.0}), ("dense", {"sparse": 0.5})):
            _, run = trained(spec(**knobs), steps=40, seed=seed)
            ends[name] = run.facts["evaluations"][-1]["target"]
        assert ends["dense"] < ends["sparse"] - 0.02


def test_a_resumed_run_has_the_same_bytes(trained: Callable[..., Any]) -> None:
    """Broken off inside the sparse part, at its end and inside the dense part."""
    whole, _ = trained(spec(sparse=0.5), steps=8)
    broken, _ = trained(spec(sparse=0.5), steps=8, stops=(2, 4, 6))
    assert broken.fingerprint == whole.fingerprint
