# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lect.errors import UserError
from lect.parts.init.mean import Mean


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
@pytest.mark.parametrize("over", ["all", "used"])
def test_a_plain_loop_gives_the_same(pico_new, family, over):
    table_vd, new = pico_new(family)
    used = {int(i) for text in new.old_text for i in text}
    rows = [row for i, row in enumerate(table_vd.numpy().astype(np.float64)) if over == "all" or i in used]
    want_d = sum(rows) / len(rows)
    got_md = Mean(over=over).rows(table_vd, new)
    assert got_md.shape == (len(new.ids), table_vd.shape[1]) and got_md.dtype == torch.float32
    np.testing.assert_allclose(got_md.numpy(), np.tile(want_d, (len(new.ids), 1)), rtol=1e-5, atol=1e-7)
    assert over == "all" or 0 < len(rows) < len(table_vd)


def test_the_log_partition_rises_by_no_more_than_the_paper_says(pico_new):
    """exp is convex, so exp(h mean) <= mean exp(h e_i), and Z' <= Z (1 + m/v): the bound of the paper."""
    from lect.parts.init.random import Random

    table_vd, new = pico_new("llama", "output")
    hidden_td = 3 * torch.randn(200, table_vd.shape[1], generator=torch.Generator().manual_seed(0))
    hidden_td[:, 0] = 60
    shifted_vd = table_vd.clone()
    shifted_vd[:, 0] = -1  # all logits large and negative, as the paper observes
    bound = math.log1p(len(new.ids) / len(table_vd))
    before_t = (hidden_td @ shifted_vd.T).double().logsumexp(1)

    def rise(rows_md):
        grown_vd = torch.cat([shifted_vd, rows_md])
        return float(((hidden_td @ grown_vd.T).double().logsumexp(1) - before_t).max())

    assert rise(Mean().rows(shifted_vd, new)) <= bound + 1e-5
    assert rise(Random().rows(shifted_vd, new)) > 10 * bound


def test_a_text_without_tokens_is_refused(pico_new):
    table_vd, new = pico_new()
    with pytest.raises(UserError, match="init/mean"):
        Mean(over="used").rows(table_vd, replace(new, texts=[]))
