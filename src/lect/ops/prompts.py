# SPDX-License-Identifier: Apache-2.0
"""Texts in prompts with a label word, and how likely a model finds each of some words there.

A template has ``{text}`` and ``{label}``, each once, and ``{{`` and ``}}`` for braces that mean themselves. A causal
model's score of a word is the probability of the prompt from where the words make it differ; a masked model's is that
of the word's tokens, all of them masked at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from string import Formatter
from typing import TYPE_CHECKING, Any

from lect.errors import UserError
from lect.ops.templates import placeholders
from lect.ops.text import encode, encode_spans

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Labeller", "Prompt", "Reading", "around", "check"]

FIELDS = ("text", "label")
Prompt = tuple[str, str]
"""What stands before and after the label."""
Ends = tuple[tuple[int, ...], tuple[int, ...]]
"""The tokens that the model wants before and after a text."""


def check(template: str, who: str) -> None:
    """Refuse a template that has not {text} and {label}, once each, and nothing else; ``who`` begins the UserError."""
    found = placeholders(template, FIELDS, who)
    for field in FIELDS:
        if (times := found.count(field)) != 1:
            raise UserError(f"{who}: {template!r} has {{{field}}} {times} times; write it once")


def around(template: str, text: str) -> Prompt:
    """What stands before and after the label in the prompt of a text."""
    before, after, passed = "", "", False
    for literal, field, *_ in Formatter().parse(template):
        part = literal + (text if field == "text" else "")
        before, after = (before, after + part) if passed else (before + part, after)
        passed = passed or field == "label"
    return before, after


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One prompt with one word: its tokens as the model sees them, which are asked for, and what is right there."""

    ids: list[int]
    places: list[int]
    targets: list[int]


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """A causal or masked model that says how likely prompts are with each of some words."""

    live: Any
    tokenizer: Any
    words: Sequence[str]
    ends: Ends
    longest: int
    """Tokens of the longest prompt, its ends included."""
    masked: bool

    @classmethod
    def of(cls, live: Any, tokenizer: Any, words: Sequence[str], ends: Ends, longest: int) -> Labeller:
        """Find out which kind of model it is and how far it reaches; a masked one has its own two ends."""
        if masked := "MaskedLM" in type(live).__name__:
            ends = (int(tokenizer.cls_token_id),), (int(tokenizer.sep_token_id),)
        reach = getattr(live.config.get_text_config(), "max_position_embeddings", None) or longest
        longest = min(longest, reach)
        return cls(live=live, tokenizer=tokenizer, words=words, ends=ends, longest=longest, masked=masked)

    def pieces(self, template: str, text: str) -> list[str]:
        """The text; where the prompt would be too long, pieces of it that make up the text, each short enough."""
        prompts = encode(self.tokenizer, [word.join(around(template, text)) for word in self.words])
        if max(map(len, prompts)) <= self.longest - sum(map(len, self.ends)):
            return [text]
        if len(text) < 2:
            raise UserError(
                f"the template and its label leave no room for a text in {self.longest} tokens; shorten the "
                "template, or raise max_length as far as the model reaches"
            )
        middle = len(text) // 2
        spaces = (i for i in range(1, len(text)) if text[i].isspace() and abs(i - middle) <= len(text) / 4)
        cut = min(spaces, key=lambda i: abs(i - middle), default=middle)
        return [*self.pieces(template, text[:cut]), *self.pieces(template, text[cut:])]

    def readings(self, prompt: Prompt) -> list[Reading]:
        """One reading a word; words that are the same to the tokenizer are a UserError.

        A causal model is asked for all tokens from the first at which the words make the prompts differ, a masked one
        for the tokens of the word, all of them masked.
        """
        texts = [word.join(prompt) for word in self.words]
        tokens = encode(self.tokenizer, texts)
        if len({*map(tuple, tokens)}) < len(tokens):
            raise UserError(f"labels: two of {', '.join(self.words)} are the same tokens; take other words")
        every = [[*self.ends[0], *ids, *self.ends[1]] for ids in tokens]
        if not self.masked:
            shared = next(i for i, ids in enumerate(zip_longest(*every)) if len({*ids}) > 1)
            first = max(1, min(shared, *(len(ids) - 1 for ids in every)))
            return [Reading(ids=ids, places=[*range(first - 1, len(ids) - 1)], targets=ids[first:]) for ids in every]
        found = []
        low = len(prompt[0])
        for word, ids, (_, spans_t2) in zip(self.words, every, encode_spans(self.tokenizer, texts), strict=True):
            within = [start < low + len(word) and stop > low for start, stop in spans_t2.tolist()]
            places = [len(self.ends[0]) + i for i, inside in enumerate(within) if inside]
            shown = [self.tokenizer.mask_token_id if i in places else token for i, token in enumerate(ids)]
            found.append(Reading(ids=shown, places=places, targets=[ids[i] for i in places]))
        return found

    def nats(self, reading: Reading) -> Tensor:
        """What the tokens that are asked for cost together, with its gradient."""
        import torch

        ids_t = torch.tensor(reading.ids, device=self.live.device)
        skipped = 0 if self.masked else reading.places[0]  # no logits are made of what stands before
        some = {} if self.masked else {"logits_to_keep": len(reading.ids) - skipped}
        logits_tv = self.live(input_ids=ids_t[None], **some).logits[0]
        at_n = torch.tensor(reading.places, device=ids_t.device) - skipped
        targets_n = torch.tensor(reading.targets, device=ids_t.device)
        return torch.nn.functional.cross_entropy(logits_tv[at_n].float(), targets_n, reduction="sum")

    def costs(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """Nats of each prompt with each word."""
        import torch

        from lect.ops.scoring import Reader

        rows = [self.readings(prompt) for prompt in prompts]
        if self.masked:
            with torch.inference_mode():
                return [[self.nats(reading).item() for reading in row] for row in rows]
        every = [reading for row in rows for reading in row]
        reader = Reader(live=self.live, tokenizer=self.tokenizer, device=str(self.live.device))
        bits = reader.bits([reading.ids for reading in every], [reading.places[0] + 1 for reading in every])
        nats = iter(float(found.sum()) * math.log(2) for found in bits)
        return [[next(nats) for _ in row] for row in rows]
