# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lect.engine.data import Encoded, Ends, Stream
from lect.errors import UserError
from lect.parts.packing.concat import Concat
from lect.parts.packing.kind import Packing
from lect.parts.packing.related import Graph, Related, nearest, vectors, walk
from packed_text import FAMILIES, check_epochs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", [Related(), Related(isolate=True, neighbours=2)])
@settings(max_examples=6, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=10))
def test_every_token_once_through_the_engine(part: Related, family: str, texts: list[str]) -> None:
    check_epochs(part, family, texts, room=48, longest=24)


def graph(edges: dict[tuple[int, int], float], documents: int) -> Graph:
    """The graph of these edges and how alike their ends are, each given from one side alone."""
    lists: list[list[tuple[int, float]]] = [[] for _ in range(documents)]
    for (one, other), alike in edges.items():
        lists[one].append((other, alike))
    longest = max(1, *map(len, lists))
    near = [[*(n for n, _ in own), *[-1] * (longest - len(own))] for own in lists]
    alike_nk = [[*(a for _, a in own), *[0.0] * (longest - len(own))] for own in lists]
    return Graph.of(np.array(near, dtype=np.int64), np.array(alike_nk, dtype=np.float32))


def test_walks_a_graph_made_by_hand_as_algorithm_1_says() -> None:
    """5 has no edge, 0 and 4 have one, 1 and 3 two, 2 three. From 0 over 1 and 3 to 4, since 3 is more alike than 2."""
    made = graph({(0, 1): 0.9, (1, 2): 0.3, (3, 1): 0.8, (2, 3): 0.7, (4, 2): 0.6}, 6)
    edges = [made.near[low:high].tolist() for low, high in pairwise(made.starts)]
    assert edges == [[1], [0, 3, 2], [3, 4, 1], [1, 2], [2], []]
    degree = np.diff(made.starts)
    assert walk(made, np.argsort(degree, kind="stable")).tolist() == [5, 0, 1, 3, 2, 4]
    assert walk(made, np.array([5, 4, 0, 3, 1, 2])).tolist() == [5, 4, 2, 3, 1, 0]
    for seed in range(20):
        order = Related().order(6, made, np.random.default_rng(seed)).tolist()
        assert order in ([5, 0, 1, 3, 2, 4], [5, 4, 2, 3, 1, 0]), "chance decides between 0 and 4 alone"


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 1000))
def test_the_walk_is_that_of_a_plain_loop_over_sets(documents: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.permutation(documents * documents).reshape(documents, documents).astype(np.float32)
    table += table.T + np.arange(documents) / 1000 + np.arange(documents)[:, None] / 1000
    np.fill_diagonal(table, -1)
    near = np.argsort(-table, axis=1)[:, : min(count, documents - 1)]
    found = Graph.of(near, np.take_along_axis(table, near, 1))
    around = {n: {o for o in range(documents) if o in near[n] or n in near[o]} for n in range(documents)}
    left, wanted = set(range(documents)), list[int]()
    ranks = rng.permutation(documents)
    while left:
        here = min(left, key=lambda n: (len(around[n]), ranks[n]))
        while True:
            wanted.append(here)
            left.remove(here)
            if not around[here] & left:
                break
            here = max(around[here] & left, key=lambda o: table[here, o])
    assert walk(found, np.lexsort((ranks, np.diff(found.starts)))).tolist() == wanted


def topical(seed: int, documents: int = 400, topics: int = 20) -> tuple[Encoded, NDArray[np.int64]]:
    """Documents of which half the tokens are their topic's, in the order of chance, and their topics."""
    rng = np.random.default_rng(seed)
    words = rng.dirichlet(np.full(600, 0.05), topics)
    topic = rng.integers(0, topics, documents)
    texts = [rng.choice(600, rng.integers(20, 80), p=words[t] / 2 + 0.5 / 600).astype(np.int32) for t in topic]
    starts = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    sizes = np.diff(starts)
    return Encoded(np.concatenate(texts), starts, sizes, [str(n) for n in range(documents)]), topic


def test_vectors_are_a_truncated_svd_of_tf_idf() -> None:
    """Against a plain loop over documents and words, and the whole decomposition."""
    text, _ = topical(0, documents=60)
    documents = [text.ids[a:b].tolist() for a, b in pairwise(text.starts)]
    spread = Counter(word for document in documents for word in set(document))
    plain = np.zeros((60, 600))
    for n, document in enumerate(documents):
        for word, count in Counter(document).items():
            plain[n, word] = (1 + np.log(count)) * np.log(61 / (1 + spread[word]))
    left, scale, _ = np.linalg.svd(plain, full_matrices=False)
    for width, error in ((60, 1e-3), (12, 0.2)):
        short = left[:, :width] * scale[:width]
        short /= np.linalg.norm(short, axis=1, keepdims=True)
        found = vectors(text.ids, text.starts, width)
        assert found.shape == (60, width)
        assert np.abs(found @ found.T - short @ short.T).mean() < error
    assert np.corrcoef((found @ found.T).ravel(), (short @ short.T).ravel())[0, 1] > 0.9


def test_neighbours_are_those_of_an_exact_search() -> None:
    for seed in range(3):
        text, _ = topical(seed, documents=1500, topics=60)
        found = vectors(text.ids, text.starts, 32)
        near, alike = nearest(found, 9)
        products = found @ found.T - 2 * np.eye(1500, dtype=np.float32)
        exact = np.argsort(-products, axis=1, kind="stable")[:, :9]
        recall = np.mean([len({*a} & {*b}) / 9 for a, b in zip(near, exact, strict=True)])
        assert recall > 0.97
        np.testing.assert_allclose(alike, np.take_along_axis(products, near, 1), atol=1e-4)
        assert (np.diff(alike, axis=1) <= 1e-6).all(), "the most alike first"


def together(packing: Packing, text: Encoded, topic: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Of the documents next to each other in a sequence: how many share their topic, how many of their tokens."""
    stream = Stream(text, packing, Ends((1,), (2,)), longest=512, room=1024, seed=seed, device="cpu")
    pieces, batches = stream.epoch(0)
    assert {int(d) for d in pieces[:, 0]} == set(range(len(topic)))
    pairs = [
        (int(pieces[a, 0]), int(pieces[b, 0])) for batch in batches for sequence in batch for a, b in pairwise(sequence)
    ]
    sets = [{*text.ids[a:b].tolist()} for a, b in pairwise(text.starts)]
    shared = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs]
    return float(np.mean([topic[a] == topic[b] for a, b in pairs])), float(np.mean(shared))


def test_documents_in_a_sequence_are_related_where_chance_would_not_put_them_together() -> None:
    for seed in range(5):
        text, topic = topical(seed)
        topics, tokens = together(Related(), text, topic, seed)
        random_topics, random_tokens = together(Concat(isolate=False), text, topic, seed)
        assert topics > 0.6 > 0.15 > random_topics
        assert tokens > 1.5 * random_tokens


def test_the_same_text_is_always_walked_alike_and_no_chance_leaks() -> None:
    text, _ = topical(0, documents=200)
    before = torch.random.get_rng_state()
    one, other = (Related().study(text.ids, text.starts) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.near.tolist() == other.near.tolist()
    streams = [
        Stream(text, Related(), Ends((1,), (2,)), longest=256, room=512, seed=seed, device="cpu") for seed in (1, 1, 2)
    ]
    first, same, seeded = ([s.batch(n).documents for n in range(6)] for s in streams)
    assert first == same != seeded
    assert streams[0].epoch(0)[1] != streams[0].epoch(1)[1], "another walk, in another order"


def test_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    text, _ = topical(0, documents=10)
    with pytest.raises(UserError, match=r"pip install 'lect\[neighbours\]'"):
        Related().study(text.ids, text.starts)
