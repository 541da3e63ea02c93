# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from lect.engine.body import opened
from lect.engine.budget import planned_steps
from lect.engine.cost import training_flops
from lect.engine.data import lay
from lect.engine.loop import Record
from lect.engine.step import Step
from lect.engine.train import _After, attention_width, matmul_parameters, split_step
from lect.errors import UserError
from lect.method import Run
from lect.parts.parameters.kind import Parameters
from lect.parts.schedule.kind import Moment
from lect.testing import pico

SEQUENCES = [[2, *range(10, 30)], [2, *range(40, 75)], [2, *range(80, 90)]]


class Watcher:
    """Stands in for the optimizer and keeps the gradients."""

    def __init__(self, live):
        self.live = live

    def named(self):
        return list(self.live.named_parameters())

    def norm(self, grads):
        return 1.0

    def step(self, count, multiplier, grads, norm):
        self.grads = grads


@pytest.mark.parametrize("family", pico.CAUSAL)
@pytest.mark.parametrize("flat", [True, False])
def test_rows_of_a_step_add_up_to_the_plain_gradient(family, flat):
    """One long row, and three rows of unequal fill, against the model's own loss over single documents."""
    live, _ = pico.build(family)
    total, places = 0.0, sum(len(s) - 1 for s in SEQUENCES)
    for ids in SEQUENCES:
        row = torch.tensor([ids])
        loss = live(input_ids=row, labels=row).loss * (len(ids) - 1) / places
        loss.backward()
        total += loss.item()
    expected = {name: p.grad.clone() for name, p in live.named_parameters() if p.grad is not None}
    live.zero_grad(set_to_none=True)
    layouts = [[lay(SEQUENCES, 80, 0.0, (), "cpu")], [lay([s], 40, 0.0, (), "cpu") for s in SEQUENCES]]
    with opened(live, flat=flat) as body:
        for batches in layouts:
            watcher = Watcher(live)
            step = Step(run=None, body=body, optimizer=watcher, schedules=[])
            value = step.update(batches, 1, Moment(40, 80, 80))
            assert value == pytest.approx(total, rel=1e-5)
            for name, grad in expected.items():
                torch.testing.assert_close(watcher.grads[name], grad, rtol=1e-3, atol=1e-5)


class Kept(Watcher):
    """A watcher with what a round of parameters wants."""

    def whole(self):
        return {}

    def mask(self, kept):
        assert kept == {}


@pytest.mark.parametrize("compiled", [False, True])
def test_what_stands_still_has_no_gradient(compiled):
    """Uncompiled all of it; compiled only what stands still in all layers. The rest is as without a choice."""
    live, _ = pico.build("llama")
    names = [name for name, _ in live.named_parameters()]
    still = {n for n in names if "k_proj" in n or "layers.1.mlp.up_proj" in n}
    frozen = {n for n in still if "k_proj" in n} if compiled else still

    class Chosen(Parameters):
        def trained(self, shapes, round_, seed):
            return [n for n in shapes if n not in still]

    found = {}
    with opened(live) as body:
        for part in (None, Chosen()):
            watcher = Kept(live)
            run = Run(folder=None, scratch=None)
            step = Step(run=run, body=body, optimizer=watcher, schedules=[], compile=compiled, parameters=part)
            step.update([lay(SEQUENCES, 80, 0.0, (), "cpu")], 1, Moment(40, 80, 80))
            found[part] = watcher.grads
            wanted = {n for n, p in live.named_parameters() if not p.requires_grad}
            assert wanted == (frozen if part else set())
    whole, some = found.values()
    assert whole.keys() == {*names} and some.keys() == whole.keys() - still
    assert all(torch.equal(some[n], whole[n]) for n in some)
    assert all(p.grad is None for p in live.parameters())


def test_operations_counted_as_a_loop_would():
    """Two matrices of 3 x 4 and 4 x 3, two heads of width 5 in each of 2 layers, documents of 6 and 2 tokens."""
    forward = backward = 0
    for length in (6, 2):
        for position in range(length):
            forward += 2 * (12 + 12)
            forward += 2 * (2 * 2 * (2 * 5) * (position + 0.5))
    backward = 2 * forward
    assert training_flops(8, 24, 6**2 + 2**2, 2 * 5 * 2) == forward + backward


def test_sizes_of_known_models():
    tied, _ = pico.build("gemma3")
    loose, _ = pico.build("llama")
    with opened(tied) as body:
        assert matmul_parameters(tied, body) == sum(p.numel() for p in tied.parameters() if p.ndim > 1)
        assert attention_width(tied, body) == 2 * 16 * 2
    with opened(loose) as body:
        table = loose.get_input_embeddings().weight.numel()
        assert matmul_parameters(loose, body) == sum(p.numel() for p in loose.parameters() if p.ndim > 1) - table


def test_split_and_budget():
    assert split_step(1024) == (1, 1024)
    assert split_step(10_000) == (3, 3333)
    assert planned_steps(1.0, 10.0, 2.0, 5.0) == 20
    with pytest.raises(UserError, match=r"too short.*give at least 1.5$"):
        planned_steps(1.0, 55.0, 2.0, 5.0)
    with pytest.raises(UserError, match=r"getting ready took 70 s.*give at least 1.7, or set compile to false"):
        planned_steps(1.0, 70.0, 2.0, 5.0, compiled=True)


def test_losses_are_thinned_to_means():
    record = Record(losses=[{"step": n, "loss": float(n)} for n in range(1, 1001)])
    thin = record.thinned()
    assert len(thin) <= 400
    assert thin[0] == {"step": 3, "loss": 2.0}
    assert thin[-1]["step"] == 1000
    assert Record().thinned() == []


def test_what_waits_runs_whole_over_the_rest_in_its_own_tokens():
    """A schedule that begins behind a quarter of 400 tokens is told moments of 300."""

    class Told:
        def rate(self, at):
            return at

    late = _After(Told(), 0.25)
    assert late.rate(Moment(99, 400, 8)) == 0.0
    assert late.rate(Moment(100, 400, 8)) == Moment(0, 300, 8)
    assert late.rate(Moment(250, 400, 8)).progress == 0.5
    assert _After(Told(), 0.0).rate(Moment(3.5, 7, 1)) == Moment(3.5, 7, 1)
