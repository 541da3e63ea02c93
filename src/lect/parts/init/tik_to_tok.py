# SPDX-License-Identifier: Apache-2.0
"""A new token starts as the old tokens of its translations, which a dictionary gives word by word."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict

import numpy as np
import torch
from torch import Tensor

from lect.errors import UserError
from lect.method import knobs
from lect.ops.dictionary import read, turned
from lect.ops.text import encode
from lect.ops.word_vectors import sentences
from lect.parts.init.kind import Init, NewTokens

CARD = {
    "title": "Tik-to-Tok: tokens translated through a dictionary",
    "paper": "arXiv:2310.03477",
    "claim": "each new row is the mean of the rows of the old tokens in the translations of its words, by how often "
    "the words stand in the text; half of a word pair goes to all pairs of its tokens, half to those in like places",
    "differs": [
        "the steps are those of the authors' published code, described in their later paper (arXiv:2408.04303, "
        "section 3); in the paper of 2023 tokens that are no whole word have the three nearest old tokens in bilingual "
        "fastText vectors, which the authors gave up for generative models; its own text could not be read",
        "the authors count word pairs in an aligned parallel corpus, and drop rare ones; here a dictionary lists them, "
        "and the occurrences of a word in the target text, one added, are shared evenly by its translations",
        "a pair stands for its words as they are, after a space, and with a capital after a space; in the corpus each "
        "form has counts of its own",
        "counts are real numbers, which the authors round down to 1 or more; a token without translations borrows from "
        "translated and kept tokens alone, and where there is none starts as the mean of its pieces: in the authors' "
        "code it borrows from tokens that borrowed themselves too, and else is the unknown token",
        "tokens that both vocabularies have count once with themselves, digits and punctuation like all others",
    ],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {},
}
WHO = "init/tik_to_tok"
Weights = dict[int, float]


@knobs
class TikToTok(Init):
    """New rows that are means of the old tokens of a translation, through a bilingual dictionary.

    A token of no listed word borrows the means of the tokens that begin with it, and of the longest ones inside it.
    Raises UserError without a dictionary, and with one of which no word stands in the target text.
    """

    dictionary: str | None = None
    """Bilingual dictionary, in either direction: lines of word, tab, translation; or a dictd dictionary (FreeDict)."""

    def rows(self, table_vd: Tensor, new: NewTokens) -> Tensor:
        """Row n is sum_i c_ni E[i] / sum_i c_ni over old tokens i, with the counts c of translations."""
        counts = self.counts(new, len(table_vd))
        kept = {n: i for n, i in enumerate(new.origin) if 0 <= i < len(table_vd)}
        special = {int(token["id"]) for token in new.new.added if token.get("special")}
        strings = new.new.strings
        spelled = {strings[n]: n for n in sorted({*counts, *kept} - special) if n in strings}
        order = sorted(spelled)

        def own(n: int) -> Weights:
            both = dict(counts.get(n, {}))
            if n in kept:
                both[kept[n]] = both.get(kept[n], 0.0) + 1.0
            return both

        rows_md = table_vd.new_empty((len(new.ids), table_vd.shape[1]))
        for m, (n, spelling) in enumerate(zip(new.ids, new.pieces, strict=True)):
            weights: defaultdict[int, float] = defaultdict(float, own(n))
            if not weights:
                for text in [*_beginning(strings[n], order), *_inside(strings[n], spelled)]:
                    theirs = own(spelled[text])
                    total = sum(theirs.values())
                    for i, value in theirs.items():
                        first = new.old.surface(new.old.strings[i]).startswith(" ")
                        weights[i] += (2 if first else 1) * value / total
            weights = weights or defaultdict(float, Counter(spelling))
            ids, values = torch.tensor([*weights]), torch.tensor([*weights.values()])
            rows_md[m] = (values / values.sum()) @ table_vd[ids]
        return rows_md

    def counts(self, new: NewTokens, size: int) -> dict[int, Weights]:
        """How often each new id is translated by each old one, below ``size``."""
        times, pairs = self.pairs(new)
        share = Counter(word for word, _ in pairs)
        found: defaultdict[int, Weights] = defaultdict(lambda: defaultdict(float))
        for form in (str, " {}".format, lambda word: f" {word[:1].upper()}{word[1:]}"):
            fresh = encode(new.new_tokenizer, [form(word) for word, _ in pairs])
            old = encode(new.old_tokenizer, [form(word) for _, word in pairs])
            for (word, _), to, of in zip(pairs, fresh, old, strict=True):
                if not len(to) or not len(of) or new.new.unknown in to or new.old.unknown in of or max(of) >= size:
                    continue
                half = (1 + times[word.lower()]) / share[word] / 2
                common = math.gcd(len(to), len(of))
                for n in to:
                    for i in of:
                        found[n][i] += half / len(of)
                stretched = np.repeat(to, len(of) // common), np.repeat(of, len(to) // common)
                for n, i in zip(*(ids.tolist() for ids in stretched), strict=True):
                    found[n][i] += half / (len(of) // common)
        return found

    def pairs(self, new: NewTokens) -> tuple[Counter[str], list[tuple[str, str]]]:
        """How often each word of the target text stands there, in lower case; and the pairs, target word first."""
        if self.dictionary is None:
            raise UserError(f"{WHO}: dictionary is null; name a word list or a dictd dictionary")
        times, known = (
            Counter(word.lower() for line in sentences(texts) for word in line) for texts in (new.texts, new.kept_texts)
        )
        pairs = turned(read(self.dictionary, WHO), times, known)
        if not any(word.lower() in times for word, _ in pairs):
            raise UserError(
                f"{WHO}: dictionary {self.dictionary}: has no usable pair: none of its words stands in the target "
                "text; give one of this language"
            )
        return times, pairs


def _beginning(token: str, order: list[str]) -> list[str]:
    """Those of the sorted strings that begin with ``token``."""
    at = end = bisect_left(order, token)
    while end < len(order) and order[end].startswith(token):
        end += 1
    return order[at:end]


def _inside(token: str, known: dict[str, int]) -> list[str]:
    """The known strings in ``token`` that are in no longer one, the longest first."""
    found: list[str] = []
    for length in range(len(token), 0, -1):
        for at in range(len(token) - length + 1):
            text = token[at : at + length]
            if text in known and not any(text in other for other in found):
                found.append(text)
    return found
