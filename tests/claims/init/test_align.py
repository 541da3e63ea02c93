# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from lect.ops.text import plain
from lect.ops.tokenizer import Vocabulary
from lect.parts.init.align import Align
from lect.parts.init.subword_mean import SubwordMean


def overlaps(new):
    """Every alignment, by comparing every pair of tokens of a text as the paper's code does."""
    found = {n: Counter() for n in new.ids}
    with plain(new.old_tokenizer) as old, plain(new.new_tokenizer) as grown:
        for text in new.texts:
            before, after = (rust.encode(text, add_special_tokens=False) for rust in (old, grown))
            for n, (start, end) in zip(after.ids, after.offsets, strict=True):
                ids = tuple(
                    i
                    for i, (a, b) in zip(before.ids, before.offsets, strict=True)
                    if (start <= a and end >= b) or (a <= start and b >= end)
                )
                if n in found and ids:
                    found[n][ids] += 1
    return found


@pytest.mark.parametrize("family", ["gemma3", "llama", "gpt2", "bert"])
@pytest.mark.parametrize("spelling", [False, True])
def test_a_plain_loop_gives_the_same(pico_new, family, spelling):
    table_vd, new = pico_new(family)
    new = replace(new, texts=[*new.texts[:12], "naïve 🙂 數字 el\n\n  pescador", ""])
    found = overlaps(new)
    table = table_vd.numpy().astype(np.float64)
    want = []
    for n, pieces in zip(new.ids, new.pieces, strict=True):
        counted = found[n]
        if spelling or not counted:
            counted[tuple(pieces)] += max(counted.values()) if counted else 1
        want.append(sum(c * sum(table[i] for i in ids) / len(ids) for ids, c in counted.items()) / counted.total())
    got_md = Align(spelling=spelling).rows(table_vd, new)
    assert got_md.dtype == torch.float32
    np.testing.assert_allclose(got_md.numpy(), np.stack(want), rtol=1e-4, atol=1e-6)
    assert any(found.values())


def bpe(pairs: list[str]) -> PreTrainedTokenizerFast:
    """A BPE over the letters a to d with these merges."""
    merges = [tuple(pair.split("+")) for pair in pairs]
    vocab = {token: i for i, token in enumerate([*"abcd", *("".join(pair) for pair in merges)])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab=vocab, merges=merges)))


def test_a_worked_example(pico_new):
    """abc stands three times for ab and c; once for ab alone, since cd lies half outside; never in one text."""
    old, grown = bpe(["c+d", "a+b"]), bpe(["a+b", "ab+c"])
    new = replace(
        pico_new()[1],
        old=Vocabulary.read(old),
        new=Vocabulary.read(grown),
        origin=[0, 1, 2, 3, 5, -1],
        pieces=[[5, 2]],
        old_tokenizer=old,
        new_tokenizer=grown,
        texts=["abc", "dabcabc", "abcd", "dd"],
    )
    table_vd = torch.eye(6)  # a b c d cd ab
    row_d = Align().rows(table_vd, new)[0]
    torch.testing.assert_close(row_d, 0.75 * torch.tensor([0, 0, 0.5, 0, 0, 0.5]) + 0.25 * table_vd[5])
    row_d = Align(spelling=True).rows(table_vd, new)[0]
    torch.testing.assert_close(row_d, (6 * torch.tensor([0, 0, 0.5, 0, 0, 0.5]) + table_vd[5]) / 7)


def test_tokens_that_the_text_lacks_are_the_mean_of_their_pieces(pico_new):
    table_vd, new = pico_new()
    nothing = replace(new, texts=["zzz"])
    torch.testing.assert_close(Align().rows(table_vd, nothing), SubwordMean().rows(table_vd, new))


def test_a_new_token_inside_an_old_one_is_aligned_to_it(pico_new):
    old, grown = bpe(["a+b", "c+d", "ab+cd"]), bpe(["b+c"])
    new = replace(
        pico_new()[1],
        old=Vocabulary.read(old),
        new=Vocabulary.read(grown),
        origin=[0, 1, 2, 3, -1],
        pieces=[[1, 2]],
        old_tokenizer=old,
        new_tokenizer=grown,
        texts=["aabcdd"],
    )
    torch.testing.assert_close(Align().rows(torch.eye(7), new)[0], torch.eye(7)[6])
