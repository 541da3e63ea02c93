# SPDX-License-Identifier: Apache-2.0
"""A small model that is trained, grown and trained on (pretrain/grow) against a large one from random weights.

Both spend the same operations: the small model reads as many tokens as the large one does from scratch, and the rest
is for the grown model. So a family of both sizes costs what the large one costs alone, which is how the paper saves a
quarter. Its promise is no more bits per byte of test text, paired by seed, with a 95 % interval. A shorter training of
the grown model says at what share of the operations growth would be level, by interpolation.

Llama models with a byte-level vocabulary of the bundled English text. The rates of the three trainings are the best of
one sweep, by calibration text and with a seed of its own. The engine's changes move all alike and are not in the key.
"""

from __future__ import annotations

import math
import shutil
import statistics
from pathlib import Path
from typing import Any

from bench.harness import at_most
from bench.pretrain.claims import interval, verdict
from bench.vocab.place import Place, corpus

CONFIG: dict[str, Any] = {
    "text": "bundled:en",
    "keep": "bundled:eu",
    "seeds": [0, 1, 2],
    "max_bytes": 24_000,
    "vocabulary": 4096,
    "small": {"layers": 3, "hidden_size": 128, "intermediate_size": 352, "heads": 2},
    "large": {"layers": 6, "hidden_size": 256, "intermediate_size": 704, "heads": 4},
    "knowledge": "next",
    "shorter": 0.75,
    "sweep_seed": 3,
    "rates": [1e-3, 2e-3, 4e-3],
    "knobs": {
        "tokens": 81_920,
        "batch_tokens": 512,
        "max_length": 256,
        "mixture": {"use": "replay", "with": {"share": 0.0}},
        "weight_decay": 0.1,
        "evaluations": 1,
        "evaluation_tokens": 8192,
    },
}
GOALS = {"change": at_most(0.0)}
CODE = ["src/lect/stages/pretrain/grow.py", "bench/pretrain/claims.py", "bench/vocab/place.py"]
ORDER = 87


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The sweep; then for each seed the large model alone, the small one, and the grown one."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    text = corpus(place, config["text"], config["keep"])
    tokenizer = vocabulary(text.texts("target", "train"), config["vocabulary"])
    tried: dict[str, dict[float, float]] = {"scratch": {}, "small": {}, "grown": {}}
    starts: dict[float, Any] = {}
    seed, tokens = config["sweep_seed"], config["knobs"]["tokens"]
    for which, role in (("large", "scratch"), ("small", "small")):
        start = fresh(config[which], tokenizer, seed, place.folder / f"sweep-{which}")
        for rate in config["rates"]:
            made, facts = trained(place, f"sweep-{role}-{rate}", config, text, start, rate, seed, tokens)
            tried[role][rate], starts[rate] = facts["evaluations"][-1]["target"], made
    start = grown(place, "sweep-start", config, starts[best(tried["small"])], seed)
    for rate in config["rates"]:
        _, facts = trained(place, f"sweep-grown-{rate}", config, text, start, rate, seed, round(0.8 * tokens))
        tried["grown"][rate] = facts["evaluations"][-1]["target"]
    print(tried, flush=True)
    rounds = []
    for seed in config["seeds"]:
        found: dict[str, Any] = {"seed": seed}

        def one(name: str, start: Any, role: str, tokens: int, seed: int = seed, found: Any = found) -> Any:
            rate = best(tried[role])
            made, facts = trained(place, f"{name}-{seed}", config, text, start, rate, seed, tokens)
            bits = place.bits(made, text, config["max_bytes"])["target"]
            found[name] = {"bits": bits, **{word: facts[word] for word in ("flops", "trained_tokens", "step_seconds")}}
            return made

        one("scratch", fresh(config["large"], tokenizer, seed, place.folder / f"large-{seed}"), "scratch", tokens)
        small = one(
            "small", fresh(config["small"], tokenizer, seed, place.folder / f"small-start-{seed}"), "small", tokens
        )
        start = grown(place, f"start-{seed}", config, small, seed)
        whole, spent = found["scratch"]["flops"], found["small"]["flops"]
        for name, share in (("grown", 1.0), ("shorter", config["shorter"])):
            one(name, start, "grown", round((share * whole - spent) / whole * tokens))
            found[name]["flops"] += spent
        print(found, flush=True)
        rounds.append(found)
    return {**judged(rounds), "details": {"rounds": rounds, "calibration_bits_by_rate": tried}}


def best(bits: dict[float, float]) -> float:
    """The rate with the fewest bits."""
    return min(bits, key=lambda rate: bits[rate])


def trained(
    place: Place, label: str, config: dict[str, Any], text: Any, model: Any, rate: float, seed: int, tokens: int
) -> tuple[Any, dict[str, Any]]:
    """One training at one rate for everything."""
    knobs = {**config["knobs"], "tokens": tokens, "learning_rate": rate, "embedding_learning_rate": rate}
    return place.step(label, "pretrain/continue", knobs, seed, base=model, model=model, corpus=text)


def grown(place: Place, label: str, config: dict[str, Any], model: Any, seed: int) -> Any:
    """The model in the large one's sizes."""
    knobs = {**config["large"], "knowledge": config["knowledge"]}
    return place.step(label, "pretrain/grow", knobs, seed, model=model)[0]


def fresh(sizes: dict[str, int], tokenizer: Any, seed: int, folder: Path) -> Any:
    """A Llama of these sizes with random weights; all heads share keys and values, embeddings and head are tied."""
    import torch
    import transformers

    from lect.artefacts import Model

    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=1,
        head_dim=sizes["hidden_size"] // sizes["heads"],
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    return Model.write(folder / "out", transformers.LlamaForCausalLM(config).eval(), tokenizer)


def vocabulary(texts: list[str], size: int) -> Any:
    """A byte-level tokenizer of the texts, with a first and a last token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    rust.train_from_iterator(texts, trainer)
    rust.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def judged(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures and verdict of the rounds."""
    figures: dict[str, float | None] = {}
    for name in ("scratch", "small", "grown", "shorter"):
        figures[f"{name}_bits_per_byte"] = statistics.fmean(found[name]["bits"] for found in rounds)
        figures[f"{name}_flops_share"] = statistics.fmean(f[name]["flops"] / f["scratch"]["flops"] for f in rounds)
    ends = ("", "_low", "_high")
    for name, word in (("grown", "change"), ("shorter", "shorter_change")):
        found = interval([f[name]["bits"] / f["scratch"]["bits"] - 1 for f in rounds])
        figures |= {f"{word}{end}": value for end, value in zip(ends, found, strict=True)}
    logs = [[math.log(f[name]["bits"]) for name in ("shorter", "grown", "scratch")] for f in rounds]
    shares = [[f[name]["flops"] / f["scratch"]["flops"] for name in ("shorter", "grown")] for f in rounds]
    level = [
        low + (high - low) * (a - c) / (a - b) for (a, b, c), (low, high) in zip(logs, shares, strict=True) if a > b
    ]
    figures["level_flops_share"] = statistics.fmean(level) if len(level) == len(rounds) else None
    return {"figures": figures, "verdict": verdict(figures["change"] or 0.0, figures["change_high"] or 0.0, 0.0)}
