# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of a GGUF file as a Hugging Face tokenizer.

A byte-level BPE (``gpt2`` in GGUF) has merges and the name of a pre-tokenizer; :data:`PRE` holds those whose regular
expressions are known here. A SentencePiece-like vocabulary (``llama`` in GGUF) has pieces with scores and joins
whatever neighbours make the piece of the highest score. The same as ranked merges: every split of a piece into two
pieces is a merge, ranked by the score of the piece. Control tokens become special added tokens; user-defined ones
become plain added tokens that are matched before anything is merged, runs of spaces too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lect.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "▁"
RAW_BPE = "sarvam-moe"  # llama.cpp's name for BPE over raw characters with byte tokens
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL
PRE: dict[str, tuple[tuple[str, ...], bool]] = {
    "gpt-2": (("gpt2",), False),
    "smollm": ((r"\p{N}", "gpt2"), False),
    "llama-bpe": ((_LLAMA3,), True),
    "smaug-bpe": ((_LLAMA3,), False),
    "qwen2": ((_QWEN2,), False),
}
"""llama.cpp's name of a pre-tokenizer: its expressions (``gpt2`` is the one inside ``ByteLevel``), and whether a word
that is a token needs no merges. Those of GPT-4o and Mistral's Tekken are not here: llama.cpp splits marks otherwise."""
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
    elif kind == "gpt2":
        data = _merged(fields, tokens, types, where)
    else:
        raise UserError(f"{where}: has a tokenizer of kind {kind!r}; lect reads 'llama' and 'gpt2'; give a folder")
    found = {name: _named(fields, key, tokens) for key, name in NAMED.items()}
    named = {name: token for name, token in found.items() if token is not None}
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
    normal = {token for token, kind in zip(spelled, types, strict=True) if kind == NORMAL}
    ranked = merges(normal, dict(zip(spelled, scores, strict=True)))
    prefix = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    return _spaced(spelled, types, ranked, prefix, _named(fields, "unknown", tokens), where)


def _spaced(
    tokens: list[str], types: list[int], ranked: list[tuple[str, str]], prefix: bool, unknown: str | None, where: str
) -> dict[str, Any]:
    """The ``tokenizer.json`` of a BPE over text whose spaces are spelled U+2581, with byte fallback."""
    vocab = _vocab(tokens, types, where)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    normalizer: dict[str, Any] = replace
    decoders: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    decoders += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if prefix:
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, types),
        "normalizer": normalizer,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": all(f"<0x{byte:02X}>" in vocab for byte in range(256)),
            "ignore_merges": False,
            "vocab": vocab,
            "merges": ranked,
        },
    }


def _merged(fields: Mapping[str, Any], tokens: list[str], types: list[int], where: str) -> dict[str, Any]:
    """The ``tokenizer.json`` of a BPE with merges, byte-level or over raw characters."""
    listed = fields.get("tokenizer.ggml.merges")
    pre = fields.get("tokenizer.ggml.pre")
    if not isinstance(listed, list):
        raise UserError(f"{where}: its vocabulary has no merges; export the GGUF file again")
    # A space stands between the two parts, but may also be the first character of the first.
    ranked = [(m[: m.index(" ", 1)], m[m.index(" ", 1) + 1 :]) for m in listed if " " in m[1:]]
    if pre == RAW_BPE:
        spelled = [t.replace(" ", SPACE) if kind == USER_DEFINED else t for t, kind in zip(tokens, types, strict=True)]
        return _spaced(spelled, types, ranked, False, _named(fields, "unknown", tokens), where)
    if pre not in PRE:
        raise UserError(
            f"{where}: has the pre-tokenizer {pre!r}; lect reads {', '.join([*PRE, RAW_BPE])}; give a folder instead"
        )
    expressions, ignore_merges = PRE[pre]
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": False}
        for e in expressions
        if e != "gpt2"
    ]
    steps.append(
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": "gpt2" in expressions}
    )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, types),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": _vocab(tokens, types, where),
            "merges": ranked,
        },
    }


def _vocab(tokens: list[str], types: list[int], where: str) -> dict[str, int]:
    """The id of every token that is one; unused rows have none."""
    if len(set(tokens)) != len(tokens):
        raise UserError(f"{where}: its vocabulary has {len(tokens) - len(set(tokens))} tokens twice; export it again")
    return {token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind != UNUSED}


def _added(tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    """The added tokens: control and unknown ones are special, user-defined ones are not."""
    return [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            # Spaces are spelled by the normaliser, so that their runs are found after it.
            "normalized": kind == USER_DEFINED and token.strip(SPACE) == "",
            "special": kind != USER_DEFINED,
        }
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]


def merges(pieces: set[str], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces, by the score of the whole, then by longer parts first."""
    found = []
    for piece in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in pieces and right in pieces:
                found.append((-scores[piece], piece, -cut, left, right))
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
