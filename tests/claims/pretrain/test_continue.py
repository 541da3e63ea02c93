# SPDX-License-Identifier: Apache-2.0
"""Effect on pico models: target text is learnt; replay keeps what training without it loses."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lect.artefacts import Corpus, Document, Model
from lect.engine import checkpoint, loss
from lect.engine.cost import EXPECTED_UTILISATION
from lect.engine.step import Step
from lect.errors import UserError
from lect.method import Run, Sizes
from lect.registry import build_step
from lect.testing import pico
from lect.testing.contract import Bench
from lect.testing.new_tokens import documents

Continue = importlib.import_module("lect.stages.pretrain.continue").Continue
KNOBS = {
    "tokens": 64 * 30,
    "batch_tokens": 64,
    "max_length": 48,
    "evaluation_tokens": 200,
    "evaluations": 3,
    "compile": False,
    "learning_rate": 3e-3,
    "embedding_learning_rate": 3e-3,
}


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[dict] = []

    def say(self, text):
        self.lines.append(text)

    def progress(self, done, total, unit, values):
        self.shown.append({"done": done, "total": total, **values})

    def gate(self, gate):
        assert gate.passed, gate


def start(tmp_path: Path, seed: int = 0) -> Run:
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir(parents=True)
    return Run(folder=tmp_path / "out", scratch=tmp_path / "scratch", seed=seed, listener=Listener())


TARGET_ONLY = {"use": "replay", "with": {"share": 0.0}}


def trained(bench: Bench, place: Path, family: str = "gemma3", seed: int = 0, **knobs) -> Run:
    run = start(place, seed)
    Continue(**(KNOBS | knobs)).apply(
        run, base=bench.model(family), model=bench.model(family), corpus=bench.corpus("all")
    )
    return run


def test_learns_the_target_and_replay_keeps_the_rest(bench: Bench, tmp_path: Path) -> None:
    """Over three seeds: target falls by a tenth, and kept text ends lower with replay than without, each time."""
    for seed in range(3):
        with_replay = trained(bench, tmp_path / f"r{seed}", seed=seed).facts["evaluations"]
        without = trained(bench, tmp_path / f"n{seed}", seed=seed, mixture=TARGET_ONLY).facts["evaluations"]
        assert with_replay[-1]["target"] < 0.9 * with_replay[0]["target"]
        assert with_replay[-1]["kept"] < with_replay[0]["kept"]
        assert with_replay[-1]["kept"] < without[-1]["kept"] - 0.05


def test_the_gradient_filter_changes_no_bits_to_speak_of(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights, but bits per byte of both texts to 1 % of those without, over two seeds."""
    monkeypatch.setattr(loss, "FILTER_ROWS", 16)
    for seed in range(2):
        runs = [trained(bench, tmp_path / f"{f}{seed}", seed=seed, gradient_filter=f) for f in (0.0, 2**-12)]
        plain, filtered = (run.facts["evaluations"] for run in runs)
        assert plain[0] | {"seconds": 0} == filtered[0] | {"seconds": 0}
        assert Model(runs[0].folder).fingerprint != Model(runs[1].folder).fingerprint
        for role in ("target", "kept"):
            assert filtered[-1][role] == pytest.approx(plain[-1][role], rel=0.01)


@pytest.mark.parametrize("family", pico.CAUSAL)
def test_facts_add_up(family: str, bench: Bench, tmp_path: Path) -> None:
    facts = trained(bench, tmp_path, family).facts
    assert facts["steps"] == 30
    assert facts["trained_tokens"] == facts["losses"][-1]["tokens"] <= 64 * 30
    assert facts["filled"] == pytest.approx(facts["trained_tokens"] / (64 * 30))
    assert facts["trained_bytes"] > facts["trained_tokens"] / 2
    assert [e["step"] for e in facts["evaluations"]] == [0, 10, 20, 30]
    assert facts["utilisation"] == pytest.approx(facts["flops"] / facts["step_seconds"] / facts["matmul_flops"])
    assert facts["layout"] == "flat"
    assert facts["peak_memory_bytes"] > 10_000_000
    json.dumps(facts, allow_nan=False)


def test_bits_per_byte_are_those_of_the_plain_model(bench: Bench, tmp_path: Path) -> None:
    """The first evaluation, by a loop over documents with the model's own logits in fp32."""
    facts = trained(
        bench,
        tmp_path,
        precision="fp32",
        mixture=TARGET_ONLY,
        batch_tokens=256,
        max_length=256,
        tokens=256,
        evaluation_tokens=10_000,
    ).facts
    live, tokenizer = bench.model("gemma3").load(), bench.model("gemma3").tokenizer()
    bits, size = 0.0, 0
    for document in bench.corpus("all").documents("target", "calibration"):
        ids = tokenizer.backend_tokenizer.encode(document.text, add_special_tokens=False).ids
        assert len(ids) <= 256 - 1
        row = torch.tensor([[tokenizer.bos_token_id, *ids]])
        with torch.no_grad():
            loss = live(input_ids=row, labels=row).loss
        bits += loss.item() * len(ids) / torch.log(torch.tensor(2.0)).item()
        size += len(document.text.encode())
    assert facts["evaluations"][0]["target"] == pytest.approx(bits / size, rel=1e-4)


def test_minutes_become_steps_once(bench: Bench, tmp_path: Path, monkeypatch) -> None:
    """Half a minute is nearly thirty steps where one takes a second, as it is said to here."""
    monkeypatch.setattr(Step, "_timed", lambda self, rows: 1.0)
    run = trained(bench, tmp_path, tokens=None, minutes=0.5, evaluations=1)
    plan = json.loads((tmp_path / "scratch" / "plan.json").read_text())
    assert run.facts["steps"] == plan["steps"] in range(15, 31)
    assert run.listener.shown[-1]["done"] == run.listener.shown[-1]["total"] == plan["steps"]
    assert {"loss", "tokens_per_second", "minutes_left"} <= set(run.listener.shown[-1])
    with pytest.raises(UserError, match=r"minutes: 0.0001 is too short.*give at least"):
        trained(bench, tmp_path / "short", tokens=None, minutes=0.0001)


def test_too_little_text_is_named(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"target text for training has \d+ tokens, fewer than one batch of 4096"):
        trained(bench, tmp_path / "a", batch_tokens=4096)
    only = Corpus.write(tmp_path, [Document(id=str(n), text="Gorde dokumentua. " * 9) for n in range(9)])
    run = start(tmp_path / "b")
    Continue(**KNOBS).apply(run, base=bench.model("gemma3"), model=bench.model("gemma3"), corpus=only)
    assert "no kept text for training: the other texts take its share" in run.listener.lines
    assert run.facts["evaluations"] == [
        {"step": s, "tokens": run.facts["evaluations"][i]["tokens"], "target": None, "kept": None}
        | {"expected": None, "seconds": run.facts["evaluations"][i]["seconds"]}
        for i, s in enumerate([0, 10, 20, 30])
    ]


def test_a_document_longer_than_the_model_reaches_is_cut_and_read_whole(bench: Bench, tmp_path: Path) -> None:
    """GPT-2 has positions for 256 tokens and no more: a longer sequence would raise."""
    long = Document(id="long", text="Taula bat txertatzeko, ireki menua. " * 200)
    kept = [Document(id=str(n), text="Open the menu. " * 30, role="kept") for n in range(9)]
    run = start(tmp_path)
    Continue(**(KNOBS | {"max_length": 4096, "batch_tokens": 512, "tokens": 512 * 16})).apply(
        run, base=bench.model("gpt2"), model=bench.model("gpt2"), corpus=Corpus.write(tmp_path, [long, *kept])
    )
    assert "max_length: the model reaches 256 tokens, so documents are cut there" in run.listener.lines
    assert run.facts["epochs"]["target"] >= 1
    ids = bench.model("gpt2").tokenizer()(long.text)["input_ids"]
    assert len(ids) > 2 * 256 and run.facts["trained_tokens"] > len(ids)


def test_the_run_says_where_it_is_going(bench: Bench, tmp_path: Path) -> None:
    """From the third measurement on; the last one is what was foretold."""
    run = trained(bench, tmp_path, evaluations=5)
    expected = [point["expected"] for point in run.facts["evaluations"]]
    assert expected[0] is expected[1] is expected[-1] is None
    end = run.facts["evaluations"][-1]["target"]
    assert all(value == pytest.approx(end, rel=0.25) for value in expected[2:-1])
    assert sum("expected at the end" in line for line in run.listener.lines) == 3


def test_a_loss_that_is_no_number_stops_and_names_the_documents(bench: Bench, tmp_path: Path, monkeypatch) -> None:
    original = Step.update

    def poisoned(self, batches, count, at):
        if at and count == 13:
            with torch.no_grad():
                self.body.head[5] = float("nan")
        return original(self, batches, count, at)

    monkeypatch.setattr(Step, "update", poisoned)
    with pytest.raises(UserError, match=r"step 13: the loss is nan .* in documents [0-9a-f]{64}"):
        trained(bench, tmp_path, checkpoint_seconds=1e-9)
    assert (tmp_path / "scratch" / "checkpoint-000000012").exists()
    monkeypatch.undo()
    run = Run(folder=tmp_path / "out", scratch=tmp_path / "scratch", listener=Listener())
    Continue(**(KNOBS | {"checkpoint_seconds": 1e-9})).apply(
        run, base=bench.model("gemma3"), model=bench.model("gemma3"), corpus=bench.corpus("all")
    )
    assert "goes on from step 12" in run.listener.lines


def test_ctrl_c_saves_and_the_next_run_goes_on(bench: Bench, tmp_path: Path) -> None:
    run = start(tmp_path)

    def interrupt(done, total, unit, values):
        if done == 7:
            raise KeyboardInterrupt

    run.listener.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        Continue(**KNOBS).apply(
            run, base=bench.model("gemma3"), model=bench.model("gemma3"), corpus=bench.corpus("all")
        )
    again = Run(folder=tmp_path / "out", scratch=tmp_path / "scratch", listener=Listener())
    Continue(**KNOBS).apply(again, base=bench.model("gemma3"), model=bench.model("gemma3"), corpus=bench.corpus("all"))
    assert "goes on from step 7" in again.listener.lines
    whole = trained(bench, tmp_path / "whole")
    assert Model(again.folder).fingerprint == Model(whole.folder).fingerprint


def test_a_run_killed_after_its_last_step_has_its_weights(bench: Bench, tmp_path: Path, monkeypatch) -> None:
    """And of that step no more than the weights were written."""
    whole = trained(bench, tmp_path)
    last = checkpoint.found(tmp_path / "scratch")[-1]
    assert all(name.startswith("master/") for name in load_file(last / "state-00000.safetensors"))
    monkeypatch.setattr(Step, "update", None)
    again = Run(folder=tmp_path / "again", scratch=tmp_path / "scratch", listener=Listener())
    again.folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Step, "warm_up", lambda self, rows: (0.0, 1.0))
        Continue(**KNOBS).apply(
            again, base=bench.model("gemma3"), model=bench.model("gemma3"), corpus=bench.corpus("all")
        )
    assert Model(again.folder).fingerprint == Model(whole.folder).fingerprint


def test_checkpoints_of_another_run_are_refused(bench: Bench, tmp_path: Path) -> None:
    trained(bench, tmp_path)
    other = Run(folder=tmp_path / "out", scratch=tmp_path / "scratch", seed=9, listener=Listener())
    with pytest.raises(UserError, match="is a checkpoint of another run; delete the folder"):
        Continue(**KNOBS).apply(
            other, base=bench.model("gemma3"), model=bench.model("gemma3"), corpus=bench.corpus("all")
        )


def test_a_compiler_that_fails_is_said_and_the_weights_are_the_same(bench, tmp_path, monkeypatch) -> None:
    from lect.engine.body import Body

    def broken(self):
        for layer in self.layers:
            layer._compiled_call_impl = lambda *args, **kwargs: 1 / 0

    monkeypatch.setattr(Body, "compile", broken)
    run = trained(bench, tmp_path / "a", compile=True)
    assert any(line.startswith("torch.compile does not work here") for line in run.listener.lines)
    assert run.facts["compiled"] is False
    plain = trained(bench, tmp_path / "b")
    assert Model(run.folder).fingerprint == Model(plain.folder).fingerprint


def test_plan_knows_memory_and_time_from_sizes() -> None:
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
    by_minutes = Continue(minutes=3.0).estimate(sizes)
    assert by_minutes.seconds == 180
    assert 16 * 120_000_000 < by_minutes.memory_bytes < 5 * 2**30
    by_tokens = Continue(tokens=100_000).estimate(sizes)
    assert by_tokens.seconds > 6 * 120_000_000 * 100_000 / 4e11
    assert by_tokens.disk_bytes >= 2 * 12 * 120_000_000
    again = Continue(tokens=100_000, activations="recompute").estimate(sizes)
    assert again.seconds == pytest.approx(by_tokens.seconds + 2 * 100_000_000 * 100_000 / 4e11 / EXPECTED_UTILISATION)
    wide, narrow = (Continue(batch_tokens=4096, activations=a).estimate(sizes) for a in ("keep", "recompute"))
    assert wide.memory_bytes - narrow.memory_bytes == pytest.approx(0.9 * 4096 * 40 * 120_000_000**0.5, rel=1e-3)


def test_layers_that_run_again_give_the_same_weights(bench: Bench, tmp_path: Path) -> None:
    kept, again = (trained(bench, tmp_path / a, activations=a) for a in ("keep", "recompute"))
    assert Model(again.folder).fingerprint == Model(kept.folder).fingerprint


@pytest.fixture(scope="module")
def extended(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The pico model with twenty new tokens."""
    run = start(tmp_path_factory.mktemp("extended"))
    place = tmp_path_factory.mktemp("words")
    corpus = Corpus.write(place, documents())
    step = build_step("vocab/extend", {"tokens": 20, "least": 2, "multiple": 1})
    return step.apply(run, model=bench.model("gemma3"), corpus=corpus)  # type: ignore[return-value]


def moved(before: Model, after: Model) -> dict[str, torch.Tensor]:
    """How far every weight moved, at most, row by row."""
    old, new = before.load().state_dict(), after.load().state_dict()
    return {name: (new[name] - old[name]).abs().flatten(1 if old[name].ndim > 1 else 0).amax(-1) for name in old}


def test_in_the_first_phase_only_new_rows_move(bench: Bench, extended: Model, tmp_path: Path) -> None:
    run = start(tmp_path)
    knobs = KNOBS | {"new_rows_first": 0.999}
    given = {"base": bench.model("gemma3"), "model": extended, "corpus": bench.corpus("all")}
    steps = moved(extended, Continue(**knobs).apply(run, **given))
    table = next(name for name in steps if "embed_tokens" in name)
    old = set(given["base"].tokenizer().get_vocab())
    new = torch.tensor([i for token, i in extended.tokenizer().get_vocab().items() if token not in old])
    still = torch.ones(len(steps[table]), dtype=torch.bool)
    still[new] = False
    assert len(new) == 20
    assert (steps[table][new] > 0).all()
    assert not steps[table][still].any()
    tied = "lm_head.weight"
    assert not any(change.any() for name, change in steps.items() if name not in (table, tied))


def test_new_rows_have_a_rate_and_a_schedule_of_their_own(bench: Bench, extended: Model, tmp_path: Path) -> None:
    """A tiny rate for new rows leaves them where they are while all else moves; a schedule at zero does the same."""
    given = {"base": bench.model("gemma3"), "model": extended, "corpus": bench.corpus("all")}
    old = set(given["base"].tokenizer().get_vocab())
    new = torch.tensor([i for token, i in extended.tokenizer().get_vocab().items() if token not in old])
    for number, knobs in enumerate(
        (
            {"new_row_learning_rate": 1e-9},
            {"embedding_schedule": {"use": "cosine", "with": {"warmup": 0.0}}, "new_row_learning_rate": 1e-9},
        )
    ):
        steps = moved(extended, Continue(**(KNOBS | knobs)).apply(start(tmp_path / str(number)), **given))
        table = next(name for name in steps if "embed_tokens" in name)
        assert steps[table][new].max() < 1e-6 < steps[table].max()
