# SPDX-License-Identifier: Apache-2.0
"""Grow a tokenizer: go on with byte-pair merges where the old tokenizer stops, and add what they make.

Pairs are counted inside words, on the tokens that the old tokenizer gives (Sennrich et al., arXiv:1508.07909,
algorithm 1, started from tokens instead of characters). So every new merge fires after all old ones have, and
appending it to the merge table is the same as splicing it in where it fires. A Unigram model gets the new pieces with
their log-frequency as score (one maximisation step of Kudo, arXiv:1804.10959, section 3.2); WordPiece, which always
takes the longest piece, needs the pieces alone.
"""

from __future__ import annotations

import heapq
import json
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from lect.ops.text import BATCH_TEXTS, plain
from lect.ops.tokenizer import BYTE, BYTE_OF, Cut, Vocabulary, renumber, script

__all__ = ["Merge", "add", "merges", "pieces", "words"]

Merge = tuple[str, str, str]
"""Left token, right token, and the token that they make."""
Word = tuple[int, ...]
JOINERS = "\u200c\u200d"


def words(tokenizer: Any, vocabulary: Vocabulary, texts: Sequence[str]) -> Counter[Word]:
    """How often each word of two tokens or more stands in the texts, as ids of the old tokenizer.

    A word is a stretch of letters and marks of one script, with the space before it, that the tokenizer's own
    pre-tokenisation leaves together. In byte-level vocabularies, parts of characters count as letters.
    """
    kinds = {i: _kind(vocabulary, token) for i, token in vocabulary.strings.items()}
    added = {int(token["id"]) for token in vocabulary.added}
    found: Counter[Word] = Counter()
    with plain(tokenizer) as rust:
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = rust.encode_batch(list(texts[start : start + BATCH_TEXTS]), add_special_tokens=False)
            for encoding in batch:
                found.update(_words(encoding.ids, encoding.word_ids, kinds, added))
    return found


def _words(ids: list[int], places: list[int | None], kinds: Mapping[int, Any], added: set[int]) -> Iterable[Word]:
    """The words of one text."""
    word: list[int] = []
    writing, before = "", None
    for i, place in zip(ids, places, strict=True):
        begins, inside, ends, name = kinds.get(i, (False, False, False, ""))
        goes_on = inside and not begins and bool(word) and place == before and (not name or writing in ("", name))
        if not goes_on:
            if len(word) > 1:
                yield tuple(word)
            word, writing = [], ""
        if inside and i not in added:
            word.append(i)
            writing = writing or name
        before = None if ends else place
    if len(word) > 1:
        yield tuple(word)


def _kind(vocabulary: Vocabulary, token: str) -> tuple[bool, bool, bool, str]:
    """Whether a token begins a word, whether a word may hold it, whether it ends one, and its script."""
    if BYTE.fullmatch(token):  # byte fallback decodes single bytes only
        return False, False, False, ""
    if vocabulary.byte_level and all(c in BYTE_OF for c in token):
        raw = bytes(BYTE_OF[c] for c in token)
        text = raw.decode("utf-8", "ignore")
        partial = len(text.encode()) < len(raw)
    else:
        text, partial = vocabulary.surface(token), False
    begins = text.startswith(" ") or bool(vocabulary.prefix and not token.startswith(vocabulary.prefix))
    body = text.removeprefix(" ")
    names = {script(c) for c in body if c not in JOINERS and unicodedata.category(c) != "Mn"}
    inside = "" not in names and len(names) <= 1 and bool(body or partial or text == " ")
    ends = bool(vocabulary.suffix) and token.endswith(vocabulary.suffix)
    return begins, inside, ends, next(iter(names), "")


def merges(counted: Mapping[Word, int], vocabulary: Vocabulary, *, count: int, least: int, longest: int) -> list[Merge]:
    """The merges that make ``count`` new tokens, most frequent pair first; fewer where the words hold no more.

    A pair must stand ``least`` times in the words, and make a token of at most ``longest`` characters. A pair that
    makes a token which is there already becomes a merge too, but no new token.
    """
    spelling = dict(vocabulary.strings)
    known = dict(vocabulary.ids)
    lines = [list(word) for word in counted]
    times = list(counted.values())
    pairs: Counter[tuple[int, int]] = Counter()
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for n, line in enumerate(lines):
        for pair in pairwise(line):
            pairs[pair] += times[n]
            where[pair].add(n)
    heap = [(-number, pair) for pair, number in pairs.items() if number >= least]
    heapq.heapify(heap)
    result: list[Merge] = []
    fresh, made = 0, max(spelling, default=0)
    while heap and fresh < count:
        number, pair = heapq.heappop(heap)
        if -number != pairs[pair]:
            if pairs[pair] >= least:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        token = vocabulary.joined(spelling[pair[0]], spelling[pair[1]])
        if len(vocabulary.surface(token)) > longest:
            continue
        if token not in known:
            fresh, made = fresh + 1, made + 1
            known[token], spelling[made] = made, token
        result.append((spelling[pair[0]], spelling[pair[1]], token))
        changed: set[tuple[int, int]] = set()
        for n in where.pop(pair):
            before = lines[n]
            lines[n] = after = _merged(before, pair, known[token])
            for old in pairwise(before):
                pairs[old] -= times[n]
            for new in pairwise(after):
                pairs[new] += times[n]
                where[new].add(n)
                changed.add(new)
        pairs.pop(pair, None)
        for new in changed:
            if pairs[new] >= least:
                heapq.heappush(heap, (-pairs[new], new))
    return result


def _merged(line: list[int], pair: tuple[int, int], made: int) -> list[int]:
    """The line with every ``pair``, from the left, made one."""
    result: list[int] = []
    at = 0
    while at < len(line):
        if at + 1 < len(line) and (line[at], line[at + 1]) == pair:
            result.append(made)
            at += 2
        else:
            result.append(line[at])
            at += 1
    return result


def add(base: Cut, made: Sequence[Merge], frequency: Mapping[str, int]) -> Cut:
    """The tokenizer ``base`` with the tokens of ``made`` behind those of its model (added tokens come after them).

    ``frequency`` is how often each new token will stand in a text of ``frequency[""]`` tokens (Unigram scores).
    """
    before = Vocabulary(base.data)
    data: dict[str, Any] = json.loads(json.dumps({k: v for k, v in base.data.items() if k != "model"}))
    model = dict(base.data["model"])
    fresh = list(dict.fromkeys(token for _, _, token in made if token not in before.ids))
    size = len(before.ids) if before.kind != "Unigram" else len(model["vocab"])
    if before.kind == "Unigram":
        total = max(1, frequency[""])
        scores = [[token, math.log(max(1, frequency.get(token, 1)) / total)] for token in fresh]
        model["vocab"] = [*model["vocab"], *scores]
    else:
        model["vocab"] = {**before.ids, **{token: size + n for n, token in enumerate(fresh)}}
    if before.kind == "BPE":
        model["merges"] = [*(list(pair) for pair in before.merges), *([left, right] for left, right, _ in made)]
    data["added_tokens"] = [
        {**token, "id": int(token["id"]) + (len(fresh) if int(token["id"]) >= size else 0)}
        for token in data.get("added_tokens") or []
    ]
    numbers = {i: i + (len(fresh) if i >= size else 0) for i in range(len(base.origin))}
    renumber(data, numbers)
    origin = [*base.origin[:size], *[-1] * len(fresh), *base.origin[size:]]
    return Cut({**data, "model": model}, origin)


def pieces(old: Vocabulary, tokenizer: Any, new: Vocabulary, tokens: Iterable[str]) -> list[list[int]]:
    """The old ids that the spelling of each new token is segmented into.

    Between models of one kind the spelling goes through the old model itself; else its text goes through the whole
    old tokenizer. A spelling that gives nothing becomes the unknown token, or the first token.
    """
    rust = getattr(tokenizer, "backend_tokenizer", tokenizer)
    alike = (old.kind, old.byte_level, old.prefix, old.suffix) == (new.kind, new.byte_level, new.prefix, new.suffix)
    fallback = old.unknown if old.unknown is not None else min(old.strings)
    result = []
    for token in tokens:
        if alike and old.kind == "WordPiece":
            ids = _longest(old, token)
        elif alike and old.suffix:  # the library would put the suffix behind every spelling
            ids = [old.ids[part] for part in old.settled(token) if part in old.ids]
        elif alike:
            ids = [piece.id for piece in rust.model.tokenize(token)]
        else:
            ids = rust.encode(new.surface(token), add_special_tokens=False).ids
        result.append(ids or [fallback])
    return result


def _longest(old: Vocabulary, token: str) -> list[int]:
    """WordPiece on a spelling that may go on a word: the longest piece at each place."""
    inside = token.startswith(old.prefix)
    body, ids = token.removeprefix(old.prefix), list[int]()
    while body:
        lead = old.prefix if inside else ""
        end = next((n for n in range(len(body), 0, -1) if lead + body[:n] in old.ids), 0)
        if not end:
            return []
        ids.append(old.ids[lead + body[:end]])
        body, inside = body[end:], True
    return ids
