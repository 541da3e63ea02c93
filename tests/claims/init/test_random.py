# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lect.parts.init.random import Random


def test_the_deviation_is_that_of_the_configuration(pico_new, many):
    table_vd, new = pico_new()
    new = many(20_000)
    new.live.config.initializer_range, before = 0.07, new.live.config.initializer_range
    try:
        rows_md = Random().rows(table_vd, new)
    finally:
        new.live.config.initializer_range = before
    assert rows_md.shape == (20_000, table_vd.shape[1]) and rows_md.dtype == torch.float32
    assert rows_md.std().item() == pytest.approx(0.07, rel=0.01)
    assert abs(rows_md.mean().item()) < 5 * 0.07 / rows_md.numel() ** 0.5
    inside = (rows_md.abs() < 0.07).float().mean().item()  # of a normal distribution, 68.27 % lie within one deviation
    assert inside == pytest.approx(0.6827, abs=0.005)


def test_without_a_configured_deviation_it_is_a_fiftieth(pico_new, many):
    table_vd, _ = pico_new()
    silent = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace()))
    assert Random().rows(table_vd, many(5000, live=silent)).std().item() == pytest.approx(0.02, rel=0.02)


def test_the_knob_goes_before_the_configuration(pico_new, many):
    table_vd, _ = pico_new()
    assert Random(deviation=3).rows(table_vd, many(5000)).std().item() == pytest.approx(3, rel=0.02)
    assert not Random(deviation=0).rows(table_vd, many(3)).any()


def test_seed_and_side_decide_and_the_global_state_does_not(pico_new, many):
    table_vd, _ = pico_new()
    state = torch.random.get_rng_state()
    first, same = (Random().rows(table_vd, many(5, seed=4)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, same)
    for other in ({"seed": 5}, {"seed": 4, "side": "output"}):
        assert not torch.equal(first, Random().rows(table_vd, many(5, **other)))
