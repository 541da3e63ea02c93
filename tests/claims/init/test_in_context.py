# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import processors

from lect.errors import UserError
from lect.ops.rows import with_rows
from lect.ops.text import plain
from lect.parts.init.in_context import InContext, Reader, RowAdam
from lect.parts.init.subword_mean import SubwordMean
from lect.testing import pico
from lect.testing.new_tokens import documents

UNSEEN = [d.text[:150] for d in documents() if d.role == "target" and d.split == "test"]
QUICK = {"steps": 60, "batch": 12, "length": 40, "learning_rate": 0.05}


def extended_model(new, body_md=None, head_md=None):
    """The model with the new tokens, made by the code that makes the real one."""
    numbers = {old: n for n, old in enumerate(new.origin) if old >= 0}
    network = with_rows(new.live, new.origin, numbers)
    with torch.no_grad():
        for rows_md, module in ((head_md, network.get_output_embeddings()), (body_md, network.get_input_embeddings())):
            if rows_md is not None:
                module.weight[new.ids] = rows_md
    return network


def mismatch(new, rows_md, layer=-1):
    """Mean squared difference of the states of both models where a token of both ends, on unseen text."""
    network, total, count = extended_model(new, rows_md), 0.0, 0
    with plain(new.old_tokenizer) as old, plain(new.new_tokenizer) as grown, torch.no_grad():
        for text in UNSEEN:
            before, after = old.encode(text), grown.encode(text)
            ends = {end: place for place, (start, end) in enumerate(before.offsets) if end > start}
            pairs = [(ends[e], place) for place, (s, e) in enumerate(after.offsets) if e > s and e in ends]
            was, now = (
                model(torch.tensor([encoding.ids]), output_hidden_states=True).hidden_states[layer][0]
                for model, encoding in ((new.live, before), (network, after))
            )
            left, right = zip(*pairs, strict=True)
            total += float((was[list(left)] - now[list(right)]).square().sum())
            count += len(pairs) * was.shape[1]
    return total / count


def next_token_loss(new, body_md, head_md=None):
    """Mean loss of the next token of unseen text, by the extended model."""
    network, losses = extended_model(new, body_md, head_md), []
    with torch.no_grad():
        for text in UNSEEN:
            ids_bt = torch.tensor([new.new_tokenizer(text).input_ids])
            losses.append(float(network(ids_bt, labels=ids_bt).loss))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("family", pico.FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_unseen_text_is_read_more_as_before_than_with_the_mean(pico_new, family, seed):
    table_vd, new = pico_new(family, seed=seed)
    fitted = mismatch(new, InContext(**QUICK).rows(table_vd, new))
    assert fitted < 0.92 * mismatch(new, SubwordMean().rows(table_vd, new))


def test_the_layer_that_is_asked_for_is_matched(pico_new):
    table_vd, new = pico_new("llama")
    rows_md = InContext(**QUICK, layer=1).rows(table_vd, new)
    assert mismatch(new, rows_md, layer=1) < 0.92 * mismatch(new, SubwordMean().rows(table_vd, new), layer=1)
    assert not torch.allclose(rows_md, InContext(**QUICK).rows(table_vd, new))
    assert torch.equal(InContext(**QUICK, layer=2).rows(table_vd, new), InContext(**QUICK).rows(table_vd, new))
    with pytest.raises(UserError, match=r"layer: 3 .* 2 layers"):
        InContext(layer=3).rows(table_vd, new)


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
@pytest.mark.parametrize("next_token", [0.0, 0.5])
def test_a_batch_has_the_loss_of_its_contexts_one_by_one(pico_new, family, next_token):
    """No padding, no replaced tables: each context goes alone through the old and the extended model."""
    table_vd, new = pico_new(family)
    if next_token and family == "bert":
        with pytest.raises(UserError, match="next_token"):
            InContext(next_token=next_token).rows(table_vd, new)
        return
    part = InContext(length=23, next_token=next_token)
    reader = Reader(new, len(table_vd))
    chosen = reader.places(3, np.random.default_rng(0))[:7]
    rows_md = SubwordMean().rows(table_vd, new)
    loss = part.match(reader, chosen, table_vd, rows_md)
    network = extended_model(new, rows_md)
    edge = new.old_tokenizer("").input_ids
    back = {old: n for n, old in enumerate(new.origin) if old >= 0}
    differences, said = [], []
    for text, place in chosen:
        window = [new.ids[i - len(table_vd)] if i >= len(table_vd) else back[i] for i in reader.around(text, place, 23)]
        pieces = [list(new.pieces[new.ids.index(n)]) if new.origin[n] < 0 else [new.origin[n]] for n in window]
        lead, tail = (edge, []) if family != "bert" else (edge[:1], edge[1:])
        old = [*lead, *(i for ids in pieces for i in ids), *tail]
        grown = [*(back[i] for i in lead), *window, *(back[i] for i in tail)]
        was = new.live(torch.tensor([old]), output_hidden_states=True).hidden_states[-1][0].detach()
        out = network(torch.tensor([grown]), output_hidden_states=True)
        at = len(lead) - 1
        for now, ids in enumerate(pieces, len(lead)):
            at += len(ids)
            differences += (out.hidden_states[-1][0][now] - was[at]).square().tolist()
            if now and family != "bert":
                said.append(-out.logits[0][now - 1].log_softmax(0)[grown[now]])
    want = sum(differences) / len(differences)
    assert loss.item() == pytest.approx(want * (1 + next_token), rel=1e-4)
    if next_token:
        mean = torch.stack(said).mean()
        mean.backward()
        slope_md = network.get_input_embeddings().weight.grad[new.ids]
        free_md = rows_md.clone().requires_grad_()
        both, alone = (
            torch.autograd.grad(one.match(reader, chosen, table_vd, free_md), free_md)[0]
            for one in (part, InContext(length=23))
        )
        torch.testing.assert_close(both - alone, next_token * want / mean.item() * slope_md, rtol=1e-3, atol=1e-5)


def test_contexts_hold_their_token_and_fit(pico_new):
    table_vd, new = pico_new("gpt2")
    v = len(table_vd)
    reader = Reader(new, v)
    places = reader.places(4, np.random.default_rng(0))
    tokens = [int(reader.texts[text][place]) for text, place in places]
    times = {n: int(sum((ids == v + k).sum() for ids in reader.texts)) for k, n in enumerate(new.ids)}
    for k, n in enumerate(new.ids):
        assert tokens.count(v + k) == min(4, times[n])
    assert len(set(places)) == len(places)
    first = tokens[: sum(t > 0 for t in times.values())]
    assert len(set(first)) == len(first)  # each token once before any twice
    for length in (2, 9, 40):
        ids_bt, mask_bt, last_bt = reader.batch(places, length, old=True)
        for (text, place), line, mask, last in zip(places, ids_bt, mask_bt, last_bt, strict=True):
            window = reader.around(text, place, length)
            own = len(new.pieces[reader.texts[text][place] - v])
            assert reader.texts[text][place] in window and int(mask.sum()) <= max(length, own)
            assert int(last.sum()) == len(window) and not last[mask == 0].any()
            whole = sum(len(new.pieces[i - v]) if i >= v else 1 for i in reader.texts[text])
            assert length < 40 or int(mask.sum()) >= min(whole, length // 2)
            written = new.new_tokenizer.decode([new.ids[i - v] if i >= v else new.origin.index(i) for i in window])
            assert new.old_tokenizer.decode(line[mask == 1]) == written


def test_a_context_has_half_of_its_room_before_its_token(pico_new):
    """By adding token after token: to the left while half of the room lasts, then to the right while all of it does."""
    table_vd, new = pico_new("qwen3")
    v, length = len(table_vd), 30
    reader = Reader(new, v)
    for text, place in reader.places(2, np.random.default_rng(0)):
        ids = reader.texts[text].tolist()
        size = [len(new.pieces[i - v]) if i >= v else 1 for i in ids]
        low, high = place, place + 1
        while low and sum(size[low - 1 : place]) <= (length - size[place]) // 2:
            low -= 1
        while high < len(ids) and sum(size[low : high + 1]) <= length:
            high += 1
        assert reader.around(text, place, length) == ids[low:high]


def test_the_end_of_text_token_does_not_lead(pico_new):
    table_vd, new = pico_new("gemma3")
    tokenizer = copy.deepcopy(new.old_tokenizer)
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    numbers = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (begin, end)]
    ends = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=numbers)
    tokenizer.backend_tokenizer.post_processor = ends
    reader = Reader(replace(new, old_tokenizer=tokenizer), len(table_vd))
    assert (reader.lead, reader.tail) == ([tokenizer.bos_token_id], [])


def test_a_context_is_cut_to_what_the_model_takes(pico_new):
    table_vd, new = pico_new("gpt2")
    long = replace(new, texts=["\n".join(new.texts)])
    rows_md = InContext(length=100_000, steps=2, batch=2).rows(table_vd, long)
    assert torch.isfinite(rows_md).all() and Reader(long, len(table_vd)).room == 256


def test_adam_of_rows_is_adam_of_each_row_by_itself():
    noise = torch.Generator().manual_seed(0)
    rows_md = torch.randn(4, 6, generator=noise)
    alone = [row.clone().requires_grad_() for row in rows_md]
    optimizers = [torch.optim.Adam([row], lr=0.1, eps=1e-12) for row in alone]
    adam = RowAdam(rows_md, 0.1)
    for step in range(12):
        gradient_md = torch.randn(4, 6, generator=noise)
        gradient_md[torch.rand(4, generator=noise) < 0.5] = 0
        adam.step(gradient_md, 1 - step / 24)
        for row, optimizer, gradient_d in zip(alone, optimizers, gradient_md, strict=True):
            if gradient_d.any():
                row.grad = gradient_d.clone()
                optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 24)
                optimizer.step()
    torch.testing.assert_close(rows_md, torch.stack(alone).detach())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("seed", range(2))
def test_output_rows_foretell_unseen_text_better_than_the_mean(pico_new, family, seed):
    head_vd, new = pico_new(family, "output", seed=seed)
    table_vd = new.live.get_input_embeddings().weight.detach()
    body_md = InContext(**QUICK).rows(table_vd, replace(new, side="input"))
    fitted = next_token_loss(new, body_md, InContext(**QUICK).rows(head_vd, new))
    assert fitted < next_token_loss(new, body_md, SubwordMean().rows(head_vd, new)) - 0.2


@pytest.mark.parametrize("family", ["gemma3", "qwen3"])
def test_the_next_token_is_foretold_better_when_it_counts(pico_new, family):
    table_vd, new = pico_new(family)
    without, with_it = (next_token_loss(new, InContext(**QUICK, next_token=w).rows(table_vd, new)) for w in (0.0, 5.0))
    assert with_it < without - 0.2


def test_the_model_and_the_random_state_stay_as_they_were(pico_new):
    table_vd, new = pico_new("llama")
    before = {name: tensor.clone() for name, tensor in new.live.state_dict().items()}
    table, state = table_vd.clone(), torch.random.get_rng_state()
    first, same = (InContext(steps=3).rows(table_vd, new) for _ in range(2))
    assert torch.equal(first, same) and not first.requires_grad
    assert torch.equal(torch.random.get_rng_state(), state) and torch.equal(table, table_vd)
    assert all(torch.equal(before[name], tensor) for name, tensor in new.live.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in new.live.parameters())
    assert torch.equal(first, InContext(steps=3).rows(table_vd, replace(new)))
    with torch.no_grad():
        assert torch.equal(first, InContext(steps=3).rows(table_vd, new))


def test_tokens_without_a_context_stay_the_mean_of_their_pieces(pico_new):
    table_vd, new = pico_new()
    mean_md = SubwordMean().rows(table_vd, new)
    torch.testing.assert_close(InContext().rows(table_vd, replace(new, texts=["zzz"])), mean_md)
    few = replace(new, texts=new.texts[:1])
    read = {int(n) for ids in few.new_text for n in ids}
    moved = (InContext(**QUICK).rows(table_vd, few) - mean_md).abs().amax(1) > 1e-4
    assert moved.tolist() == [n in read for n in new.ids] and not moved.all()


def test_progress_is_shown(pico_new):
    table_vd, new = pico_new()
    seen = []
    listening = replace(new, progress=lambda done, total, unit="step", **values: seen.append((done, total, values)))
    InContext(steps=3).rows(table_vd, listening)
    assert [s[:2] for s in seen] == [(1, 3), (2, 3), (3, 3)] and all(s[2]["loss"] > 0 for s in seen)
