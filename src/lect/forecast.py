# SPDX-License-Identifier: Apache-2.0
"""What a run will probably come to: tokens, epochs and bits per byte, and what published laws say beside the recipe.

No method is chosen here and no constant is set: figures come from the sizes, from the laws, and from earlier runs of
the same text. What is not known is null with the reason beside it, and a law outside of what it was fitted on says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lect.artefacts import Document, read_json
from lect.engine.budget import FEWEST_STEPS
from lect.engine.cost import EXPECTED_UTILISATION, tokens_within
from lect.engine.curve import FEWEST, extrapolate
from lect.errors import UserError
from lect.laws import (
    average_parameters,
    data_repeats,
    knowledge_capacity,
    learning_rate_batch,
    related_languages,
    task_ladder,
)
from lect.laws import vocabulary_size as vocabulary
from lect.parts.mixture.kind import Feedback
from lect.recipe import ResolvedStep
from lect.registry import build_part

BUDGET = ("minutes", "tokens", "checkpoint_seconds", "evaluations", "evaluation_tokens", "compile", "tracker")
"""Knobs of training that say how much of it there is, not what kind."""
LEAST_EXPOSURES = min(knowledge_capacity.EXPOSURES)
JUDGING = ("evaluate", "export")


@dataclass(frozen=True)
class Row:
    """One line of a forecast: what is predicted, or what a law says beside the recipe, and what stands behind it.

    ``low`` and ``high`` are what the law finds as good. ``inside`` says whether the law was fitted on such sizes;
    None where the line is no law's but a prediction that is measured afterwards.
    """

    name: str
    value: float | None
    unit: str
    note: str
    low: float | None = None
    high: float | None = None
    recipe: float | None = None
    inside: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known before anything runs, of the model as training will get it."""

    steps: Sequence[ResolvedStep]
    body: int
    """Parameters without the tables of embedding and head."""
    rows: int
    width: int
    """Of a row."""
    parameters: int
    bytes_per_token: float
    bits_per_byte: float | None
    """Of the target, before training."""
    target_bytes: int
    kept_bytes: int
    matmul_flops: float
    seed: int = 0
    base: str = ""
    """Fingerprint of the recipe's model."""
    files: frozenset[str] = frozenset()
    """Sums of the target's and the kept text's files."""

    @property
    def training(self) -> Mapping[str, Any] | None:
        """The knobs of the last step that trains on a mixture; None where there is none."""
        wanted = {"mixture", "batch_tokens", "learning_rate", "tokens", "minutes"}
        return next((s.values for s in reversed(self.steps) if wanted <= s.values.keys()), None)


def forecast(known: Known, runs: Sequence[Path]) -> list[Row]:
    """Every line that these sizes allow; ``runs`` are folders that may hold earlier runs.

    Empty where no step trains on a mixture of texts.
    """
    knobs = known.training
    if knobs is None:
        return []
    tokens, why = planned_tokens(known, knobs)
    unique = max(1.0, known.target_bytes * train_share(known) / known.bytes_per_token)
    share = target_share(known, knobs)
    epochs = None if share is None else tokens * share / unique
    note = f"of {unique:,.0f} tokens of target text for training, before any is dropped"
    if epochs is None:
        note = "how much of it is target text is not known before the text is read"
    made = [
        Row("tokens", tokens, "tokens", why),
        Row("epochs", epochs, "epochs", note),
        *earlier(known, tokens, runs),
        rate(known, tokens, float(knobs["learning_rate"])),
        batch(known, tokens, float(knobs["batch_tokens"])),
        rows(known),
        relatives(known, unique),
        *pruned(known, knobs, tokens),
    ]
    return made if not epochs else [*made, repeats(unique, epochs), dropout(epochs), capacity(known, epochs)]


def planned_tokens(known: Known, knobs: Mapping[str, Any]) -> tuple[float, str]:
    """Places of the rows that training will fill, and where the number comes from."""
    if knobs["tokens"] is not None:
        return float(max(knobs["tokens"], knobs["batch_tokens"])), "as the recipe says; padding counts"
    least = FEWEST_STEPS * knobs["batch_tokens"]
    tokens = tokens_within(60 * (knobs["minutes"] or 0.0), known.parameters, known.matmul_flops)
    share = f"at {EXPECTED_UTILISATION:.0%} of {known.matmul_flops / 1e9:.0f} GFLOP/s, the rate of matrix products here"
    return max(tokens, float(least)), share


def train_share(known: Known) -> float:
    """The share of the text that is neither test nor calibration."""
    split = next((s.values for s in known.steps if {"test", "calibration"} <= s.values.keys()), None)
    if split is None:
        return 1.0
    floor = min(split.get("most", 0.0), split.get("least_bytes", 0) / max(1, known.target_bytes))
    return float(max(0.0, 1.0 - sum(max(split[name], floor) for name in ("test", "calibration"))))


def target_share(known: Known, knobs: Mapping[str, Any]) -> float | None:
    """The mean share of the rows that the mixture gives to the target; None where it asks for more than roles."""
    mixture: Any = build_part("mixture", knobs["mixture"])
    unread = Document(id="", text="", role="target", language="xx", source="file")
    if mixture.measurements or not mixture.group(unread).startswith(unread.role):
        return None
    sizes = {"target": max(1, known.target_bytes), "kept": max(1, known.kept_bytes)}
    try:
        found = [mixture.shares(sizes, n / 20, Feedback()) for n in range(21)]
    except UserError:
        return None
    if any(not shares.keys() <= sizes.keys() or sum(shares.values()) <= 0 for shares in found):
        return None
    return fmean(1 - shares.get("kept", 0.0) / sum(shares.values()) for shares in found)


def repeats(unique: float, epochs: float) -> Row:
    """What the tokens read are worth in new ones (Muennighoff et al.)."""
    worth = data_repeats.effective_tokens(unique, epochs) / (unique * epochs)
    half = data_repeats.epochs_until(0.5)
    note = f"the next token is worth half a new one after {half:.1f} epochs; from random weights, 100 million tokens on"
    inside = _within(unique, data_repeats.STUDIED_UNIQUE)
    return Row("worth of what is read", worth, "share", note, inside=inside)


def dropout(epochs: float) -> Row:
    """What to do about repeats (Xue et al.); the engine trains without dropout."""
    note = "none while text is new, 0.2 to 0.3 once it repeats often; found at 256 epochs in encoder-decoders"
    return Row("dropout at the end", data_repeats.dropout(epochs), "rate", note, recipe=0.0, inside=False)


def rate(known: Known, tokens: float, recipe: float) -> Row:
    """The learning rate by the step law, and how far from it the loss stays within 0.25 %."""
    law = learning_rate_batch.predict(known.body, tokens)
    low, high = learning_rate_batch.rate_range(known.body, tokens)
    note = "from random weights, 4 to 100 billion tokens; the default of the recipe was measured on a trained model"
    return Row("learning rate", law.learning_rate, "rate", note, low, high, recipe, law.studied)


def batch(known: Known, tokens: float, recipe: float) -> Row:
    """The tokens of an update by the step law."""
    law = learning_rate_batch.predict(known.body, tokens)
    low, high = learning_rate_batch.batch_range(tokens)
    note = "from random weights, 4 to 100 billion tokens"
    return Row("tokens of an update", law.batch_tokens, "tokens", note, low, high, recipe, law.studied)


def capacity(known: Known, epochs: float) -> Row:
    """Two bits a parameter against the bits of the target text, as the model finds it before training."""
    bits = known.target_bytes * (8.0 if known.bits_per_byte is None else known.bits_per_byte)
    note = f"2 a parameter, for facts seen 1,000 times; what stands once in the text is seen {epochs:.2g} times"
    inside = _within(known.parameters, knowledge_capacity.STUDIED_PARAMETERS) and epochs >= LEAST_EXPOSURES
    value = knowledge_capacity.capacity(known.parameters)
    return Row("bits it can hold, bits of the text", value, "bits", note, recipe=bits, inside=inside)


def rows(known: Known) -> Row:
    """The vocabulary that a model of this size would have if it were trained from nothing with the best budget."""
    found = vocabulary.predict(known.body, width=known.width)
    ways = [way for way in (found.isoflops, found.derivative, found.loss) if way is not None]
    inside = _within(known.body, vocabulary.STUDIED_NON_VOCABULARY)
    note = "from random weights on English; the plan tries vocabularies on the text instead"
    return Row("rows of the vocabulary", found.loss, "rows", note, min(ways), max(ways), known.rows, inside)


def pruned(known: Known, knobs: Mapping[str, Any], tokens: float) -> list[Row]:
    """What a model is worth that is pruned while it is trained (Jin et al.); nothing for one that is not."""
    part: Any = build_part("parameters", knobs.get("parameters", "full"))
    if not hasattr(part, "plan"):
        return []
    found = part.plan(known.body, max(1, int(tokens // knobs["batch_tokens"])))
    inside = _within(known.body, average_parameters.STUDIED_PARAMETERS)
    note = "as good as a dense body of so many parameters, and the body that is left; from random weights"
    return [Row("worth of a pruned body", found.average, "parameters", note, recipe=found.final, inside=inside)]


def relatives(known: Known, unique: float) -> Row:
    """What text of ten related languages would be worth (Chang et al.)."""
    name, note = "worth of related languages", "text of ten similar languages, in text of its own; from random weights"
    try:
        finding = related_languages.published(unique, known.parameters)
    except UserError:
        note = "studied from 4.6 to 29.5 million parameters and from 1 million to 1 billion tokens only"
        return Row(name, None, "share", note, inside=False)
    if finding is None or finding.change is None:
        return Row(name, None, "share", "no figure is published for this size", inside=True)
    return Row(name, finding.change, "share", note, inside=True)


def earlier(known: Known, tokens: float, runs: Sequence[Path]) -> list[Row]:
    """Bits per byte and the exam's accuracy, from finished runs of the same text with the same kind of training.

    Runs of the same model give a curve; of six runs with two sizes, the task ladder gives bits and accuracy.
    """
    found = finished(known, runs)
    own = [run for run in found if run["base"] == known.base]
    points = {(0.0, run["before"]) for run in own} | {(run["tokens"], run["after"]) for run in own}
    curve = extrapolate(sorted(points), tokens)
    note = f"on the test text: power law through {len(own)} earlier runs beside this one"
    if curve is None:
        need = f"needs {FEWEST - 1} earlier runs beside this one: same model, text and steps, other budgets"
        note = f"{need}; there are {len({run['tokens'] for run in own})}"
    made = [Row("bits per byte", curve, "bits", note)]
    try:
        made += ladder(known, tokens, found)
    except UserError as error:
        note = f"needs earlier runs of smaller models on this text: {str(error).removeprefix('task ladder: ')}"
        made.append(Row("choice exam", None, "share", note))
    return made


def ladder(known: Known, tokens: float, found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Bits per byte and accuracy by the task ladder; UserError where there are too few runs."""
    losses = task_ladder.fit_loss(task_ladder.Run(r["parameters"], r["tokens"], r["after"]) for r in found)
    scores = [(r["after"], r["accuracy"]) for r in found if r["accuracy"] is not None]
    accuracies = task_ladder.fit_accuracy(scores)
    size = known.body + known.rows * known.width
    predicted = task_ladder.predict(losses, accuracies, size, tokens)
    times = size / max(run["parameters"] for run in found)
    note = f"task ladder of {len(found)} runs, {times:.2g} times their largest; made for training from nothing"
    return [
        Row("bits per byte by ladder", predicted.loss, "bits", note),
        Row("choice exam", predicted.accuracy, "share", note),
    ]


def finished(known: Known, runs: Sequence[Path]) -> list[dict[str, Any]]:
    """The runs in ``runs`` that had the same text, seed and steps, but for the budget of training."""
    from lect.report.shape import REPORT, fit

    wanted = _kind((step.use, step.values) for step in known.steps)
    found = []
    for folder in runs:
        if not (folder / "report.json").is_file():
            continue
        try:
            report = fit(REPORT, read_json(folder / "report.json"))
        except UserError:
            continue
        inputs = report["run"]["inputs"]
        if report["run"]["seed"] != known.seed or {f["sha256"] for f in inputs["files"]} != known.files:
            continue
        if _kind((s["use"], s["knobs"]) for s in report["steps"] if s["name"]) != wanted:
            continue
        size = report["size"]["adapted"]
        row = {
            "base": inputs["model"]["fingerprint"],
            "tokens": report["cost"]["trained_tokens"],
            "before": report["target"]["base"]["bits_per_byte"],
            "after": report["target"]["adapted"]["bits_per_byte"],
            "parameters": None if None in (size["body"], size["embedding"]) else size["body"] + size["embedding"],
        }
        if None not in row.values():
            found.append(row | {"accuracy": report["exams"]["choice"]["adapted"]["accuracy"]})
    return found


def _kind(steps: Iterable[tuple[str | None, Any]]) -> Any:
    """What makes two runs comparable: the steps that make the model, without how long they train."""
    made = []
    for use, values in steps:
        if use is not None and use.partition("/")[0] not in JUDGING and isinstance(values, Mapping):
            made.append((use, {k: v for k, v in values.items() if k not in BUDGET}))
    return json.loads(json.dumps(made))


def _within(value: float, span: tuple[float, float]) -> bool:
    return span[0] <= value <= span[1]
