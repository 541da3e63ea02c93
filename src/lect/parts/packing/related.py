# SPDX-License-Identifier: Apache-2.0
"""Documents on like matters behind one another, along a walk through the graph of nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from lect.errors import UserError
from lect.method import Range, knobs
from lect.parts.packing.kind import Chunks, Frame, Sequence, in_turn

CARD = {
    "title": "In-context pretraining",
    "paper": "arXiv:2310.10638",
    "claim": "every document once, its nearest neighbours in the same sequence, so that what precedes it is related",
    "differs": [
        "documents are compared by TF-IDF of the tokens, reduced by a truncated SVD, where the paper has Contriever's"
        " vectors: nothing is downloaded and any language will do, but only shared words make documents alike",
        "neighbours are searched in an HNSW graph (arXiv:1603.09320); the authors search an inverted file with product"
        " quantisation (faiss)",
        "the walk starts at the document with the fewest edges, as the paper says; the authors' code starts anywhere,"
        " ends a walk after 21 documents and then spreads what shorter walks hold over others",
        "only the paper's abstract and summaries of it could be read: that an edge counts in both directions, and that"
        " edges to used documents still count where a walk starts, is a choice",
        "nothing is dropped: the authors leave out documents that begin as the one before, which is"
        " corpus/near_duplicates' business",
        "sequences are shuffled, so that neighbouring ones rarely share a batch, as the authors advise without code;"
        " chance picks between documents of equally few edges, so that epochs differ",
    ],
    "version": 1,
    "off": None,
    "needs": ["lect[neighbours]"],
    "xfail": {},
}

SPARE, PASSES = 10, 5  # of the randomised SVD (arXiv:0909.4061): dimensions that are thrown away, power iterations


@dataclass(frozen=True)
class Graph:
    """The neighbours of document n: ``near[starts[n]:starts[n + 1]]``, the most alike first."""

    starts: NDArray[np.int64]
    near: NDArray[np.int64]

    @classmethod
    def of(cls, near_nk: NDArray[np.int64], alike_nk: NDArray[np.float32]) -> Graph:
        """Edges in both directions from lists of neighbours, in which -1 is none."""
        one, place = np.nonzero(near_nk >= 0)
        other, alike = near_nk[one, place], alike_nk[one, place]
        _, first = np.unique(np.minimum(one, other) * len(near_nk) + np.maximum(one, other), return_index=True)
        one, other, alike = one[first], other[first], alike[first]
        ends, others, both = np.append(one, other), np.append(other, one), np.append(alike, alike)
        order = np.lexsort((others, -both, ends))
        return cls(np.searchsorted(ends[order], np.arange(len(near_nk) + 1)), others[order])


@knobs
class Related(Chunks):
    """Sequences in which each document is followed by its nearest unused neighbour."""

    isolate: bool = False
    """Whether documents laid together are sequences of their own, which then only share batches; the paper: false."""
    neighbours: Annotated[int, Range(at_least=1, at_most=64)] = 9
    """How many nearest documents each one is joined to; the authors' code looks at nine."""
    width: Annotated[int, Range(at_least=2, at_most=4096)] = 256
    """Length of the vectors that documents are compared by."""

    def study(self, ids: NDArray[np.int32], starts: NDArray[np.int64]) -> Graph:
        """The graph of the documents (sec. 2.1)."""
        return Graph.of(*nearest(vectors(ids, starts, self.width), self.neighbours))

    def order(self, documents: int, known: Any, rng: np.random.Generator) -> NDArray[np.int64]:
        """The walk of algorithm 1, with chance between documents of equally few edges."""
        drawn = rng.permutation(documents)
        return walk(known, drawn[np.argsort(np.diff(known.starts)[drawn], kind="stable")])

    def pack(self, sizes: NDArray[np.int64], frame: Frame, rng: np.random.Generator) -> list[list[Sequence]]:
        """Full sequences in the order of chance; isolated documents share batches along the walk."""
        batches = super().pack(sizes, frame, rng)
        if self.isolate:
            return [batches[n] for n in rng.permutation(len(batches))]
        sequences = [sequence for batch in batches for sequence in batch]
        places = np.array([frame.joined(sizes[list(sequence)]) for sequence in sequences], dtype=np.int64)
        order = rng.permutation(len(sequences))
        return [[sequences[order[n]] for n in row] for row in in_turn(places[order], frame.room)]


def walk(graph: Graph, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every document once: from the next unused one of ``first``, always on to the most alike unused neighbour."""
    used, path = [False] * len(first), list[int]()
    starts, near = graph.starts.tolist(), graph.near.tolist()
    for document in first.tolist():
        while document is not None and not used[document]:
            used[document] = True
            path.append(document)
            others = near[starts[document] : starts[document + 1]]
            document = next((other for other in others if not used[other]), None)
    return np.array(path, dtype=np.int64)


def vectors(ids: NDArray[np.int32], starts: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    """One vector of length 1 for each document (0 where it has no token): TF-IDF of its tokens, then a truncated SVD.

    A token's weight is (1 + ln count) · ln((1 + N) / (1 + documents that have it)). The same text always gets the same
    vectors on the same machine with as many threads.
    """
    import torch

    documents = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    kinds, tokens = np.unique(ids, return_inverse=True)
    cells, counts = np.unique(documents * len(kinds) + tokens, return_counts=True)
    row, column = np.divmod(cells, max(1, len(kinds)))
    rarity = np.log(len(starts) / (1 + np.bincount(column, minlength=len(kinds))))
    weight = (1 + np.log(counts)) * rarity[column]
    size = (len(starts) - 1, len(kinds))
    found = np.zeros((size[0], 1), dtype=np.float32)
    if rank := min(width + SPARE, *size):
        cells_2e, weight_e = torch.from_numpy(np.stack([row, column])), torch.from_numpy(weight).float()
        table_nv = torch.sparse_coo_tensor(cells_2e, weight_e, size, check_invariants=True).coalesce()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u_nd, s_d, _ = torch.svd_lowrank(table_nv, q=rank, niter=PASSES)
        found = (u_nd * s_d)[:, :width].numpy().astype(np.float32)
    length_n1 = np.linalg.norm(found, axis=1, keepdims=True)
    unit_nd: NDArray[np.float32] = found / np.maximum(length_n1, 1e-6)
    return unit_nd


def nearest(vectors_nd: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each vector the ``count`` others with the greatest products, and these; -1 where there are fewer.

    The index is filled by one thread, so that it is the same each time.
    """
    try:
        from usearch.index import Index
    except ImportError:
        raise UserError("packing related needs the package usearch: pip install 'lect[neighbours]'") from None
    number, width = vectors_nd.shape
    near_nk, alike_nk = np.full((number, count), -1, dtype=np.int64), np.zeros((number, count), dtype=np.float32)
    if number < 2:
        return near_nk, alike_nk
    index = Index(ndim=width, metric="ip", dtype="f32")
    index.add(np.arange(number), vectors_nd, threads=1)
    found = index.search(vectors_nd, count + 1)
    for n in range(number):
        others = [(int(k), d) for k, d in zip(found.keys[n], found.distances[n], strict=True)][: found.counts[n]]
        others = [(k, d) for k, d in others if k != n][:count]
        near_nk[n, : len(others)] = [k for k, _ in others]
        alike_nk[n, : len(others)] = [1 - d for _, d in others]
    return near_nk, alike_nk
