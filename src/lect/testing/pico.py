# SPDX-License-Identifier: Apache-2.0
"""Pico models of every family and a pico corpus: made from nothing in a second, for tests that need no network.

Each model has random weights from a fixed seed and a tokenizer of its family's kind, trained on
the kept text of the pico corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lect.artefacts import Corpus, Document, Model

FAMILIES = ("gemma3", "llama", "qwen3", "gpt2", "bert")
CAUSAL = FAMILIES[:4]
ROWS = 600

_TARGET = [
    "Kalkulu-orriko gelaxka bat hautatzeko, egin klik gelaxkan.",
    "Dokumentua gordetzeko, aukeratu Fitxategia menua eta gero Gorde.",
    "Taula bat txertatzeko, ireki Txertatu menua eta hautatu Taula.",
    "Formula batek zenbaki bat edo testu bat itzultzen du.",
    "Orriaren tamaina aldatzeko, ireki Formatua eta aukeratu Orria.",
]
_KEPT = [
    "To select a cell in the sheet, click the cell with the mouse.",
    "To save the document, choose the File menu and then Save.",
    "To insert a table, open the Insert menu and select Table.",
    "A formula gives back a number or a text, never both at once.",
    "To change the size of the page, open Format and choose Page.",
]
_RARE = ["ñandú façade Ελλάδα привет 数字 🙂 naïve", '<b>tag</b> & {"key": [1, 2.5]}', "   spaces\tand\n\nlines  "]


def documents() -> Iterator[Document]:
    """Yield the 30 documents of the pico corpus: 15 target, 15 kept, over the three splits."""
    for role, lines, language in (("target", _TARGET, "eu"), ("kept", _KEPT, "en")):
        for number in range(15):
            parts = [lines[(number * step + step) % len(lines)] for step in (1, 2, 3, 4)]
            extra = _RARE[number % len(_RARE)] if number % 5 == 0 else ""
            text = f"{number}. " + "\n".join([*parts, extra]).strip()
            split = "test" if number % 5 == 3 else "calibration" if number % 5 == 1 else "train"
            name = hashlib.sha256(f"{role}\0{text}".encode()).hexdigest()
            yield Document(id=name, text=text, source=f"{role}.txt", language=language, role=role, split=split)


def messy() -> Iterator[Document]:
    """Yield the pico corpus four times over, each text new, and documents that a corpus step should do something to."""
    rows = [*documents()]
    for number, document in enumerate(rows * 4):
        words = document.text.split()
        start = number % len(words)
        yield _document(document, f"{number} " + " ".join(words[start:] + words[:start]))
    first, last = rows[0], rows[-1]
    yield from (first, first)
    yield _document(last, last.text + " Now.")
    yield _document(last, last.text + " Then.")
    french = "Pour sélectionner une cellule dans la feuille, cliquez sur la cellule avec la souris, puis enregistrez. "
    yield _document(first, french * 2 + "Le document est ensuite imprimé sur l'imprimante par défaut du système.")
    yield _document(first, "a")
    yield _document(first, "Gorde eta gorde. \n" * 40)
    yield _document(first, "Cafe\u0301   \t \r\n\r\n\r\n\r\nbat   ")


def _document(like: Document, text: str) -> Document:
    name = hashlib.sha256(f"{like.role}\0{text}".encode()).hexdigest()
    return replace(like, id=name, text=text)


def corpus(folder: Path) -> Corpus:
    """The pico corpus, written to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return Corpus.write(folder, documents())


def model(family: str, folder: Path, *, tied: bool | None = None, padding: int = 0, seed: int = 0) -> Model:
    """A pico model of ``family``, written to ``folder``; ``padding`` adds embedding rows beyond the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    live, tokenizer = build(family, tied=tied, padding=padding, seed=seed)
    return Model.write(folder, live, tokenizer)


def build(family: str, *, tied: bool | None = None, padding: int = 0, seed: int = 0) -> tuple[Any, Any]:
    """A pico model and its tokenizer in memory; torch's random state is left as it was."""
    import torch
    import transformers

    tokenizer = _tokenizer(family)
    rows = len(tokenizer) + padding
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids["pad_token_id"] = tokenizer.pad_token_id
    small = {"vocab_size": rows, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    wide = small | {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256}
    if family == "gemma3":
        layers = ["sliding_attention", "full_attention"]
        config: Any = transformers.Gemma3TextConfig(
            **wide,
            **ids,
            sliding_window=16,
            layer_types=layers,
            query_pre_attn_scalar=16,
            tie_word_embeddings=tied is not False,
        )
        kind: Any = transformers.Gemma3ForCausalLM
    elif family == "llama":
        config = transformers.LlamaConfig(**wide, **ids, tie_word_embeddings=bool(tied))
        kind = transformers.LlamaForCausalLM
    elif family == "qwen3":
        config = transformers.Qwen3Config(**wide, **ids, tie_word_embeddings=tied is not False)
        kind = transformers.Qwen3ForCausalLM
    elif family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=rows,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=256,
            tie_word_embeddings=tied is not False,
            **ids,
        )
        kind = transformers.GPT2LMHeadModel
    elif family == "bert":
        config = transformers.BertConfig(**small, intermediate_size=64, max_position_embeddings=256, pad_token_id=0)
        kind = transformers.BertForMaskedLM
    else:
        raise ValueError(f"no pico family {family!r}; known: {', '.join(FAMILIES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        live = kind(config)
        with torch.no_grad():
            for parameter in live.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.2)
    return live.eval(), tokenizer


def _tokenizer(family: str) -> Any:
    """A tokenizer of the family's kind, trained on the kept text of the pico corpus: the target has words to add."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [document.text for document in documents() if document.role == "kept"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if family == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        rust = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        rust.normalizer = normalizers.BertNormalizer()
        rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        rust.train_from_iterator(
            texts, trainers.WordPieceTrainer(vocab_size=ROWS, special_tokens=special, show_progress=False)
        )
        rust.decoder = decoders.WordPiece()
        ends = [(word, special.index(word)) for word in ("[SEP]", "[CLS]")]
        rust.post_processor = processors.BertProcessing(*ends)
        return PreTrainedTokenizerFast(
            tokenizer_object=rust,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
        )
    if family in ("gemma3", "llama"):
        special = ["<pad>", "<eos>", "<bos>", "<unk>"] if family == "gemma3" else ["<unk>", "<s>", "</s>", "<pad>"]
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        rust = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        rust.normalizer = normalizers.Replace(" ", "▁")
        rust.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
        trainer = trainers.BpeTrainer(
            show_progress=False, vocab_size=ROWS, special_tokens=[*special, *fallback], limit_alphabet=80
        )
        rust.train_from_iterator(texts, trainer)
        rust.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        rust = _like_sentencepiece(rust, set(fallback))
        rust.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("<b>", normalized=False)])
        names = dict(
            zip(("pad_token", "eos_token", "bos_token", "unk_token"), ("<pad>", "<eos>", "<bos>", "<unk>"), strict=True)
        )
        if family == "llama":
            names = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
        begin = names["bos_token"]
        rust.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, rust.token_to_id(begin))]
        )
        return PreTrainedTokenizerFast(tokenizer_object=rust, **names)
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(
        show_progress=False, vocab_size=ROWS, special_tokens=special, initial_alphabet=alphabet
    )
    rust.train_from_iterator(texts, trainer)
    rust.decoder = decoders.ByteLevel()
    end, pad = special
    return PreTrainedTokenizerFast(tokenizer_object=rust, eos_token=end, bos_token=end, pad_token=pad)


def _like_sentencepiece(rust: Any, fallback: set[str]) -> Any:
    """The tokenizer as the families' own files have it.

    Byte tokens are plain entries of the model, no piece crosses a line's end, nothing is split before merging, and
    every split of a piece into two pieces is a merge.
    """
    import json

    from tokenizers import Tokenizer

    from lect.ops.gguf_tokenizer import merges

    data = json.loads(rust.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in fallback]
    data["pre_tokenizer"] = None
    made = ["".join(pair) for pair in data["model"]["merges"]]
    scores = {piece: -float(made.index(piece)) for piece in made}
    special = {token["content"] for token in data["added_tokens"]}
    pieces = {piece for piece in data["model"]["vocab"] if piece not in fallback | special}
    data["model"]["merges"] = merges(pieces, scores)
    return Tokenizer.from_str(json.dumps(data))
