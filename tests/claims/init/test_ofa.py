# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lect.errors import UserError
from lect.ops.text import encode
from lect.ops.word_vectors import load, sentences, train
from lect.parts.init.ofa import Ofa, factors
from two_languages import WORDS, two

KNOBS = {"vector_dim": 16, "epochs": 30, "least": 2}


def of_subwords(tokenizer, vectors):
    """The vector of each subword: the mean over every spelling of every word that holds it."""
    found = {}
    for word in vectors.rows:
        for text in (word, " " + word, " " + word[0].upper() + word[1:]):
            for i in set(encode(tokenizer, [text])[0]):
                found.setdefault(i, []).append(vectors.of(word))
    return {i: np.mean(rows, axis=0) for i, rows in found.items()}


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "bert"])
@pytest.mark.parametrize("dim", [None, 6])
def test_a_plain_loop_over_the_authors_steps_gives_the_same(pico_new, tmp_path, family, dim):
    table_vd, new = pico_new(family)
    lines = sentences([*new.kept_texts, *new.texts])
    train(lines, size=8, epochs=10, least=2, seed=0, who="test").keyed.save_word2vec_format(str(tmp_path / "w.vec"))
    got_md = Ofa(dim=dim, vectors=str(tmp_path / "w.vec"), neighbours=3).rows(table_vd, new)
    left, sizes, right = np.linalg.svd(table_vd.numpy().astype(np.float64), full_matrices=False)
    first, second = left[:, :dim], np.diag(sizes[:dim]) @ right[:dim]
    vectors = load(str(tmp_path / "w.vec"), "test")
    old, fresh = of_subwords(new.old_tokenizer, vectors), of_subwords(new.new_tokenizer, vectors)
    same = {_text(new.old, token): i for i, token in sorted(new.old.strings.items(), reverse=True)}
    checked = 0
    for row, n in zip(got_md.numpy(), new.ids, strict=True):
        if _text(new.new, new.new.strings[n]) in same or n not in fresh:
            continue
        cosines = []
        for i in sorted(old):
            length = float(np.linalg.norm(fresh[n]) * np.linalg.norm(old[i]))
            cosines.append((-round(float(fresh[n] @ old[i]) / length, 6), i))
        *near, (other, i) = sorted(cosines)[:4]
        if other - near[-1][0] < 1e-5 and not np.array_equal(old[i], old[near[-1][1]]):
            continue  # which of the two is third hangs on the last bit
        powers = [np.exp(-c / 0.1) for c, _ in near]
        want = sum(p * first[i] for p, (_, i) in zip(powers, near, strict=True)) / sum(powers) @ second
        np.testing.assert_allclose(row, want, atol=1e-4)
        checked += 1
    assert checked > 10


def _text(vocabulary, token):
    return (token if vocabulary.prefix else vocabulary.surface(token)).lower()


def test_factors_are_those_of_the_singular_value_decomposition():
    table_vd = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, 12)
    first_vk, second_kd = factors(table_vd, 5)
    left, sizes, right = np.linalg.svd(table_vd.numpy().astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(first_vk @ second_kd, left[:, :5] * sizes[:5] @ right[:5], atol=1e-5)
    np.testing.assert_allclose(first_vk.T @ first_vk, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(np.abs(second_kd), np.abs(sizes[:5, None] * right[:5]), atol=1e-5)


def test_new_rows_have_the_rank_that_was_asked_for():
    made = two(shared=range(0, WORDS, 2))
    for dim in (3, 9):
        rows_md = Ofa(**KNOBS, dim=dim).rows(made.table_vd, made.tokens)
        assert int(torch.linalg.matrix_rank(rows_md, rtol=1e-4)) == dim < len(rows_md)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("anchors", ["dictionary", "shared words"])
def test_words_outside_the_dictionary_get_the_rows_of_their_meaning(tmp_path, seed, anchors):
    """Half of the meanings are given; a mix of ten words taken at random would hold 5/48 of the five nearest."""
    given = range(0, WORDS, 2)
    made = two(seed, shared=given if anchors == "shared words" else ())
    knobs = dict(KNOBS)
    if anchors == "dictionary":
        (tmp_path / "list").write_text(made.dictionary(given))
        knobs["dictionary"] = str(tmp_path / "list")
    share_mw = made.shares(Ofa(**knobs).rows(made.table_vd, made.tokens))
    right = []
    for n in range(1, WORDS, 2):
        row = share_mw[made.tokens.surfaces.index(made.new[n])]
        right.append(sum(float(row[(n + step) % WORDS]) for step in range(-2, 3)))
    assert np.mean(right) > 0.5


def test_a_token_that_is_an_old_one_but_for_capitals_gets_its_row():
    made = two(shared=range(1, WORDS, 2), capitals=range(0, WORDS, 2))
    rows_md = Ofa(**KNOBS).rows(made.table_vd, made.tokens)
    for n in range(0, WORDS, 2):
        at = made.tokens.surfaces.index(made.old[n].title())
        np.testing.assert_allclose(rows_md[at], made.table_vd[1 + n], atol=1e-6)


def test_a_token_in_no_word_is_drawn_with_the_statistics_of_the_coordinates():
    made = two(shared=range(0, WORDS, 2))
    table_vd = made.table_vd + 5
    few = replace(made.tokens, texts=[" ".join(made.old[:1] + [made.new[n] for n in range(0, WORDS, 2)])] * 20)
    rows_md = Ofa(**KNOBS).rows(table_vd, few)
    assert float((rows_md.mean() - 5).abs()) < 0.02
    assert 0.9 < float(rows_md.std() / made.table_vd.std()) < 1.1


def test_what_is_missing_is_said():
    made = two(sentences=50)
    for change, knobs, what in (
        ({"kept_texts": []}, {}, "no kept text to train vectors on"),
        ({"texts": []}, {}, "no target text to train vectors on"),
        ({}, {}, "there are 0 words that both texts hold"),
        ({}, {"dim": 65}, "dim is 65, but rows have 64"),
        ({}, {"vectors": "/nowhere"}, "word vectors /nowhere: no such file"),
    ):
        with pytest.raises(UserError, match=f"^init/ofa: .*({what})"):
            Ofa(**KNOBS | knobs).rows(made.table_vd, replace(made.tokens, **change))
