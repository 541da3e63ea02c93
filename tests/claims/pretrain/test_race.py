# SPDX-License-Identifier: Apache-2.0
"""Invariant and effect on pico models: the race keeps the candidate that a plain computation finds best."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lect.artefacts import Corpus, Model
from lect.engine.checkpoint import load
from lect.engine.train import train
from lect.errors import UserError
from lect.method import Run, Sizes
from lect.ops.statistics import expanded_tail
from lect.parts.init.kind import tables
from lect.registry import build_step, check_values, find
from lect.stages.pretrain.kinds import NewRows
from lect.stages.pretrain.race import Race, judge
from lect.testing import pico
from lect.testing.contract import Bench
from lect.testing.new_tokens import documents
from moments import at

TERRIBLE = {"use": "random", "with": {"deviation": 10.0}}
KNOBS = {
    "inits": ("subword_mean", "mean"),
    "tokens": 64 * 12,
    "batch_tokens": 64,
    "max_length": 48,
    "learning_rate": 1e-3,
    "embedding_learning_rate": 1e-3,
    "new_row_learning_rate": 1e-3,
    "judge_tokens": 300,
}


class Listener:
    def __init__(self, stop: str = "", at: int = 0) -> None:
        self.lines: list[str] = []
        self.steps = 0
        self.stop, self.at = stop, at

    def say(self, text):
        self.lines.append(text)
        if self.stop and self.stop in text:
            raise KeyboardInterrupt

    def progress(self, done, total, unit, values):
        self.steps += unit == "step"
        if unit == "step" and self.steps == self.at:
            raise KeyboardInterrupt

    def gate(self, gate):
        assert gate.passed, gate


def start(place: Path, seed: int = 0, listener: Listener | None = None) -> Run:
    for name in ("out", "scratch"):
        (place / name).mkdir(parents=True, exist_ok=True)
    return Run(folder=place / "out", scratch=place / "scratch", seed=seed, listener=listener or Listener())


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.write(tmp_path_factory.mktemp("text"), documents())


def grown(family: str, place: Path, text: Corpus, seed: int = 0) -> tuple[Model, Model]:
    """A pico model, and the same with twenty new tokens whose rows are means of subwords."""
    base = pico.model(family, place / "base", seed=seed)
    step = build_step("vocab/extend", {"tokens": 20, "least": 2, "multiple": 1})
    return base, step.apply(start(place / "grown", seed), model=base, corpus=text)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def pair(text: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    return grown("gemma3", tmp_path_factory.mktemp("pair"), text)


def raced(place: Path, pair: tuple[Model, Model], text: Corpus, seed: int = 0, **knobs) -> Run:
    run = start(place, seed)
    Race(**(KNOBS | knobs)).apply(run, base=pair[0], model=pair[1], corpus=text)
    return run


def plain_bits(live, tokenizer, text: Corpus, tokens: int, longest: int) -> tuple[list[float], list[int]]:
    """Bits and bytes of each judged document, document by document, from the model's own logits."""
    bits, sizes, total = [], [], 0
    room = longest - len(tokenizer("").input_ids)
    for document in sorted(text.documents("target", "calibration"), key=lambda d: d.id):
        words = document.text
        while len(ids := tokenizer.backend_tokenizer.encode(words, add_special_tokens=False).ids) > room:
            words = words[: max(1, min(len(words) - 1, len(words) * room // len(ids)))]
        row = torch.tensor([[tokenizer.bos_token_id, *ids]])
        with torch.no_grad():
            loss = live(input_ids=row, labels=row).loss
        bits.append(loss.item() * len(ids) / math.log(2))
        sizes.append(len(words.encode()))
        total += len(ids)
        if total >= tokens:
            break
    return bits, sizes


def test_the_winner_is_the_best_of_a_plain_loop(pair, text: Corpus, tmp_path: Path) -> None:
    """Each candidate's weights are read again, document by document; the fewest bits are the winner's."""
    inits = (TERRIBLE, {"use": "random", "with": {"deviation": 2.0}}, "subword_mean")
    run = raced(tmp_path, pair, text, inits=inits)
    race, tokenizer = run.facts["race"], pair[1].tokenizer()
    after = []
    for number, row in enumerate(race["candidates"]):
        held = load(tmp_path / "scratch" / f"candidate-{number}")
        assert held is not None
        live = pair[1].load()
        for name, parameter in live.named_parameters():
            parameter.data.copy_(held[0][name])
        bits, sizes = plain_bits(live, tokenizer, text, 300, 48)
        assert row["bits_per_byte"]["after"] == pytest.approx(sum(bits) / sum(sizes), rel=1e-5)
        assert race["judged_on"] == {"documents": len(sizes), "bytes": sum(sizes)}
        after.append(sum(bits) / sum(sizes))
    assert after.index(min(after)) == 2
    assert race["winner"] == race["best"] == "subword_mean"
    differences = [row["difference"] for row in race["candidates"]]
    assert [d["mean"] for d in differences] == pytest.approx([bits - min(after) for bits in after], abs=1e-4)
    assert all(d["low"] > 0 for d in differences[:2])
    assert differences[2] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert [row["init"] for row in race["candidates"]] == ["random (1)", "random (2)", "subword_mean"]
    assert all(row["seconds"] > 0 for row in race["candidates"])
    assert "pretrain/race: subword_mean wins: the fewest bits" in run.listener.lines
    json.dumps(run.facts, allow_nan=False)


@pytest.mark.parametrize("seed", range(3))
def test_a_terrible_start_never_wins(seed: int, text: Corpus, tmp_path: Path) -> None:
    """First in the list, where ties would go, and yet worse by half a bit a byte each time."""
    pair = grown("gemma3", tmp_path, text, seed)
    race = raced(tmp_path / "race", pair, text, seed, inits=(TERRIBLE, "subword_mean")).facts["race"]
    assert race["winner"] == "subword_mean"
    assert race["candidates"][0]["difference"]["low"] > 0.5


def test_weights_are_those_of_the_engine_alone(pair, text: Corpus, tmp_path: Path) -> None:
    """The grown model has subword means already, so training it directly from the next seed gives the same bits."""
    run = raced(tmp_path / "race", pair, text, inits=("subword_mean", TERRIBLE), seed=5)
    assert run.facts["race"]["winner"] == "subword_mean"
    known, tokenizer = pair[0].tokenizer().get_vocab(), pair[1].tokenizer()
    new = [i for token, i in tokenizer.get_vocab().items() if token not in known]
    made = Model(run.folder).load().state_dict()
    for seed, same in ((6, True), (5, False)):
        direct = pair[1].load()
        alone = start(tmp_path / f"alone-{seed}", seed)
        train(alone, direct, tokenizer, text, Race(**KNOBS).settings(alone), "key", new)
        equal = [torch.equal(tensor, made[name]) for name, tensor in direct.state_dict().items()]
        assert all(equal) is same
    rates = [Race(**KNOBS).settings(alone).schedule.rate(at(p)) for p in (0.05, 0.1, 0.5, 1.0)]
    assert rates == [0.5, 1.0, 1.0, 1.0]


def test_equal_candidates_tie_and_the_first_wins(pair, text: Corpus, tmp_path: Path) -> None:
    """Two spellings of one initialiser train on the same batches, so they end at the same bits."""
    twice = ("subword_mean", {"use": "subword_mean", "with": {"norm": 0.0}})
    one, two = raced(tmp_path, pair, text, inits=twice).facts["race"]["candidates"]
    assert one["bits_per_byte"] == two["bits_per_byte"]
    assert one["difference"] == two["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert one["init"] == "subword_mean (1)"
    first, second = (load(tmp_path / "scratch" / f"candidate-{n}") for n in (0, 1))
    assert first and second and all(torch.equal(tensor, second[0][name]) for name, tensor in first[0].items())


def test_ties_go_to_the_earlier_and_sure_differences_do_not() -> None:
    """The interval against a plain bootstrap over documents."""
    rng = random.Random(3)
    sizes = [rng.randrange(50, 150) for _ in range(40)]
    good = [n * rng.uniform(1.0, 2.0) for n in sizes]
    noisy = [b + rng.gauss(0.2, 20) for b in good]
    worse = [b + 0.3 * n + rng.gauss(0, 2) for b, n in zip(good, sizes, strict=True)]
    if sum(noisy) < sum(good):
        noisy = [2 * g - n for g, n in zip(good, noisy, strict=True)]
    assert judge([worse, good], sizes, 0)[:2] == (1, 1)
    assert judge([noisy, good, worse], sizes, 0)[:2] == (1, 0)
    assert judge([good, noisy, worse], sizes, 0)[:2] == (0, 0)
    assert judge([worse, noisy, good], sizes, 0)[:2] == (2, 1)
    drawn = []
    for _ in range(4000):
        chosen = [rng.randrange(40) for _ in range(40)]
        drawn.append(sum(noisy[i] - good[i] for i in chosen) / sum(sizes[i] for i in chosen))
    drawn.sort()
    tail = expanded_tail(0.025, 40)
    found = judge([noisy, good], sizes, 0)[2][0]
    assert found.mean == pytest.approx((sum(noisy) - sum(good)) / sum(sizes))
    assert found.low == pytest.approx(drawn[int(tail * 4000)], abs=0.01)
    assert found.high == pytest.approx(drawn[int((1 - tail) * 4000)], abs=0.01)


@pytest.mark.parametrize("kill", [{"stop": "candidate 2 of 2"}, {"at": 5}, {"at": 17}])
def test_killed_and_resumed_gives_the_same_weights(kill: dict, pair, text: Corpus, tmp_path: Path) -> None:
    given = {"base": pair[0], "model": pair[1], "corpus": text}
    with pytest.raises(KeyboardInterrupt):
        Race(**KNOBS).apply(start(tmp_path / "killed", listener=Listener(**kill)), **given)
    again = start(tmp_path / "killed")
    Race(**KNOBS).apply(again, **given)
    done = kill.get("at", 17) > 12
    assert ("pretrain/race: subword_mean was trained before" in again.listener.lines) is done
    assert any(line.startswith("goes on from step 5") for line in again.listener.lines) is ("at" in kill)
    whole = raced(tmp_path / "whole", pair, text)
    assert Model(again.folder).fingerprint == Model(whole.folder).fingerprint
    for one, two in zip(again.facts["race"]["candidates"], whole.facts["race"]["candidates"], strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert sorted(path.name for path in again.scratch.iterdir()) == ["candidate-0", "candidate-1"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_first_rows_are_made_from_the_base_for_both_tables(family: str, text: Corpus, tmp_path: Path) -> None:
    """Bits before training, with the new rows of every table set by hand to the mean of the base's table."""
    pair = grown(family, tmp_path, text)
    rows = raced(tmp_path / "race", pair, text, tokens=64, inits=("mean", TERRIBLE)).facts["race"]["candidates"]
    known, tokenizer = pair[0].tokenizer().get_vocab(), pair[1].tokenizer()
    new = [i for token, i in tokenizer.get_vocab().items() if token not in known]
    base, live = pair[0].load(), pair[1].load()
    with torch.no_grad():
        live.get_input_embeddings().weight[new] = base.get_input_embeddings().weight.mean(0)
        live.get_output_embeddings().weight[new] = base.get_output_embeddings().weight.mean(0)
    assert set(tables(live)) == ({"input", "output"} if family == "llama" else {"input"})
    bits, sizes = plain_bits(live, tokenizer, text, 300, 48)
    assert rows[0]["bits_per_byte"]["before"] == pytest.approx(sum(bits) / sum(sizes), rel=1e-5)


def test_a_trimmed_and_grown_model_takes_its_rows_from_the_whole_base(pair, text: Corpus, tmp_path: Path) -> None:
    """Old ids are those of the base, other rows stay, and a subword mean is that over the base's rows."""
    trim = build_step("vocab/trim", {"multiple": 1})
    small = trim.apply(start(tmp_path / "trim"), model=pair[0], corpus=text)
    step = build_step("vocab/extend", {"tokens": 20, "least": 2, "multiple": 1})
    model = step.apply(start(tmp_path / "extend"), model=small, corpus=text)
    new = NewRows.of(pair[0], model.tokenizer(), text)
    names, before = model.tokenizer().get_vocab(), pair[0].tokenizer().get_vocab()
    assert {token: i for token, i in names.items() if token in before} == {
        new.new.strings[n]: n for n, i in enumerate(new.origin) if i >= 0
    }
    assert all(before[new.new.strings[n]] == i for n, i in enumerate(new.origin) if i >= 0)
    assert 0 < len(new.ids) <= 20
    live, table = model.load(), pair[0].load().get_input_embeddings().weight
    was = live.get_input_embeddings().weight.detach().clone()
    new.fill(live, new.rows(start(tmp_path / "run"), "subword_mean"))
    for n, row_d in enumerate(live.get_input_embeddings().weight.detach()):
        if n in new.ids:
            ids = [p.id for p in new.tokenizers[0].backend_tokenizer.model.tokenize(new.new.strings[n])]
            torch.testing.assert_close(row_d, table[ids].mean(0).detach())
        else:
            assert torch.equal(row_d, was[n])


def test_what_cannot_race_is_said_in_one_line(bench: Bench, pair, text: Corpus, tmp_path: Path) -> None:
    def fault(place: str, model: Model = pair[1], corpus: Corpus = text, **knobs) -> str:
        with pytest.raises(UserError) as caught:
            Race(**(KNOBS | knobs)).apply(start(tmp_path / place), base=pair[0], model=model, corpus=corpus)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "has no token that its base does not have" in fault("a", model=pair[0])
    assert "fewer than two initialisers" in fault("b", inits=("mean",))
    assert "fewer than two initialisers" in fault("c", inits=())
    assert "an initialiser twice" in fault("d", inits=("mean", "align", "mean"))
    assert "documents to judge on: 1" in fault("e", judge_tokens=1)
    assert "documents to judge on: 0" in fault("f", corpus=bench.corpus("one"))
    assert "inits: 'mean' is not allowed; it takes a list of parts of kind init" in fault("g", inits="mean")
    assert "was made from this base" in fault("h", model=wider(pair[1], tmp_path / "wider"))
    with pytest.raises(UserError, match=r"race\.inits\[1\]: there is no init 'focsu'\. Did you mean 'focus'\?"):
        check_values(find("pretrain/race"), {"inits": ["mean", "focsu"]}, "race")
    long = check_values(find("pretrain/race"), {"inits": ["mean", TERRIBLE]}, "race")["inits"]
    assert long == [{"use": "mean", "with": {"over": "all"}}, TERRIBLE]
    assert build_step("pretrain/race", {"inits": long}).inits == tuple(long)  # type: ignore[attr-defined]


def wider(model: Model, place: Path) -> Model:
    """The model's tokenizer around other, narrower weights."""
    import transformers

    settings = model.load().config.to_dict() | {"hidden_size": 16}
    live = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**settings))
    return Model.write(place, live, model.tokenizer())


def test_plan_counts_candidates() -> None:
    sizes = Sizes(
        parameters=120_000_000,
        embedding_parameters=20_000_000,
        rows=30_000,
        model_bytes=240_000_000,
        target_bytes=1_000_000,
        kept_bytes=1_000_000,
        bytes_per_token=3.0,
        matmul_flops=4e11,
    )
    two, three = (Race(inits=inits).estimate(sizes) for inits in (("mean", "align"), ("mean", "align", "convex")))
    lap = 6 * 120_000_000 * 32768 / 4e11
    assert three.seconds - two.seconds > lap
    assert two.seconds < 2 * 6 * lap
    assert three.disk_bytes - two.disk_bytes == 4 * 120_000_000
    assert three.memory_bytes == two.memory_bytes > 16 * 120_000_000
    large = replace(sizes, base_parameters=4_000_000_000)
    assert Race().estimate(large).memory_bytes > 16_000_000_000
