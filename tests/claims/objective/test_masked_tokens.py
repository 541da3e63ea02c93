# SPDX-License-Identifier: Apache-2.0
"""Tokens are chosen and shown in the shares of the paper, and drawn anew but the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from lect.testing import pico
from masked_streams import stream, whole


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_tokens_are_chosen_and_shown_in_the_shares_of_the_paper(share: float) -> None:
    tokenizer = pico.build("bert")[1]
    documents, objective = [*pico.documents()], {"use": "masked_tokens", "with": {"share": share}}
    data = stream(tokenizer, documents, objective, room=256)
    places = chosen = masked = same = other = 0
    text = {n: [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id] for n, ids in enumerate(whole(data))}
    for number in range(400):
        batch = data.batch(number)
        row = batch.row
        clean_t = row.ids_t.clone()
        clean_t[row.chosen_m] = batch.target_t
        for ids in torch.split(clean_t, row.offsets.diff().tolist()):
            assert ids.tolist() in text.values()
        ends = {tokenizer.cls_token_id, tokenizer.sep_token_id}
        assert not ends & {*batch.target_t.tolist()}
        shown_m = row.ids_t[row.chosen_m]
        places += sum(int(i) not in ends for i in clean_t)
        chosen += len(shown_m)
        masked += int((shown_m == tokenizer.mask_token_id).sum())
        same += int((shown_m == batch.target_t).sum())
        other += int(((shown_m != batch.target_t) & (shown_m != tokenizer.mask_token_id)).sum())
        assert len({*batch.weight_t.tolist()}) == 1
        assert float(batch.weight_t.sum()) == pytest.approx(batch.tokens, rel=1e-5)
    assert chosen > 5000
    assert chosen / places == pytest.approx(share, abs=0.01)
    assert [masked / chosen, same / chosen, other / chosen] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    again, first = stream(tokenizer, documents, objective, room=256).batch(7), data.batch(7)
    assert torch.equal(again.row.ids_t, first.row.ids_t) and torch.equal(again.target_t, first.target_t)
    assert not torch.equal(
        stream(tokenizer, documents, objective, room=256, seed=1).batch(7).row.ids_t, first.row.ids_t
    )


def test_a_batch_with_no_token_chosen_by_chance_has_one() -> None:
    objective = {"use": "masked_tokens", "with": {"share": 1e-9}}
    data = stream(pico.build("bert")[1], [*pico.documents()], objective)
    assert all(len(data.batch(n).target_t) == 1 for n in range(9))
