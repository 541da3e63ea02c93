# SPDX-License-Identifier: Apache-2.0
"""A small model that is trained, grown and trained on (pretrain/grow) against a large one from random weights.

Both spend the same operations: the small model reads as many tokens as the large one does from scratch, and the rest
is for the grown model. So a family of both sizes costs what the large one costs alone, which is how the paper saves a
quarter. Its promise is no more bits per byte of test text, paired by seed, with a 95 % interval. A shorter training of
the grown model says at what share of the operations growth would be level, by interpolation.

Llama models with a byte-level vocabulary of the bundled English text. The rates of the three trainings are the best of
one sweep, by calibration text and with a seed of its own.
"""

from __future__ import annotations

import math
import shutil
import statistics
from functools import partial
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
    "small": {"layers": 3, "hidden_size": 192, "intermediate_size": 512, "heads": 3},
    "large": {"layers": 6, "hidden_size": 384, "intermediate_size": 1024, "heads": 6},
    "knowledge": "next",
    "shorter": 0.75,
    "sweep": {"seed": 3, "rates": [1e-3, 2e-3, 4e-3]},
    "knobs": {
        "tokens": 102_400,
        "batch_tokens": 512,
        "max_length": 256,
        "mixture": {"use": "replay", "with": {"share": 0.0}},
        "weight_decay": 0.1,
        "evaluations": 1,
        "evaluation_tokens": 8192,
    },
}
GOALS = {"change": at_most(0.0)}
CODE = ["src/lect/engine", "src/lect/stages/pretrain/grow.py", "bench/pretrain/claims.py", "bench/vocab/place.py"]
ORDER = 87


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The sweep; then for each seed the large model alone, the small one, and the grown one after both trainings."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    text = corpus(place, config["text"], config["keep"])
    tokenizer = vocabulary(text.texts("target", "train"), config["vocabulary"])
    train = partial(trained, place, config, text)
    seed, rates = config["sweep"]["seed"], config["sweep"]["rates"]
    large, small = (fresh(config, size, tokenizer, seed, place.folder / f"{size}-sweep") for size in ("large", "small"))
    tried = {"scratch": [train(f"sweep-scratch-{r}", large, r, seed)[1] for r in rates]}
    tried["small"] = [train(f"sweep-small-{r}", small, r, seed, keep=True)[1] for r in rates]
    best = {name: min(runs, key=lambda run: run["calibration"]) for name, runs in tried.items()}
    start = grown(place, "sweep-grown", config, best["small"]["model"], seed)
    tokens = left(config, 1.0, best["small"], best["scratch"])
    tried["grown"] = [train(f"sweep-grown-{r}", start, r, seed, tokens=tokens)[1] for r in rates]
    chosen = {name: min(runs, key=lambda run: run["calibration"])["rate"] for name, runs in tried.items()}
    print(chosen, {name: [run["calibration"] for run in runs] for name, runs in tried.items()}, flush=True)
    rounds = []
    for seed in config["seeds"]:
        large, small = (fresh(config, size, tokenizer, seed, place.folder / f"{size}-{seed}") for size in ("large", "small"))
        scratch = train(f"scratch-{seed}", large, chosen["scratch"], seed)
        first = train(f"small-{seed}", small, chosen["small"], seed, keep=True)
        start = grown(place, f"grown-{seed}", config, first["model"], seed)
        found = {"scratch": scratch, "small": first}
        for name, share in (("grown", 1.0), ("shorter", config["shorter"])):
            tokens = left(config, share, first, scratch)
            found[name] = train(f"{name}-{seed}", start, chosen["grown"], seed, tokens=tokens)
            found[name]["flops"] += first["flops"]
        print(seed, found, flush=True)
        rounds.append({"seed": seed, **found})
    return judged(rounds)
