# SPDX-License-Identifier: Apache-2.0
"""Static vectors of words or tokens: trained on the user's text, or read from a file; nothing is downloaded.

Training is continuous bag of words with negative samples (Mikolov et al., arXiv:1301.3781 and arXiv:1310.4546), with
character n-grams as fastText has them (Bojanowski et al., arXiv:1607.04606) or without, in gensim, on one thread:
the same sentences and seed give the same vectors, whatever ``PYTHONHASHSEED`` is.

Shapes: w words, d dimensions of a vector, p pairs, m queries, k neighbours.
"""

from __future__ import annotations

import re
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lect.errors import UserError
from lect.ops.dictionary import read, turned

if TYPE_CHECKING:
    import torch

__all__ = ["Vectors", "alignment", "load", "nearest", "normal", "rotation", "sentences", "train", "unit", "word"]

Floats = NDArray[np.float32]
NEGATIVE = 10
RATE = 0.05
LONGEST = 1000  # gensim drops what goes beyond 10,000 words of a sentence
BUCKETS = 2_000_000
BATCH = 256


@dataclass(frozen=True)
class Vectors:
    """The vectors of words, and those that character n-grams give to other strings."""

    keyed: Any
    """gensim's keyed vectors."""

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each word; the most frequent word comes first."""
        return dict(self.keyed.key_to_index)

    @cached_property
    def table(self) -> Floats:
        """The vectors of the words, (w, d)."""
        return np.asarray(self.keyed.vectors, dtype=np.float32)

    def of(self, text: str) -> Floats | None:
        """The vector of a word, else the mean of those n-grams of ``text`` that training saw, else None."""
        if (row := self.rows.get(text)) is not None:
            vector: Floats = self.table[row]
            return vector
        if not text or not self._seen:
            return None
        from gensim.models.fasttext import ft_ngram_hashes

        keyed = self.keyed
        grams = [n for n in ft_ngram_hashes(text, keyed.min_n, keyed.max_n, keyed.bucket) if int(n) in self._seen]
        return np.asarray(keyed.vectors_ngrams[grams].mean(0), dtype=np.float32) if grams else None

    @cached_property
    def _seen(self) -> set[int]:
        """The n-grams of the words; all others were never trained and hold noise."""
        buckets = getattr(self.keyed, "buckets_word", None) or ()
        return {int(n) for word in buckets for n in word}


@cache
def word() -> re.Pattern[str]:
    """What a word is: a stretch of letters, digits and marks."""
    marks = "".join(re.escape(c) for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "M")
    return re.compile(rf"(?:[^\W_]|[{marks}\u200c\u200d])+")


def sentences(texts: Sequence[str]) -> list[list[str]]:
    """The words of each line of the texts: stretches of letters, digits and marks, in their own case.

    A script that puts no space between words gives stretches as long as its sentences or clauses.
    """
    return [words for text in texts for line in text.splitlines() if (words := word().findall(line))]


def train(
    lines: Sequence[Sequence[str]],
    *,
    size: int,
    epochs: int,
    least: int,
    seed: int,
    grams: tuple[int, int] | None = (3, 6),
    who: str,
) -> Vectors:
    """Vectors of ``size`` dimensions of all words that stand ``least`` times in ``lines``.

    ``grams`` is the shortest and the longest character n-gram, the marks of the word's ends counted; None trains
    whole words only (word2vec). Raises UserError, beginning with ``who``, where gensim is missing or no word is
    frequent enough.
    """
    try:
        from gensim.models import FastText, Word2Vec
    except ImportError as error:
        raise _missing(who) from error
    counts = Counter(word for line in lines for word in line)
    kept = {word: count for word, count in counts.most_common() if count >= least}  # equals: as they stand in the text
    if not kept:
        raise UserError(f"{who}: nothing stands {least} times in the text; lower least, or give more text")
    settings: dict[str, Any] = {"vector_size": size, "min_count": least, "sg": 0, "negative": NEGATIVE, "alpha": RATE}
    settings |= {"seed": seed, "workers": 1, "hashfxn": _hash, "sorted_vocab": 0}
    if grams is None:
        model = Word2Vec(**settings)
    else:
        shortest, longest = grams
        number = sum(max(0, len(word) + 3 - n) for word in kept for n in range(shortest, longest + 1))
        model = FastText(**settings, min_n=shortest, max_n=longest, bucket=min(BUCKETS, max(1024, 4 * number)))
    short = [list(line[n : n + LONGEST]) for line in lines for n in range(0, len(line), LONGEST)]
    model.build_vocab_from_freq(kept, corpus_count=len(short))
    model.train(short, total_examples=len(short), epochs=epochs)
    return Vectors(model.wv)


def _hash(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def _missing(who: str) -> UserError:
    return UserError(f"{who}: word vectors need gensim; pip install 'lect[languages]'")


def load(path: str, who: str) -> Vectors:
    """The vectors of a file: fastText's own ``.bin``, else word2vec's text format (fastText's ``.vec``).

    Raises UserError, beginning with ``who``, where gensim is missing or the file cannot be read.
    """
    try:
        from gensim.models import KeyedVectors
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError as error:
        raise _missing(who) from error
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{who}: word vectors {path}: no such file")
    try:
        if file.suffix == ".bin":
            return Vectors(load_facebook_vectors(str(file)))
        return Vectors(KeyedVectors.load_word2vec_format(str(file), binary=False))
    except Exception as error:  # gensim raises whatever a broken file leads it to
        what = " ".join(str(error).split())[:100]
        raise UserError(
            f"{who}: word vectors {path}: neither fastText's .bin nor word2vec's text format ({what})"
        ) from error


def rotation(from_pd: Floats, onto_pd: Floats) -> Floats:
    """The orthogonal (d, d) matrix R for which ``from_pd @ R`` lies nearest to ``onto_pd`` in least squares.

    Schoenemann, "A generalized solution of the orthogonal Procrustes problem" (1966): with U S V' the singular value
    decomposition of A'B, R = U V'.
    """
    left, _, right = np.linalg.svd(from_pd.astype(np.float64).T @ onto_pd.astype(np.float64))
    return np.asarray(left @ right, dtype=np.float32)


def alignment(source: Vectors, target: Vectors, dictionary: str | None, who: str) -> Floats:
    """The orthogonal map (d, d) of source onto target vectors, in least squares over pairs of words.

    The pairs are those of the dictionary file, in either direction, each word also in lower case and with a capital;
    without a file, the words of both sides in the same spelling. Fewer pairs than dimensions leave the map free to
    turn: UserError, beginning with ``who``, as for vectors of unequal length.
    """
    sizes = source.table.shape[1], target.table.shape[1]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{who}: source vectors have {sizes[0]} dimensions and target vectors {sizes[1]}; set vector_dim, or give "
            "vectors of equal length"
        )
    if dictionary is None:
        pairs = [(word, word) for word in target.rows if word in source.rows]
        what = "words that both texts hold; name a dictionary"
    else:
        listed = turned(read(dictionary, who), target.rows, source.rows)
        pairs = [(a, b) for one, two in listed for a in _cases(one) for b in _cases(two)]
        pairs = [(a, b) for a, b in pairs if a in target.rows and b in source.rows]
        what = f"pairs of dictionary {dictionary} whose words have vectors; lower least, give another"
    if (number := len(set(pairs))) < sizes[0]:
        raise UserError(
            f"{who}: there are {number} {what}, or lower vector_dim: {sizes[0]} dimensions take as many pairs"
        )
    ids = np.array([(source.rows[b], target.rows[a]) for a, b in pairs])
    return rotation(source.table[ids[:, 0]], target.table[ids[:, 1]])


def _cases(word: str) -> tuple[str, str, str]:
    return word, word.lower(), word.title()


def unit(rows: Floats) -> Floats:
    """The rows, each of length 1; a row of zeros stays."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-8), dtype=np.float32)


def nearest(
    query_md: Floats, known_wd: Floats, count: int, temperature: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each query the k = min(count, w) known rows of highest cosine, and softmax(cosine / temperature) over them.

    Both are (m, k), the nearest first. Cosines are rounded to six decimals; of equals the lower row comes first.
    """
    query_md, known_wd = unit(query_md), unit(known_wd)
    k = min(count, len(known_wd))
    rows_mk, value_mk = np.empty((len(query_md), k), np.int64), np.empty((len(query_md), k), np.float32)
    for start in range(0, len(query_md), BATCH):
        cosine_bw = (query_md[start : start + BATCH] @ known_wd.T).round(6)
        least_b = np.partition(cosine_bw, -k, axis=1)[:, -k]
        for n, (cosine_w, least) in enumerate(zip(cosine_bw, least_b, strict=True), start):
            near = np.flatnonzero(cosine_w >= least)
            rows_mk[n] = near[np.argsort(-cosine_w[near], kind="stable")[:k]]
            value_mk[n] = cosine_w[rows_mk[n]]
    power_mk = np.exp((value_mk - value_mk[:, :1]) / temperature)
    return rows_mk, power_mk / power_mk.sum(1, keepdims=True)


def normal(table_vd: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """``count`` rows drawn with the mean and the standard deviation that each dimension has in the table."""
    noise = table_vd.new_empty((count, table_vd.shape[1])).normal_(generator=generator)
    return table_vd.mean(0) + table_vd.std(0, correction=0) * noise
