# SPDX-License-Identifier: Apache-2.0
"""Bits of tokens and greedy continuations, against the plainest loop that can be written."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.errors import UserError
from lect.ops import scoring
from lect.ops.scoring import Reader
from lect.testing import pico

TEXTS = [
    "To select a cell in the sheet, click.",
    "Dokumentua gordetzeko, aukeratu Fitxategia menua eta gero Gorde. " * 3,
    "ñandú 数字 🙂",
    "x",
]


@pytest.fixture(scope="module", params=pico.CAUSAL)
def reader(request):
    live, tokenizer = pico.build(request.param)
    return Reader(live=live, tokenizer=tokenizer)


def naive(reader, ids, first):
    """One token at a time, its whole past before it, all logits in float64."""
    out = []
    for t in range(first, len(ids)):
        with torch.inference_mode():
            logits = reader.live(input_ids=torch.tensor([ids[:t]])).logits[0, -1].double()
        out.append(float(-torch.log_softmax(logits, -1)[ids[t]] / math.log(2)))
    return np.array(out)


def test_bits_equal_the_naive_loop(reader, monkeypatch):
    monkeypatch.setattr(scoring, "BLOCK_ROWS", 100)
    monkeypatch.setattr(scoring, "BLOCK_TOKENS", 7)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 128)
    ids = [reader.start + one for one in reader.encode(TEXTS)]
    firsts = [1, 5, 1, 1]
    ticks = []
    assert reader.scale is not None
    for got, one, first in zip(reader.bits(ids, firsts, ticks.append), ids, firsts, strict=True):
        np.testing.assert_allclose(got, naive(reader, one, first), rtol=1e-4, atol=1e-4)
    assert sum(ticks) == len(ids)


def test_own_logits_where_the_head_cannot_be_taken_in_blocks(reader):
    ids = [reader.start + one for one in reader.encode(TEXTS)]
    fast = reader.bits(ids, [1] * 4)
    other = Reader(live=reader.live, tokenizer=reader.tokenizer)
    other.scale = None
    for a, b in zip(fast, other.bits(ids, [1] * 4), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_head_with_a_turn_of_its_own_is_found_out():
    live, tokenizer = pico.build("llama")
    forward = live.forward

    def scaled(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits * 0.5
        return out

    live.forward = scaled
    reader = Reader(live=live, tokenizer=tokenizer)
    assert reader.scale is None
    ids = reader.start + reader.encode(TEXTS[:1])[0]
    np.testing.assert_allclose(reader.bits([ids], [1])[0], naive(reader, ids, 1), rtol=1e-4, atol=1e-4)


def test_soft_capping_is_part_of_the_logits():
    live, tokenizer = pico.build("gemma3")
    live.config.final_logit_softcapping = 2.0
    reader = Reader(live=live, tokenizer=tokenizer)
    assert reader.scale is not None
    ids = reader.start + reader.encode(TEXTS[:1])[0]
    np.testing.assert_allclose(reader.bits([ids], [1])[0], naive(reader, ids, 1), rtol=1e-4, atol=1e-4)


def test_first_token_without_a_past_costs_a_uniform_guess(reader):
    ids = reader.encode(TEXTS[:1])[0]
    bits = reader.bits([ids], [0])[0]
    assert bits[0] == pytest.approx(math.log2(reader.rows)) and len(bits) == len(ids)
    np.testing.assert_allclose(bits[1:], reader.bits([ids], [1])[0])


def test_longer_than_the_model_reads(reader):
    ids = reader.start + (reader.encode([TEXTS[0]])[0] * 200)[:700]
    bits = reader.bits([ids], [1])[0]
    assert reader.longest == 256 and len(bits) == len(ids) - 1
    # The first 255 have their whole past; each later one has at least half of what the model reads.
    np.testing.assert_allclose(bits[:255], reader.bits([ids[:256]], [1])[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bits[255:383], reader.bits([ids[128:384]], [128])[0], rtol=1e-4, atol=1e-4)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(2, 64))
def test_pieces_score_every_position_once(length, first, longest):
    seen = []
    for left, at in scoring._pieces(length, min(first, length), longest):
        right = min(length, left + longest)
        assert 0 <= left < at < right
        assert left == 0 or at - left >= longest // 2
        seen += range(at, right)
    assert seen == list(range(max(1, min(first, length)), length))


def test_masked_models_are_refused():
    live, tokenizer = pico.build("bert")
    with pytest.raises(UserError, match="sees the text ahead"):
        Reader(live=live, tokenizer=tokenizer)


def test_greedy_equals_a_plain_loop(reader):
    prompts = ["To select", "Dokumentua gordetzeko, aukeratu Fitxategia", "A"]
    made = reader.greedy(prompts, lambda i, text: False, 6, batch=3)
    stop = reader.tokenizer.eos_token_id
    for prompt, text in zip(prompts, made, strict=True):
        ids = reader.start + reader.encode([prompt])[0]
        new = []
        while len(new) < 6 and (not new or new[-1] != stop):
            with torch.inference_mode():
                new.append(int(reader.live(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax()))
        assert text == reader.decode(new)


def test_greedy_stops_when_told(reader):
    heard = []

    def done(i, text):
        heard.append(i)
        return True

    reader.greedy(["To select", "A formula"], done, 50)
    assert sorted(heard) == [0, 1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_any_text_has_finite_bits(texts):
    live, tokenizer = _LLAMA
    reader = Reader(live=live, tokenizer=tokenizer)
    ids = [reader.start + one for one in reader.encode([t.encode("utf-8", "ignore").decode() for t in texts])]
    for one, bits in zip(ids, reader.bits(ids, [1] * len(ids)), strict=True):
        assert len(bits) == len(one) - 1 and np.isfinite(bits).all() and (bits >= -1e-5).all()


_LLAMA = pico.build("llama")


def test_bfloat16_is_near_float32():
    live, tokenizer = pico.build("gemma3")
    full = Reader(live=live, tokenizer=tokenizer)
    ids = [full.start + one for one in full.encode(TEXTS)]
    exact = np.concatenate(full.bits(ids, [1] * 4))
    half = Reader(live=live.to(torch.bfloat16), tokenizer=tokenizer)
    assert np.concatenate(half.bits(ids, [1] * 4)).mean() == pytest.approx(exact.mean(), rel=0.02)
