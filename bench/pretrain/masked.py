# SPDX-License-Identifier: Apache-2.0
"""Masking of terms (objective/masked_terms) and by strata (objective/stratified) against one rate, on a small encoder.

No masked model is packaged, so the base is a small BERT with random weights that has read the novel of the bundled
English text with uniform masking. Each objective then adapts it to the help pages, the same tokens of the same order,
from three seeds; the uniform one masks as large a share of the tokens as ``masked_terms`` does on average. Terms are
found once in the help pages' training text and given to both objectives as a file.

What is compared are nats a masked token of held-out help pages, paired by seed, with 95 % intervals: of terms (a
quarter of their occurrences masked as a whole) and of all tokens (15 %, each by itself), the same places for all. Both
objectives promise that terms are predicted better. The engine's changes move all alike and are not in the key.
"""

from __future__ import annotations

import json
import shutil
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import at_most
from bench.pretrain.claims import interval, verdict
from bench.vocab.place import Place, corpus

CONFIG: dict[str, Any] = {
    "text": "bundled:en",
    "domain": "libreoffice-help-en-us",
    "seeds": [0, 1, 2],
    "vocabulary": 4096,
    "sizes": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
    "terms": 300,
    "objectives": ["masked_terms", "stratified"],
    "base_tokens": 131_072,
    "base_learning_rate": 1e-3,
    "knobs": {
        "tokens": 49_152,
        "batch_tokens": 512,
        "max_length": 128,
        "learning_rate": 5e-4,
        "evaluations": 1,
        "evaluation_tokens": 512,
    },
    "held_out": {"bytes": 60_000, "term_share": 0.25, "share": 0.15},
}
GOALS = {f"{name}_terms_change": at_most(0.0) for name in CONFIG["objectives"]}
CODE = ["src/lect/parts/objective/masked_terms.py", "src/lect/parts/objective/stratified.py", "src/lect/ops/terms.py"]
CODE += ["src/lect/parts/objective/masked_tokens.py", "bench/pretrain/claims.py", "bench/vocab/place.py"]
ORDER = 88


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The base; then for each seed an adaptation with each objective; the order of the objectives goes round."""
    from lect.ops.terms import ranked

    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    general, domain = texts(config, place)
    read = {name: some.texts(split="train") for name, some in (("general", general), ("domain", domain))}
    base = fresh(config, [*read["general"], *read["domain"]], place.folder / "fresh" / "out")
    knobs = {**config["knobs"], "tokens": config["base_tokens"], "learning_rate": config["base_learning_rate"]}
    base, _ = place.step("base", "pretrain/masked", knobs, 3, base=base, model=base, corpus=general)
    terms = [*ranked(read["domain"], read["general"], count=config["terms"], seed=0, who="bench")]
    (place.folder / "terms.txt").write_text("\n".join(terms), "utf-8")
    listed = {"terms": str(place.folder / "terms.txt")}
    objectives = {name: {"use": name, "with": listed} for name in config["objectives"]}
    shares = {name: masked_share(spec, base.tokenizer(), read["domain"]) for name, spec in objectives.items()}
    objectives["uniform"] = {"use": "masked_tokens", "with": {"share": shares["masked_terms"]}}
    held = HeldOut(
        config["held_out"], base.tokenizer(), domain.texts(split="test"), terms, config["knobs"]["max_length"]
    )
    before = held.nats(base)
    print(terms[:20], shares, before, flush=True)
    rounds = []
    for number, seed in enumerate(config["seeds"]):
        found: dict[str, Any] = {}
        for name in [*objectives][number:] + [*objectives][:number]:
            knobs = {**config["knobs"], "objective": objectives[name]}
            made, facts = place.step(
                f"{name}-{seed}", "pretrain/masked", knobs, seed, base=base, model=base, corpus=domain
            )
            found[name] = {**held.nats(made), "trained_tokens": facts["trained_tokens"]}
            shutil.rmtree(made.folder)
            print(seed, name, found[name], flush=True)
        rounds.append({"seed": seed, **found})
    figures: dict[str, float | None] = {f"base_{what}_nats": value for what, value in before.items()}
    figures |= {f"{name}_share": share for name, share in shares.items()}
    details = {"rounds": rounds, "terms": terms, "counted": held.counted()}
    return {**judged(rounds, config["objectives"], figures), "details": details}


def texts(config: dict[str, Any], place: Place) -> tuple[Any, Any]:
    """The novel, and the help pages: a corpus each, prepared as the main job prepares them."""
    import zstandard

    from lect import data
    from lect.artefacts import Corpus

    files = {True: place.folder / "domain.jsonl", False: place.folder / "general.jsonl"}
    place.folder.mkdir(parents=True)
    rows = zstandard.ZstdDecompressor().stream_reader(data.path(config["text"]).open("rb")).read().decode().splitlines()
    for side, file in files.items():
        own = [row for row in rows if (config["domain"] in json.loads(row)["source"]) == side]
        file.write_text("\n".join(own) + "\n", "utf-8")
    both = corpus(place, str(files[True]), str(files[False]))
    made = []
    for role in ("kept", "target"):
        (place.folder / role).mkdir()
        made.append(Corpus.write(place.folder / role, both.documents(role)))
    return made[0], made[1]


def fresh(config: dict[str, Any], read: list[str], folder: Path) -> Any:
    """A BERT of these sizes with random weights, and a WordPiece vocabulary of the texts that keeps case."""
    import torch
    import transformers
    from tokenizers import BertWordPieceTokenizer

    from lect.artefacts import Model

    rust = BertWordPieceTokenizer(lowercase=False)
    rust.train_from_iterator(read, vocab_size=config["vocabulary"], show_progress=False)
    names = {f"{word}_token": f"[{word.upper()}]" for word in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=rust._tokenizer, **names)
    longest = config["knobs"]["max_length"]
    sizes = {**config["sizes"], "vocab_size": len(tokenizer), "max_position_embeddings": longest}
    torch.manual_seed(3)
    live = transformers.BertForMaskedLM(transformers.BertConfig(**sizes, pad_token_id=tokenizer.pad_token_id)).eval()
    return Model.write(folder, live, tokenizer)


def masked_share(spec: dict[str, Any], tokenizer: Any, read: list[str]) -> float:
    """The share of the texts' tokens that an objective masks on average, by one draw for each token."""
    from lect.engine.masked import Classes
    from lect.parts.objective.kind import Texts
    from lect.registry import build_part

    part: Any = build_part("objective", spec)
    listing = part.listing(Texts(target=read, kept=[], seed=0))
    found = Classes.of(tokenizer, documents(read), listing, sum(len(ids) for ids in encoded(tokenizer, read)))
    draw_t = np.random.default_rng(0).random(len(found.class_n))
    return float((part.counts(found.class_n, found.first_n, draw_t) > 0).mean())


def encoded(tokenizer: Any, read: list[str]) -> list[list[int]]:
    """The ids of each text, without those around it."""
    from lect.ops.text import encode

    return [list(ids) for ids in encode(tokenizer, read)]


class HeldOut:
    """Places of held-out text that are masked, the same for every model: whole terms, and any tokens."""

    def __init__(self, told: dict[str, Any], tokenizer: Any, read: list[str], terms: list[str], longest: int) -> None:
        from lect.engine.masked import Classes

        stop = next((n for n in range(len(read)) if sum(len(t.encode()) for t in read[:n]) > told["bytes"]), len(read))
        ids = encoded(tokenizer, read[:stop])
        size = sum(len(some) for some in ids)
        found = Classes.of(tokenizer, documents(read[:stop]), dict.fromkeys(terms, 1), size)
        rng = np.random.default_rng(0)
        unit_t = np.cumsum(found.first_n) - 1
        term_t = (rng.random(unit_t[-1] + 1) < told["term_share"])[unit_t] & (found.class_n == 1)
        self.places = {"terms": term_t, "all": rng.random(size) < told["share"]}
        self.flat, self.mask = np.concatenate(ids), int(tokenizer.mask_token_id)
        self.ends = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        starts = np.cumsum([0, *(len(some) for some in ids)])
        step = longest - 2
        self.pieces = [
            (at, min(at + step, high)) for low, high in pairwise(starts.tolist()) for at in range(low, high, step)
        ]

    def counted(self) -> dict[str, int]:
        """Masked tokens of each kind."""
        return {what: int(place_t.sum()) for what, place_t in self.places.items()}

    def nats(self, model: Any) -> dict[str, float]:
        """The mean loss of the masked tokens of each kind, each kind masked alone."""
        import torch

        live, found = model.load(), {}
        for what, place_t in self.places.items():
            shown_t = np.where(place_t, self.mask, self.flat)
            total = 0.0
            for low, high in self.pieces:
                chosen = torch.from_numpy(np.flatnonzero(place_t[low:high]))
                if len(chosen):
                    row = torch.tensor([[self.ends[0], *shown_t[low:high].tolist(), self.ends[1]]])
                    with torch.no_grad():
                        logits_tv = live(input_ids=row).logits[0, 1:-1]
                    target = torch.from_numpy(self.flat[low:high])[chosen].long()
                    total += float(torch.nn.functional.cross_entropy(logits_tv[chosen], target, reduction="sum"))
            found[what] = total / int(place_t.sum())
        return found


def documents(read: list[str]) -> list[Any]:
    """The texts as documents."""
    from lect.artefacts import Document

    return [Document(id=str(n), text=text, source="", role="target") for n, text in enumerate(read)]


def judged(rounds: list[dict[str, Any]], names: list[str], figures: dict[str, float | None]) -> dict[str, Any]:
    """Figures, and a verdict for each objective on the terms."""
    verdicts = []
    for name in ("uniform", *names):
        for what in ("terms", "all"):
            figures[f"{name}_{what}_nats"] = statistics.fmean(found[name][what] for found in rounds)
    for name in names:
        for what in ("terms", "all"):
            found = interval([f[name][what] / f["uniform"][what] - 1 for f in rounds])
            ends = zip(("", "_low", "_high"), found, strict=True)
            figures |= {f"{name}_{what}_change{end}": value for end, value in ends}
            if what == "terms":
                verdicts.append(f"{name} {verdict(found[0], found[2], 0.0)}")
    return {"figures": figures, "verdict": "; ".join(verdicts)}
