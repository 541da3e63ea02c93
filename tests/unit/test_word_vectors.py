# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lect.errors import UserError
from lect.ops import word_vectors
from lect.ops.word_vectors import Vectors, load, nearest, normal, rotation, sentences, train, unit

LINES = [["red", "green", "blue"], ["one", "two", "three"]] * 30
SETTINGS = {"size": 12, "epochs": 20, "least": 2, "seed": 3, "who": "test"}


def test_words_are_letters_digits_and_marks():
    assert sentences(["It's 3 o'clock,\n\nnow_then"]) == [["It", "s", "3", "o", "clock"], ["now", "then"]]
    assert sentences(["दस्तावेज़ सहेजने के लिए।"]) == [["दस्तावेज़", "सहेजने", "के", "लिए"]]
    assert sentences(["...\n"]) == []


@given(st.lists(st.text(max_size=30), max_size=4))
@settings(max_examples=100, deadline=None)
def test_no_letter_of_any_text_is_lost(texts):
    letters = [c for t in texts for c in t if c.isalnum()]
    assert [c for line in sentences(texts) for word in line for c in word if c.isalnum()] == letters


@pytest.mark.parametrize("grams", [(3, 6), None])
def test_the_same_seed_gives_the_same_vectors_in_another_process(grams):
    program = f"""
import hashlib, lect.ops.word_vectors as w
made = w.train({LINES!r}, grams={grams!r}, **{SETTINGS!r})
print(list(made.rows), hashlib.sha256(made.table.tobytes()).hexdigest())
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    here, other = (train(LINES, grams=grams, **SETTINGS | {"seed": seed}) for seed in (3, 4))
    assert list(here.rows) == ["red", "green", "blue", "one", "two", "three"]
    assert here.table.shape == (6, 12) and not np.array_equal(here.table, other.table)


@pytest.mark.parametrize("grams", [(3, 6), None])
def test_words_used_together_come_to_lie_together(grams):
    random = np.random.default_rng(0)
    topics = [[f"{a}{n:02}" for n in range(20)] for a in ("one", "two")]
    lines = [random.permutation(topics[n % 2]).tolist() for n in range(200)]
    made = train(lines, grams=grams, **SETTINGS | {"epochs": 30})
    first, second = (unit(np.stack([made.of(word) for word in words])) for words in topics)
    assert (first @ first.T).mean() > (first @ second.T).mean() + 0.5


def test_what_is_no_word_is_the_mean_of_the_n_grams_that_training_saw():
    made = train(LINES, grams=(3, 3), **SETTINGS)
    keyed = made.keyed
    parts = [keyed.vectors_ngrams[_bucket(keyed, gram)] for gram in ("<re", "ree", "een", "en>")]
    np.testing.assert_allclose(made.of("reen"), sum(parts) / 4, atol=1e-6)
    np.testing.assert_allclose(made.of("redzz"), (_gram(keyed, "<re") + _gram(keyed, "red")) / 2, atol=1e-6)
    assert made.of("zzz") is None and made.of("") is None and made.of("a") is None
    np.testing.assert_array_equal(made.of("red"), made.table[made.rows["red"]])
    assert train(LINES, grams=None, **SETTINGS).of("reen") is None


def _bucket(keyed, gram):
    """The number of an n-gram: FNV-1a over its bytes, as in fastText."""
    value = 2166136261
    for byte in gram.encode():
        value = ((value ^ (byte - 256 if byte > 127 else byte)) * 16777619) % 2**32
    return value % keyed.bucket


def _gram(keyed, gram):
    return keyed.vectors_ngrams[_bucket(keyed, gram)]


def test_rotation_undoes_a_rotation_and_is_the_best_orthogonal_matrix():
    random = np.random.default_rng(0)
    from_pd = random.normal(size=(40, 6)).astype(np.float32)
    true_dd = np.linalg.qr(random.normal(size=(6, 6)))[0]
    np.testing.assert_allclose(rotation(from_pd, (from_pd @ true_dd).astype(np.float32)), true_dd, atol=1e-5)
    onto_pd = random.normal(size=(40, 6)).astype(np.float32)
    found_dd = rotation(from_pd, onto_pd)
    np.testing.assert_allclose(found_dd @ found_dd.T, np.eye(6), atol=1e-5)
    best = np.linalg.norm(from_pd @ found_dd - onto_pd)
    for _ in range(200):
        other_dd = np.linalg.qr(random.normal(size=(6, 6)))[0]
        assert np.linalg.norm(from_pd @ other_dd - onto_pd) > best


def test_nearest_against_a_plain_loop():
    random = np.random.default_rng(0)
    query_md = random.normal(size=(300, 5)).astype(np.float32)
    known_wd = random.normal(size=(30, 5)).astype(np.float32)
    known_wd[17] = known_wd[29] = known_wd[3]
    ids_mk, weight_mk = nearest(query_md, known_wd, 4, 0.1)
    for query, ids, weights in zip(query_md, ids_mk, weight_mk, strict=True):
        cosines = [float(query @ k) / float(np.linalg.norm(query) * np.linalg.norm(k)) for k in known_wd]
        want = sorted(range(30), key=lambda n: (-round(cosines[n], 6), n))[:4]
        assert ids.tolist() == want
        powers = [np.exp(cosines[n] / 0.1) for n in want]
        np.testing.assert_allclose(weights, np.array(powers) / sum(powers), rtol=1e-3)
    assert nearest(query_md, known_wd[:2], 4, 0.1)[0].shape == (300, 2)


def test_normal_rows_have_the_statistics_of_each_dimension():
    table_vd = torch.tensor([[0.0, 10.0], [2.0, 10.0], [4.0, 13.0]])
    rows = normal(table_vd, 20_000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(rows.mean(0), table_vd.mean(0), atol=0.05)
    np.testing.assert_allclose(rows.std(0), table_vd.std(0, correction=0), rtol=0.03)


def test_vectors_are_read_from_both_kinds_of_file(tmp_path):
    from gensim.models import FastText
    from gensim.models.fasttext import save_facebook_model

    made = train(LINES, grams=None, **SETTINGS)
    made.keyed.save_word2vec_format(str(tmp_path / "v.vec"))
    read = load(str(tmp_path / "v.vec"), "test")
    assert list(read.rows) == list(made.rows)
    np.testing.assert_allclose(read.table, made.table, atol=1e-5)
    model = FastText(LINES, vector_size=8, min_count=1, min_n=3, max_n=4, bucket=5000, workers=1, seed=1)
    save_facebook_model(model, str(tmp_path / "v.bin"))
    read, here = load(str(tmp_path / "v.bin"), "test"), Vectors(model.wv)
    assert read.rows == here.rows and read.of("zzz") is None
    np.testing.assert_allclose(read.of("reen"), here.of("reen"), atol=1e-6)


def test_what_the_user_can_change_is_said_in_one_line(tmp_path, monkeypatch):
    for name, content in (("a.bin", b"nonsense"), ("a.vec", b"not numbers\nat all"), ("b.vec", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"^test: word vectors .*neither") as error:
            load(str(tmp_path / name), "test")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        load(str(tmp_path / "none.bin"), "test")
    with pytest.raises(UserError, match="test: nothing stands 61 times in the text"):
        train(LINES, **SETTINGS | {"least": 61})
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    for call in (lambda: train(LINES, **SETTINGS), lambda: load(str(tmp_path / "a.vec"), "test")):
        with pytest.raises(UserError, match=r"needs? gensim; pip install 'lect\[languages\]'"):
            call()


def test_a_long_sentence_is_read_to_its_end():
    made = train([["a", "b"] * 20_000 + ["late"] * 5], **SETTINGS | {"epochs": 1})
    assert made.keyed.get_vecattr("late", "count") == 5
    assert word_vectors.LONGEST < 10_000
