# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of a GGUF file as a Hugging Face tokenizer.

A SentencePiece-like vocabulary (``llama`` in GGUF) has pieces with scores and joins whatever neighbours make the
piece of the highest score. The same as ranked merges: every split of a piece into two pieces is a merge, ranked by
the score of the piece. Control tokens become special added tokens; user-defined ones become plain added tokens that
are matched before anything is merged, runs of spaces too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lect.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "▁"
NAMED = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token", "mask": "mask_token"}


def read(fields: Mapping[str, Any], where: str) -> Any:
    """The tokenizer that a GGUF file describes, as a ``PreTrainedTokenizerFast``."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    kind = fields.get("tokenizer.ggml.model")
    tokens = list(fields.get("tokenizer.ggml.tokens") or [])
    types = fields.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if not tokens or len(types) != len(tokens):
        raise UserError(f"{where}: holds no whole vocabulary; export the GGUF file again")
    if kind == "llama":
        data = _pieces(fields, tokens, types, where)
    else:
        raise UserError(f"{where}: has a tokenizer of kind {kind!r}; lect reads 'llama'; give a folder instead")
    named = {name: _named(fields, key, tokens) for key, name in NAMED.items()}
    named = {name: token for name, token in named.items() if token is not None}
    data["post_processor"] = _frame(fields, named, tokens)
    rust = Tokenizer.from_str(json.dumps(data))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, clean_up_tokenization_spaces=False, **named)
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    return tokenizer


def _named(fields: Mapping[str, Any], key: str, tokens: list[str]) -> str | None:
    number = fields.get(f"tokenizer.ggml.{key}_token_id")
    return tokens[number] if isinstance(number, int) and number < len(tokens) else None


def _pieces(fields: Mapping[str, Any], tokens: list[str], types: list[int], where: str) -> dict[str, Any]:
    """The ``tokenizer.json`` of a SentencePiece-like vocabulary."""
    scores = fields.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise UserError(f"{where}: its vocabulary has no scores; export the GGUF file again")
    # llama.cpp's converter writes runs of spaces as they are typed; a tokenizer.json spells them in its own alphabet.
    spelled = [t.replace(" ", SPACE) if kind == USER_DEFINED else t for t, kind in zip(tokens, types, strict=True)]
    vocab = {token: i for i, token in enumerate(spelled)}
    if len(vocab) != len(tokens):
        raise UserError(f"{where}: its vocabulary has {len(tokens) - len(vocab)} tokens twice; export it again")
    added = []
    for i, (token, kind) in enumerate(zip(spelled, types, strict=True)):
        if kind in (CONTROL, UNKNOWN, USER_DEFINED):
            runs = kind == USER_DEFINED and token.strip(SPACE) == ""
            added.append(
                {
                    "id": i,
                    "content": token,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    # Spaces are spelled by the normaliser, so that their runs are found after it.
                    "normalized": runs,
                    "special": kind != USER_DEFINED,
                }
            )
    normal = {token for token, kind in zip(spelled, types, strict=True) if kind == NORMAL}
    fallback = all(f"<0x{byte:02X}>" in vocab for byte in range(256))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    normalizer: dict[str, Any] = replace
    decoders: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    decoders += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if fields.get("tokenizer.ggml.add_space_prefix", True):
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": _named(fields, "unknown", tokens),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": fallback,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges(normal, dict(zip(spelled, scores, strict=True))),
        },
    }


def merges(pieces: set[str], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces, by the score of the whole, then by longer parts first."""
    found = []
    for piece in pieces:
        score = scores[piece]
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in pieces and right in pieces:
                found.append((-score, piece, -cut, left, right))
    found.sort()
    return [(left, right) for _, _, _, left, right in found]


def _frame(fields: Mapping[str, Any], named: Mapping[str, str], tokens: list[str]) -> dict[str, Any] | None:
    """The post-processor that puts the begin and end tokens where the file says."""
    first = named.get("bos_token") if fields.get("tokenizer.ggml.add_bos_token", False) else None
    last = named.get("eos_token") if fields.get("tokenizer.ggml.add_eos_token", False) else None
    if first is None and last is None:
        return None

    def row(*kinds: str) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for number, sequence in enumerate(kinds):
            parts += [{"SpecialToken": {"id": first, "type_id": number}}] if first else []
            parts += [{"Sequence": {"id": sequence, "type_id": number}}]
            parts += [{"SpecialToken": {"id": last, "type_id": number}}] if last else []
        return parts

    ends = [token for token in (first, last) if token is not None]
    special = {t: {"id": t, "ids": [tokens.index(t)], "tokens": [t]} for t in ends}
    return {"type": "TemplateProcessing", "single": row("A"), "pair": row("A", "B"), "special_tokens": special}
