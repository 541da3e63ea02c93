# SPDX-License-Identifier: Apache-2.0
"""A new token starts as a mix of old tokens that are parts of words of like meaning, in a table of lower rank."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lect.errors import UserError
from lect.method import Range, knobs
from lect.ops.text import encode
from lect.ops.tokenizer import Vocabulary
from lect.ops.word_vectors import alignment, load, nearest, normal, sentences, train
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "OFA: factorised rows from multilingual word vectors",
    "paper": "arXiv:2311.08849",
    "claim": "with the table factorised as E = F P, new coordinates are means of those of the k nearest old tokens by "
    "softmax(cosine / temperature), where a token's vector is the mean over the words that it is part of",
    "differs": [
        "the paper keeps the two factors F and P as the embedding of the model, which makes it smaller; a plain "
        "checkpoint holds one table, so new rows are multiplied back to full width, and old rows stay as they are",
        "the paper's word vectors come from a graph of colexifications in many languages; here they are read from a "
        "file, or trained on the target and the kept text and aligned by a dictionary or by the words that both hold",
        "old tokens that are part of no word are nobody's neighbours; in the authors' code they are neighbours of "
        "cosine 0",
        "the factors come from the eigenvectors of E'E, which gives the same F P as the singular value decomposition",
    ],
    "version": 1,
    "off": None,
    "needs": ["lect[languages]"],
    "xfail": {},
}
WHO = "init/ofa"
ROWS = 65_536


@knobs
class Ofa(Init):
    """New rows that are mixes of old tokens which stand in words of like meaning, in any of the languages at hand.

    A new token that is an old one but for capitals gets its row. One that is part of no known word is drawn with the
    mean and deviation of each coordinate. Raises UserError where word vectors can neither be read nor be trained and
    aligned.
    """

    dim: Annotated[int | None, Range(at_least=1, at_most=1_000_000)] = None
    """Width of the factorised table (the paper has 100, 200, 400); null does not factorise."""
    vectors: str | None = None
    """File with word vectors of both languages in one space, word2vec text format; null trains and aligns them."""
    dictionary: str | None = None
    """Bilingual dictionary, in either direction: lines of word, tab, translation; or a dictd dictionary (FreeDict)."""
    neighbours: Annotated[int, Range(at_least=1, at_most=10_000)] = 10
    """How many old tokens are mixed."""
    temperature: Annotated[float, Range(above=0, at_most=100)] = 0.1
    """What cosines are divided by before the softmax; small values leave the nearest token alone."""
    vector_dim: Annotated[int, Range(at_least=1, at_most=10_000)] = 100
    """Dimensions of the word vectors, where they are trained."""
    epochs: Annotated[int, Range(at_least=1, at_most=1000)] = 20
    """Passes over the text when they are trained."""
    least: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 5
    """Fewest times that a word must stand in the text to get a vector."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is sum_j softmax_j(cos(u_n, u_j) / temperature) F[j] P over the nearest old tokens j (section 3)."""
        if self.dim is not None and self.dim > table_vd.shape[1]:
            raise UserError(f"{WHO}: dim is {self.dim}, but rows have {table_vd.shape[1]}; lower it, or set it to null")
        first_vk, second_kd = factors(table_vd, self.dim)
        words, vector_we = self.words(new)
        ids, old_oe = subwords(new.old_tokenizer, words, vector_we)
        ids, old_oe = ids[ids < len(table_vd)], old_oe[ids < len(table_vd)]
        every, new_te = subwords(new.new_tokenizer, words, vector_we)
        place = {int(n): at for at, n in enumerate(every)}
        fresh = [m for m, n in enumerate(new.ids) if n in place]
        rows_mk = normal(first_vk, len(new.ids), new.generator())
        if len(ids) and fresh:
            query_me = new_te[[place[new.ids[m]] for m in fresh]]
            best_mk, weight_mk = nearest(query_me, old_oe, self.neighbours, self.temperature)
            rows_mk[fresh] = (torch.from_numpy(weight_mk)[:, :, None] * first_vk[torch.from_numpy(ids[best_mk])]).sum(1)
        known = sorted(((i, token) for i, token in new.old.strings.items() if i < len(table_vd)), reverse=True)
        alike = {_plain(new.old, token): i for i, token in known}
        for m, n in enumerate(new.ids):
            if (text := _plain(new.new, new.new.strings[n])) in alike and "\ufffd" not in text and text.strip():
                rows_mk[m] = first_vk[alike[text]]
        return rows_mk @ second_kd

    def words(self, new: NewTokens) -> tuple[list[str], NDArray[np.float32]]:
        """The words of both languages, w of them, and their vectors in one space, (w, e)."""
        if self.vectors is not None:
            read = load(self.vectors, WHO)
            return [*read.rows], read.table
        settings: dict[str, Any] = {"size": self.vector_dim, "epochs": self.epochs, "least": self.least}
        sides = []
        for what, texts in (("kept text", new.kept_texts), ("target text", new.texts)):
            if not texts:
                raise UserError(f"{WHO}: there is no {what} to train vectors on; give some, or name a file of vectors")
            sides.append(train(sentences(texts), seed=new.seed, who=f"{WHO}: {what}", **settings))
        source, target = sides
        turned_we = source.table @ alignment(source, target, self.dictionary, WHO)
        return [*source.rows, *target.rows], np.concatenate([turned_we, target.table])


def factors(table_vd: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
    """F (v, k) with orthonormal columns and P (k, d), whose product is the table in its best rank ``dim``."""
    if dim is None or dim == table_vd.shape[1]:
        return table_vd, torch.eye(table_vd.shape[1])
    blocks = [table_vd[start : start + ROWS].double() for start in range(0, len(table_vd), ROWS)]
    value_d, vector_dd = torch.linalg.eigh(torch.stack([block.T @ block for block in blocks]).sum(0))
    size_k = value_d[-dim:].flip(0).clamp(min=1e-30).sqrt()
    axes_dk = vector_dd[:, -dim:].flip(1)
    first_vk = torch.cat([(block @ axes_dk / size_k).float() for block in blocks])
    return first_vk, (size_k[:, None] * axes_dk.T).float()


def subwords(
    tokenizer: Any, words: list[str], vector_we: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ids that words are segmented into, ascending, and for each the mean vector of its words.

    A word is segmented as it is, after a space, and with a capital after a space; it counts once for each.
    """
    pairs: list[NDArray[np.int64]] = []
    for texts in (words, [f" {word}" for word in words], [f" {word[:1].upper()}{word[1:]}" for word in words]):
        for n, ids in enumerate(encode(tokenizer, texts)):
            distinct = np.unique(np.asarray(ids, dtype=np.int64))
            pairs.append(np.stack([distinct, np.full_like(distinct, n)], axis=1))
    id_p, word_p = np.concatenate([np.empty((0, 2), np.int64), *pairs]).T
    ids_t, place_p, count_t = np.unique(id_p, return_inverse=True, return_counts=True)
    sum_te = np.zeros((len(ids_t), vector_we.shape[1]))
    np.add.at(sum_te, place_p, vector_we[word_p])
    return ids_t, np.asarray(sum_te / count_t[:, None], dtype=np.float32)


def _plain(vocabulary: Vocabulary, token: str) -> str:
    """The text of a token in lower case; the mark of a continuing piece stays."""
    return (token if vocabulary.prefix else vocabulary.surface(token)).lower()
