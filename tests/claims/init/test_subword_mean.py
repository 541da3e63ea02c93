# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from lect.parts.init.subword_mean import SubwordMean

WEIGHTS = ["uniform", "length", "rarity", "last"]


def plain(table_vd, new, weight, norm):
    """The rows by a plain loop, from the words of the knobs."""
    table = table_vd.numpy().astype(np.float64)
    times = [0] * len(table)
    for text in new.old_text:
        for i in text:
            times[i] += 1
    result = []
    for pieces in new.pieces:
        row, total, lengths = 0, 0, []
        for place, i in enumerate(pieces):
            if weight == "last" and place < len(pieces) - 1:
                continue
            share = {
                "uniform": 1,
                "last": 1,
                "length": max(1, len(new.old.surface(new.old.strings[i]))),
                "rarity": 1 / (1 + times[i]) ** 0.5,
            }[weight]
            row, total = row + share * table[i], total + share
            lengths.append((table[i] ** 2).sum() ** 0.5)
        row = row / total
        size = (row**2).sum() ** 0.5
        result.append(row / size * ((1 - norm) * size + norm * sum(lengths) / len(lengths)))
    return np.stack(result)


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0])
def test_a_plain_loop_gives_the_same(pico_new, family, weight, norm):
    table_vd, new = pico_new(family)
    got_md = SubwordMean(weight=weight, norm=norm).rows(table_vd, new)
    np.testing.assert_allclose(got_md.numpy(), plain(table_vd, new, weight, norm), rtol=1e-4, atol=1e-6)


def test_the_weights_differ_from_each_other(pico_new):
    table_vd, new = pico_new()
    rows = [SubwordMean(weight=weight).rows(table_vd, new) for weight in WEIGHTS]
    for n, one in enumerate(rows):
        for other in rows[:n]:
            assert (one - other).abs().max() > 1e-3


def test_the_norm_of_the_old_rows_is_kept_at_one(pico_new):
    table_vd, new = pico_new()
    rows_md = SubwordMean(norm=1).rows(table_vd, new)
    for row_d, pieces in zip(rows_md, new.pieces, strict=True):
        assert row_d.norm().item() == pytest.approx(table_vd[list(pieces)].norm(dim=1).mean().item(), rel=1e-5)
