# SPDX-License-Identifier: Apache-2.0
"""Grow a trained model wider and deeper, to train it on from there."""

from __future__ import annotations

import copy
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from lect.errors import UserError
from lect.laws.learning_rate_batch import learning_rate
from lect.method import OneOf, Range, Run, knobs
from lect.stages.pretrain.kinds import ModelStep

CARD = {
    "title": "Progressive training by model expansion",
    "paper": "arXiv:2504.00623",
    "claim": "a larger model begins with what a smaller one has learnt; grown in width by whole multiples with its own"
    " neurons alone, it computes what it computed",
    "differs": [
        "the text of the paper was not at hand: that it expands with bert2BERT (arXiv:2110.07143) is from its reviews;"
        " copies, their division, neurons of the next layer and stacking are as in descriptions and a reimplementation"
        " of that, for decoders with gated feed-forward layers",
        "which neuron is copied goes round in order, where bert2BERT draws at random: for whole multiples each has as"
        " many copies, without which the mean square in a norm changes",
        "copies take unequal shares of a column, drawn at random between a quarter and three quarters of two (after"
        " LEMON, arXiv:2310.07999): with equal shares and without dropout, copies would get the same gradients and stay"
        " copies for ever; a folder in bf16 rounds the shares",
        "of a tied head the division is in the last norm; where a model scales its embeddings by its width, they shrink"
        " to match",
        "the paper lowers the greatest learning rate as the model grows, by figures that were not at hand: the factor"
        " given as a fact is that of another law, Step Law (arXiv:2503.04715), for training from random weights",
        "heads of keys and values, and the width of a head, stay as they are; vectors are always the layer's own",
        "the order of a model's kinds of attention is copied with the layers; other programs may expect a fixed one",
    ],
    "version": 2,
    "off": {"layers": None, "hidden_size": None, "intermediate_size": None, "heads": None},
    "needs": [],
    "xfail": {},
    "pico": {"layers": 3, "hidden_size": 64, "intermediate_size": 96, "heads": 4},
}

AXES: dict[str, tuple[str, ...]] = {
    "embed_tokens": ("vocabulary", "hidden"),
    "lm_head": ("vocabulary", "hidden"),
    "q_proj": ("heads", "hidden"),
    "k_proj": ("", "hidden"),
    "v_proj": ("", "hidden"),
    "o_proj": ("hidden", "heads"),
    "gate_proj": ("inner", "hidden"),
    "up_proj": ("inner", "hidden"),
    "down_proj": ("hidden", "inner"),
    "q_norm": ("",),
    "k_norm": ("",),
}
SAME = ("", "vocabulary")


@knobs
class Grow(ModelStep):
    """A larger model of the same family that starts from the smaller one.

    Width: row n of a matrix is row n mod size of the old one; columns are copied alike and shared out among the copies
    at random, so that they learn different things. Depth: the whole stack again, then its top. Facts: ``parameters``
    before and after, ``difference`` (the greatest, of fp32 logits), ``learning_rate_factor``. Raises UserError for a
    size below the present one, heads that are no multiple, and models that are not laid out like Llama, Qwen or Gemma.
    """

    gates: ClassVar[dict[str, tuple[float, str]]] = {
        "kept_logits": (1e-3, "greatest difference of fp32 logits, where growth keeps the function"),
    }

    layers: Annotated[int | None, Range(at_least=1, at_most=1000)] = None
    """Layers of the new model; null keeps their number."""
    hidden_size: Annotated[int | None, Range(at_least=1, at_most=1_000_000)] = None
    """Width of the new model; null keeps it, and a multiple of the old keeps what the model computes."""
    intermediate_size: Annotated[int | None, Range(at_least=1, at_most=10_000_000)] = None
    """Width of the new model's feed-forward layers; null keeps it."""
    heads: Annotated[int | None, Range(at_least=1, at_most=10_000)] = None
    """Query heads of the new model, a multiple of the old; null keeps their number."""
    knowledge: Annotated[str, OneOf("own", "next")] = "own"
    """Where added rows of a layer's matrices come from: the layer itself, or the next one, so that copies differ."""

    def made(self, run: Run, live: Any) -> Any:
        """Build the larger model, and gate on its logits where they should be the same."""
        old, sizes = live.config, self.sizes(live.config)
        settings: dict[str, Any] = {"num_hidden_layers": sizes["layers"][1], "hidden_size": sizes["hidden"][1]}
        settings |= {"intermediate_size": sizes["inner"][1], "num_attention_heads": sizes["heads"][1]}
        settings["head_dim"] = getattr(old, "head_dim", None) or old.hidden_size // old.num_attention_heads
        source = stacked(*sizes["layers"])
        if getattr(old, "layer_types", None):
            settings["layer_types"] = [old.layer_types[n] for n in source]
        try:
            config = type(old).from_dict(old.to_dict() | settings)
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            raise UserError(f"pretrain/grow: {type(old).__name__} does not take these sizes: {words}") from error
        config._attn_implementation = old._attn_implementation
        with torch.random.fork_rng(devices=[]):
            new = type(live)._from_config(config, dtype=live.dtype).eval()
        rows = {axis: torch.arange(large) % small for axis, (small, large) in sizes.items()}
        rows["heads"] = heads(*sizes["heads"], old.num_key_value_heads, settings["head_dim"])
        state, draw = live.state_dict(), torch.Generator().manual_seed(run.seed)
        with torch.no_grad():
            for name, tensor in new.state_dict().items():
                tensor.copy_(self.grown(name, state, source, rows, draw))
            refit(live, new, shares(1, rows["hidden"], draw)[0])
            ids_bt = torch.arange(live.get_input_embeddings().weight.shape[0])[None, 3:200:7]
            difference = float((new(input_ids=ids_bt).logits - live(input_ids=ids_bt).logits).abs().max())
        exact = sizes["layers"][0] == sizes["layers"][1] and sizes["hidden"][1] % sizes["hidden"][0] == 0
        if exact and self.knowledge == "own":
            run.gate("kept_logits", difference, run.limit("kept_logits", self.gates["kept_logits"][0]))
        before, after = (m.num_parameters() - m.get_input_embeddings().weight.numel() for m in (live, new))
        factor = learning_rate(after, 1.0) / learning_rate(before, 1.0)
        counts = {"before": live.num_parameters(), "after": new.num_parameters()}
        run.fact(parameters=counts, difference=difference, learning_rate_factor=factor)
        run.say(f"grown to {counts['after']:,} parameters; the law would multiply the learning rate by {factor:.2f}")
        return new

    def sizes(self, config: Any) -> dict[str, tuple[int, int]]:
        """Size before and after, by axis."""
        named = {"layers": "num_hidden_layers", "hidden": "hidden_size", "inner": "intermediate_size"}
        named |= {"heads": "num_attention_heads"}
        wanted = {"layers": self.layers, "hidden": self.hidden_size, "inner": self.intermediate_size}
        wanted |= {"heads": self.heads}
        found = {}
        for axis, name in named.items():
            before = getattr(config, name, None)
            if not isinstance(before, int):
                raise UserError(f"pretrain/grow: the model's configuration has no {name}; give a Llama, Qwen or Gemma")
            after = wanted[axis] or before
            if after < before or (axis == "heads" and after % before):
                raise UserError(f"pretrain/grow: {name} is {before}, which does not grow to {after}; give more of it")
            found[axis] = before, after
        if not isinstance(getattr(config, "num_key_value_heads", None), int):
            raise UserError("pretrain/grow: the configuration has no num_key_value_heads; give a Llama, Qwen or Gemma")
        return found

    def grown(
        self, name: str, state: dict[str, Tensor], source: list[int], rows: dict[str, Tensor], draw: torch.Generator
    ) -> Tensor:
        """The new tensor of that name."""
        parts = name.split(".")
        place = next((n for n, part in enumerate(parts) if part.isdecimal()), None)
        own = following = name
        if place is not None:
            layer = source[int(parts[place])]
            own, following = (".".join([*parts[:place], str(n), *parts[place + 1 :]]) for n in (layer, layer + 1))
        axes = AXES.get(parts[-2], ("hidden",) if "norm" in parts[-2] else None)
        if axes is None or own not in state:
            raise UserError(f"pretrain/grow: does not know the tensor {name}; give a Llama, Qwen or Gemma")
        tensor = wide(state[own], axes, rows, draw)
        if self.knowledge == "next" and place is not None and tensor.ndim == 2 and following in state:
            kept = state[own].shape[0]
            tensor[kept:] = wide(state[following], axes, rows, draw)[kept:]
        return tensor


def stacked(before: int, after: int) -> list[int]:
    """Which old layer each new one is: the whole stack as often as it fits, then the top of it."""
    whole, rest = divmod(after, before)
    return [*range(before)] * whole + [*range(before - rest, before)]


def heads(before: int, after: int, groups: int, width: int) -> Tensor:
    """The old row of each new row of the queries: each group of heads that share keys is copied whole, in its group."""
    old, new = before // groups, after // groups
    head = torch.arange(after)
    return ((head // new * old + head % new % old)[:, None] * width + torch.arange(width)).flatten()


def shares(count: int, index: Tensor, draw: torch.Generator) -> Tensor:
    """For each of ``count`` rows the shares of all copies, (count, new): those of one old column add up to one."""
    share = 0.5 + torch.rand(count, len(index), generator=draw)
    total = torch.zeros(count, int(index.max()) + 1).index_add_(1, index, share)
    return share / total[:, index]


def wide(tensor: Tensor, axes: tuple[str, ...], rows: dict[str, Tensor], draw: torch.Generator) -> Tensor:
    """Copies along the first axis, and along the second copies times their shares; tables of words have none."""
    tensor = tensor.clone() if axes[0] in SAME else tensor[rows[axes[0]]]
    if tensor.ndim == 2:
        index = rows[axes[1]]
        tensor = tensor[:, index]
        if axes[0] != "vocabulary":
            tensor = tensor * shares(len(tensor), index, draw).to(tensor)
    return tensor


def refit(live: Any, new: Any, share: Tensor) -> None:
    """Put the shares of the copies (new width) into the last norm, for the head; let embeddings be scaled as before."""
    norm, table = new.base_model.norm, new.get_input_embeddings()
    scales = [float(getattr(model.get_input_embeddings(), "embed_scale", 1.0)) for model in (live, new)]
    table.weight.mul_(scales[0] / scales[1])
    share = share.to(norm.weight)
    if new.get_output_embeddings().weight is table.weight:
        share = share * (scales[1] / scales[0])
    silent = copy.deepcopy(norm)
    silent.weight.zero_()
    offset = 1.0 if silent(torch.ones(1, len(share))).any() else 0.0  # Gemma's norms multiply by 1 + weight
    norm.weight.copy_((norm.weight + offset) * share - offset)
