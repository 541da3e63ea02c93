# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers of every family that vocabulary surgery edits, trained in a second on many scripts."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SAID = [
    "Kalkulu-orriko gelaxka bat hautatzeko, egin klik gelaxkan.",
    "To save the document, choose the File menu and then Save.",
    "Um das Dokument zu speichern, wählen Sie im Menü „Datei“ den Eintrag „Speichern“.",
    "Para guardar el documento, elija Archivo y después Guardar; ¿está seguro?",
    "Чтобы сохранить документ, выберите в меню пункт «Файл», затем «Сохранить».",
    "Για να αποθηκεύσετε το έγγραφο, επιλέξτε Αρχείο και μετά Αποθήκευση.",
    "要保存文档，请选择“文件”菜单，然后选择“保存”。",
    "दस्तावेज़ सहेजने के लिए फ़ाइल मेनू चुनें और फिर सहेजें।",
    "لحفظ المستند اختر قائمة ملف ثم حفظ.",
    "Pour enregistrer le document, choisissez Fichier, puis Enregistrer — c’est tout !",
    "def f(x):\n    return {'key': [x, 2.5]}  # naïve\n\n\tpass",
    "🙂 🙃 👩‍💻 2026-11-21 <h1>Title</h1> a_b-c/d",
]
LINES = [" ".join(line.split(" ")[i:] + line.split(" ")[:i]) for line in SAID for i in range(12)]
FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]
FAMILIES = ("gpt2", "llama3", "qwen", "gemma", "llama2", "xlmr", "t5", "bert", "openai")


@cache
def family(name: str) -> Tokenizer:
    """The tokenizer of that family."""
    return {
        "gpt2": _gpt2,
        "llama3": _llama3,
        "qwen": _qwen,
        "gemma": _gemma,
        "llama2": _llama2,
        "xlmr": _xlmr,
        "t5": _t5,
        "bert": _bert,
        "openai": _openai,
    }[name]()


def _byte_level(model: models.BPE, size: int, pre: Any, normal: Any = None) -> Tokenizer:
    rust = Tokenizer(model)
    if normal is not None:
        rust.normalizer = normal
    rust.pre_tokenizer = pre
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    rust.train_from_iterator(LINES, trainer)
    return rust


def _gpt2() -> Tokenizer:
    rust = _byte_level(models.BPE(), 700, pre_tokenizers.ByteLevel(add_prefix_space=False))
    rust.add_special_tokens(["<|endoftext|>"])
    return rust


WORDS = Regex(r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def _split() -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _llama3() -> Tokenizer:
    """Whole words are looked up before merges run, and one of them no merge can reach."""
    import json

    rust = _byte_level(models.BPE(), 700, _split())
    data = json.loads(rust.to_str())
    data["model"]["ignore_merges"] = True
    data["model"]["vocab"]["Ġunreachable"] = len(data["model"]["vocab"])
    rust = Tokenizer.from_str(json.dumps(data))
    rust.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    rust.add_special_tokens([f"<|reserved_special_token_{i}|>" for i in range(5)])
    begin = "<|begin_of_text|>"
    template = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin} $B",
        special_tokens=[(begin, rust.token_to_id(begin))],
    )
    rust.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return rust


def _qwen() -> Tokenizer:
    rust = _byte_level(models.BPE(), 700, _split(), normalizers.NFC())
    rust.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    rust.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    return rust


def _trained_fallback(special: list[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE over text whose spaces are ▁, byte tokens in front."""
    import json

    rust = Tokenizer(models.BPE())
    rust.normalizer = normalizers.Replace(" ", "▁")
    rust.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special, *FALLBACK], show_progress=False)
    rust.train_from_iterator(LINES, trainer)
    model = json.loads(rust.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _gemma() -> Tokenizer:
    """Byte fallback; the merge table lists every split of every token; added tokens that are not control tokens."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", "<unused1>"]
    vocab, trained = _trained_fallback(special, 1100)
    made = [left + right for left, right in trained]
    table = [
        (token[:at], token[at:])
        for token in made
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    ]
    for token in ("\n\n", "\n\n\n", "<h1>", "</h1>", "▁▁"):
        vocab.setdefault(token, len(vocab))
    model = models.BPE(vocab=vocab, merges=table, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    rust = Tokenizer(model)
    rust.normalizer = normalizers.Replace(" ", "▁")
    rust.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    rust.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    rust.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    rust.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", "<h1>", "</h1>", "▁▁")])
    rust.add_special_tokens(["<image_soft_token>"])
    rust.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", rust.token_to_id("<bos>"))]
    )
    return rust


def _llama2() -> Tokenizer:
    special = ["<unk>", "<s>", "</s>"]
    vocab, merges = _trained_fallback(special, 1000)
    model = models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    rust = Tokenizer(model)
    rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    rust.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    rust.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    rust.add_tokens([AddedToken("<tool>", normalized=True)])
    return rust


def _unigram(special: list[str]) -> Tokenizer:
    rust = Tokenizer(models.Unigram())
    rust.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    rust.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    rust.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=special, unk_token="<unk>", show_progress=False)
    rust.train_from_iterator(LINES, trainer)
    return rust


def _xlmr() -> Tokenizer:
    rust = _unigram(["<s>", "<pad>", "</s>", "<unk>"])
    rust.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    ends = [("<s>", rust.token_to_id("<s>")), ("</s>", rust.token_to_id("</s>"))]
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return rust


def _t5() -> Tokenizer:
    rust = _unigram(["<pad>", "</s>", "<unk>"])
    rust.add_special_tokens([f"<extra_id_{i}>" for i in range(4)])
    end = ("</s>", rust.token_to_id("</s>"))
    rust.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[end])
    return rust


def _bert() -> Tokenizer:
    rust = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece()
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    rust.train_from_iterator(LINES, trainer)
    ends = [(word, rust.token_to_id(word)) for word in ("[SEP]", "[CLS]")]
    rust.post_processor = processors.BertProcessing(*ends)
    rust.enable_padding(pad_id=rust.token_to_id("[PAD]"), pad_token="[PAD]")
    return rust


def _openai() -> Tokenizer:
    """The first BPE models: characters, a mark at the end of each word, and no way out for a new character."""
    rust = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    rust.train_from_iterator(LINES, trainer)
    return rust
