# SPDX-License-Identifier: Apache-2.0
"""Train the model of a tokenizer on text, and put it in the place of another tokenizer's model.

What surrounds the model stays: normaliser, decoder, control tokens, post-processor, padding. Words are cut before
training so that no token crosses the border of a word, a number or a mark of punctuation, and so that combining marks
stay with their letters, U+200C and U+200D inside their word, and U+200B, the word border of scripts that are written
without spaces, in front of its word, as a space is.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lect.errors import UserError
from lect.ops.text import backend, byte_count, encode
from lect.ops.tokenizer import BYTE, BYTE_OF, PLACEHOLDER, Vocabulary, literals, renumber

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Trained", "changed", "given", "letters", "mixed", "origins", "put", "runtime_split", "settings", "stays"]
__all__ += ["train", "word_split"]

SPACE = "▁"
LOWEST = -1e4  # of bytes and control tokens in Unigram: only where no other path is
FLOOR = 1e-4  # the trainer spreads characters that it lost by this step, in no fixed order
PIECE = 16, 48  # longest piece of a Unigram, in characters and, byte-level, in bytes
MARK, JOIN, BORDER = r"\p{M}", r"\x{200C}\x{200D}", r"\x{200B}"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The model of a tokenizer: tokens, single characters first (scores count in Unigram alone), and merges."""

    kind: str
    pieces: list[tuple[str, float]]
    merges: list[tuple[str, str]]


def word_split(old: Vocabulary) -> str:
    """The regular expression of words, numbers, punctuation and space; numbers are as long as old tokens have them."""
    numbers = {len(t.strip()) for t in map(old.surface, old.ids) if t.strip().isdecimal() and t.isascii()}
    spaced = any(t[1:].isdecimal() and t[0] == " " for t in map(old.surface, old.ids) if len(t) > 1)
    most = max(numbers, default=1)
    digits = r"\p{N}" if most == 1 else rf"\p{{N}}{{1,{most}}}" if most <= 3 else r"\p{N}+"
    blank = SPACE if _spells_spaces(old) else " "
    white = rf"\s{SPACE}" if _spells_spaces(old) else r"\s"
    inside = rf"\p{{L}}{MARK}"
    return (
        rf"['’][{inside}]{{1,2}}(?![{inside}{JOIN}])"
        rf"|[{blank}{BORDER}]?[{inside}{JOIN}]+"
        rf"|{f'[{blank}{BORDER}]?' if spaced else ''}{digits}"
        rf"|[{blank}{BORDER}]?[^{white}{inside}\p{{N}}{JOIN}{BORDER}]+[\r\n]*"
        rf"|[{white}]*[\r\n]+|[{white}]+(?![^{white}])|[{white}]+"
    )


def runtime_split(old: Vocabulary) -> dict[str, Any] | None:
    """The pre-tokeniser of byte-level BPE with words cut as in training; None where the old one has to stay.

    Vocabularies that spell spaces keep their own: their tokens do not cross words as it is, and GGUF files know no
    other. Those that mark where words begin or end (WordPiece, the first BPE models) decode by the old cuts, and one
    that puts a space in front of the text would put it in front of each word.
    """
    parts = [part for part in _parts(old.data.get("pre_tokenizer")) if part.get("type") == "ByteLevel"]
    if not parts or old.prefix or old.suffix or any(part.get("add_prefix_space") for part in parts):
        return None
    level = {**parts[-1], "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [_cut_at(word_split(old)), level]}


def letters(old: Vocabulary, texts: Iterable[str], limit: int) -> list[str]:
    """The characters that training starts from, ascending: bytes, or the ``limit`` most frequent and the old ones."""
    if old.byte_level:
        return sorted(c for c in BYTE_OF if c in old.ids)
    rust = _rust(old.data, {"type": "BPE", "vocab": {}, "merges": []})
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(rust.normalizer.normalize_str(text) if rust.normalizer else text)
    shown: Counter[str] = Counter()
    for character, n in counts.items():
        probe = f"a{character}a"
        parts = [part for part, _ in rust.pre_tokenizer.pre_tokenize_str(probe)] if rust.pre_tokenizer else [probe]
        for seen in {*"".join(parts)} - ({"a"} if character != "a" else set()):
            shown[seen] += n
    ranked = sorted(shown, key=lambda c: (-shown[c], c))[:limit]
    bare = {old.symbols(t)[0].removeprefix(old.prefix).removesuffix(old.suffix) for t in old.ids if t}
    stay = {c for c in bare if len(c) == 1} if not old.byte_fallback else {SPACE} & {*shown}
    typed = {chr(i) for i in range(0x21, 0x7F)} if old.byte_fallback else set()  # so that <0x41> is never a byte
    return sorted(stay | typed | {*ranked})


def train(
    old: Vocabulary, texts: Sequence[str], *, kind: str, size: int, least: int, alphabet: Sequence[str], split: bool
) -> Trained:
    """A ``BPE``, ``WordPiece`` or ``Unigram`` of about ``size`` tokens on text that the old tokenizer normalises.

    ``least`` is how often a pair must stand in the text (BPE and WordPiece). ``split`` cuts at :func:`word_split`,
    else at the old pre-tokeniser's cuts alone. A WordPiece is trained as a BPE, as its library does.
    """
    from tokenizers import models, trainers

    cuts: list[dict[str, Any]] = [part for part in [old.data.get("pre_tokenizer")] if part]
    if split:
        replaced = runtime_split(old)
        cuts = [replaced] if replaced else cuts if old.prefix or old.suffix else [*cuts, _cut_at(word_split(old))]
    if not old.byte_level:
        other = "[^" + "".join(rf"\x{{{ord(c):X}}}" for c in alphabet) + "]"
        cuts.append(_cut_at(other, "Removed"))
    frame = {**old.data, "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts}}
    rust = _rust(frame, {"type": "BPE", "vocab": {}, "merges": []})
    common: dict[str, Any] = {
        "vocab_size": size,
        "show_progress": False,
        "special_tokens": [],
        "initial_alphabet": list(alphabet),
    }
    if kind == "Unigram":
        rust.model = models.Unigram()
        try:
            rust.train_from_iterator(
                texts, trainers.UnigramTrainer(**common, unk_token=None, max_piece_length=PIECE[old.byte_level])
            )
        except Exception as error:  # the library knows no finer class
            raise UserError(f"tokenizer: no Unigram of {size} tokens can be trained here: {error}") from None
        scores = dict(json.loads(rust.to_str())["model"]["vocab"])
        return Trained(kind=kind, pieces=_settled(scores), merges=[])
    marks: dict[str, Any] = {"continuing_subword_prefix": old.prefix, "end_of_word_suffix": old.suffix}
    marks = {key: mark for key, mark in marks.items() if mark}
    rust.model = models.BPE(**marks)
    trainer = trainers.BpeTrainer(**common, **marks, min_frequency=least, limit_alphabet=len(alphabet))
    rust.train_from_iterator(texts, trainer)
    made = Vocabulary(json.loads(rust.to_str()))
    known = {made.strings[i] for i in made.strings}
    singles = sorted(known - {made.joined(a, b) for a, b in made.merges})
    grown = dict.fromkeys(made.joined(a, b) for a, b in made.merges)
    return Trained(kind=kind, pieces=[(token, 0.0) for token in [*singles, *grown]], merges=made.merges)


def _settled(scores: dict[str, float]) -> list[tuple[str, float]]:
    """Pieces, single characters first, with scores that do not hang on the order of a hash table."""
    lowest = min(scores.values())
    near = lowest + FLOOR * (1 + sum(len(token) == 1 for token in scores))
    even = {t: round(lowest if len(t) == 1 and s <= near else s, 6) for t, s in scores.items()}
    return sorted(even.items(), key=lambda pair: (len(pair[0]) > 1, -pair[1], pair[0]))


def settings(old: Vocabulary, kind: str) -> dict[str, Any]:
    """The settings of a model of ``kind``, without its tokens: the old one's where it is of that kind.

    What cannot be is a UserError: a Unigram has no mark of where words begin or end, and must know every character.
    """
    before = {k: v for k, v in old.data["model"].items() if k not in ("vocab", "merges")}
    if kind == old.kind:
        return before
    unknown = None if old.unknown is None else old.strings[old.unknown]
    if kind == "BPE":
        return {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": old.prefix or None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": old.byte_fallback,
            "ignore_merges": False,
        }
    if old.prefix or old.suffix:
        raise UserError(f"kind: a Unigram cannot take the place of a {old.kind} that marks parts of words; choose bpe")
    if unknown is None and not old.byte_level:
        raise UserError("kind: a Unigram needs an unknown token, which this tokenizer has not; choose bpe")
    return {"type": "Unigram", "unk_id": old.unknown, "byte_fallback": old.byte_fallback}


def given(other: Vocabulary) -> Trained:
    """The model of a tokenizer that was trained elsewhere, without its control tokens."""
    control = {int(t["id"]) for t in other.added if t.get("special")} - {other.unknown}
    if other.kind == "Unigram":
        pieces = [(str(t), float(s)) for n, (t, s) in enumerate(other.data["model"]["vocab"]) if n not in control]
    else:
        pieces = [(t, 0.0) for i, t in sorted((i, t) for t, i in other.ids.items()) if i not in control]
    return Trained(kind=other.kind, pieces=pieces, merges=other.merges)


def put(
    frame: Vocabulary,
    old: Vocabulary,
    keep: Collection[int],
    trained: Trained,
    model: Mapping[str, Any],
    *,
    rows: int,
    multiple: int,
) -> dict[str, Any]:
    """A ``tokenizer.json`` with the model ``trained``, the old tokens ``keep`` in front of it, added ones behind it.

    Normaliser, pre-tokeniser, decoder and plain added tokens are those of ``frame``; control tokens, post-processor
    and padding those of ``old``; ``model`` holds the settings of the model. At most ``rows`` tokens, and a multiple
    of ``multiple`` where that leaves out longer tokens alone: the last ones, with their merges. Too few rows for
    ``keep`` and the single characters are a UserError.
    """
    front = [old.strings[i] for i in sorted(keep) if old.strings[i] in old.ids]
    added = [dict(token) for token in old.added if int(token["id"]) in keep]
    named = {token["content"] for token in added}
    if frame is not old:
        added += [dict(token) for token in frame.added if not token.get("special") and token["content"] not in named]
    outside = {token["content"] for token in added} - {*front, *(token for token, _ in trained.pieces)}
    fresh = [token for token, _ in trained.pieces if token not in {*front}]
    singles = sum(len(frame.symbols(token)) == 1 for token in fresh)
    needed = len(front) + len(outside) + singles
    if needed > rows:
        raise UserError(
            f"size: {rows} tokens are below the alphabet of {needed} (characters, bytes and control tokens); raise size"
        )
    total = min(rows, needed + len(fresh) - singles)
    fresh = fresh[: max(needed, total // multiple * multiple) - len(front) - len(outside)]
    numbers = {token: n for n, token in enumerate([*front, *fresh])}
    vocab = dict(numbers)
    for token in added:
        token["id"] = numbers.setdefault(token["content"], len(numbers))
    data: dict[str, Any] = json.loads(json.dumps({k: v for k, v in old.data.items() if k != "model"}))
    data |= {key: frame.data.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")}
    data["added_tokens"] = sorted(added, key=lambda token: int(token["id"]))
    renumber(data, {i: numbers[old.strings[i]] for i in keep})
    data["model"] = {k: v for k, v in model.items() if k not in ("vocab", "merges", "unk_id")}
    if trained.kind == "Unigram":
        scores = dict(trained.pieces)
        unknown = model.get("unk_id")
        name = None if unknown is None else (frame if frame.kind == "Unigram" else old).strings[unknown]
        data["model"]["unk_id"] = None if name is None else vocab[name]
        data["model"]["vocab"] = [[token, scores.get(token, _score(token, scores))] for token in vocab]
    else:
        data["model"]["vocab"] = vocab
    if trained.kind == "BPE":
        joined = Vocabulary({**data, "model": data["model"] | {"merges": []}}).joined
        data["model"]["merges"] = [
            [a, b] for a, b in trained.merges if a in vocab and b in vocab and joined(a, b) in vocab
        ]
    return data


def stays(old: Vocabulary, tokenizer: Any, fixed: Collection[int], usable: Collection[int]) -> set[int]:
    """The old ids that stay whatever the text: added tokens but placeholders, the alphabet, what files name.

    ``fixed`` holds the ids that stay when a vocabulary is cut; what it holds for the words of the chat template goes,
    since a new tokenizer spells those anew.
    """
    template = tokenizer.chat_template or ""
    template = "\n".join(template.values()) if isinstance(template, dict) else template
    spoken = old.ancestors(i for ids in encode(tokenizer, literals(template)) for i in ids)
    added = {int(token["id"]) for token in old.added}
    own = {int(token["id"]) for token in old.added if not PLACEHOLDER.fullmatch(token["content"])}
    return (own | old.alphabet | old.named(template) | (set(fixed) - (spoken - added))) & set(usable)


def mixed(target: Sequence[str], kept: Sequence[str], share: float, seed: int) -> list[str]:
    """The target text, and kept documents drawn at random up to their share of all bytes."""
    budget = byte_count(target) * share / (1 - share)
    drawn, chosen = list(kept), list[str]()
    random.Random(seed).shuffle(drawn)
    for text in drawn:
        if (budget := budget - byte_count([text])) < 0:
            break
        chosen.append(text)
    return [*target, *chosen]


def changed(
    old: Any, new: Any, texts: Sequence[str], known: Sequence[NDArray[np.int32]], unknown: int | None
) -> tuple[int, int, int]:
    """How many of the texts decode to something else than before; tokens before and after.

    ``known`` holds their old ids. A text with an ``unknown`` old token had lost something, so it counts in none.
    """
    garbled = before = after = 0
    for ids, now in zip(known, encode(new, texts), strict=True):
        if unknown is not None and bool((ids == unknown).any()):
            continue
        was = backend(old).decode(ids.tolist(), skip_special_tokens=False)
        garbled += was != backend(new).decode(now, skip_special_tokens=False)
        before, after = before + len(ids), after + len(now)
    return garbled, before, after


def _score(token: str, scores: Mapping[str, float]) -> float:
    """The score of a token that no training has seen: a character is rare, all else only where nothing else is."""
    return min(scores.values()) if len(token) == 1 else LOWEST


def origins(old: Vocabulary, data: dict[str, Any], usable: Collection[int]) -> list[int]:
    """For each id of a ``tokenizer.json``, the old id of the token that is spelled the same, or -1.

    Tokenizers that spell text in different ways are compared by the bytes of their tokens, control tokens by name.
    """
    new = Vocabulary(data)
    alike = (old.byte_level, old.prefix, old.suffix) == (new.byte_level, new.prefix, new.suffix)
    names = {token["content"] for token in (*old.added, *new.added)}

    def spelling(vocabulary: Vocabulary, token: str) -> str | bytes:
        return token if alike or token in names else _bytes(vocabulary, token)

    ranked = sorted(usable, key=lambda i: (BYTE.fullmatch(old.strings[i]) is None, -i))  # of equals, the last one stays
    known = {spelling(old, old.strings[i]): i for i in ranked}
    return [known.get(spelling(new, new.strings[n]), -1) for n in range(len(new.strings))]


def _bytes(vocabulary: Vocabulary, token: str) -> bytes:
    """The text of a token in UTF-8, with the space of a word's beginning."""
    if vocabulary.byte_level and all(c in BYTE_OF for c in token):
        return bytes(BYTE_OF[c] for c in token)
    if BYTE.fullmatch(token):
        return bytes([int(token[3:5], 16)])
    lead = " " if vocabulary.prefix and not token.startswith(vocabulary.prefix) else ""
    return (lead + vocabulary.surface(token)).encode()


def _rust(data: Mapping[str, Any], model: Mapping[str, Any]) -> Any:
    """A Rust tokenizer with the normaliser and pre-tokeniser of ``data`` and no added token."""
    from tokenizers import Tokenizer

    frame = {key: data.get(key) for key in ("normalizer", "pre_tokenizer")}
    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **frame, "model": model}))


def _cut_at(expression: str, behavior: str = "Isolated") -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": False}


def _spells_spaces(vocabulary: Vocabulary) -> bool:
    """Whether the tokenizer writes spaces as U+2581."""
    nodes = [*_parts(vocabulary.data.get("normalizer")), *_parts(vocabulary.data.get("pre_tokenizer"))]
    return any(part.get("type") == "Metaspace" or part.get("content") == SPACE for part in nodes)


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """A normaliser or pre-tokeniser and all that it is a sequence of."""
    if isinstance(node, dict):
        yield node
        for child in node.get("normalizers") or node.get("pretokenizers") or ():
            yield from _parts(child)
