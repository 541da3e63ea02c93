# SPDX-License-Identifier: Apache-2.0
"""Terms of a field: where listed ones stand in a text, and which ones a user's text has.

Terms are found as SemRe-Rank does (Zhang, Gao and Ciravegna, arXiv:1711.03373): a base score of candidates is raised
by how much the words of a candidate matter in graphs of related words, by personalised PageRank. Related words are
those whose vectors, trained on the same text, lie near each other. What differs from the paper and the authors' code:

- candidates are stretches of one to three words between punctuation, in any language, where the paper has noun
  phrases of English; a stretch neither begins nor ends with one of the most frequent words of the texts or of
  general text, which take the place of a list of stop words, and nothing is lemmatised;
- the seeds of PageRank are the words of the best candidates by the base score, where the paper has a person pick
  them among the most frequent candidates;
- there is a graph for at most ``MOST_GRAPHS`` texts, evenly spread, of the ``MOST_WORDS`` most frequent words, each
  with at most ``MOST_RELATED`` related ones.

A word is a stretch of letters, digits and marks, compared without case. Scripts without spaces between words give
stretches as long as clauses: their terms are not found.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lect.errors import UserError
from lect.ops.word_vectors import train, unit, word

__all__ = ["Matcher", "base_scores", "frequent", "importance", "normal", "pagerank", "ranked", "read", "related"]

JOINED = re.compile(r"[^\S\n]*[-\u2010\u2011'\u2019]?[^\S\n]*\n?[^\S\n]*")  # between words of one clause
LONGEST = 3
COMMON, INSIDE, GENERAL = 0.3, 1 / 3, 0.6
SEEDS = 100
LEAST_COSINE, RELATED_SHARE, MOST_RELATED = 0.5, 0.15, 50
MOST_WORDS, MOST_GRAPHS = 5000, 200
SIZE, EPOCHS = 100, 10
DAMPING, TOLERANCE, ROUNDS = 0.85, 1e-8, 5000
Counts = Mapping[str, int]
Floats = NDArray[np.float64]
Links = NDArray[np.int64]


def normal(term: str) -> str:
    """The words of a term without case, one space between them: what terms are compared by."""
    return " ".join(found.casefold() for found in word().findall(term))


def read(path: str, who: str) -> list[str]:
    """The terms of a UTF-8 file, one a line, as :func:`normal` writes them, each once.

    Raises UserError, beginning with ``who``, where the file cannot be read or has none.
    """
    place = Path(path).expanduser()
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{who}: {path}: cannot be read as UTF-8 text ({error}); name a file of a term a line"
        ) from None
    if not (found := list(dict.fromkeys(term for line in lines if (term := normal(line))))):
        raise UserError(f"{who}: {path}: has no terms; write one a line")
    return found


def clauses(text: str) -> list[list[tuple[int, int, str]]]:
    """The words of a text as (start, stop, word without case), in stretches that no punctuation interrupts."""
    found: list[list[tuple[int, int, str]]] = []
    last = -1
    for match in word().finditer(text):
        if last < 0 or not JOINED.fullmatch(text, last, match.start()):
            found.append([])
        found[-1].append((match.start(), match.end(), match.group().casefold()))
        last = match.end()
    return found


class Matcher:
    """Where the terms of a listing stand in a text: from left to right, the longest first, none inside another."""

    def __init__(self, listing: Mapping[str, int]) -> None:
        self.listing = listing
        longest: dict[str, int] = defaultdict(int)
        for term in listing:
            words = term.split(" ")
            longest[words[0]] = max(longest[words[0]], len(words))
        self.longest = dict(longest)

    def tokens(self, text: str, spans_t2: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """The class of each token, and False for those that go on a term.

        ``spans_t2`` is where the tokens stand, (t, 2) in characters. The class is the listing's, 0 for other words,
        -1 outside of words.
        """
        class_c, term_c = np.full(len(text) + 1, -1, np.int8), np.full(len(text) + 1, -1, np.int64)
        for clause in clauses(text):
            at = 0
            while at < len(clause):
                size = min(self.longest.get(clause[at][2], 0), len(clause) - at)
                while size and " ".join(w for *_, w in clause[at : at + size]) not in self.listing:
                    size -= 1
                start, stop = clause[at][0], clause[at + max(1, size) - 1][1]
                class_c[start:stop] = 0
                if size:
                    class_c[start:stop] = self.listing[" ".join(w for *_, w in clause[at : at + size])]
                    term_c[start:stop] = start
                at += max(1, size)
        start_t, stop_t = spans_t2.T
        inside = np.append(np.flatnonzero(class_c >= 0), len(text))
        place_t = inside[np.searchsorted(inside, start_t)]  # its first character that is part of a word
        place_t = np.where(place_t < stop_t, place_t, len(text))
        class_t, term_t = class_c[place_t], term_c[place_t]
        first_t = np.ones(len(class_t), bool)
        first_t[1:] = (term_t[1:] < 0) | (term_t[1:] != term_t[:-1])
        return class_t, first_t


def frequent(counts: Counts, share: float) -> list[str]:
    """The most frequent words that together make up ``share`` of the running words, the most frequent first."""
    found: list[str] = []
    left = share * sum(counts.values())
    for one, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if left < count / 2:
            break
        left -= count
        found.append(one)
    return found


def _stretches(texts: Sequence[str]) -> list[list[list[str]]]:
    return [[[w for *_, w in clause] for clause in clauses(text)] for text in texts]


def words(texts: Sequence[str]) -> Counter[str]:
    """How often each word stands in the texts."""
    return Counter(w for text in texts for clause in clauses(text) for *_, w in clause)


def _candidates(
    texts: Sequence[Sequence[Sequence[str]]], counts: Counts, common: Collection[str], least: int
) -> tuple[Counter[str], Counter[str]]:
    """How often each stretch of up to ``LONGEST`` words stands in the texts, and in how many of them."""
    often = {one for one, count in counts.items() if count >= least}
    ends = {one for one in often.difference(common) if len(one) > 1 and not one.isdigit()}
    total, inside = Counter[str](), Counter[str]()
    for text in texts:
        here = Counter[str]()
        for clause in text:
            for at, one in enumerate(clause):
                if one not in ends:
                    continue
                for size in range(1, min(LONGEST, len(clause) - at) + 1):
                    if clause[at + size - 1] not in often:
                        break
                    if clause[at + size - 1] in ends:
                        here[" ".join(clause[at : at + size])] += 1
        total.update(here)
        inside.update(here.keys())
    kept = {term for term, count in total.items() if count >= least}
    return Counter({t: total[t] for t in kept}), Counter({t: inside[t] for t in kept})


def base_scores(
    how: str, total: Counts, inside: Counts, texts: int, counts: Counts, general: Counts
) -> dict[str, float]:
    """The score of each candidate before words are related to each other; higher is more of a term.

    ``total`` and ``inside`` say how often candidates stand in the texts and in how many of the ``texts`` they do;
    ``counts`` and ``general`` are the words of these texts and of general ones. ``how`` is one of

    - ``tf_idf``: f log(texts / inside);
    - ``c_value``: log2(1 + words) (f - mean f of longer candidates that hold it) (Frantzi et al. 2000, with one added
      inside the logarithm, which is zero for single words otherwise);
    - ``weirdness``: the mean over the words of their share of the texts over their share of general text, where one
      more of each word is counted (Ahmad et al. 1999).
    """
    if how == "tf_idf":
        return {term: f * math.log(max(texts, 1) / inside[term]) for term, f in total.items()}
    if how == "weirdness":
        own, other = max(1, sum(counts.values())), max(1, sum(general.values()))
        strange = {w: (counts[w] / own) / ((general.get(w, 0) + 1) / other) for term in total for w in term.split(" ")}
        return {term: sum(strange[w] for w in term.split(" ")) / len(term.split(" ")) for term in total}
    holders: dict[str, list[int]] = defaultdict(list)
    for term, f in total.items():
        parts = term.split(" ")
        inner = {" ".join(parts[a:b]) for a in range(len(parts)) for b in range(a + 1, len(parts) + 1)} - {term}
        for part in inner & total.keys():
            holders[part].append(f)
    return {
        term: math.log2(1 + len(term.split(" "))) * (f - (sum(held) / len(held) if (held := holders.get(term)) else 0))
        for term, f in total.items()
    }


def related(table_wd: NDArray[np.float32]) -> list[Links]:
    """For each of w words the rows of its related words: those of highest cosine, at least ``LEAST_COSINE``."""
    rows_wd = unit(table_wd)
    most = max(1, min(MOST_RELATED, round(RELATED_SHARE * len(rows_wd))))
    found: list[Links] = []
    for n, row_d in enumerate(rows_wd):
        cosine_w = (rows_wd @ row_d).round(6)
        cosine_w[n] = -2.0
        near = np.argsort(-cosine_w, kind="stable")[:most]
        found.append(near[cosine_w[near] >= LEAST_COSINE])
    return found


def pagerank(links_e2: Links, nodes: int, start_n: Floats) -> Floats:
    """Personalised PageRank of n nodes, adding up to one: r = d A' r + (1 - d) p, with d = ``DAMPING``.

    ``links_e2`` are the links in both directions, each once; A has a row for each node, which shares what the node has
    among those it links to; a node without links gives it to p. ``start_n`` is p, not yet divided by its sum.
    """
    from_e, to_e = links_e2.T
    degree_n = np.bincount(from_e, minlength=nodes)
    start_n = start_n / start_n.sum()
    rank_n = np.full(nodes, 1.0 / nodes)
    for _ in range(ROUNDS):
        given_n = rank_n / np.maximum(degree_n, 1)
        loose = rank_n[degree_n == 0].sum()
        next_n = np.bincount(to_e, weights=given_n[from_e], minlength=nodes) + loose * start_n
        next_n = DAMPING * next_n + (1 - DAMPING) * start_n
        done = float(np.abs(next_n - rank_n).sum()) < TOLERANCE
        rank_n = next_n
        if done:
            break
    return rank_n


def importance(texts: Sequence[Collection[int]], near: Sequence[Links], seeds: Collection[int]) -> Floats:
    """How much each of w words matters, the highest one: the sum over texts of its PageRank among the text's words.

    A text's graph has its words (rows of the table of words) and their related ones; ranks are divided by the text's
    highest. PageRank starts from the seeds that the graph holds, from all nodes where it holds none.
    """
    size = len(near)
    total_w, seed_w = np.zeros(size), np.zeros(size)
    seed_w[list(seeds)] = 1.0
    for text in texts:
        own = sorted(text)
        to_e = np.concatenate([np.empty(0, np.int64), *(near[w] for w in own)])
        if not len(to_e):
            continue
        from_e = np.repeat(own, [len(near[w]) for w in own])
        both = np.unique(np.concatenate([from_e * size + to_e, to_e * size + from_e]))
        names, links = np.unique(np.stack([both // size, both % size], 1), return_inverse=True)
        start_n = seed_w[names] if seed_w[names].any() else np.ones(len(names))
        rank_n = pagerank(links.reshape(-1, 2), len(names), start_n)
        total_w[names] += rank_n / rank_n.max()
    return np.asarray(total_w / max(total_w.max(initial=0.0), 1e-300))


def ranked(
    target: Sequence[str], kept: Sequence[str], *, how: str = "tf_idf", count: int, least: int = 3, seed: int, who: str
) -> dict[str, float]:
    """The ``count`` best terms of the target texts with their scores, the best first.

    The score is (1 + mean importance of the words) base / highest base. Terms stand ``least`` times in the target
    texts; texts count for ``tf_idf`` in both roles. Raises UserError, beginning with ``who``, where gensim is missing
    or there is no candidate.
    """
    split, counts, general = _stretches(target), words(target), words(kept)
    seen = Counter(w for text in split for w in {w for clause in text for w in clause})
    common = {w for w in frequent(counts, COMMON) if seen[w] >= INSIDE * len(split)} | set(frequent(general, GENERAL))
    total, inside = _candidates(split, counts, common, least)
    if not total:
        raise UserError(
            f"{who}: no word of the target text but its commonest stands {least} times; "
            "give more text, or a file of terms"
        )
    for text in _stretches(kept):
        inside.update(
            {" ".join(c[a:b]) for c in text for a in range(len(c)) for b in range(a + 1, a + 1 + LONGEST)}
            & total.keys()
        )
    base = base_scores(how, total, inside, len(target) + len(kept), counts, general)
    best = sorted(base, key=lambda term: (-base[term], term))
    wanted = {w for term in total for w in term.split(" ")} - common
    vectors = train(
        [c for text in split for c in text], size=SIZE, epochs=EPOCHS, least=least, seed=seed, grams=None, who=who
    )
    names = [w for w in vectors.rows if w in wanted][:MOST_WORDS]
    row = {w: n for n, w in enumerate(names)}
    near = related(vectors.table[[vectors.rows[w] for w in names]])
    spread = np.unique(np.linspace(0, len(split) - 1, min(MOST_GRAPHS, len(split))).astype(int))
    graphs = [{row[w] for clause in split[n] for w in clause if w in row} for n in spread]
    seeds = {row[w] for term in best[:SEEDS] for w in term.split(" ") if w in row}
    weight_w = importance(graphs, near, seeds)
    highest = max(base[best[0]], 1e-300)

    def score(term: str) -> float:
        parts = term.split(" ")
        return (1 + sum(float(weight_w[row[w]]) for w in parts if w in row) / len(parts)) * base[term] / highest

    scores = {term: score(term) for term in total}
    return {term: scores[term] for term in sorted(scores, key=lambda term: (-scores[term], term))[:count]}
