# SPDX-License-Identifier: Apache-2.0
"""Wider by whole multiples computes the same; added rows and layers come from where they should; growth pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lect.errors import UserError
from lect.method import Run
from lect.registry import find
from lect.stages.pretrain.grow import Grow, heads, stacked
from lect.testing import pico
from lect.testing.contract import Bench

FAMILIES = ("gemma3", "llama", "qwen3")
SAME = {"layers": None, "hidden_size": None, "intermediate_size": None, "heads": None}
IDS = torch.tensor([[5, 9, 30, 11, 7, 80, 14, 200, 3]])


def grown(bench: Bench, family: str, **knobs: Any) -> tuple[Any, Any, Any]:
    """The model before and after, loaded, and the run; every gate has passed."""
    made, run = bench.run(find("pretrain/grow"), {"model": bench.model(family)}, **SAME | knobs)
    assert all(gate.passed for gate in run.gates)
    return bench.model(family).load(), made.load(), run


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "knobs",
    [
        {"hidden_size": 96},
        {"intermediate_size": 100},
        {"heads": 4},
        {"hidden_size": 64, "intermediate_size": 128, "heads": 4},
    ],
    ids=str,
)
def test_wider_computes_the_same(bench: Bench, family: str, knobs: dict[str, int]) -> None:
    before, after, run = grown(bench, family, **knobs)
    logits_btv, other_btv = (model(input_ids=IDS).logits.detach() for model in (before, after))
    torch.testing.assert_close(other_btv, logits_btv, rtol=1e-5, atol=1e-5 * float(logits_btv.abs().max()))
    assert {gate.name for gate in run.gates} == {"kept_logits", "reload"}
    assert run.facts["parameters"]["after"] > run.facts["parameters"]["before"]
    assert 0 < run.facts["learning_rate_factor"] < 1
    for name, value in knobs.items():
        assert getattr(after.config, {"heads": "num_attention_heads"}.get(name, name)) == value


def test_an_untied_gemma_computes_the_same() -> None:
    live, _ = pico.build("gemma3", tied=False)
    expected = live(input_ids=IDS).logits.detach()
    new = Grow(hidden_size=64).made(Run(folder=Path(), scratch=Path()), live)
    torch.testing.assert_close(new(input_ids=IDS).logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_rows_of_the_next_layer() -> None:
    """By hand: rows 2 and 3 of layer 0 are layer 1's; the two copies of a column add up to it; the last layer's own."""
    state = {"layers.0.q_proj.weight": torch.tensor([[2.0, 4.0], [6.0, 8.0]])}
    state |= {"layers.1.q_proj.weight": torch.tensor([[1.0, 3.0], [5.0, 7.0]])}
    rows = {"heads": torch.tensor([0, 1, 0, 1]), "hidden": torch.tensor([0, 1, 0])}

    def summed(part: Grow, layer: int) -> list[list[float]]:
        draw = torch.Generator().manual_seed(0)
        found = part.grown(f"layers.{layer}.q_proj.weight", state, [0, 1], rows, draw)
        assert ((one := found[:, 0] / (found[:, 0] + found[:, 2])) > 0.24).all() and (one < 0.76).all()
        assert len({round(float(share), 5) for share in one}) == 4
        return torch.stack([found[:, 0] + found[:, 2], found[:, 1]], 1).round(decimals=5).tolist()

    own, following = [[2.0, 4.0], [6.0, 8.0]], [[1.0, 3.0], [5.0, 7.0]]
    assert summed(Grow(knowledge="next"), 0) == [*own, *following]
    assert summed(Grow(knowledge="next"), 1) == following * 2
    assert summed(Grow(), 0) == own * 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("knowledge", ["own", "next"])
def test_copies_learn_different_things(family: str, knowledge: str) -> None:
    """Neurons of every layer and numbers between layers: alike where only copies were made, different after ten steps.

    With equal shares they would be bit for bit alike for ever, and the larger model no better than the small one.
    """
    live, _ = pico.build(family)
    part = Grow(hidden_size=64, intermediate_size=128, heads=4, knowledge=knowledge)
    new = part.made(Run(folder=Path(), scratch=Path()), live)
    seen: list[torch.Tensor] = []

    def apart() -> list[float]:
        seen.clear()
        with torch.no_grad():
            new(input_ids=IDS)
        halves = [x.tensor_split(2, -1) for x in seen]
        return [float((one - other).abs().max() / x.abs().max()) for x, (one, other) in zip(seen, halves, strict=True)]

    for layer in new.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    if knowledge == "own":
        assert max(apart()) < 1e-4
    optimizer = torch.optim.AdamW(new.parameters(), lr=3e-3)
    for _ in range(10):
        optimizer.zero_grad()
        new(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    found = apart()
    assert len(found) == 4 and min(found) > 0.01


def test_which_layers_and_heads() -> None:
    assert stacked(3, 8) == [0, 1, 2, 0, 1, 2, 1, 2]
    assert stacked(4, 4) == [0, 1, 2, 3]
    assert heads(4, 8, 2, 1).tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert heads(1, 2, 1, 3).tolist() == [0, 1, 2, 0, 1, 2]


def test_deeper_is_a_stack(bench: Bench) -> None:
    before, after, run = grown(bench, "gemma3", layers=5)
    old, new = before.state_dict(), after.state_dict()
    for layer, source in enumerate([0, 1, 0, 1, 1]):
        names = [n for n in old if n.startswith(f"model.layers.{source}.")]
        assert all(torch.equal(old[n], new[n.replace(f".{source}.", f".{layer}.", 1)]) for n in names)
        assert after.config.layer_types[layer] == before.config.layer_types[source]
    assert {gate.name for gate in run.gates} == {"reload"} and run.facts["difference"] > 0.1


def test_what_does_not_grow_is_refused(bench: Bench) -> None:
    for knobs, words in (
        ({"layers": 1}, "num_hidden_layers is 2, which does not grow to 1"),
        ({"heads": 3}, "num_attention_heads is 2, which does not grow to 3"),
    ):
        with pytest.raises(UserError, match=words):
            grown(bench, "llama", **knobs)
    with pytest.raises(UserError, match="LlamaConfig does not take these sizes"):
        grown(bench, "llama", heads=6)
    with pytest.raises(UserError, match="no intermediate_size"):
        grown(bench, "gpt2", layers=4)


@pytest.mark.parametrize("seed", range(3))
def test_growth_hands_on_what_the_small_model_learnt(bench: Bench, seed: int) -> None:
    """Trained, grown and trained on, against the same growth of the untrained model, with the second training alone."""
    knobs = {"learning_rate": 3e-3, "embedding_learning_rate": 3e-3, "tokens": 64 * 20, "evaluations": 1}
    continued = find("pretrain/continue")

    def train(model: Any) -> tuple[Any, float]:
        given = {"base": model, "model": model, "corpus": bench.corpus("all")}
        made, run = bench.run(continued, given, seed=seed, **knobs)
        return made, run.facts["evaluations"][-1]["target"]

    size = {"hidden_size": 64, "intermediate_size": 128, "layers": 4, "knowledge": "next"}
    small, _ = train(bench.model("llama"))
    large, _ = bench.run(find("pretrain/grow"), {"model": small}, **SAME | size)
    fresh, _ = bench.run(find("pretrain/grow"), {"model": bench.model("llama")}, **SAME | size)
    assert train(large)[1] < train(fresh)[1] - 0.05
