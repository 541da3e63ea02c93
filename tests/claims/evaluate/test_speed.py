# SPDX-License-Identifier: Apache-2.0
"""Speed and memory: what the numbers mean, and that they see a slower and a larger model."""

from __future__ import annotations

import time

import pytest

from lect.method import Run
from lect.stages.evaluate import speed
from lect.stages.evaluate.speed import Speed
from lect.testing import pico


def run_in(folder):
    (folder / "out").mkdir(parents=True)
    return Run(folder=folder / "out", scratch=folder)


def test_bytes_are_tokens_times_bytes_per_token(tmp_path):
    base, other = pico.model("llama", tmp_path / "a"), pico.model("llama", tmp_path / "b", seed=1)
    method = Speed(rounds=2, tokens=3, prompt_bytes=200, memory=False)
    corpus = pico.corpus(tmp_path / "c")
    found = method.apply(run_in(tmp_path / "r"), base=base, model=other, corpus=corpus).data["speed"]
    for name in ("base", "adapted"):
        one = found[name]
        assert all(value > 0 for value in one.values())
        per_token = one["decode_bytes_per_second"] / one["decode_tokens_per_second"]
        assert per_token == pytest.approx(one["bytes_per_token"])
    # Two models with one tokenizer: tokens and bytes tell the same story.
    assert found["base"]["bytes_per_token"] == found["adapted"]["bytes_per_token"]
    ratio = found["adapted"]["decode_bytes_per_second"] / found["base"]["decode_bytes_per_second"]
    assert found["ratio"]["decode_bytes_per_second"] == pytest.approx(ratio)


def test_each_phase_is_timed_apart(tmp_path, monkeypatch):
    """A model that takes 20 ms longer for each new token, and 60 ms for a prompt, is measured so."""
    model = pico.model("llama", tmp_path / "m")
    method = Speed(rounds=1, tokens=5, prompt_bytes=200, memory=False)
    reader = speed.Reader.open(model)
    text = method.material(run_in(tmp_path / "r"), pico.corpus(tmp_path / "c")).prompt
    method.turn(reader, text)
    plain = method.turn(reader, text)
    forward = reader.live.model.forward

    def slow(*args, **kwargs):
        ids = args[0] if args else kwargs["input_ids"]
        time.sleep(0.06 if ids.shape[1] > 1 else 0.02)
        return forward(*args, **kwargs)

    monkeypatch.setattr(reader.live.model, "forward", slow)
    found = method.turn(reader, text)
    assert found["prefill"] >= 0.06 and found["forward"] >= 0.06
    assert found["decode"] >= 4 * 0.02 and plain["prefill"] > 0
    times = reader.write(reader.live.dummy_inputs["input_ids"], 5)
    assert len(times) == 6 and times == sorted(times)


def test_memory_of_a_fresh_process(tmp_path):
    """The peak holds the weights, and does not remember what this process once held."""
    model = pico.model("llama", tmp_path / "m")
    held = bytearray(900_000_000)
    held[::4096] = b"x" * len(held[::4096])
    found = speed.fresh_peak(model, "bfloat16", "cpu", "Kaixo mundua")
    del held
    assert 50_000_000 < found["library_bytes"] < found["peak_bytes"] < 900_000_000


def test_a_process_that_fails_is_told(tmp_path):
    from lect.artefacts import Model
    from lect.errors import UserError

    with pytest.raises(UserError, match=r"speed\.memory=false"):
        speed.fresh_peak(Model(tmp_path), "bfloat16", "cpu", "text")
