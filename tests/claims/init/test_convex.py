# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lect.parts.init.convex import Convex, Pairs, loss_of
from lect.testing.new_tokens import documents

QUICK = {"steps": 40, "pairs": 2048, "learning_rate": 0.2}
STILL = {"steps": 1, "pairs": 1, "learning_rate": 1e-9}


def frequent(new, count):
    """The old ids that stand most often in the text, the smaller id first where they tie."""
    times: dict[int, int] = {}
    for text in new.old_text:
        for i in text.tolist():
            times[i] = times.get(i, 0) + 1
    return sorted(times, key=lambda i: (-times[i], i))[:count]


def test_the_loss_is_that_of_the_equation():
    noise = torch.Generator().manual_seed(0)
    center, context, wrong = (torch.randn(*size, generator=noise) for size in ((7, 4), (7, 4), (7, 3, 4)))
    total = 0.0
    for b in range(7):
        right = sum(float(center[b, j] * context[b, j]) for j in range(4))
        total -= math.log(1 / (1 + math.exp(-right)))
        for k in range(3):
            total -= math.log(1 / (1 + math.exp(sum(float(center[b, j] * wrong[b, k, j]) for j in range(4)))))
    assert loss_of(center, context, wrong).item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("family", ["gemma3", "bert"])
def test_untrained_rows_are_the_stated_means(pico_new, family):
    table_vd, new = pico_new(family)
    rows_md = Convex(candidates=20, start=0.7, **STILL).rows(table_vd, new)
    rest_d = table_vd[frequent(new, 20)].mean(0)
    for row_d, pieces in zip(rows_md, new.pieces, strict=True):
        torch.testing.assert_close(row_d, 0.7 * table_vd[list(pieces)].mean(0) + 0.3 * rest_d, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_rows_are_convex_combinations_of_candidates_and_pieces(pico_new, start):
    """Few candidates are affinely independent, so the weights are unique: solved for, they are >= 0 and add up to 1."""
    table_vd, new = pico_new("gpt2")
    shared = frequent(new, 8)
    rows_md = Convex(candidates=8, start=start, **QUICK).rows(table_vd, new)
    moved = 0
    for row_d, pieces in zip(rows_md.double(), new.pieces, strict=True):
        points = sorted({*shared, *pieces})
        system = torch.cat([table_vd[points].double().T, torch.ones(1, len(points))])
        weight = torch.linalg.lstsq(system, torch.cat([row_d, torch.ones(1)]).double()[:, None]).solution[:, 0]
        torch.testing.assert_close(system @ weight, torch.cat([row_d, torch.ones(1)]).double(), rtol=0, atol=1e-5)
        assert weight.min() > -1e-5
        outside = sum(float(w) for i, w in zip(points, weight, strict=True) if i not in pieces)
        moved += outside > 0.1
        assert start < 1 or abs(outside) < 1e-5
    assert start == 1 or moved > len(rows_md) / 4


def held_out(rows, tables, new):
    """The mean skip-gram loss of pairs of the test documents, on which nothing was learnt."""
    texts = [d.text for d in documents() if d.role == "target" and d.split == "test"]
    pairs = Pairs.read(replace(new, texts=texts), len(tables["input"]), 5, 3.0)
    rng = np.random.default_rng(99)
    center, context = pairs.draw(10_000, rng)
    wrong = pairs.noise((len(center), 5), rng)
    inside, outside = (
        torch.cat([tables[side][torch.from_numpy(pairs.old_u)], rows[side][torch.from_numpy(pairs.fresh_w)]])
        for side in ("input", "output")
    )
    return float(loss_of(inside[center], outside[context], outside[wrong])) / len(center)


@pytest.mark.parametrize("family", ["gemma3", "bert", "llama"])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_unseen_text_falls(pico_new, family, seed):
    table_vd, new = pico_new(family, seed=seed)
    head = new.live.get_output_embeddings().weight
    tied = head is new.live.get_input_embeddings().weight
    assert tied == (family != "llama")
    tables = {"input": table_vd, "output": head.detach()}
    loss = []
    for knobs in (STILL, QUICK):
        rows = {"input": Convex(**knobs).rows(table_vd, new)}
        rows["output"] = rows["input"]
        if not tied:
            rows["output"] = Convex(**knobs).rows(tables["output"], replace(new, side="output"))
        loss.append(held_out(rows, tables, new))
    assert loss[1] < loss[0] - 0.025


def test_pairs_are_near_each_other_in_one_text(pico_new):
    """Every drawn pair stands in the text that way, the middle as often as the threshold lets it, noise as n^(3/4)."""
    table_vd, new = pico_new()
    new = replace(new, texts=new.texts[:6])
    pairs = Pairs.read(new, len(table_vd), window=2, threshold=3.0)
    known = [*pairs.old_u.tolist(), *(new.ids[w] for w in pairs.fresh_w.tolist())]
    back = {n: new.origin[n] for n in range(len(new.origin)) if new.origin[n] >= 0}
    texts = [[back.get(n, n) for n in ids.tolist()] for ids in new.new_text]
    near: dict[tuple[int, int], float] = {}
    times: dict[int, int] = {}
    for text in texts:
        for i in text:
            times[i] = times.get(i, 0) + 1
    for text in texts:
        for a, i in enumerate(text):
            for b in range(max(0, a - 2), min(len(text), a + 3)):
                if a != b:
                    near[i, text[b]] = near.get((i, text[b]), 0) + min(1, (3 / times[i]) ** 0.5)
    rng = np.random.default_rng(0)
    center, context = pairs.draw(200_000, rng)
    drawn: dict[tuple[int, int], int] = {}
    for a, b in zip(center.tolist(), context.tolist(), strict=True):
        drawn[known[a], known[b]] = drawn.get((known[a], known[b]), 0) + 1
    assert drawn.keys() <= near.keys()
    total = sum(near.values())
    for pair, weight in near.items():
        want = weight / total * len(center)
        assert abs(drawn.get(pair, 0) - want) < 6 * want**0.5 + 1
    wrong, whole = torch.bincount(pairs.noise((40_000, 5), rng).flatten()), sum(n**0.75 for n in times.values())
    for place, i in enumerate(known):
        want = times[i] ** 0.75 / whole * 200_000
        assert abs(wrong[place].item() - want) < 6 * want**0.5 + 1


def test_sides_of_an_untied_head_differ_and_seeds_do_too(pico_new):
    table_vd, new = pico_new("llama")
    first, same = (Convex(**QUICK).rows(table_vd, new) for _ in range(2))
    assert torch.equal(first, same) and not first.requires_grad
    assert not torch.equal(first, Convex(**QUICK).rows(table_vd, replace(new, seed=7)))
    head_vd, output = pico_new("llama", "output")
    assert not torch.allclose(first, Convex(**QUICK).rows(head_vd, output), atol=0.05)


def test_a_text_without_new_tokens_teaches_nothing(pico_new):
    table_vd, new = pico_new()
    for texts in ([], ["zzz"]):
        rows_md = Convex(start=0 if not texts else 1).rows(table_vd, replace(new, texts=texts))
        torch.testing.assert_close(rows_md[0], table_vd[list(new.pieces[0])].mean(0))
