# SPDX-License-Identifier: Apache-2.0
"""How much of tomorrow's text will use tokens that today's text did not, and which tokens those will be.

*How much*: the Good-Turing estimate of the mass of the unseen (Good 1953, section 3: N1/N), taken over documents
instead of tokens. A word that is new tends to come again a line later, so occurrences are not independent and N1/N
over tokens is far too low; documents are nearly independent. Leave each document out in turn and ask which of its
tokens stand in no other: the share of those occurrences is what a further document of the same kind would show.

*Which*: tokens are ranked by ``log P(spelling) - 2 log(id + 1)``. P is a character model of the spellings seen
(order 5, interpolated as by Witten and Bell 1991, method C), which knows the language; the id stands for the
frequency in the text that the base tokenizer was trained on, since trained vocabularies are sorted by it.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Forecast", "Spelling", "Walk", "once", "units"]

Ids = NDArray[np.int32]
ORDER = 5
ID_WEIGHT = 2.0
CHARACTERS = 300


def units(documents: Sequence[Ids], least: int = 32) -> list[Ids]:
    """The documents; or, if they are fewer than ``least``, blocks of them so that there are about that many."""
    whole = [ids for ids in documents if len(ids)]
    if len(whole) >= least or not whole:
        return whole
    size = max(1, sum(map(len, whole)) // least)
    return [ids[start : start + size] for ids in whole for start in range(0, len(ids), size)]


def once(
    documents: Mapping[str, Sequence[Ids]],
    closure: Callable[[Collection[int]], Collection[int]],
) -> dict[str, dict[int, int]]:
    """For each role, the occurrences of tokens that a text without their one document would not have kept.

    ``closure`` gives all tokens that come along with a set of tokens; a token counts as standing in every document
    whose closure holds it, of whatever role.
    """
    standing: Counter[int] = Counter()
    counts: dict[str, Counter[int]] = {}
    for role, texts in documents.items():
        counts[role] = Counter()
        for ids in texts:
            kinds, times = np.unique(ids, return_counts=True)
            counts[role].update(dict(zip(kinds.tolist(), times.tolist(), strict=True)))
            standing.update(closure(kinds.tolist()))
    return {role: {i: n for i, n in c.items() if standing[i] == 1} for role, c in counts.items()}


class Spelling:
    """A character model of the spellings of tokens, each distinct token counted once."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.following: dict[str, dict[str, int]] = {}
        self.totals: dict[str, int] = {}
        self.known: dict[str, float] = {}
        for token in tokens:
            for context, character in _grams(token):
                after = self.following.setdefault(context, {})
                after[character] = after.get(character, 0) + 1
                self.totals[context] = self.totals.get(context, 0) + 1

    def log_probability(self, token: str, without: bool = False) -> float:
        """The natural logarithm of P(spelling); ``without`` scores the token as if it had not been counted."""
        text = f"\x02{token}\x03"
        own: dict[str, Counter[str]] | None = None
        if without:
            own = {}
            for context, character in _grams(token):
                own.setdefault(context, Counter())[character] += 1
        return sum(
            math.log(self._probability(text[max(0, at - ORDER + 1) : at], text[at], own)) for at in range(1, len(text))
        )

    def _probability(self, context: str, character: str, own: dict[str, Counter[str]] | None) -> float:
        """P(character | context), mixed with that of the context without its first character."""
        if own is None and (known := self.known.get(context + character)) is not None:
            return known
        p = self._probability(context[1:], character, own) if context else 1.0 / CHARACTERS
        after, total = self.following.get(context), self.totals.get(context, 0)
        if after is not None:
            count, kinds = after.get(character, 0), len(after)
            if own is not None and (mine := own.get(context)) is not None:
                total -= mine.total()
                count -= mine[character]
                kinds -= sum(after[c] == n for c, n in mine.items())
            if total > 0:
                p = (count + kinds * p) / (total + kinds)
        if own is None:
            self.known[context + character] = p
        return p

    def score(self, token: str, number: int, without: bool = False) -> float:
        """The rank score of a token with id ``number``: the higher, the sooner text will use it."""
        return self.log_probability(token, without) - ID_WEIGHT * math.log(number + 1)


def _grams(token: str) -> Iterable[tuple[str, str]]:
    """Every (context, character) of a spelling between its marks, contexts of 0 to ORDER - 1 characters."""
    text = f"\x02{token}\x03"
    for at in range(1, len(text)):
        for start in range(at, max(-1, at - ORDER), -1):
            yield text[start:at], text[at]


@dataclass(frozen=True)
class Forecast:
    """The tokens that one kind of text has not used, best first, and what keeping them would save."""

    candidates: list[int]
    missing: list[float]
    """Share of the tokens of further text that are not kept once the first k candidates are."""

    @classmethod
    def make(
        cls,
        times: Mapping[int, int],
        alone: Mapping[int, int],
        candidates: Iterable[int],
        spelling: Callable[[int], str],
    ) -> Forecast:
        """Rank ``candidates``, and place on that ranking the tokens that only one document uses.

        ``times`` counts the tokens of the text; ``alone`` counts those of :func:`once`, and holds a candidate's
        worth only for tokens that would be candidates themselves: their number is negated where they would not.
        """
        model = Spelling(spelling(i) for i in times)
        scored = sorted((-model.score(spelling(i), i), i) for i in candidates)
        places: Counter[int] = Counter()
        for i, n in alone.items():
            score = -model.score(spelling(i), i, without=True) if n > 0 else math.inf
            places[bisect.bisect_left(scored, (score, -1))] += abs(n)
        total, left = max(1, sum(times.values())), sum(places.values())
        missing = []
        for k in range(len(scored) + 1):
            missing.append(left / total)
            left -= places[k]
        return cls([i for _, i in scored], missing)


@dataclass(frozen=True)
class Walk:
    """All candidates of all roles in the order in which rows are spent on them."""

    order: list[int]
    passed: list[tuple[int, dict[str, int]]]
    """At each step: how many tokens were taken in all, and how many candidates of each role were passed."""
    forecasts: Mapping[str, Forecast]

    @classmethod
    def go(
        cls,
        forecasts: Mapping[str, Forecast],
        budgets: Mapping[str, float],
        kept: Collection[int],
        closure: Callable[[Collection[int]], Collection[int]],
        size: Callable[[int], int],
    ) -> Walk:
        """Always take the next candidate of the role that is furthest over its budget.

        What a candidate needs (``closure``) comes along before it: ``size`` is smaller for what is needed.
        """
        have, order = set(kept), []
        at = dict.fromkeys(forecasts, 0)
        passed = [(0, dict(at))]
        open_roles = {role for role, f in forecasts.items() if f.candidates}
        while open_roles:
            role = max(sorted(open_roles), key=lambda r: forecasts[r].missing[at[r]] / budgets[r])
            candidate = forecasts[role].candidates[at[role]]
            at[role] += 1
            if at[role] == len(forecasts[role].candidates):
                open_roles.remove(role)
            if candidate not in have:
                new = sorted((i for i in closure([candidate]) if i not in have), key=size)
                have.update(new)
                order += new
            passed.append((len(order), dict(at)))
        return cls(order, passed, forecasts)

    def shares(self, taken: int) -> dict[str, float]:
        """The estimated share of further tokens that segment differently, by role, after ``taken`` tokens."""
        step = bisect.bisect_right(self.passed, taken, key=lambda p: p[0]) - 1
        at = self.passed[max(0, step)][1]
        return {role: f.missing[at[role]] for role, f in self.forecasts.items()}

    def enough(self, budgets: Mapping[str, float]) -> int:
        """The least number of tokens after which every role is inside its budget (all, if none is)."""
        for taken, at in self.passed:
            if all(f.missing[at[role]] <= budgets[role] for role, f in self.forecasts.items()):
                return taken
        return len(self.order)
