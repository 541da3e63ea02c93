# SPDX-License-Identifier: Apache-2.0
"""How much real text the help packages of other scripts hold, and what the base and new vocabularies make of it."""

from __future__ import annotations

import hashlib
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import zstandard
from scripts import build_bundled_text as text

from bench.harness import at_least, at_most, ratio

MARKS = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
CONFIG: dict[str, Any] = {
    "model": "gemma-3-270m",
    "version": "4:7.4.7-1+deb12u14",
    "english": ["en-us", "en-US", "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712"],
    # language: package, folder in it, sha256 of the package, how Unicode's names of its letters begin
    "languages": {
        "dz": ["dz", "dz", "1380379dab641b8a9a4740474878e245bab22f9d3c2794b5585dcf025f24b749", ["TIBETAN"]],
        "el": ["el", "el", "ed4c905d0df5761be817f59381ce7c48fa50ec9cef5737c83e66aa7d3c898f79", ["GREEK"]],
        "hi": ["hi", "hi", "fda6f59354cb79f7ecfe379a502b009119a506aa0873416b044f1f39ad00a4cf", ["DEVANAGARI"]],
        "ja": [
            *("ja", "ja", "7799ace9bfe0845771ed2499913e7f7e521318cf3727c007672e3b020f8eb7b9"),
            ["CJK", "HIRAGANA", "KATAKANA"],
        ],
        "km": ["km", "km", "58700c6513c15d78e6dbbfda82b05f45fcb5a8acf0832f3dca50918d71e27f50", ["KHMER"]],
        "ko": ["ko", "ko", "7ef2d854e9ed58e6bf861cfa9fa2579555233f9df874baf327fcb07ccd190669", ["HANGUL"]],
        "ru": ["ru", "ru", "5a2f75d5b0dfcf660275070647af528a81be28b5d3e9c3ec2d419ef5518db7a2", ["CYRILLIC"]],
        "zh-cn": ["zh-cn", "zh-CN", "db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee", ["CJK"]],
        "zh-tw": ["zh-tw", "zh-TW", "f79cb2bee8d8d783efd825051a957b4c97a56dad5a05bde0ee90e66099331209", ["CJK"]],
        "eu": ["eu", "eu", "e88eaa5da5d9254a7c9bc1a6ac89d04758380adc044f9a007f666de68ef9aa91", ["LATIN"]],
    },
    "sizes": [8000, 16000],
    # How text is cut before pairs are merged: None is the split of GPT-2, which cuts before combining marks; "marks"
    # keeps them with their letters; "spaces" also puts a zero-width space, Khmer's word border, in front of its word.
    "splits": {"gpt2": None, "marks": MARKS, "spaces": MARKS.replace(r" ?[\p{L}", "[ \u200b]?" + r"[\p{L}", 1)},
    "held_out": 10,
}
GOALS = {
    "km_bytes": at_least(1_500_000),
    "km_compressed_bytes": at_most(1_300_000),
    "km_share_of_script": at_least(0.9),
}
CODE = ["scripts/build_bundled_text.py", "src/lect/models.py"]
ORDER = 60


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Every language with the packages in `folder`; those that are not there are fetched with apt-get."""
    from lect import artefacts, models

    base = artefacts.Model(models.resolve(config["model"])).tokenizer()
    packages = {name: (config["version"], row[2]) for name, row in named(config).items()}
    missing = [name for name in packages if not sorted(folder.glob(f"{name}_*.deb"))]
    if missing:
        wanted = [f"{name}={config['version']}" for name in missing]
        subprocess.run(["apt-get", "download", *wanted], cwd=folder, check=True)
    debs = text.find_debs(packages, folder, folder)
    english = text.english_paragraphs(text.help_pages(debs[f"libreoffice-help-{config['english'][0]}"], "en-US"))
    details = {}
    for language, (package, inside, _, script) in config["languages"].items():
        pages = text.help_pages(debs[f"libreoffice-help-{package}"], inside)
        facts, documents = translated(pages, english, tuple(script))
        details[language] = facts | vocabularies(config, language, documents, base)
        print(language, details[language], flush=True)
    return {"figures": figures(details["km"]), "details": details}


def named(config: dict[str, Any]) -> dict[str, list[Any]]:
    """Debian's name of every package -> its row in the configuration."""
    return {f"libreoffice-help-{row[0]}": row for row in (config["english"], *config["languages"].values())}


def figures(row: dict[str, Any]) -> dict[str, float | None]:
    """The figures of the language that was chosen."""
    return {
        "km_bytes": row["bytes"],
        "km_compressed_bytes": row["compressed_bytes"],
        "km_share_of_script": row["share_of_script"],
        "km_base_bytes_per_token": row["base"]["bytes_per_token"],
        "km_tokens_ratio_gpt2_16000": row["gpt2_16000"]["tokens_ratio"],
        "km_tokens_ratio_marks_16000": row["marks_16000"]["tokens_ratio"],
        "km_tokens_ratio_spaces_16000": row["spaces_16000"]["tokens_ratio"],
    }


def translated(
    pages: text.Pages, english: set[str], script: tuple[str, ...]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """How much of a help is in its language, and the pages that are, by the rules of the bundled text."""
    whole = "\n".join("\n".join(lines) for lines in text.keep_once(pages, set())[0].values())
    kept, counts = text.keep_once(pages, english)
    own, left_out = text.only_translated(kept, script)
    documents = {page: "\n".join(lines) for page, lines in own.items()}
    documents = {page: body for page, body in documents.items() if len(body) >= text.SHORTEST_DOCUMENT}
    joined = "\n".join(documents.values())
    marks = sum(unicodedata.category(char)[0] == "M" for char in joined)
    return {
        "help_bytes": len(whole.encode()),
        "help_share_of_script": round(text.own_share(whole, script), 4),
        **counts,
        **left_out,
        "documents": len(documents),
        "bytes": sum(len(body.encode()) for body in documents.values()),
        "characters": sum(map(len, documents.values())),
        "compressed_bytes": len(zstandard.ZstdCompressor(level=22).compress(joined.encode())),
        "share_of_script": round(text.own_share(joined, script), 4),
        "share_of_marks": round(marks / len(joined), 4),
        "zero_width_spaces": joined.count("\u200b"),
    }, documents


def vocabularies(config: dict[str, Any], language: str, documents: dict[str, str], base: Any) -> dict[str, Any]:
    """Bytes and characters a token on held-out pages: with the base, and with vocabularies trained on the others."""
    parts: dict[bool, list[str]] = {False: [], True: []}
    for page, body in documents.items():
        digest = hashlib.sha256(f"{language}/{page}".encode()).digest()
        parts[digest[0] % config["held_out"] == 0].append(body)
    test = parts[True]
    tokens = sum(len(ids) for ids in base(test, add_special_tokens=False)["input_ids"])
    plain = [body.replace("\u200b", "") for body in test]
    found: dict[str, Any] = {"held_out_documents": len(test), "base": rates(test, tokens, tokens)}
    if plain != test:
        count = sum(len(ids) for ids in base(plain, add_special_tokens=False)["input_ids"])
        found["base_without_zero_width_spaces"] = rates(plain, count, tokens)
    for split, pattern in config["splits"].items():
        if split == "spaces" and plain == test:
            continue
        for size in config["sizes"]:
            tokenizer = trained(parts[False], size, pattern)
            count = sum(len(coded.ids) for coded in tokenizer.encode_batch(test))
            found[f"{split}_{size}"] = {"entries": tokenizer.get_vocab_size(), **rates(test, count, tokens)}
    return found


def rates(documents: list[str], tokens: int, base: int) -> dict[str, float | None]:
    """What a token stands for, and how many tokens there are for one of the base."""
    size, characters = sum(len(body.encode()) for body in documents), sum(map(len, documents))
    return {
        "tokens": tokens,
        "bytes_per_token": round(size / tokens, 3),
        "characters_per_token": round(characters / tokens, 3),
        "tokens_ratio": round(ratio(tokens, base) or 0.0, 3),
    }


def trained(documents: list[str], size: int, pattern: str | None) -> Any:
    """A byte-level BPE vocabulary of a size."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    cut = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, bytes_of])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer
