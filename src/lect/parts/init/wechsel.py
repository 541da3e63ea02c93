# SPDX-License-Identifier: Apache-2.0
"""A new token starts as a mix of old tokens that are near it in word vectors of both languages, laid on each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lect.errors import UserError
from lect.method import Range, knobs
from lect.ops.word_vectors import Vectors, alignment, load, nearest, normal, sentences, train
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "WECHSEL: neighbours in aligned word vectors",
    "paper": "arXiv:2112.06598",
    "claim": "each new row is the mean of the rows of its k nearest old tokens, weighted by softmax(cosine / "
    "temperature), in static vectors of both languages brought together by an orthogonal map",
    "differs": [
        "published fastText vectors are taken where knobs name them; else both sides are trained here, the old side "
        "on the kept text, with the settings of the authors' code (n-grams of 5 characters); a user's text is far "
        "smaller than what the paper's vectors come from",
        "without a dictionary the two sides are aligned through the words that both texts hold in the same spelling: "
        "names, numbers and loanwords, a weak bond where the languages are unlike; fewer pairs than dimensions, which "
        "leave the map undetermined, are refused",
        "a string outside the words gets the mean of those of its n-grams that training saw; fastText also counts "
        "n-grams that were never trained",
        "old tokens without a vector, control tokens and parts of characters are nobody's neighbours; in the authors' "
        "code a token without a vector is a neighbour of cosine 0",
        "words are stretches of letters: a script without spaces between words has too few of them to learn from",
    ],
    "version": 1,
    "off": None,
    "needs": ["lect[languages]"],
    "xfail": {},
}
WHO = "init/wechsel"


@knobs
class Wechsel(Init):
    """New rows that are mixes of the old tokens of like meaning, found across languages.

    Vectors of words: ``target_vectors`` and ``source_vectors``, or trained on the target and on the kept text. The
    source side is turned onto the target side with the pairs of ``dictionary``, or with the words they share. A token
    has the vector of its text without spaces. A new token without one is drawn with the mean and deviation of each
    dimension of the old table. Raises UserError without kept text or ``source_vectors``, or with too few pairs.
    """

    dictionary: str | None = None
    """Bilingual dictionary, in either direction: lines of word, tab, translation; or a dictd dictionary (FreeDict)."""
    target_vectors: str | None = None
    """fastText .bin file with vectors of the target language; null trains them on the target text."""
    source_vectors: str | None = None
    """fastText .bin file with vectors of the language that the model knows; null trains them on the kept text."""
    neighbours: Annotated[int, Range(at_least=1, at_most=10_000)] = 10
    """How many old tokens are mixed."""
    temperature: Annotated[float, Range(above=0, at_most=100)] = 0.1
    """What cosines are divided by before the softmax; small values leave the nearest token alone."""
    vector_dim: Annotated[int, Range(at_least=1, at_most=10_000)] = 100
    """Dimensions of the vectors, where they are trained."""
    epochs: Annotated[int, Range(at_least=1, at_most=1000)] = 20
    """Passes over the text when they are trained."""
    least: Annotated[int, Range(at_least=1, at_most=1_000_000)] = 5
    """Fewest times that a word must stand in the text to get a vector of its own."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is sum_j softmax_j(cos(u_n, u_j) / temperature) E[j] over the nearest old tokens j (section 3)."""
        target = self.vectors(self.target_vectors, new.texts, new.seed, "target text")
        source = self.vectors(self.source_vectors, new.kept_texts, new.seed, "kept text")
        control = {int(token["id"]) for token in new.old.added if token.get("special")}
        known = {i: token for i, token in sorted(new.old.strings.items()) if i < len(table_vd) and i not in control}
        ids, source_we = tokens({i: new.old.surface(token) for i, token in known.items()}, source)
        fresh, target_me = tokens(dict(enumerate(new.surfaces)), target)
        rows_md = normal(table_vd, len(new.ids), new.generator())
        if ids and fresh:
            onto_ee = alignment(source, target, self.dictionary, WHO)
            best_mk, weight_mk = nearest(target_me, source_we @ onto_ee, self.neighbours, self.temperature)
            old_mkd = table_vd[torch.tensor(ids)[torch.from_numpy(best_mk)]]
            rows_md[fresh] = (torch.from_numpy(weight_mk)[:, :, None] * old_mkd).sum(1)
        return rows_md

    def vectors(self, path: str | None, texts: Sequence[str], seed: int, what: str) -> Vectors:
        """The vectors of one side."""
        if path is not None:
            return load(path, WHO)
        if not texts:
            raise UserError(f"{WHO}: there is no {what} to train vectors on; give some, or name a file of vectors")
        settings = {"size": self.vector_dim, "epochs": self.epochs, "least": self.least, "seed": seed}
        return train(sentences(texts), grams=(5, 5), who=f"{WHO}: {what}", **settings)


def tokens(texts: dict[int, str], vectors: Vectors) -> tuple[list[int], NDArray[np.float32]]:
    """Those keys whose text, without spaces around it and without broken characters, has a vector; and the vectors."""
    found = {
        key: vector
        for key, text in texts.items()
        if "\ufffd" not in text and (vector := vectors.of(text.strip())) is not None
    }
    return list(found), np.stack([*found.values()]) if found else vectors.table[:0]
