# SPDX-License-Identifier: Apache-2.0
"""Look at the text, the model and the machine, decide on a recipe, and say what it will cost before it is spent."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lect import artefacts, choice, data, forecast, inputs, machine, models, processes, recipe, registry
from lect.artefacts import Model
from lect.engine.cost import tokens_within
from lect.errors import UserError
from lect.method import Run, Sizes

GENERAL = data.GENERAL["en"]
"""Kept text where the user names none: the strong language of the open models is English."""
MINUTES = 10.0
RACE_MINUTES, RACE_TOKENS = 60.0, 2_000_000
"""Least budget at which initialisers race: the losers' training is then a small part of it."""
SHORT_MINUTES, SHORT_TOKENS = 3.0, 32_768
"""Greatest budget at which `parameters/half` trains: 20,480 tokens gained by it, 61,440 lost a little on the target."""
SAMPLE_BYTES = 400_000
TEXT_SHARE = 0.6
"""Share of a file's expanded bytes that is text, for markup and tables; plain text is nearer to 1."""
EXPANSION = {".gz": 4.0, ".zst": 4.0, ".bz2": 5.0, ".xz": 5.0, ".zip": 4.0, ".parquet": 3.0}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a plan: the step, why it is there, and what it will probably cost."""

    use: str
    label: str
    why: str
    seconds: float
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe with its reasons and its probable cost."""

    recipe: recipe.Recipe
    rows: list[Row]
    sizes: Sizes
    candidates: tuple[choice.Candidate, ...] = ()
    """The vocabularies that were tried on a sample of the text."""
    forecast: tuple[forecast.Row, ...] = ()
    """What training will probably come to, and what published laws say."""

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(row.seconds for row in self.rows)

    @property
    def memory_bytes(self) -> int:
        """The greediest step."""
        return max(row.memory_bytes for row in self.rows)

    @property
    def disk_bytes(self) -> int:
        """All steps together."""
        return sum(row.disk_bytes for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """The plan as the record keeps it, to be set against the facts."""
        return {
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "steps": [vars(row) for row in self.rows],
            "vocabularies": [vars(candidate) for candidate in self.candidates],
            "forecast": [vars(row) for row in self.forecast],
        }


def adapt(
    model: str,
    text: Sequence[str],
    keep: Sequence[str],
    minutes: float | None,
    tokens: int | None,
    settings: Sequence[str],
    scratch: Path,
    runs: Sequence[Path],
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """The plan for one model and one text.

    ``scratch`` holds what comes through standard input; ``runs`` are folders that may hold earlier runs.
    """
    if minutes is not None and tokens is not None:
        raise UserError("--minutes and --tokens: give one of them, the other follows from the machine's speed")
    keep = list(keep) or [GENERAL]
    base = Model(models.resolve(model))
    sources = inputs.sources(text, keep, scratch)
    sample = _sample(sources)
    sizes = measure(base, sources, sample["target"])
    budget: dict[str, Any] = {"tokens": tokens} if tokens is not None else {"minutes": minutes or MINUTES}

    def trained(parameters: int) -> float:
        """Tokens that training will probably see."""
        return float(tokens or tokens_within(60 * (minutes or MINUTES), parameters, sizes.matmul_flops))

    found = choice.candidates(base, sample, sizes, trained, say)
    pick = next(c for c in found if c.picked)
    steps, why = _decide(budget | _rows(processes.size()), sizes, pick)
    raw = {"model": model, "text": _absolute(text), "keep": _absolute(keep), "steps": steps}
    resolved = recipe.resolve(recipe.override(raw, list(settings)), "plan")
    lines = forecast.forecast(_known(resolved, base, sources, sizes, pick), runs)
    return replace(estimate(resolved, sizes, why), candidates=tuple(found), forecast=tuple(lines))


def _known(
    resolved: recipe.Recipe, base: Model, sources: artefacts.Sources, sizes: Sizes, pick: choice.Candidate
) -> forecast.Known:
    """What the forecast starts from: the model with the picked vocabulary."""
    from lect.ops.model_folder import read_config

    return forecast.Known(
        steps=resolved.steps,
        body=sizes.parameters - sizes.embedding_parameters,
        rows=pick.rows,
        width=int(read_config(base.folder).get_text_config().hidden_size),
        parameters=pick.parameters,
        bytes_per_token=pick.bytes_per_token,
        bits_per_byte=pick.bits_per_byte,
        target_bytes=sizes.target_bytes,
        kept_bytes=sizes.kept_bytes,
        matmul_flops=sizes.matmul_flops,
        seed=resolved.seed,
        base=base.fingerprint,
        files=frozenset(total for _, _, total in sources.sums),
    )


def estimate(resolved: recipe.Recipe, sizes: Sizes, why: dict[str, str] | None = None) -> Plan:
    """What every step of a resolved recipe will probably cost, each on the sizes that the one before leaves."""
    rows = []
    now = sizes
    for step in resolved.steps:
        guess = registry.build_step(step.use, step.values).estimate(now)
        now = guess.sizes or now
        rows.append(
            Row(
                use=step.use,
                label=step.label,
                why=(why or {}).get(step.use, registry.find(step.use).card["title"]),
                seconds=guess.seconds,
                memory_bytes=guess.memory_bytes,
                disk_bytes=guess.disk_bytes,
            )
        )
    return Plan(recipe=resolved, rows=rows, sizes=sizes)


def _decide(
    budget: dict[str, Any], sizes: Sizes, pick: choice.Candidate
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The steps of the main job and why each is there."""
    share = sizes.embedding_parameters / sizes.parameters
    why = {
        "corpus/read": f"{_mb(sizes.target_bytes)} of target text and {_mb(sizes.kept_bytes)} of kept text",
        "corpus/normalise": "one spelling of every character, so that equal text gives equal tokens",
        "corpus/exact_duplicates": "a text counts once",
        "corpus/near_duplicates": "near copies would leak from training into the test",
        "corpus/language": "text surely in another language is set aside",
        "corpus/length": "thresholds fitted on this text",
        "corpus/repetition": "thresholds fitted on this text",
        "corpus/split": "training, calibration and test never overlap",
        "vocab/trim": f"{share:.0%} of the parameters are the {sizes.rows:,} rows of the vocabulary",
        "vocab/extend": f"{pick.bytes_per_token:.1f} bytes a token; training meets a new token {pick.seen:.0f} times",
        "vocab/replace": f"{pick.bytes_per_token:.1f} bytes a token; training meets a new token {pick.seen:.0f} times",
        "pretrain/race": "the first rows of new tokens that lead furthest; the budget allows to try some",
        "pretrain/continue": "the model learns the text; kept text is replayed so that it is not forgotten",
        "export/huggingface": "a plain folder that other tools load",
        "evaluate/bits_per_byte": "the proof: quality on target and kept text, base against adapted",
        "evaluate/cloze": "an exam from the text itself",
        "evaluate/choice": "an exam from the text itself",
        "evaluate/speed": "what it means for the one who waits",
        "evaluate/size": "what it means for the disk",
        "evaluate/samples": "what it reads like",
        "export/gguf": "the same model for llama.cpp",
    }
    training = dict(budget)
    if budget.get("minutes", SHORT_MINUTES) <= SHORT_MINUTES and budget.get("tokens", SHORT_TOKENS) <= SHORT_TOKENS:
        training["parameters"] = "half"
        why["pretrain/continue"] += "; so short a run keeps more of the rest when half of every layer stands still"
    knobs = {"pretrain/continue": training} | {step["use"]: step.get("with", {}) for step in pick.steps}
    optional = {use for use in why if use.startswith("vocab/")} | {"pretrain/race"}
    picked = {step["use"] for step in pick.steps}
    if pick.new and (budget.get("minutes", 0) >= RACE_MINUTES or budget.get("tokens", 0) >= RACE_TOKENS):
        picked.add("pretrain/race")
    chosen = [use for use in why if use not in optional or use in picked]
    return [{"use": use, "with": dict(knobs.get(use, {}))} for use in chosen], why


def _rows(count: int) -> dict[str, Any]:
    """The knob that gives each of several processes a row of every update."""
    batch: Any = registry.build_step("pretrain/continue", {})
    return {"row_tokens": -(-batch.batch_tokens // count)} if count > 1 else {}


def measure(model: Model, sources: artefacts.Sources, texts: Sequence[str]) -> Sizes:
    """Sizes of model and text, bytes per token on a sample of the text, and this machine's matrix product rate."""
    from lect.ops.model_folder import weight_shapes
    from lect.ops.text import byte_count, encode

    shapes = weight_shapes(model.folder)
    config = artefacts.read_json(model.folder / "config.json")
    rows = int(config.get("vocab_size") or config.get("text_config", {}).get("vocab_size") or 0)
    count = {name: _product(shape) for name, shape in shapes.items()}
    embedding = sum(n for name, n in count.items() if len(shapes[name]) > 1 and shapes[name][0] >= rows > 0)
    sizes = {role: sum(_text_bytes(p) for r, p in sources.files if r == role) for role in ("target", "kept")}
    return Sizes(
        parameters=sum(count.values()),
        embedding_parameters=embedding,
        rows=rows,
        model_bytes=model.bytes,
        target_bytes=sizes["target"],
        kept_bytes=sizes["kept"],
        bytes_per_token=byte_count(texts) / max(1, sum(map(len, encode(model.tokenizer(), texts)))),
        matmul_flops=machine.matmul_flops(),
    )


def _product(shape: Iterable[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _text_bytes(path: Path) -> int:
    """A guess at the text in a file, in bytes, from its size and its ending."""
    plain = Path(path.stem).suffix if path.suffix in EXPANSION and path.suffix != ".parquet" else path.suffix
    share = 1.0 if plain in (".txt", ".md", ".jsonl") else TEXT_SHARE
    return int(path.stat().st_size * EXPANSION.get(path.suffix, 1.0) * share)


def _sample(sources: artefacts.Sources) -> dict[str, list[str]]:
    """By role, beginnings of texts of the smallest files, read as the run will read them, some hundred kilobytes."""
    chosen: list[tuple[str, Path]] = []
    for role in ("target", "kept"):
        size = 0
        for item in sorted((i for i in sources.files if i[0] == role), key=lambda item: item[1].stat().st_size):
            if size <= SAMPLE_BYTES:
                chosen.append(item)
                size += _text_bytes(item[1])
    with tempfile.TemporaryDirectory(prefix="lect-plan-") as place:
        for name in ("out", "scratch"):
            (Path(place) / name).mkdir()
        run = Run(folder=Path(place) / "out", scratch=Path(place) / "scratch")
        few = artefacts.Sources(folder=sources.folder, files=tuple(chosen))
        read = registry.build_step("corpus/read", {}).apply(run, sources=few)
        assert isinstance(read, artefacts.Corpus)
        return {role: _beginnings(read.texts(role)) for role in ("target", "kept")}


def _beginnings(texts: Sequence[str]) -> list[str]:
    """The first 4,000 characters of each text, until there is enough."""
    size, found = 0, list[str]()
    for text in texts:
        found.append(text[:4000])
        size += len(found[-1].encode("utf-8", "surrogatepass"))
        if size > SAMPLE_BYTES:
            break
    return found


def _absolute(words: Sequence[str]) -> list[str]:
    """Paths that mean the same from any folder; patterns, ``-`` and bundled names stay as they are."""
    return [str(Path(w).expanduser().resolve()) if Path(w).expanduser().exists() else w for w in words]


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def free_disk(folder: Path) -> int:
    """Free bytes where ``folder`` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
