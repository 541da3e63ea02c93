# SPDX-License-Identifier: Apache-2.0
"""Texts in prompts with pseudo labels (corpus/prompted) against the same texts plain, on a task of Basque help pages.

The task is to tell from the beginning of a page which program it helps with. A few pages have labels; the model after
its trim reads them and others for the same number of tokens, plain or in prompts, and is then tuned on the labelled
ones, which is what the paper promises to be better for it. Counted are held-out pages that it labels right after that
tuning and before, from three seeds that draw pages and labels anew; the share of right pseudo labels, which the model
tuned without reading gives, stands beside them. The change is the difference of shares, paired by seed, with a 95 %
interval.

Only the labels of the few are seen by any step. The engine's changes move both alike and are not in the key.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import at_least
from bench.pretrain.claims import SHARED, interval, start
from bench.vocab.place import Place

CONFIG: dict[str, Any] = {
    **{name: SHARED[name] for name in ("model", "text", "keep", "seeds")},
    "programs": {"scalc": "Calc", "swriter": "Writer"},
    "characters": 120,
    "labelled": 8,
    "held_out": 40,
    "unlabelled": 120,
    "template": "{text}\nLibreOffice {label}",
    "tuning": {"steps": 16, "batch": 4, "learning_rate": 2e-5},
    "knobs": {**SHARED["knobs"], "tokens": 10_240, "mixture": {"use": "replay", "with": {"share": 0.0}}},
}
GOALS = {"tuned_change": at_least(0.0)}
CODE = [
    "src/lect/data",
    "src/lect/stages/corpus/prompted.py",
    "src/lect/ops/prompts.py",
    "src/lect/stages/vocab/trim.py",
]
CODE += ["bench/pretrain/claims.py", "bench/vocab/place.py"]
ORDER = 88
Labelled = Sequence[tuple[str, str]]


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """For each seed: pages, both trainings, and what each model labels right."""
    from lect import artefacts, models

    base = artefacts.Model(models.resolve(config["model"]))
    model, _ = start(config, base)
    shutil.rmtree(folder / "run", ignore_errors=True)
    place = Place(folder / "run")
    rounds = []
    for seed in config["seeds"]:
        pages = drawn(config, seed)
        few, many, held = (pages[name] for name in ("labelled", "unlabelled", "held_out"))
        file = folder / f"labelled-{seed}.jsonl"
        file.write_text("\n".join(json.dumps({"text": text, "label": word}) for text, word in few), "utf-8")
        told = {"template": config["template"], "labels": ", ".join(config["programs"].values())}
        told |= {"examples": str(file), **config["tuning"]}
        plain = documents(place.folder / f"plain-{seed}", [*few, *many])
        prompted, facts = place.step(f"prompted-{seed}", "corpus/prompted", told, seed, model=model, corpus=plain)
        ways = {"untrained": model}
        for way, corpus in (("plain", plain), ("prompted", prompted)):
            given = {"base": base, "model": model, "corpus": corpus}
            ways[way] = place.step(f"{way}-model-{seed}", "pretrain/continue", config["knobs"], seed, **given)[0]
        found: dict[str, Any] = {"seed": seed, "prompts": facts["prompts"], "labels": facts["labels"]}
        found["pseudo_labels_right"] = matched(prompted, config, many)
        for way, one in ways.items():
            found[way] = {"direct": right(one, told | {"steps": 0}, few, held, seed, place)}
            if one is not model:
                found[way]["tuned"] = right(one, told, few, held, seed, place)
        print(found, flush=True)
        rounds.append(found)
    return {**judged(rounds), "details": {"rounds": rounds}}


def drawn(config: dict[str, Any], seed: int) -> dict[str, list[tuple[str, str]]]:
    """Beginnings of pages with their programs' words: some labelled, some held out, the rest; as many of each word."""
    import zstandard

    from lect import data

    rng = random.Random(seed)
    found: dict[str, list[tuple[str, str]]] = {"labelled": [], "held_out": [], "unlabelled": []}
    with zstandard.open(data.path(config["text"]), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for program, word in config["programs"].items():
        texts = sorted({beginning(row["text"], config) for row in rows if row["id"].split("/")[2] == program})
        rng.shuffle(texts)
        for name in found:
            found[name] += [(text, word) for text in texts[: config[name]]]
            del texts[: config[name]]
    return found


def beginning(text: str, config: dict[str, Any]) -> str:
    """The first words of a page."""
    return text[: config["characters"]].rsplit(" ", 1)[0]


def documents(folder: Path, pages: Labelled) -> Any:
    """The texts as a corpus for training; what they are labelled with is not in it."""
    from lect.artefacts import Corpus, Document
    from lect.stages.corpus.kinds import document_id

    folder.mkdir(parents=True)
    texts = [text for text, _ in pages]
    return Corpus.write(folder, [Document(id=document_id("target", t), text=t, split="train") for t in texts])


def matched(prompted: Any, config: dict[str, Any], pages: Labelled) -> float:
    """The share of pages whose pseudo label is right; a page in pieces counts where all are."""
    from lect.ops.prompts import around

    written = {document.text for document in prompted.documents()}
    return statistics.fmean(word.join(around(config["template"], text)) in written for text, word in pages)


def right(model: Any, told: dict[str, Any], few: Labelled, held: Labelled, seed: int, place: Place) -> float:
    """The share of held-out pages that the model labels right, after as many updates on the labelled ones."""
    from lect.engine.data import Ends
    from lect.method import Run
    from lect.ops.prompts import Labeller, around
    from lect.ops.scoring import compute_dtype
    from lect.stages.corpus.prompted import Prompted, likeliest, read_words

    step = Prompted(**told)
    live, tokenizer = model.load(), model.tokenizer()
    ends = Ends.of(tokenizer)
    words = [*read_words(step.labels).values()]
    labeller = Labeller.of(live, tokenizer, words, (ends.lead, ends.tail), step.max_length)
    if step.steps:
        step.tune(Run(folder=place.folder, scratch=place.folder, seed=seed), labeller, few)
    for parameter in live.parameters():
        parameter.data = parameter.data.to(compute_dtype("auto", model, "cpu"))
    prior = [0.0] * len(words) if step.steps else labeller.costs([around(step.template, "")])[0]
    costs = labeller.costs([around(step.template, text) for text, _ in held])
    return statistics.fmean(words[likeliest(cost, prior)] == word for cost, (_, word) in zip(costs, held, strict=True))


def judged(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures and verdict of the rounds."""
    figures: dict[str, float | None] = {
        f"{way}_{name}": statistics.fmean(found[way][name] for found in rounds)
        for way in ("untrained", "plain", "prompted")
        for name in rounds[0][way]
    }
    figures["pseudo_labels_right"] = statistics.fmean(found["pseudo_labels_right"] for found in rounds)
    ends: dict[str, tuple[float, float, float]] = {}
    for name in ("direct", "tuned"):
        ends[name] = interval([found["prompted"][name] - found["plain"][name] for found in rounds])
        figures |= {f"{name}_change{end}": v for end, v in zip(("", "_low", "_high"), ends[name], strict=True)}
    mean, low, _ = ends["tuned"]
    words = "holds" if low >= 0 else "holds weakly" if mean >= 0 else "does not hold here"
    return {"figures": figures, "verdict": words}
