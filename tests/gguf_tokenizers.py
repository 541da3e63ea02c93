# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers in every form that GGUF files can hold, and pico models around them."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lect.artefacts import Model
from lect.ops.gguf_tokenizer import PRE, merges

LINES = [
    "Kalkulu-orriko gelaxka bat hautatzeko, egin klik gelaxkan. Ñabardurak ere bai.",
    "To save the document, choose the File menu and then Save; it's 1234567 bytes, isn't it?",
    "Um das Dokument zu speichern, wählen Sie im Menü „Datei“ den Eintrag „Speichern“.",
    "Чтобы сохранить документ, выберите в меню пункт «Файл», затем «Сохранить».",
    "要保存文档，请选择“文件”菜单，然后选择“保存”。",
    "दस्तावेज़ सहेजने के लिए फ़ाइल मेनू चुनें और फिर सहेजें।",
    "def f(x):\n    return {'key': [x, 2.5]}  # naïve\n\n\tpass\r\n\r\n",
    "🙂 🙃 👩‍💻 2026-11-21 <h1>Title</h1> a_b-c/d AB12cd WE'LL we'Ll",
]
TEXTS = [" ".join(line.split(" ")[i:] + line.split(" ")[:i]) for line in LINES for i in range(10)]
FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]
FORMS = (*PRE, "pieces", "pieces, space first", "pieces, metaspace", "ranked")


@cache
def tokenizer(form: str) -> PreTrainedTokenizerFast:
    """A tokenizer of that form."""
    if form in PRE:
        return _byte_level(form)
    return _pieces(form)


def model(form: str, folder) -> Model:
    """A pico Llama with that tokenizer and three rows more."""
    made = tokenizer(form)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Model.write(folder, LlamaForCausalLM(LlamaConfig(vocab_size=len(made) + 3, **sizes)), made)


def _byte_level(form: str) -> PreTrainedTokenizerFast:
    expressions, ignore_merges = PRE[form]
    rust = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = [pre_tokenizers.Split(Regex(e), "isolated") for e in expressions if e != "gpt2"]
    split.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex="gpt2" in expressions))
    rust.pre_tokenizer = pre_tokenizers.Sequence(split)
    rust.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    if ignore_merges:  # a whole word that no merge reaches
        data = json.loads(rust.to_str())
        data["model"]["vocab"]["Ġunreachable"] = len(data["model"]["vocab"])
        rust = Tokenizer.from_str(json.dumps(data))
    rust.add_special_tokens(["<|end|>", "<|start|>"])
    rust.add_tokens([AddedToken("<h1>", normalized=False), AddedToken("  <x>", normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<|start|>", eos_token="<|end|>")


def _pieces(form: str) -> PreTrainedTokenizerFast:
    special = ["<unk>", "<s>", "<end>", "<pad>"]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("\n|▁(?!▁)"), "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*special, *FALLBACK], show_progress=False)
    trained.train_from_iterator([t.replace("\r", "").replace("\t", "") for t in TEXTS], trainer)
    data = json.loads(trained.to_str())["model"]
    made = [tuple(pair) for pair in data["merges"]]
    vocab, table = data["vocab"], made
    if any("\n" in a + b for a, b in made):
        made = [(a, b) for a, b in made if "\n" not in a + b]
        gone = {a + b for a, b in data["merges"]} - {a + b for a, b in made}
        vocab = {t: i for i, t in enumerate(t for t in vocab if t not in gone)}
    if form != "ranked":
        pieces = {t for t in vocab if t not in special and t not in FALLBACK}
        table = merges(pieces, {a + b: -float(i) for i, (a, b) in enumerate(made)})
    else:
        table = made
    runs = ("▁▁", "▁▁▁") if form in ("pieces", "ranked") else ()  # elsewhere spaces are spelled after added tokens
    for token in ("\n\n", "\n\n\n", "<h1>", "</h1>", *runs):
        vocab.setdefault(token, len(vocab))
    rust = Tokenizer(models.BPE(vocab=vocab, merges=table, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    ends = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    rust.normalizer = replace
    if form == "pieces, space first":
        rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
        ends.append(decoders.Strip(" ", 1, 0))
    if form == "pieces, metaspace":
        rust.normalizer = None
        rust.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=False)
    rust.decoder = decoders.Sequence(ends)
    rust.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    rust.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", "<h1>", "</h1>")])
    rust.add_tokens([AddedToken(t, normalized=True) for t in runs])
    rust.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token="<s>", eos_token="<end>", unk_token="<unk>", pad_token="<pad>"
    )
