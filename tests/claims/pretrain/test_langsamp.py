# SPDX-License-Identifier: Apache-2.0
"""LangSAMP: the loss and slope of a plain loop, fewer bits where the language is not in sight, a plain folder."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, XLMRobertaConfig, XLMRobertaForMaskedLM

import masked_streams
from lect.artefacts import Corpus, Document, Model
from lect.engine.masked import Tagged, opened
from lect.engine.step import Step
from lect.errors import UserError
from lect.method import Run
from lect.ops.model_folder import check_manifest
from lect.parts.schedule.kind import Moment
from lect.stages.pretrain.langsamp import language, script, similarity
from lect.testing import pico
from lect.testing.contract import Bench
from masked_streams import Killed, stream

MOST = {"use": "masked_tokens", "with": {"share": 0.9}}
JOINED = {"use": "concat", "with": {"isolate": False}}
applied = partial(masked_streams.applied, "pretrain/langsamp")


def robert() -> Any:
    """A pico XLM-R with the rows of the pico BERT's tokenizer; its positions begin behind the padding's."""
    rows = len(pico.build("bert")[1])
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=rows,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        intermediate_size=64,
        max_position_embeddings=64,
        bos_token_id=2,
        eos_token_id=3,
    )
    return XLMRobertaForMaskedLM(config).eval()


class Watcher:
    """Stands in for the optimizer and keeps the gradients."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def named(self) -> Any:
        return list(self.module.named_parameters())

    def norm(self, grads: Any) -> float:
        return 1.0

    def step(self, count: int, multipliers: Any, grads: Any, norm: float) -> None:
        self.grads = grads


@pytest.mark.parametrize("kind", ["bert", "xlmr"])
def test_loss_and_slopes_are_those_of_a_plain_loop(kind: str) -> None:
    with torch.random.fork_rng():
        live, tokenizer = pico.build("bert")[0] if kind == "bert" else robert(), pico.build("bert")[1]
    tagged = Tagged(live, {"language": ["a", "b"], "script": ["c", "d", "e"]}, seed=2)
    data = stream(tokenizer, [*pico.documents()], room=120)
    step = [data.batch(n) for n in range(3)]
    tokens = sum(batch.tokens for batch in step)
    total = torch.zeros(())
    for batch in step:
        row, chosen, place, found = batch.row, batch.row.chosen_m.tolist(), 0, []
        for ids in torch.split(row.ids_t, row.offsets.diff().tolist()):
            states_td = live.base_model(input_ids=ids[None])[0][0]
            for at in (n for n in chosen if place <= n < place + len(ids)):
                one, two = row.names_gm[:, chosen.index(at)].tolist()
                vector_d = states_td[at - place] + tagged.tables[0][one] + tagged.tables[1][two]
                logits_v = (live.cls if kind == "bert" else live.lm_head)(vector_d[None, None])[0, 0]
                found.append(cross_entropy(logits_v, batch.target_t[chosen.index(at)]))
            place += len(ids)
        assert len(found) == len(chosen) > 0
        total = total + torch.stack(found).mean() * batch.tokens / tokens
    total.backward()
    expected = {name: p.grad.clone() for name, p in tagged.named_parameters() if p.grad is not None}
    tagged.zero_grad(set_to_none=True)
    watcher: Any = Watcher(tagged)
    body: Any = opened(tagged, int(tokenizer.pad_token_id))
    step = Step(run=Run(folder=Path(), scratch=Path()), body=body, optimizer=watcher, schedules=[])
    value = step.update([data.batch(row) for row in range(3)], 1, Moment(40, 80, 80))
    assert value == pytest.approx(total.item(), rel=1e-5)
    assert {"tables.0", "tables.1"} < {*expected}
    for name, grad in watcher.grads.items():
        torch.testing.assert_close(grad, expected.get(name, torch.zeros_like(grad)), rtol=1e-3, atol=1e-5)


def test_documents_that_a_packing_joins_see_each_other_and_keep_their_names() -> None:
    tokenizer = pico.build("bert")[1]
    documents = [*pico.documents()]
    data = stream(tokenizer, documents, room=80, objective=MOST, packing=JOINED)
    pieces, batches = data.epoch(0)
    assert sum(len(s) for batch in batches for s in batch) == len(pieces) > sum(map(len, batches))
    filled = 0
    for number, sequences in enumerate(batches):
        batch = data.batch(number)
        clean_t, names_t = batch.row.ids_t.clone(), torch.full_like(batch.row.ids_t, -1)
        clean_t[batch.row.chosen_m], names_t[batch.row.chosen_m] = batch.target_t, batch.row.names_gm[1]
        parts = torch.split(clean_t, batch.row.offsets.diff().tolist())
        assert len(parts) == len(sequences)
        assert max(map(len, parts)) <= 40
        expected, at = [], 0
        for sequence in sequences:
            expected.append([])
            for document, start, stop in pieces[list(sequence)].tolist():
                first = data.encoded.starts[document]
                text = data.encoded.ids[first + start : first + stop].tolist()
                expected[-1] += [tokenizer.cls_token_id, *text, tokenizer.sep_token_id]
                assert {*names_t[at : at + len(text) + 2].tolist()} <= {-1, document % 3}
                at += len(text) + 2
        assert [part.tolist() for part in parts] == expected
        filled += at
    assert filled > 0.95 * 80 * len(batches) - 80


def test_names_go_with_the_documents_of_the_chosen_tokens() -> None:
    tokenizer = pico.build("bert")[1]
    documents = [*pico.documents()]
    batch = stream(tokenizer, documents, room=200, objective=MOST).batch(0)
    names = [[d.id for d in documents].index(name) for name in batch.documents]
    sequence_m = torch.bucketize(batch.row.chosen_m, batch.row.offsets[1:], right=True).tolist()
    assert len({*sequence_m}) > 3
    assert batch.row.names_gm.tolist() == [[names[n] % 2 for n in sequence_m], [names[n] % 3 for n in sequence_m]]


def two_languages(folder: Path, tokenizer: Any) -> Corpus:
    """Texts of two words: the first is one of four in the language, the second one of two in both languages.

    Where the first word is masked, nothing in sight says which language it is: 3 bits without knowing, 2 with.
    """
    words = sorted(t for t in tokenizer.get_vocab() if t.isascii() and t.isalpha() and t.islower() and len(t) > 2)[:10]
    draw = random.Random(5)
    rows = [
        Document(
            id=f"{split}{n:04d}",
            text=f"{words[4 * (n % 2) + draw.randrange(4)]} {words[8 + draw.randrange(2)]}",
            source="a.txt",
            language=("aa", "bb")[n % 2],
            role="target",
            split=split,
        )
        for split, count in (("train", 400), ("calibration", 200))
        for n in range(count)
    ]
    folder.mkdir(parents=True)
    return Corpus.write(folder, rows)


def test_the_language_saves_the_bits_that_nothing_in_sight_could(tmp_path: Path) -> None:
    """Over three seeds: a fifth of a bit at least, of the half bit a masked token that not knowing costs."""
    base = pico.model("bert", tmp_path / "base")
    corpus = two_languages(tmp_path / "corpus", base.tokenizer())
    knobs = {"tokens": 64 * 100, "learning_rate": 3e-3, "tag_learning_rate": 3e-2, "scripts": False}
    for seed in range(3):
        run, bare = (
            applied(tmp_path / f"{seed}{on}", base, corpus, seed=seed, languages=on, **knobs) for on in (True, False)
        )
        (before, *_, after), (start, *_, end) = run.facts["masked_evaluations"], bare.facts["masked_evaluations"]
        assert after["target"] < before["target"] / 2 and end["target"] < start["target"] / 2
        assert after["target"] < end["target"] - 0.2, (after, end)
        assert run.facts["similarity"]["language"]["aa"]["bb"] < 0.5
        assert bare.facts["similarity"] == {}


def test_the_folder_is_that_of_a_plain_model_with_the_vectors_beside_it(bench: Bench, tmp_path: Path) -> None:
    base, corpus = bench.model("bert"), bench.corpus("all")
    applied(tmp_path / "with", base, corpus)
    applied(tmp_path / "bare", base, corpus, languages=False, scripts=False)
    made, bare = tmp_path / "with" / "out", tmp_path / "bare" / "out"
    names = {p.name for p in made.iterdir()}
    assert names == {p.name for p in bare.iterdir()} | {"langsamp.safetensors"}
    assert {p.name for p in bare.iterdir()} == {p.name for p in base.folder.iterdir()}
    for name in names - {"langsamp.safetensors", "model.safetensors", "manifest.json"}:
        assert (made / name).read_bytes() == (bare / name).read_bytes()
    assert (made / "config.json").read_bytes() == (base.folder / "config.json").read_bytes()
    old, new = load_file(base.folder / "model.safetensors"), load_file(made / "model.safetensors")
    assert {n: t.shape for n, t in old.items()} == {n: t.shape for n, t in new.items()}
    plain, report = AutoModelForMaskedLM.from_pretrained(made, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = torch.tensor([base.tokenizer()("Gorde dokumentua").input_ids])
    with torch.no_grad():
        assert torch.equal(plain.eval()(ids).logits, Model(made).load()(ids).logits)
    vectors = load_file(made / "langsamp.safetensors")
    assert {*vectors} == {"language/eu", "language/en", "script/LATIN"}
    assert all(v.shape == (32,) for v in vectors.values())
    check_manifest(made)
    (made / "langsamp.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="langsamp"):
        check_manifest(made)


def test_a_killed_run_goes_on_to_the_same_bits(bench: Bench, tmp_path: Path) -> None:
    base, corpus = bench.model("bert"), bench.corpus("all")
    applied(tmp_path / "a", base, corpus, seed=4)
    for stop in (5, 9):
        with pytest.raises(Killed):
            applied(tmp_path / "b", base, corpus, seed=4, stop=stop, checkpoint_seconds=1e-9)
    applied(tmp_path / "b", base, corpus, seed=4, checkpoint_seconds=1e-9)
    assert Model(tmp_path / "a" / "out").fingerprint == Model(tmp_path / "b" / "out").fingerprint


def test_xlm_roberta_trains_as_far_as_its_positions_reach(bench: Bench, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        live = robert()
    (tmp_path / "base").mkdir()
    base = Model.write(tmp_path / "base", live, pico.build("bert")[1])
    knobs = {"batch_tokens": 256, "max_length": 400, "tokens": 256 * 3, "precision": "bf16"}
    long = tmp_path / "corpus"
    long.mkdir()
    text, exact = " ".join(d.text for d in pico.documents()), " ".join(["table"] * 62)
    assert len(base.tokenizer()(exact).input_ids) == 64  # one more than there are positions
    rows = [
        Document(id=f"{n}", text=t, source="a", language="", role="target", split=s)
        for n, (s, t) in enumerate([("train", text), ("train", text), ("train", exact), ("calibration", text)])
    ]
    run = applied(tmp_path / "run", base, Corpus.write(long, rows), **knobs)
    assert all(gate.passed for gate in run.gates)
    assert {*load_file(tmp_path / "run" / "out" / "langsamp.safetensors")} == {"language/und", "script/LATIN"}
    assert run.facts["masked_evaluations"][-1]["target"] < run.facts["masked_evaluations"][0]["target"]


def test_what_cannot_be_trained_is_refused(bench: Bench, tmp_path: Path) -> None:
    corpus = bench.corpus("all")
    with pytest.raises(UserError, match="no mask token"):
        applied(tmp_path / "a", bench.model("llama"), corpus)
    with pytest.raises(UserError, match="fewer than one batch"):
        applied(tmp_path / "b", bench.model("bert"), corpus, batch_tokens=4096)


def test_names_of_languages_and_scripts() -> None:
    def of(text: str, name: str = "eu") -> Document:
        return Document(id="a", text=text, source="a", language=name, role="target", split="train")

    assert [script(of(t)) for t in ("Gorde мир", "мир go", "12 ⇒", "go ми")] == [
        "LATIN",
        "CYRILLIC",
        "none",
        "CYRILLIC",
    ]
    assert (language(of("a")), language(of("a", ""))) == ("eu", "und")
    cosines = similarity({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([4.0, 3.0]), "c": torch.tensor([-6.0, -8])})
    assert cosines["a"] == pytest.approx({"a": 1.0, "b": 0.96, "c": -1.0})
