# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face tokenizer as the vocabulary of a GGUF file, so that llama.cpp gives the same token ids.

llama.cpp's own converter knows a tokenizer by a hash of some token ids and refuses every changed one. Here the form
follows from the tokenizer itself:

- *byte-level BPE*: kind ``gpt2`` with its merges; the pre-tokenizer is found by its own regular expression;
- *BPE over spaces spelled U+2581 with byte fallback*: llama.cpp's SentencePiece kind ``llama`` joins the neighbours
  whose concatenation is the piece of the highest score, whatever the merges say. That is the same segmentation when
  every split of a piece into pieces is a merge, and the merges of one piece stand together in rank. This holds for
  Gemma, Llama 2 and Mistral and for every subset of their vocabularies. Where it does not hold (merges learnt by
  another trainer), the merges are written out by rank for llama.cpp's BPE over raw characters.

Anything else is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lect.errors import UserError
from lect.ops.gguf_tokenizer import BYTE, CONTROL, NORMAL, PRE, RAW_BPE, SPACE, UNKNOWN, UNUSED, USER_DEFINED
from lect.ops.text import backend

LOWEST = -1e6  # the score of what no merge makes
IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding", "mask_token": "mask"}
IDS |= {"sep_token": "seperator", "cls_token": "cls"}  # (sic) the field's own spelling


@dataclass
class Written:
    """The fields of a GGUF file that describe a tokenizer, and what is not quite the same in llama.cpp."""

    fields: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write(tokenizer: Any, rows: int) -> Written:
    """The vocabulary fields of ``tokenizer`` for a model of ``rows`` embedding rows."""
    rust = backend(tokenizer)
    data = json.loads(rust.to_str())
    model = data["model"]
    if model.get("type") != "BPE":
        raise UserError(f"tokenizer: is of kind {model.get('type')}; lect writes GGUF files with BPE tokenizers only")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UserError(f"tokenizer: uses {key}, which GGUF has no place for; export to a Hugging Face folder only")
    result = Written()
    byte_level = any(part.get("type") == "ByteLevel" for part in _parts(data.get("pre_tokenizer")))
    tokens, types = _tokens(data, rows, byte_level)
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else (m[0], m[1]) for m in model["merges"]]
    fields: dict[str, Any] = result.fields
    if byte_level:
        fields |= {
            "model": "gpt2",
            "pre": _pre_tokenizer(data, result.notes),
            "merges": [f"{a} {b}" for a, b in merges],
        }
        if missing := 256 - sum(len(t) == 1 and ord(t) < 0x144 for t in model["vocab"]):
            raise UserError(f"tokenizer: lacks {missing} of the 256 bytes; llama.cpp would drop them without a word")
    else:
        prefix = _space_prefix(data, result.notes)
        if prefix and any(SPACE in t and token.get("normalized") for t, token in _added(data).items()):
            raise UserError(
                "tokenizer: puts a space before the text and has added tokens of spaces; no GGUF form for it"
            )
        if not model.get("byte_fallback") or any(f"<0x{b:02X}>" not in model["vocab"] for b in range(256)):
            raise UserError("tokenizer: has no 256 byte tokens, without which llama.cpp stops at unknown characters")
        scores = _scores(model["vocab"], merges, set(_added(data)))
        if scores is not None:
            listed = [
                scores.get(t, LOWEST) if kind == NORMAL else LOWEST for t, kind in zip(tokens, types, strict=True)
            ]
            fields |= {"model": "llama", "pre": "default", "scores": listed, "add_space_prefix": prefix}
        else:
            _check_raw(merges, prefix)
            fields |= {"model": "gpt2", "pre": RAW_BPE, "merges": [f"{a} {b}" for a, b in merges]}
            result.notes.append(
                "the merges are not those of SentencePiece, so the GGUF file keeps them by rank; it needs a llama.cpp "
                "of 2026-08 or newer"
            )
    fields |= {"tokens": tokens, "token_type": types} | _named(tokenizer, rust)
    if template := getattr(tokenizer, "chat_template", None):
        fields["chat_template"] = template if isinstance(template, str) else template.get("default", "")
    result.fields = {f"tokenizer.{k}" if k == "chat_template" else f"tokenizer.ggml.{k}": v for k, v in fields.items()}
    return result


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """A normaliser or pre-tokenizer, or all that it is a sequence of."""
    if isinstance(node, dict) and node.get("type") == "Sequence":
        for child in node.get("normalizers") or node.get("pretokenizers") or ():
            yield from _parts(child)
    elif isinstance(node, dict):
        yield node


def _added(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {token["content"]: token for token in data.get("added_tokens") or ()}


def _tokens(data: Mapping[str, Any], rows: int, byte_level: bool) -> tuple[list[str], list[int]]:
    """Text and type of every row; rows without a token get a name of their own and the type *unused*."""
    added = _added(data)
    names = {i: token for token, i in data["model"]["vocab"].items()} | {t["id"]: c for c, t in added.items()}
    unknown = data["model"].get("unk_token")
    tokens, types = [], []
    for row in range(rows):
        token, kind = names.get(row), NORMAL
        if token is None:
            token, kind = f"[PAD{row}]", UNUSED
        elif token in added:
            kind = UNKNOWN if token == unknown else CONTROL if added[token].get("special") else USER_DEFINED
            strips = [key for key in ("lstrip", "rstrip", "single_word") if added[token].get(key)]
            if strips and kind == USER_DEFINED:
                raise UserError(f"tokenizer: the added token {token!r} has {strips[0]}, which GGUF has no place for")
            # llama.cpp looks for these in the text as it is typed.
            token = token.replace(SPACE, " ") if kind == USER_DEFINED and not byte_level else token
        elif not byte_level and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            kind = BYTE
        tokens.append(token)
        types.append(kind)
    if len(set(tokens)) != rows:
        twice = next(t for t in tokens if tokens.count(t) > 1)
        raise UserError(f"tokenizer: two rows have the token {twice!r}, which llama.cpp refuses; rename one")
    return tokens, types


def _pre_tokenizer(data: Mapping[str, Any], notes: list[str]) -> str:
    """llama.cpp's name for the pre-tokenizer, from its regular expressions."""
    for part in _parts(data.get("normalizer")):
        if part["type"] != "NFC":
            raise UserError(f"tokenizer: its normaliser {part['type']} has no place in GGUF; export to a folder only")
        notes.append("llama.cpp does not bring text to NFC as this tokenizer does; give it NFC text")
    steps: list[str] = []
    for part in _parts(data.get("pre_tokenizer")):
        if part["type"] == "ByteLevel":
            if part.get("add_prefix_space"):
                raise UserError("tokenizer: puts a space before the text, which llama.cpp's BPE does not")
            steps += ["gpt2"] if part.get("use_regex", True) else []
        elif part["type"] == "Digits" and part.get("individual_digits"):
            steps.append(r"\p{N}")
        elif part["type"] == "Split" and part["behavior"] == "Isolated" and not part.get("invert"):
            steps.append(part["pattern"].get("Regex") or part["pattern"].get("String"))
        else:
            raise UserError(f"tokenizer: its pre-tokenizer {part['type']} is none that llama.cpp has")
    for name, (wanted, ignore_merges) in PRE.items():
        if tuple(steps) == wanted and bool(data["model"].get("ignore_merges")) == ignore_merges:
            return name
    raise UserError(
        f"tokenizer: its pre-tokenizer is none that lect knows in llama.cpp ({', '.join(PRE)}); "
        "export to a Hugging Face folder only"
    )


def _space_prefix(data: Mapping[str, Any], notes: list[str]) -> bool:
    """Whether a space goes before the text; any spelling of spaces but that of SentencePiece is refused."""
    prefix, spelled = False, False
    for part in _parts(data.get("normalizer")):
        if part["type"] == "Replace" and part["pattern"].get("String") == " " and part["content"] == SPACE:
            spelled = True
        elif part["type"] == "Prepend" and part["prepend"] == SPACE and not spelled:
            prefix = True
        else:
            raise UserError(f"tokenizer: its normaliser {part['type']} has no place in GGUF; export to a folder only")
    for part in _parts(data.get("pre_tokenizer")):
        if part["type"] == "Metaspace" and part["replacement"] == SPACE and not part.get("split", True):
            spelled = True
            if part.get("prepend_scheme", "always") != "never":
                prefix = True
                notes.append("llama.cpp puts a space also before text that begins with one")
        elif not (part["type"] == "Split" and part["pattern"] == {"String": " "} and spelled):
            raise UserError(f"tokenizer: its pre-tokenizer {part['type']} is none that llama.cpp has")
    if not spelled:
        raise UserError("tokenizer: is neither byte-level nor spells spaces as SentencePiece does; no GGUF form for it")
    return prefix


def _scores(vocab: Mapping[str, int], merges: list[Any], added: set[str]) -> dict[str, float] | None:
    """Scores under which SentencePiece's merging does what the merges do, or None when there are none."""
    known = set(merges)
    scores: dict[str, float] = {}
    last = None
    for left, right in merges:
        piece = left + right
        if piece != last and piece in scores:
            return None  # another piece's merges stand between those of this one
        scores.setdefault(piece, -float(len(scores)))
        last = piece
    for piece in vocab:
        if piece in added:
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab and (left, right) not in known and not {left, right} & added:
                return None
    return scores


def _check_raw(merges: list[Any], prefix: bool) -> None:
    if prefix:
        raise UserError(
            "tokenizer: puts a space before the text and its merges are not those of SentencePiece; llama.cpp has no "
            "such tokenizer; export to a Hugging Face folder only"
        )
    if any("\n" in a + b and (a + b).strip("\n") for a, b in merges):
        raise UserError("tokenizer: has tokens that cross a line's end, which llama.cpp's BPE over raw characters cuts")


def _named(tokenizer: Any, rust: Any) -> dict[str, Any]:
    """Special ids, and which of them the tokenizer puts around a text."""
    fields: dict[str, Any] = {}
    for ours, theirs in IDS.items():
        number = getattr(tokenizer, f"{ours}_id", None)
        if isinstance(number, int):
            fields[f"{theirs}_token_id"] = number
    bare, framed = (rust.encode("a", add_special_tokens=special).ids for special in (False, True))
    at = next((i for i in range(len(framed) - len(bare) + 1) if framed[i : i + len(bare)] == bare), 0)
    before, after = framed[:at], framed[at + len(bare) :]
    if before not in ([], [fields.get("bos_token_id")]) or after not in ([], [fields.get("eos_token_id")]):
        raise UserError(f"tokenizer: puts {framed} around text where GGUF can say one begin and one end token")
    return fields | {"add_bos_token": bool(before), "add_eos_token": bool(after)}
