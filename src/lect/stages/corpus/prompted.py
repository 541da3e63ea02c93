# SPDX-License-Identifier: Apache-2.0
"""Wrap training texts in the prompts that they will be used in, each with the label that the model finds likeliest."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar

from lect.artefacts import Artefact, Corpus, Document, Model
from lect.errors import UserError
from lect.method import Estimate, Range, Run, Sizes, knobs
from lect.ops.prompts import Labeller, around, check
from lect.stages.corpus.kinds import EMPTY, CorpusStep, document_id

CARD = {
    "title": "Prompt-based continued pretraining: texts in their prompts, with pseudo labels",
    "paper": "arXiv:2305.01711",
    "claim": "after text in prompts with pseudo labels a model labels held-out text better than after plain text",
    "differs": [
        "how prompts are written and labels are chosen was taken from the authors' code; the text of the paper was not "
        "at hand, so its ablations (random labels among them) could not be compared",
        "the paper measures after tuning on the labelled prompts once more, the claim here before; what a pico model "
        "is worth after it hung little on the pseudo labels, which random ones matched",
        "the paper labels with RoBERTa at its mask, by the words' single tokens; here words may have several, and a "
        "causal model's score is the probability of the prompt from where the words make it differ",
        "the labeller is tuned for 100 updates at one learning rate; the authors tune for 1,000, and choose rate and "
        "checkpoint on labelled validation text, which is not asked for here",
        "without labelled examples, which the paper always has, scores are divided by those of the prompt without a "
        "text (arXiv:2104.08315)",
        "the authors cut long texts off; here they become several prompts, each labelled by itself",
        "the authors prompt validation text, too; here calibration and test text stays plain",
        "a text that is among the examples has its own label",
        "no pairs of sentences, since a document has one text; no soft prompts; no labels on a scale",
    ],
    "version": 1,
    "off": {"template": "{text}"},
    "needs": [],
    "xfail": {},
    "pico": {"labels": "terrible, great"},
}
WHO = "corpus/prompted"
BATCH = 256
DECAY, WARM_UP, CLIP = 0.01, 0.06, 1.0


@knobs
class Prompted(CorpusStep):
    """Target text for training as prompts will show it, with its likeliest labels; all other text stays as it is.

    The label is the word under which the model finds the prompt likeliest. With labelled examples a copy of the model
    is tuned first: on the cross-entropy of each example's word among all words, in every template. A text keeps every
    character: one that is too long for a prompt is cut, at white space where there is any, and each piece has the whole
    template around it. Raises UserError for templates and words that cannot be used, and unreadable examples.
    """

    inputs: ClassVar[dict[str, type[Artefact]]] = {"model": Model, "corpus": Corpus}

    template: str = "{text} It was {label}."
    """The prompt; several are separated by a line of three dashes, and each text takes one, drawn by the seed."""
    labels: str = ""
    """Words that {label} stands for, separated by commas; a word may have its label's name before it, name: word."""
    examples: str | None = None
    """JSON Lines of text and label (name, word, or number from 0) to tune on; null labels with the model as it is."""
    steps: Annotated[int, Range(at_least=0, at_most=100_000)] = 100
    """Updates of the tuning."""
    batch: Annotated[int, Range(at_least=1, at_most=10_000)] = 8
    """Labelled examples of one update."""
    learning_rate: Annotated[float, Range(above=0, at_most=1)] = 2e-5
    """Peak learning rate of the tuning, per update."""
    max_length: Annotated[int, Range(at_least=8, at_most=1_048_576)] = 512
    """Longest prompt in tokens, with the ends of a text; as long as sequences of the training that follows."""
    most: Annotated[int | None, Range(at_least=1)] = None
    """How many texts are wrapped at most, drawn by the seed; the others stay plain; null wraps all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for template in self.templates:
            check(template, f"{WHO}.template")

    @property
    def templates(self) -> list[str]:
        """The templates, in their order; none where text stays as it is."""
        return self.template.split("\n---\n") if self.template != "{text}" else []

    def estimate(self, sizes: Sizes) -> Estimate:
        """Two operations a parameter, token and label, three times as many in tuning, at half the matrix rate."""
        tokens = sizes.target_bytes / max(1.0, sizes.bytes_per_token)
        if self.most is not None:
            tokens = min(tokens, self.most * self.max_length)
        if self.examples is not None:
            tokens += 3 * self.steps * self.batch * self.max_length / 4
        seconds = 5 + 2 * sizes.parameters * tokens * max(2, len(self.labels.split(","))) / (sizes.matmul_flops / 2)
        memory = sizes.parameters * (4 if self.examples is None else 16) + 1_500_000_000
        disk = (sizes.target_bytes + sizes.kept_bytes) // 2
        return Estimate(seconds=seconds, memory_bytes=memory, disk_bytes=disk)

    def apply(self, run: Run, model: Model, corpus: Corpus) -> Corpus:
        """Tune a copy of the model where there are examples; then label, wrap and write, batch by batch."""
        if not any(True for _ in corpus.documents()):
            raise UserError(f"{WHO}: {EMPTY}")
        if not (templates := self.templates):
            return Corpus.write(run.folder, corpus.documents())
        from lect.engine.data import Ends
        from lect.ops.scoring import compute_dtype

        words = read_words(self.labels)
        shown = read_examples(self.examples, words) if self.examples is not None else []
        chosen, gold, tuned = self.chosen(run, corpus), dict(shown), bool(shown and self.steps)
        live, tokenizer = model.load(device=run.device), model.tokenizer()
        ends = Ends.of(tokenizer)
        labeller = Labeller.of(live, tokenizer, [*words.values()], (ends.lead, ends.tail), self.max_length)
        if tuned:
            self.tune(run, labeller, shown)
        for parameter in live.parameters():
            parameter.data = parameter.data.to(compute_dtype("auto", model, run.device))
        prior = {t: [0.0] * len(words) if tuned else labeller.costs([around(t, "")])[0] for t in templates}
        counts: Counter[str] = Counter()

        def wrapped() -> Iterator[Document]:
            every = corpus.documents()
            while some := [*islice(every, BATCH)]:
                own = [templates[draw(run.seed, "template", d.id) % len(templates)] for d in some]
                pieces = [labeller.pieces(t, d.text) if d.id in chosen else [] for t, d in zip(own, some, strict=True)]
                prompts = [[around(t, text) for text in found] for t, found in zip(own, pieces, strict=True)]
                costs = iter(labeller.costs([prompt for found in prompts for prompt in found]))
                for document, template, found in zip(some, own, prompts, strict=True):
                    if not found:
                        yield document
                    for prompt in found:
                        word = labeller.words[likeliest(next(costs), prior[template])]
                        word = gold.get(document.text, word)
                        counts[word] += 1
                        text = word.join(prompt)
                        yield replace(document, id=document_id(document.role, text), text=text)
                run.progress(counts.total(), max(counts.total(), len(chosen)), "prompt")

        written = Corpus.write(run.folder, wrapped())
        run.fact(texts=len(chosen), prompts=counts.total(), labels=dict(counts), examples=len(shown))
        if len(counts) == 1:
            run.say(f"every text has the label {next(iter(counts))!r}; give examples of each label, or other words")
        return written

    def chosen(self, run: Run, corpus: Corpus) -> set[str]:
        """The ids of the texts to wrap; none at all is a UserError."""
        splits = {document.id: document.split for document in corpus.documents("target")}
        names = [name for name, split in splits.items() if split in ("train", "")]
        if not names:
            raise UserError(f"{WHO}: the corpus has no target text for training to be wrapped; give more text")
        if not any(splits.values()):
            run.say("the corpus is not split, so all of the target is wrapped; corpus/split before it keeps some plain")
        most = len(names) if self.most is None else self.most
        return set(heapq.nsmallest(most, names, key=lambda name: (draw(run.seed, "most", name), name)))

    def tune(self, run: Run, labeller: Labeller, shown: Sequence[tuple[str, str]]) -> None:
        """Lower the cross-entropy of the examples' words among all words; AdamW, with a rate that rises and falls."""
        import numpy as np
        import torch

        readings = []
        for text, word in shown:
            found = [labeller.readings(around(t, labeller.pieces(t, text)[0])) for t in self.templates]
            readings += [(row, labeller.words.index(word)) for row in found]
        parameters = [*labeller.live.parameters()]
        adam = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=DECAY)
        rng = np.random.default_rng(run.seed)
        queue: list[int] = []
        for step in range(self.steps):
            place = (step + 0.5) / self.steps
            adam.param_groups[0]["lr"] = self.learning_rate * min(place / WARM_UP, (1 - place) / (1 - WARM_UP))
            while len(queue) < self.batch:
                queue += rng.permutation(len(readings)).tolist()
            total = 0.0
            for row, number in (readings[n] for n in queue[: self.batch]):
                nats_l = torch.stack([labeller.nats(reading) for reading in row])
                loss = (nats_l[number] + torch.logsumexp(-nats_l, 0)) / self.batch
                torch.autograd.backward(loss)
                total += loss.item()
            del queue[: self.batch]
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            adam.step()
            adam.zero_grad()
            run.progress(step + 1, self.steps, loss=round(total, 3))


def likeliest(costs: Sequence[float], prior: Sequence[float]) -> int:
    """The number of the word that the text makes most likelier than it was without: the first of equals."""
    gains = [before - cost for cost, before in zip(costs, prior, strict=True)]
    return gains.index(max(gains))


def draw(seed: int, *names: str) -> int:
    """A number that depends on seed and names alone."""
    return int.from_bytes(hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()[:8], "big")


def read_words(labels: str) -> dict[str, str]:
    """The word of each label by its name, in their order; fewer than two, or one twice, is a UserError."""
    pairs = [[side.strip() for side in part.rsplit(":", 1)] for part in labels.split(",")]
    found = {pair[0]: pair[-1] for pair in pairs}
    if len(pairs) < 2 or not all(all(pair) for pair in pairs):
        raise UserError(
            f"{WHO}.labels: {labels!r} is no list of two words or more; write for instance: terrible, great"
        )
    if len(found) < len(pairs) or len({*found.values()}) < len(pairs):
        raise UserError(f"{WHO}.labels: {labels!r} has a name or word twice; give each label a word of its own")
    return found


def read_examples(path: str, words: Mapping[str, str]) -> list[tuple[str, str]]:
    """Text and word of each line of a JSON Lines file; a file or line that has them not is a UserError."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{WHO}.examples: {path}: cannot be read as UTF-8 text ({error}); name a JSON Lines file"
        ) from None
    known = {str(number): word for number, word in enumerate(words.values())}
    known |= {word: word for word in words.values()} | dict(words)
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, label = row["text"], str(row["label"])
        except (ValueError, KeyError, TypeError, RecursionError):
            text, label = None, ""
        if not isinstance(text, str) or label not in known:
            raise UserError(
                f"{WHO}.examples: {path}, line {number}: is no JSON object with a text and one of the labels "
                f"{', '.join(words)}; mend or leave out the line"
            )
        found.append((text, known[label]))
    if missing := sorted(set(words.values()) - {word for _, word in found}):
        raise UserError(
            f"{WHO}.examples: {path}: has no example of {', '.join(missing)}; give at least one of each label"
        )
    return found
