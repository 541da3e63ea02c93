# SPDX-License-Identifier: Apache-2.0
"""How each family of models is spelled in Hugging Face folders and in GGUF files; one table, read both ways.

Only families whose round trip and whose logits in llama.cpp are proven by tests stand here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy as np

from lect.errors import UserError

Array = np.ndarray[Any, Any]
GEMMA3_PERIOD, GEMMA3_LOCAL_BASE, GEMMA3_27B_LAYERS = 6, 10_000.0, 62
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_CONTEXT = 8192
FULL, SLIDING = "full_attention", "sliding_attention"
COMMON = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "max_position_embeddings": "context_length",
}
GPT2 = {
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_inner": "feed_forward_length",
    "n_head": "attention.head_count",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "n_positions": "context_length",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family: its names on both sides, and what happens to its weights on the way."""

    model_type: str
    arch: str
    architecture: str
    keys: Mapping[str, str] = field(default_factory=lambda: COMMON)
    activation: tuple[str, str] = ("hidden_act", "silu")
    offset_norms: bool = False
    """GGUF stores the factor of a norm, the folder that factor minus one (Gemma)."""
    interleaved: bool = False
    """llama.cpp rotates neighbouring pairs of query and key rows, transformers halves (Llama)."""
    transposed: tuple[str, ...] = ()
    """Linear layers that the folder stores input-first (GPT-2's Conv1D)."""
    biases: bool = True
    """Whether the configuration has a switch for attention biases."""

    def name(self, tensor: str, layers: int) -> str:
        """The GGUF name of a tensor of the folder."""
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[self.arch.upper()], layers)
        result = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
        if result is None:
            raise UserError(f"tensor {tensor}: has no place in a GGUF file of architecture {self.arch}; it stays out")
        return str(result)

    def forward(self, tensor: str, values: Array, config: Mapping[str, Any]) -> Array:
        """Weights of the folder as the GGUF file holds them."""
        if self.offset_norms and tensor.endswith("norm.weight"):
            return values + 1
        if self._turned(tensor):
            heads = self._heads(tensor, config)
            return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        return values.T if tensor.endswith(self.transposed) and self.transposed else values

    def backward(self, tensor: str, values: Array, config: Mapping[str, Any]) -> Array:
        """Weights of the GGUF file as the folder holds them."""
        if self.offset_norms and tensor.endswith("norm.weight"):
            return values - 1
        if self._turned(tensor):
            heads = self._heads(tensor, config)
            return values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        return values.T if tensor.endswith(self.transposed) and self.transposed else values

    def _turned(self, tensor: str) -> bool:
        return self.interleaved and (".q_proj." in tensor or ".k_proj." in tensor)

    def _heads(self, tensor: str, config: Mapping[str, Any]) -> int:
        return int(config["num_key_value_heads" if ".k_proj." in tensor else "num_attention_heads"])


FAMILIES = (
    Family(
        model_type="gemma3_text",
        arch="gemma3",
        architecture="Gemma3ForCausalLM",
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        offset_norms=True,
    ),
    Family(model_type="llama", arch="llama", architecture="LlamaForCausalLM", interleaved=True),
    Family(model_type="qwen2", arch="qwen2", architecture="Qwen2ForCausalLM", biases=False),
    Family(model_type="qwen3", arch="qwen3", architecture="Qwen3ForCausalLM"),
    Family(
        model_type="gpt2",
        arch="gpt2",
        architecture="GPT2LMHeadModel",
        keys=GPT2,
        activation=("activation_function", "gelu_new"),
        transposed=("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"),
        biases=False,
    ),
)


def by_arch(arch: str, where: str) -> Family:
    """The family that a GGUF file names, or a UserError with those that lect knows."""
    for family in FAMILIES:
        if family.arch == arch:
            return family
    known = ", ".join(f.arch for f in FAMILIES)
    raise UserError(f"{where}: is of architecture {arch!r}; lect reads GGUF files of {known}; give a folder instead")


def by_type(model_type: str, where: str) -> Family:
    """The family that a folder's configuration names, or a UserError with those that lect knows."""
    for family in FAMILIES:
        if family.model_type == model_type:
            return family
    known = ", ".join(f.model_type for f in FAMILIES)
    raise UserError(f"{where}: is of architecture {model_type!r}; lect writes GGUF files of {known}")


def short(value: float) -> float:
    """The shortest decimal that is the same fp32 number (GGUF keeps 1e-6 as 9.999999974752427e-07)."""
    return float(str(np.float32(value)))


def read_config(family: Family, fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The folder's configuration from the fields of a GGUF file; raises KeyError for a field that is missing."""

    def get(key: str, default: Any = None) -> Any:
        value = fields.get(f"{family.arch}.{key}", default)
        return short(value) if isinstance(value, float) else value

    config: dict[str, Any] = {"model_type": family.model_type, "architectures": [family.architecture]}
    for ours, theirs in family.keys.items():
        value = get(theirs)
        if value is None and ours not in ("head_dim", "num_key_value_heads"):
            raise KeyError(f"{family.arch}.{theirs}")
        if isinstance(value, list):
            raise UserError(f"{family.arch}.{theirs}: differs between layers, which lect does not read")
        config[ours] = value
    rows, _ = shapes["token_embd.weight"]
    config |= {"vocab_size": rows, "tie_word_embeddings": "output.weight" not in shapes}
    config[family.activation[0]] = family.activation[1]
    if family.model_type == "gpt2":
        return config
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = config["num_key_value_heads"] or heads
    config["head_dim"] = config["head_dim"] or config["hidden_size"] // heads
    if family.biases:
        config["attention_bias"] = "blk.0.attn_q.bias" in shapes
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": get("rope.freq_base", 10_000.0)}
    if get("rope.scaling.type") == "linear":
        rope |= {"rope_type": "linear", "factor": get("rope.scaling.factor", 1.0)}
    elif get("rope.scaling.type") not in (None, "none"):
        raise UserError(f"rope scaling {get('rope.scaling.type')!r}: is not one that lect reads (none, linear)")
    if family.model_type != "gemma3_text":
        return config | {"rope_parameters": rope}
    period = get("attention.sliding_window_pattern", GEMMA3_PERIOD)
    if isinstance(period, list):
        kinds = [SLIDING if sliding else FULL for sliding in period]
    else:
        kinds = [FULL if (i + 1) % period == 0 else SLIDING for i in range(config["num_hidden_layers"])]
    local = {"rope_type": "default", "rope_theta": get("rope.freq_base_swa", GEMMA3_LOCAL_BASE)}
    large = config["num_hidden_layers"] == GEMMA3_27B_LAYERS
    return config | {
        "sliding_window": get("attention.sliding_window"),
        "layer_types": kinds,
        "rope_parameters": {FULL: rope, SLIDING: local},
        "query_pre_attn_scalar": config["hidden_size"] // heads if large else config["head_dim"],
    }


def write_config(family: Family, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a GGUF file from the folder's configuration; what GGUF cannot say is refused by name."""
    values = {theirs: config.get(ours) for ours, theirs in family.keys.items()}
    name, wanted = family.activation
    if config.get(name) != wanted:
        raise UserError(f"{where}: {name} is {config.get(name)!r}; GGUF's {family.arch} is always {wanted}")
    for key in ("mlp_bias", "use_sliding_window", "use_bidirectional_attention", "scale_attn_by_inverse_layer_idx"):
        if config.get(key):
            raise UserError(f"{where}: {key} is set, for which GGUF's {family.arch} has no field")
    if family.model_type == "gpt2":
        values["feed_forward_length"] = values["feed_forward_length"] or 4 * config["n_embd"]
    else:
        values["attention.value_length"] = values["attention.key_length"]
        values["rope.dimension_count"] = values["attention.key_length"]
        rope = config.get("rope_parameters") or {}
        if family.model_type == "gemma3_text":
            values |= _gemma3(config, where)
            rope = rope[FULL]
        values |= _rope(rope, where)
    return {f"{family.arch}.{key}": value for key, value in values.items()}


def _rope(rope: Mapping[str, Any], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {"rope.freq_base": float(rope.get("rope_theta", 10_000.0))}
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    elif kind not in ("default", "llama3"):
        raise UserError(f"{where}: rope_type {kind!r} is not one that lect writes to GGUF (default, linear, llama3)")
    if kind == "default" and rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"{where}: rotates a part of each head only, which lect does not write to GGUF")
    return values


def _gemma3(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Sliding window, its pattern and its own rope; softcapping and other scales are refused."""
    layers = config["num_hidden_layers"]
    large = layers == GEMMA3_27B_LAYERS
    scalar = config["hidden_size"] // config["num_attention_heads"] if large else config["head_dim"]
    if config.get("query_pre_attn_scalar") != scalar:
        raise UserError(f"{where}: query_pre_attn_scalar is not {scalar}, which llama.cpp takes for granted")
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        if config.get(key):
            raise UserError(f"{where}: {key} is set, for which GGUF's gemma3 has no field")
    kinds = list(config["layer_types"])
    periods = [p for p in range(1, layers + 2) if kinds == [SLIDING if (i + 1) % p else FULL for i in range(layers)]]
    if not periods:
        raise UserError(f"{where}: its layers do not slide in a regular pattern, which GGUF's gemma3 needs")
    local = config["rope_parameters"][SLIDING]
    if local.get("rope_type", "default") != "default":
        raise UserError(f"{where}: scales the rope of sliding layers, for which GGUF's gemma3 has no field")
    values = {
        "attention.sliding_window": config["sliding_window"],
        "rope.freq_base_swa": float(local.get("rope_theta", GEMMA3_LOCAL_BASE)),
    }
    if GEMMA3_PERIOD not in periods:  # llama.cpp's own default stays unsaid, for readers that do not know the field
        values["attention.sliding_window_pattern"] = periods[0]
    return values


def llama3_factors(config: Mapping[str, Any]) -> Array | None:
    """The factors by which Llama 3.1 stretches each frequency (a tensor in GGUF), or None without them."""
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") != "llama3":
        return None
    half = config["head_dim"] // 2
    waves = 2 * np.pi * float(rope["rope_theta"]) ** (np.arange(half) / half)
    context, factor = float(rope["original_max_position_embeddings"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    smooth = (context / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    result = np.where(waves > context / low, factor, np.where(waves < context / high, 1.0, between))
    return result.astype(np.float32)
