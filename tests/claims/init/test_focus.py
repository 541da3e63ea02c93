# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lect.errors import UserError
from lect.ops.word_vectors import train
from lect.parts.init.focus import Focus, sparsemax
from lect.parts.init.mean import Mean

KNOBS = {"vector_dim": 24, "epochs": 30, "least": 2}


def projected(scores):
    """The nearest point of the simplex, by bisection on the threshold."""
    low, high = min(scores) - 1, max(scores)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(max(0.0, s - middle) for s in scores) > 1 else (low, middle)
    return [max(0.0, s - low) for s in scores]


def test_sparsemax_is_the_projection_onto_the_simplex():
    assert sparsemax(torch.tensor([[1.0, 0.8, 0.1]])).tolist()[0] == pytest.approx([0.6, 0.4, 0.0])
    score_mo = torch.randn(50, 40, generator=torch.Generator().manual_seed(1))
    for got, row in zip(sparsemax(score_mo), score_mo.tolist(), strict=True):
        np.testing.assert_allclose(got, projected(row), atol=1e-6)
        assert 0 < int((got > 0).sum()) < 20


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
def test_rows_are_the_sums_of_the_papers_formula(pico_new, family):
    table_vd, new = pico_new(family)
    new = replace(new, origin=[(i + 1) % len(table_vd) if i >= 0 else i for i in new.origin])  # rows that moved
    lines = [[new.new.strings[int(i)] for i in ids] for ids in new.new_text]
    vectors = train(lines, size=24, epochs=30, least=2, seed=new.seed, who="test")
    got_md = Focus(**KNOBS).rows(table_vd, new)
    overlap = [(t, i) for t, i in enumerate(new.origin) if i >= 0 and new.new.strings[t] in vectors.rows]
    counted = {token for line in lines for token in line if sum(other.count(token) for other in lines) >= 2}
    assert {new.new.strings[t] for t, _ in overlap} == counted - {new.new.strings[n] for n in new.ids}
    checked = 0
    for row, n in zip(got_md.numpy(), new.ids, strict=True):
        if new.new.strings[n] not in vectors.rows:
            continue
        x = vectors.of(new.new.strings[n])
        cosines = []
        for t, _ in overlap:
            y = vectors.of(new.new.strings[t])
            cosines.append(float(x @ y) / float(np.linalg.norm(x) * np.linalg.norm(y)))
        want = sum(w * table_vd[i].numpy() for w, (_, i) in zip(projected(cosines), overlap, strict=True))
        np.testing.assert_allclose(row, want, atol=2e-5)
        checked += 1
    assert checked > 10


def test_a_token_without_a_vector_is_drawn_like_the_old_table(pico_new):
    table_vd, new = pico_new()
    rare = replace(new, texts=[*new.texts[:1], "zzz"])
    absent = [m for m, n in enumerate(rare.ids) if not any(n in ids for ids in rare.new_text)]
    assert len(absent) > 5
    got_md = Focus(**KNOBS | {"least": 1}).rows(table_vd + 3, rare)[absent]
    assert float((got_md.mean() - 3 - table_vd.mean()).abs()) < 4 * float(table_vd.std()) / got_md.numel() ** 0.5
    assert 0.8 < float(got_md.std() / table_vd.std()) < 1.2
    with pytest.raises(UserError, match="init/focus: nothing stands 1000000 times"):
        Focus(least=1_000_000).rows(table_vd, new)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_token_gets_what_the_tokens_used_like_it_share(pico_new, seed):
    """Old rows of two classes of tokens, never in one text, lie apart along a direction; new ones fall on their side.

    The baseline is the mean of the old table.
    """
    table_vd, new = pico_new(seed=seed)
    kept = [n for n, i in enumerate(new.origin) if i >= 0 and new.new.strings[n].isalpha()][-40:]
    classes = [kept[:20], kept[20:]]
    random = np.random.default_rng(seed)
    texts = [random.permutation(classes[n % 2])[:10] for n in range(300)]
    direction_d = torch.randn(table_vd.shape[1], generator=torch.Generator().manual_seed(seed))
    direction_d /= direction_d.norm()
    table_vd = table_vd.clone()
    for sign, ids in zip((1, -1), classes, strict=True):
        table_vd[[new.origin[n] for n in ids]] += sign * direction_d
    taken = [*classes[0][:4], *classes[1][:4]]
    part = replace(new, origin=[-1 if n in taken else i for n, i in enumerate(new.origin)])
    part.__dict__["new_text"] = texts  # tokens instead of words
    at, side_m = [part.ids.index(n) for n in taken], torch.tensor([1.0] * 4 + [-1] * 4)
    got_m = side_m * (Focus(**KNOBS).rows(table_vd, part)[at] @ direction_d)
    assert float(got_m.min()) > 0.4 and float(got_m.mean()) > 0.7
    assert abs(float((side_m * (Mean().rows(table_vd, part)[at] @ direction_d)).mean())) < 1e-6
