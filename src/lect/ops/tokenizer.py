# SPDX-License-Identifier: Apache-2.0
"""Surgery on tokenizers: read a ``tokenizer.json``, follow its merges, and cut it down to a set of tokens.

Everything here works on the dictionary that the ``tokenizers`` library writes, for its BPE (byte-level or with
byte fallback), Unigram and WordPiece models. Nothing is trained and no text is read.

Why a cut tokenizer segments a text as before, when every token that the text uses was kept:

- *BPE* (Sennrich et al., arXiv:1508.07909, section 3.2) applies, again and again, the leftmost pair of the lowest
  rank. Take away merges that never fire on the text, in any order of the rest: at each step the pair that used to
  be applied is still there, and nothing of a lower rank was added, so the same pair is applied; at the end no pair
  is left, as before. The merges that fire inside one final token are those that fire when the token stands alone
  (no merge crossed its borders, so what happens inside depends on the inside only): one derivation per distinct
  token is enough, and each part of it is again the derivation of that part.
- *Unigram* (Kudo, arXiv:1804.10959, section 3.2) takes the path of the highest sum of scores. Pieces off that path
  may go: every other path keeps its score or disappears. The score of an unknown character hangs on the lowest
  score of the vocabulary, so the piece that holds it stays.
- *WordPiece* takes the longest piece at each position: the longest of all is the longest of fewer.
- *Added tokens* are cut out of the text before the model runs, leftmost and longest first: those that never match
  may go. Tokens that match whole words only may match, be refused and so hide another: they all stay. So do those
  of a tokenizer that rewrites text, where cutting at the token changes what the rest reads like.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

from lect.errors import UserError

__all__ = ["Cut", "Vocabulary", "letters_by_script", "renumber", "script"]

PLACEHOLDER = re.compile(r"[^\w]*_*(unused|reserved)[a-z_ ]*_?\d+[^\w]*", re.IGNORECASE)
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def _byte_alphabet() -> dict[str, int]:
    """The printable character of each byte in byte-level tokenizers (GPT-2's table), and back."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in set(shown)]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


BYTE_OF = _byte_alphabet()


@cache
def script(character: str) -> str:
    """The script of a letter or mark, by the first word of its Unicode name; empty for everything else."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    word = unicodedata.name(character, "").partition(" ")[0]
    return "" if word in ("COMBINING", "MODIFIER", "VARIATION", "FEMININE", "MASCULINE") else word


def letters_by_script(text: str) -> dict[str, int]:
    """How many letters of each script ``text`` has."""
    counts: dict[str, int] = {}
    for character in text:
        name = script(character)
        if name:
            counts[name] = counts.get(name, 0) + 1
    return counts


@dataclass(frozen=True)
class Cut:
    """A new ``tokenizer.json`` and, for each of its ids 0..n-1, the id of that token before."""

    data: dict[str, Any]
    origin: list[int]


@dataclass(frozen=True)
class Vocabulary:
    """A ``tokenizer.json`` dictionary with the questions that surgery asks of it."""

    data: dict[str, Any]

    @classmethod
    def read(cls, tokenizer: Any) -> Vocabulary:
        """Read a ``PreTrainedTokenizerFast`` or a Rust tokenizer; one that cannot be edited is a UserError."""
        rust = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(rust, "to_str"):
            raise UserError(
                f"tokenizer {type(tokenizer).__name__}: has no tokenizer.json and cannot be edited; "
                "convert it to a fast tokenizer, or leave the vocabulary as it is"
            )
        vocabulary = cls(json.loads(rust.to_str()))
        vocabulary.check()
        return vocabulary

    def check(self) -> None:
        """Refuse what cannot be cut without a change of meaning, with the reason."""
        model = self.data["model"]
        if self.kind not in ("BPE", "Unigram", "WordPiece"):
            raise UserError(
                f"tokenizer model {self.kind}: cannot be cut (BPE, Unigram and WordPiece can); "
                "leave the vocabulary as it is"
            )
        if model.get("dropout"):
            raise UserError("tokenizer: BPE dropout makes segmentation random; set dropout to null in tokenizer.json")
        if not self.ids:
            raise UserError("tokenizer: its vocabulary is empty; give a model with a trained tokenizer")

    @cached_property
    def kind(self) -> str:
        """``BPE``, ``Unigram`` or ``WordPiece`` (old files do not say; their fields do)."""
        model = self.data["model"]
        guess = "BPE" if "merges" in model else "Unigram" if isinstance(model.get("vocab"), list) else "WordPiece"
        return str(model.get("type") or guess)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of every token of the model proper, without added tokens beyond it."""
        vocab = self.data["model"].get("vocab") or {}
        if isinstance(vocab, list):
            return {piece: i for i, (piece, _) in enumerate(vocab)}
        return dict(vocab)

    @cached_property
    def added(self) -> list[dict[str, Any]]:
        """The added tokens, by id."""
        return sorted(self.data.get("added_tokens") or [], key=lambda token: int(token["id"]))

    @cached_property
    def strings(self) -> dict[int, str]:
        """The token of every id, added ones included."""
        result = {i: token for token, i in self.ids.items()}
        if self.kind == "Unigram":
            result = {i: piece for i, (piece, _) in enumerate(self.data["model"]["vocab"])}
        return result | {int(token["id"]): token["content"] for token in self.added}

    @cached_property
    def byte_level(self) -> bool:
        """True when the model sees bytes written as printable characters."""
        return any(part.get("type") == "ByteLevel" for part in _parts(self.data.get("pre_tokenizer"))) or any(
            part.get("type") == "ByteLevel" for part in _parts(self.data.get("normalizer"))
        )

    @cached_property
    def byte_fallback(self) -> bool:
        """True when characters outside the vocabulary become byte tokens."""
        return bool(self.data["model"].get("byte_fallback")) and all(f"<0x{b:02X}>" in self.ids for b in range(256))

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """The merges of a BPE model by rank; both spellings of the file are read."""
        listed = self.data["model"].get("merges") or []
        split = [m.split(" ", 1) if isinstance(m, str) else m for m in listed]
        return [(left, right) for left, right in split]

    @cached_property
    def ranks(self) -> dict[tuple[str, str], int]:
        """The rank of every merge (the last one counts where a pair stands twice, as in the library)."""
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def prefix(self) -> str:
        """What continuing pieces start with (``##`` in WordPiece), or nothing."""
        return self.data["model"].get("continuing_subword_prefix") or ""

    @cached_property
    def suffix(self) -> str:
        """What word-final pieces end with (``</w>`` in old BPE), or nothing."""
        return self.data["model"].get("end_of_word_suffix") or ""

    def joined(self, left: str, right: str) -> str:
        """The token that a merge makes."""
        return left + right.removeprefix(self.prefix)

    def symbols(self, token: str) -> list[str]:
        """The single characters that a BPE or WordPiece token is built from, as tokens."""
        first = token.startswith(self.prefix) and bool(self.prefix)
        body = token.removeprefix(self.prefix)
        last = bool(self.suffix) and body.endswith(self.suffix)
        body = body.removesuffix(self.suffix) if last else body
        result = [c if i == 0 and not first else self.prefix + c for i, c in enumerate(body)]
        if last and result:
            result[-1] += self.suffix
        return result

    def settled(self, token: str, least: int = 1) -> list[str]:
        """What is left of the symbols of ``token`` when BPE has run on it alone, or ``least`` parts are left."""
        parts, ranks = self.symbols(token), self.ranks
        never = len(self.merges)
        line = [ranks.get(pair, never) for pair in pairwise(parts)]
        while len(parts) > least and line:
            best = min(line)
            if best == never:
                break
            at = line.index(best)
            parts[at : at + 2] = [self.joined(parts[at], parts[at + 1])]
            del line[at]
            if at > 0:
                line[at - 1] = ranks.get((parts[at - 1], parts[at]), never)
            if at < len(line):
                line[at] = ranks.get((parts[at], parts[at + 1]), never)
        return parts

    def derive(self, token: str) -> tuple[str, str] | None:
        """The last merge that fires when BPE runs on ``token`` alone; None when it ends elsewhere or needs none."""
        match self.settled(token, 2):
            case [left, right] if (left, right) in self.ranks and self.joined(left, right) == token:
                return left, right
        return None

    @cached_property
    def _lines(self) -> dict[int, tuple[int, ...]]:
        return {}

    def line(self, i: int) -> tuple[int, ...]:
        """The id of a token and of every token on its derivation, remembered."""
        known = self._lines.get(i)
        if known is None:
            token, both = self.strings[i], None
            if self.kind == "BPE" and self.ids.get(token) == i:
                both = self.derive(token)
            known = (i,)
            if both is not None:
                left, right = (self.line(self.ids[part]) for part in both)
                known = tuple(dict.fromkeys((i, *left, *right)))
            self._lines[i] = known
        return known

    def ancestors(self, tokens: Iterable[int]) -> set[int]:
        """The ids of ``tokens`` with every token on the derivation of each; ids without a token are left out."""
        strings = self.strings
        return set().union(*(self.line(i) for i in tokens if i in strings))

    @cached_property
    def alphabet(self) -> set[int]:
        """The ids without which some text would become unknown that is not unknown now.

        Bytes where the model has them; else every single character, every piece with a character that has no
        single piece of its own, and (Unigram) one piece with the lowest score.
        """
        ids = self.ids
        if self.kind == "BPE" and self.byte_level:
            return {ids[c] for c in BYTE_OF if c in ids}
        if self.byte_fallback:
            return {ids[f"<0x{b:02X}>"] for b in range(256)} | self._lowest
        if self.kind == "BPE":
            return {i for token, i in ids.items() if len(self.symbols(token)) == 1}
        singles = set()
        for token, i in ids.items():
            symbols = self.symbols(token)
            if len(symbols) < 2 or any(symbol not in ids for symbol in symbols):
                singles.add(i)
        return singles | self._lowest

    @cached_property
    def _lowest(self) -> set[int]:
        if self.kind != "Unigram":
            return set()
        vocab = self.data["model"]["vocab"]
        return {min(range(len(vocab)), key=lambda i: (vocab[i][1], i))}

    @cached_property
    def unknown(self) -> int | None:
        """The id of the unknown token, if the model has one."""
        model = self.data["model"]
        if self.kind == "Unigram":
            return None if model.get("unk_id") is None else int(model["unk_id"])
        return self.ids.get(model.get("unk_token") or "")

    @cached_property
    def plain_around_added(self) -> bool:
        """True when text reads the same with an added token cut out of it or left in: nothing is rewritten.

        A normaliser may join characters across the border of the token, and a prefix comes once per stretch of text.
        """
        normal = all(
            part.get("type") == "Sequence" or (part.get("type") == "Replace" and part.get("content") == "▁")
            for part in _parts(self.data.get("normalizer"))
        )
        return (
            normal
            and not any(
                part.get("add_prefix_space") or part.get("prepend_scheme", "never") != "never"
                for part in _parts(self.data.get("pre_tokenizer"))
            )
            and self.kind == "BPE"
        )

    def special(self) -> set[int]:
        """The ids of added tokens that stay: control tokens but placeholders, and those whose loss would be seen."""
        return {
            int(token["id"])
            for token in self.added
            if token.get("single_word")
            or token.get("lstrip")
            or token.get("rstrip")
            or (token.get("special") and not PLACEHOLDER.fullmatch(token["content"]))
            or not (token.get("special") or self.plain_around_added)
        }

    def named(self, text: str = "") -> set[int]:
        """The ids that the file itself names (unknown, padding, post-processor), and added tokens in ``text``."""
        result = {i for _, i in _named(self.data)}
        if self.unknown is not None:
            result.add(self.unknown)
        return result | {int(token["id"]) for token in self.added if token["content"].strip() in text and text}

    def surface(self, token: str) -> str:
        """The text of a token; bytes that are no whole character show as U+FFFD or, in byte tokens, as nothing."""
        if self.byte_level and all(c in BYTE_OF for c in token):
            return bytes(BYTE_OF[c] for c in token).decode("utf-8", "replace")
        if BYTE.fullmatch(token):
            return ""
        return token.removeprefix(self.prefix).removesuffix(self.suffix).replace("▁", " ")

    def writes(self, i: int, scripts: Collection[str]) -> bool:
        """True when some text in these scripts could be segmented into this token, and it is no placeholder."""
        token = self.strings[i]
        text = self.surface(token)
        if (
            not text
            or "\ufffd" in text
            or PLACEHOLDER.fullmatch(token)
            or not letters_by_script(text).keys() <= set(scripts)
        ):
            return False
        if self.kind != "BPE" or i in self._extra or self.data["model"].get("ignore_merges"):
            return True
        return len(self.symbols(token)) == 1 or len(self.line(i)) > 1

    @cached_property
    def _extra(self) -> set[int]:
        return {int(token["id"]) for token in self.added if not token.get("special")}

    def cut(self, keep: Iterable[int]) -> Cut:
        """Return the tokenizer with the ids ``keep`` alone, numbered anew without holes, in their old order.

        The caller sees to it that ``keep`` holds :attr:`alphabet`, :meth:`named` and all :meth:`ancestors`.
        Tokens of the model come first, added tokens beyond it after them, as the library numbers them. An id that
        two tokens share becomes two ids with the same origin.
        """
        wanted = set(keep)
        data = json.loads(json.dumps({k: v for k, v in self.data.items() if k != "model"}))
        model = {k: v for k, v in self.data["model"].items() if k not in ("vocab", "merges")}
        origin: list[int] = []
        new: dict[str, int] = {}
        if self.kind == "Unigram":
            vocab = self.data["model"]["vocab"]
            origin = [i for i in range(len(vocab)) if i in wanted]
            model["vocab"] = [list(vocab[i]) for i in origin]
            new = {vocab[i][0]: n for n, i in enumerate(origin)}
            if model.get("unk_id") is not None:
                model["unk_id"] = origin.index(model["unk_id"])
        else:
            kept = sorted((i, token) for token, i in self.ids.items() if i in wanted)
            origin = [i for i, _ in kept]
            new = {token: n for n, (_, token) in enumerate(kept)}
            model["vocab"] = dict(new)
        if self.kind == "BPE":
            model["merges"] = [[a, b] for a, b in self.merges if a in new and b in new and self.joined(a, b) in new]
        added = []
        for token in self.added:
            if int(token["id"]) not in wanted:
                continue
            if token["content"] not in new:
                new[token["content"]] = len(origin)
                origin.append(int(token["id"]))
            added.append({**token, "id": new[token["content"]]})
        data["added_tokens"] = sorted(added, key=lambda token: int(token["id"]))
        numbers = {old: n for n, old in reversed(list(enumerate(origin)))}
        renumber(data, numbers)
        # The library reads "model" last, as it was written.
        return Cut({**data, "model": model}, origin)


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """A normaliser, pre-tokeniser or post-processor and all that it is a sequence of."""
    if isinstance(node, dict):
        yield node
        for key in ("normalizers", "pretokenizers", "processors"):
            for child in node.get(key) or ():
                yield from _parts(child)


def _named(data: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every (token, id) that padding and post-processors name."""
    padding = data.get("padding")
    if isinstance(padding, dict):
        yield padding["pad_token"], int(padding["pad_id"])
    for part in _parts(data.get("post_processor")):
        for key in ("sep", "cls"):
            if key in part:
                yield part[key][0], int(part[key][1])
        special = part.get("special_tokens")
        for entry in special.values() if isinstance(special, dict) else ():
            yield from zip(entry["tokens"], (int(i) for i in entry["ids"]), strict=True)


def renumber(data: dict[str, Any], numbers: Mapping[int, int]) -> None:
    """Write the new ids into padding and post-processors, in place."""
    if isinstance(data.get("padding"), dict):
        data["padding"]["pad_id"] = numbers[data["padding"]["pad_id"]]
    for part in _parts(data.get("post_processor")):
        for key in ("sep", "cls"):
            if key in part:
                part[key] = [part[key][0], numbers[part[key][1]]]
        special = part.get("special_tokens")
        for entry in special.values() if isinstance(special, dict) else ():
            entry["ids"] = [numbers[i] for i in entry["ids"]]


def literals(template: str) -> Sequence[str]:
    """The pieces of text that a Jinja chat template can print: what stands outside tags, and quoted strings."""
    outside = re.split(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", template, flags=re.DOTALL)
    quoted = re.findall(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", template)
    inside = [(a or b).replace("\\n", "\n") for a, b in quoted]
    return [text for text in [*outside, *inside] if text.strip()]
