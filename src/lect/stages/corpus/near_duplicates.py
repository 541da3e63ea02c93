# SPDX-License-Identifier: Apache-2.0
"""Keep one of texts that are nearly the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import numpy.typing as npt

from lect.artefacts import Corpus
from lect.method import Range, Run, knobs
from lect.ops.documents import Hashes, jaccard, shingles
from lect.stages.corpus.kinds import CorpusFilter, Verdict

CARD = {
    "title": "Near-duplicate removal by MinHash and locality-sensitive hashing",
    "paper": "arXiv:2107.06499",
    "claim": "No two texts that are left in a role share the threshold or more of their shingles.",
    "differs": ["a pair is dropped by its true Jaccard index, not by the estimate of section 4.2"],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}

HASHES = 128
MISSED = 1e-3
BATCH = 512


def bands(threshold: float, hashes: int = HASHES) -> tuple[int, int]:
    """Number of bands and rows in each: the most rows at which a pair at the threshold is missed once in 1000.

    A pair of Jaccard index s shares a band with chance 1 - (1 - s**rows)**bands (Leskovec, Rajaraman, Ullman,
    Mining of Massive Datasets, section 3.4).
    """
    fitting = [r for r in range(1, hashes + 1) if (1 - threshold**r) ** (hashes // r) <= MISSED]
    rows = max(fitting, default=1)
    return hashes // rows, rows


def signatures(sets: list[Hashes], seed: int) -> npt.NDArray[np.uint32]:
    """MinHash signatures, one row of ``HASHES`` numbers for each set of shingles."""
    from rensa import RMinHash

    offsets = np.cumsum([0, *map(len, sets)], dtype=np.uint64)
    flat = np.concatenate(sets) if sets else np.zeros(0, np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, HASHES, seed)
    return np.asarray(matrix.to_rows(), dtype=np.uint32).reshape(len(sets), HASHES)


def band_keys(rows_dh: npt.NDArray[np.uint32], threshold: float) -> npt.NDArray[np.uint64]:
    """One number for each band of each signature; documents x bands."""
    count, width = bands(threshold)
    keys = np.zeros((len(rows_dh), count), dtype=np.uint64)
    parts = rows_dh[:, : count * width].reshape(len(rows_dh), count, width).astype(np.uint64)
    for i in range(width):
        keys = (keys ^ parts[:, :, i]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(31)
    return keys


@knobs
class NearDuplicates(CorpusFilter):
    """One of every group of texts that share most of their words in the same order, the longest.

    Shingles are runs of units: words, or characters in scripts without spaces (``lect.ops.documents``). MinHash and
    banding propose pairs, the true Jaccard index of their shingles decides. Documents are taken from the longest to
    the shortest, ties by id, so that the order of the corpus does not matter; one is dropped only for another that
    stays. Roles are separate, but a kept text near a target text is dropped too, so that no test text of the
    target is trained on by that way. Lee et al. 2021 (arXiv:2107.06499), section 4.2. Memory: 512 bytes a document,
    and the shingles of those documents that share a band.
    """

    threshold: Annotated[float, Range(above=0, at_most=1)] = 0.8
    """Jaccard index of shingles from which two texts count as the same (section 4.2)."""
    shingle: Annotated[int, Range(at_least=1, at_most=50)] = 5
    """Units in a shingle (section 4.2)."""

    def verdicts(self, run: Run, corpus: Corpus) -> Iterator[Verdict]:
        """Drop ``near_duplicate`` and ``near_duplicate_of_target``."""
        keys_db, order = self._keys(run, corpus)
        shared = np.zeros(len(keys_db), dtype=bool)
        for band in keys_db.T:
            _, inverse, count = np.unique(band, return_inverse=True, return_counts=True)
            shared |= count[inverse] > 1
        sets = {i: shingles(d.text, self.shingle) for i, d in enumerate(corpus.documents()) if shared[i]}
        reasons = self.repeats(keys_db, [i for i in order if shared[i]], sets, self._roles(corpus, shared))
        for place, document in enumerate(corpus.documents()):
            yield document, reasons.get(place)

    def repeats(
        self, keys_db: npt.NDArray[np.uint64], order: list[int], sets: dict[int, Hashes], roles: dict[int, str]
    ) -> dict[int, str]:
        """The places that are dropped, with the reason; greedy in ``order``, target first."""
        buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        reasons: dict[int, str] = {}
        for place in sorted(order, key=lambda i: roles[i] != "target"):
            near = {other for band in enumerate(keys_db[place].tolist()) for other in buckets[band]}
            for other in sorted(near):
                if roles[other] in ("target", roles[place]) and self._same(sets[place], sets[other]):
                    reasons[place] = "near_duplicate" + "_of_target" * (roles[other] != roles[place])
                    break
            else:
                for band in enumerate(keys_db[place].tolist()):
                    buckets[band].append(place)
        return reasons

    def _same(self, a: Hashes, b: Hashes) -> bool:
        small, large = sorted((len(a), len(b)))
        return small >= self.threshold * large and jaccard(a, b) >= self.threshold

    def _keys(self, run: Run, corpus: Corpus) -> tuple[npt.NDArray[np.uint64], list[int]]:
        """The band keys of all documents, and their places from the longest to the shortest."""
        parts: list[npt.NDArray[np.uint64]] = []
        sets: list[Hashes] = []
        ranks: list[tuple[int, str, int]] = []
        empty = 0
        for place, document in enumerate(corpus.documents()):
            found = shingles(document.text, self.shingle)
            if not len(found):  # no letters: near nothing, and not equal to the next such text either
                empty += 1
                found = np.array([np.uint64(2**64 - 1 - empty)], dtype=np.uint64)
            sets.append(found)
            ranks.append((-len(document.text), document.id, place))
            if len(sets) == BATCH:
                parts.append(band_keys(signatures(sets, run.seed), self.threshold))
                sets = []
        if sets:
            parts.append(band_keys(signatures(sets, run.seed), self.threshold))
        keys_db = np.concatenate(parts) if parts else np.zeros((0, bands(self.threshold)[0]), np.uint64)
        return keys_db, [place for _, _, place in sorted(ranks)]

    def _roles(self, corpus: Corpus, shared: npt.NDArray[np.bool_]) -> dict[int, str]:
        return {i: d.role for i, d in enumerate(corpus.documents()) if shared[i]}
