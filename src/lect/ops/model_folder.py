# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders in and out: saved whole or not at all, loaded strictly, every fault one clear line.

``transformers`` loads a folder with missing tensors (random numbers take their place), with NaN weights, and with an
index that points outside the folder. Here each of these is refused. Nothing is unpickled, no code of a folder runs.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lect import machine
from lect.artefacts import read_json, sha256, write_json
from lect.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MANIFEST, CONFIG, INDEX = "manifest.json", "config.json", "model.safetensors.index.json"
SHARD = "5GB"
LARGEST = 2**31  # a size in config.json above this is no size
SLACK = 1.01  # parameters that the configuration asks for over those that the files hold
PROBES = 64
NAMED = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")  # control tokens that a tokenizer puts in by itself


def save(live: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model, tokenizer and manifest as a folder that transformers 4.57 and 5 load.

    The folder gets its name when everything is in it; it must be empty or absent before. The weights keep the
    dtype that they have. Raises UserError when the tokenizer has ids beyond the embedding.
    """
    live = getattr(live, "_orig_mod", live)  # what torch.compile wraps
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; give a new folder for the model")
    rows = int(live.get_input_embeddings().weight.shape[0])
    control = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    named = {str(getattr(tokenizer, f"{name}_token", None)) for name in NAMED}
    _check_ids({t: i for t, i in tokenizer.get_vocab().items() if t not in control - named}, rows, str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _set(live.config, "vocab_size", rows)
        with _quiet():
            live.save_pretrained(temporary, max_shard_size=SHARD)
            tokenizer.save_pretrained(temporary)
        _spell_for_all(temporary, live.config)
        write_manifest(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path) -> None:
    """Write the SHA-256 sum of every file of ``folder`` and make all readable as the umask allows."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)  # safetensors writes 0600 whatever the umask
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    sums = {p.relative_to(folder).as_posix(): sha256(p) for p in files}
    write_json(folder / MANIFEST, {"lect": 1, "files": sums})


def check_manifest(folder: Path) -> None:
    """Compare every file with its sum in the manifest, if there is one; a difference is a UserError."""
    if not (folder / MANIFEST).exists():
        return
    for name, wanted in dict(read_json(folder / MANIFEST).get("files") or {}).items():
        path = _inside(folder, name, MANIFEST)
        if not path.is_file():
            raise UserError(f"{folder}: {name} is missing; it stands in {MANIFEST}; restore it")
        if sha256(path) != wanted:
            raise UserError(
                f"{path}: differs from its sum in {MANIFEST}; restore the file, or delete {MANIFEST} if you changed it"
            )


def load(folder: Path, dtype: torch.dtype | None = None, device: str = "cpu") -> PreTrainedModel:
    """The model of a folder in memory, fp32 unless ``dtype`` says else, in evaluation mode.

    Refused with one line: no model folder, a changed or cut file, pickled weights, paths that leave the folder, sizes
    that the files do not have, missing or unexpected tensors, tied heads that differ, NaN or infinite weights, a
    tokenizer with more ids than the embedding has rows.
    """
    import torch

    check_manifest(folder)
    config = read_config(folder)
    shapes = weight_shapes(folder)
    empty = _outline(folder, config, shapes)
    _check_tied(folder, empty.config, shapes)
    if (folder / "tokenizer.json").exists():
        _check_ids(_vocabulary(folder), int(empty.get_input_embeddings().weight.shape[0]), str(folder))
    machine.release_memory()
    with _quiet(), _one_line(folder):
        live, report = type(empty).from_pretrained(
            None,
            config=empty.config,
            state_dict=_tensors(folder, dtype or torch.float32),
            dtype=dtype or torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name
        )
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(n if isinstance(n, str) else str(n[0]) for n in report.get(fault) or ()):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            word = {"missing_keys": "are missing from", "unexpected_keys": "have no place in the model of"}
            raise UserError(
                f"{folder}: the tensors {', '.join(names[:3])}{more} {word.get(fault, 'have the wrong shape in')} the "
                "weights' files; config.json and weights do not belong together"
            )
    for name, parameter in live.named_parameters():
        ends = torch.stack(torch.aminmax(parameter.detach())) if parameter.numel() else parameter
        if not torch.isfinite(ends).all():  # NaN is the least and the greatest of whatever holds it
            raise UserError(f"{folder}: tensor {name} holds NaN or infinite values; take an earlier checkpoint")
    live.config.name_or_path = str(folder)
    if hasattr(empty, "generation_config"):
        live.generation_config = empty.generation_config
    loaded: PreTrainedModel = live.to(device).eval()
    return loaded


def outline(folder: Path) -> PreTrainedModel:
    """The model of a folder on the meta device: configuration, generation settings and shapes, without weights.

    Refused with one line: no model folder, a changed or cut file, sizes that the files do not have.
    """
    return _outline(folder, read_config(folder), weight_shapes(folder))


def _outline(folder: Path, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> PreTrainedModel:
    """The outline from what was read of the folder."""
    from transformers import GenerationConfig, PreTrainedModel

    live = _check_sizes(folder, config, shapes, _class_of(config))
    assert isinstance(live, PreTrainedModel)
    if hasattr(live, "generation_config") and (folder / "generation_config.json").exists():
        with _one_line(folder):
            live.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return live


def answer(out: Any) -> torch.Tensor:
    """The logits of a model's output, or its last states where it has no head."""
    found: torch.Tensor = out.logits if "logits" in out else out.last_hidden_state
    return found


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder, as its tokenizer.json says; a broken one is a UserError."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; give a Hugging Face folder, a GGUF file, an alias or a hub id")
    with _quiet(), _one_line(folder, "its tokenizer"):
        if (folder / "tokenizer.json").exists():
            return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, **_inputs(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{folder}: has no tokenizer.json; save its tokenizer with save_pretrained of a fast tokenizer")
    return tokenizer


def _inputs(folder: Path) -> dict[str, list[str]]:
    """What the tokenizer of a folder gives the model, as its settings or its class say."""
    import transformers

    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.exists() else {}
    named = getattr(transformers, str(settings.get("tokenizer_class")), None)
    names = settings.get("model_input_names") or getattr(named, "model_input_names", None)
    return {"model_input_names": names} if names else {}


def read_config(folder: Path) -> Any:
    """The configuration of a folder; one that is missing, unknown or absurd is a UserError."""
    from transformers import AutoConfig

    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; give a Hugging Face folder, a GGUF file, an alias or a hub id")
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: has no {CONFIG}, so it is not a model folder; give the folder that holds it")
    data = read_json(folder / CONFIG)
    for name, value in _numbers(data):
        if not -LARGEST < value < LARGEST:
            raise UserError(f"{folder / CONFIG}: {name} is {value}, which is no size; restore the file")
    if "auto_map" in data and data.get("model_type") not in _known_types():
        raise UserError(
            f"{folder}: needs code of its own, which lect does not run; give a model that transformers knows"
        )
    with _one_line(folder):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the safetensors files, from their headers; a cut file is a UserError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(folder):
        shapes |= {name: tuple(entry["shape"]) for name, entry in header(path).items()}
    return shapes


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights; none is a UserError."""
    files = sorted(folder.glob("*.safetensors"))
    if (folder / INDEX).exists():
        named = dict(read_json(folder / INDEX).get("weight_map") or {}).values()
        files = sorted({_inside(folder, str(name), INDEX) for name in named})
    elif (folder / "model.safetensors").exists():
        files = [folder / "model.safetensors"]
    if not files:
        pickled = [p.name for kind in ("*.bin", "*.pt", "*.pth") for p in sorted(folder.glob(kind))]
        if pickled:
            raise UserError(
                f"{folder}: has its weights in {pickled[0]}, which could run code when it is read; save the model "
                "with save_pretrained(..., safe_serialization=True) where you trust it, and give that folder"
            )
        raise UserError(f"{folder}: has no .safetensors file; give a folder with weights")
    return files


def header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name, from its first bytes; a file that is cut short is a UserError."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            entries = json.loads(file.read(length))
            end = 8 + length + max((e["data_offsets"][1] for n, e in entries.items() if n != "__metadata__"), default=0)
            if end > size:
                raise ValueError(f"it ends at byte {size} of {end}")
    except (OSError, ValueError, struct.error, AttributeError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: is cut short or damaged ({error}); copy or download it again") from error
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def reload_difference(
    live: PreTrainedModel, folder: Path, probe_ids: Sequence[Sequence[int]] | None = None, weights: bool = True
) -> float:
    """The greatest difference between the fp32 logits of ``live`` and of ``folder`` loaded anew; 0.0 when all is well.

    A model without a head answers with its last states. Both sides compute in fp32. Weights of ``live`` in another
    dtype are widened, which is exact, and put back; buffers that no file holds (Gemma's embedding scale) follow the
    dtype at loading and are taken from the fp32 side. So a bf16 model against its bf16 folder also gives 0.0, and an
    fp32 model against a bf16 folder gives the rounding.
    ``probe_ids``: rows of token ids; by default some that are spread over the whole embedding, first and last row
    included. ``weights``: compare every weight too, so that a row that no probe reads cannot hide.
    """
    import torch

    live = getattr(live, "_orig_mod", live)
    device = next(live.parameters()).device
    again = load(folder, torch.float32, str(device))
    again.set_attn_implementation(live.config._attn_implementation)
    rows = int(live.get_input_embeddings().weight.shape[0])
    if again.get_input_embeddings().weight.shape[0] != rows:
        return float("inf")
    spread = torch.linspace(0, rows - 1, min(PROBES, rows), device=device).long()[None]
    probes = [spread] if probe_ids is None else [torch.tensor([list(ids)], device=device) for ids in probe_ids]
    worst = 0.0
    others = dict(again.named_parameters())
    with torch.no_grad(), _widened(live, again):
        for name, parameter in live.named_parameters() if weights else ():
            if not torch.equal(parameter, others[name]):
                worst = max(worst, float((parameter - others[name]).abs().max()))
        for ids in probes:
            one, other = (answer(network(input_ids=ids)) for network in (live, again))
            worst = max(worst, float((one - other).abs().max()))
    return worst


@contextmanager
def _widened(live: Any, wide: Any) -> Iterator[None]:
    """The model in fp32 and in evaluation mode; its own tensors and mode are put back afterwards."""
    training = live.training
    saved = live.state_dict().keys()
    derived = {name: buffer for name, buffer in wide.named_buffers() if name not in saved}
    before = {id(t): (t, t.data, name) for name, t in [*live.named_parameters(), *live.named_buffers()]}
    try:
        live.eval()
        for tensor, data, name in before.values():
            tensor.data = derived[name] if name in derived else data.float() if data.is_floating_point() else data
        yield
    finally:
        for tensor, data, _ in before.values():
            tensor.data = data
        live.train(training)


def _class_of(config: Any) -> Any:
    """The class of transformers that config.json names, else the causal model of its type."""
    import transformers

    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    return transformers.AutoModelForCausalLM


def _known_types() -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return CONFIG_MAPPING_NAMES


def _check_sizes(folder: Path, config: Any, shapes: Mapping[str, tuple[int, ...]], model_class: Any) -> Any:
    """The model without weights; a configuration that asks for far more than the files hold is refused."""
    import math

    import torch

    for name, value in _numbers(config.to_dict()):
        if name.startswith(("num_", "n_layer", "n_head")) and value > 64 * max(len(shapes), 64):
            raise UserError(f"{folder / CONFIG}: {name} is {value}, but there are {len(shapes)} tensors; restore it")
    with _one_line(folder), torch.device("meta"):
        make = getattr(model_class, "_from_config", None) or model_class.from_config
        live = make(config)
    wanted = sum(p.numel() for p in live.parameters())
    held = sum(math.prod(shape) for shape in shapes.values())
    if wanted > SLACK * held:
        raise UserError(
            f"{folder}: config.json describes {wanted:,} parameters, the weights' files hold {held:,}; "
            "they do not belong together"
        )
    return live


def _check_tied(folder: Path, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a folder that says its head is its embedding and holds another head."""
    heads = [name for name in shapes if name in ("lm_head.weight", "cls.predictions.decoder.weight")]
    tables = [n for n in shapes if n.endswith(("embed_tokens.weight", "wte.weight", "word_embeddings.weight"))]
    if not config.tie_word_embeddings or not heads or len(tables) != 1:
        return
    head, table = _tensor(folder, heads[0]), _tensor(folder, tables[0])
    if head.shape != table.shape or not bool((head == table).all()):
        raise UserError(
            f"{folder}: config.json says that head and embedding are tied, but {heads[0]} and {tables[0]} differ; "
            "set tie_word_embeddings to false or remove the head"
        )


def _tensors(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors of the files by name, those in a narrower format than ``dtype`` widened one by one, largest first.

    Files are read, not mapped: a mapped file would stand in memory beside the weights that are made of it.
    """
    from safetensors import safe_open

    found: dict[str, torch.Tensor] = {}
    for path in _weight_files(folder):
        places = {name: entry["data_offsets"] for name, entry in header(path).items()}
        with safe_open(path, framework="pt", backend="pread") as file:
            for name in sorted(places, key=lambda name: places[name][0] - places[name][1]):
                tensor = file.get_tensor(name)
                narrow = tensor.is_floating_point() and tensor.itemsize < dtype.itemsize
                found[name] = tensor.to(dtype) if narrow else tensor
    return found


def _tensor(folder: Path, name: str) -> Any:
    from safetensors import safe_open

    file = "model.safetensors"
    if (folder / INDEX).exists():
        file = read_json(folder / INDEX)["weight_map"][name]
    with safe_open(folder / file, "pt") as opened:
        return opened.get_tensor(name)


def _vocabulary(folder: Path) -> dict[str, int]:
    """The id of every token in tokenizer.json that can come up, read without building the tokenizer.

    Control tokens that nothing names are left out, since no text gives them: the text-only Gemma 3 models carry one
    for images that their embedding has no row for.
    """
    data = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    try:
        vocab = data["model"]["vocab"]
        found = {row[0]: i for i, row in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
        values = [settings.get(f"{name}_token") for name in NAMED]
        named = {value["content"] if isinstance(value, dict) else value for value in values}
        added = [token for token in data.get("added_tokens") or () if not token["special"] or token["content"] in named]
        return found | {token["content"]: int(token["id"]) for token in added}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{folder / 'tokenizer.json'}: is no tokenizer ({error!r}); restore the file") from error


def _check_ids(vocabulary: Mapping[str, int], rows: int, where: str) -> None:
    """Refuse a tokenizer with ids that the embedding does not have."""
    worst = max(vocabulary, key=vocabulary.__getitem__, default="")
    if vocabulary and vocabulary[worst] >= rows:
        raise UserError(
            f"{where}: the tokenizer has the id {vocabulary[worst]} ({worst!r}), the embedding has {rows} rows; "
            "tokenizer and model do not belong together"
        )


def _inside(folder: Path, name: str, by: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{folder / by}: names {name!r}, which lies outside the folder; restore the file")
    return path


def _numbers(data: Any, name: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers(value, str(key))
    elif isinstance(data, int) and not isinstance(data, bool):
        yield name, data


def _set(config: Any, key: str, value: Any) -> None:
    if getattr(config, key, value) != value:
        setattr(config, key, value)


def _spell_for_all(folder: Path, config: Any) -> None:
    """Say in config.json and tokenizer_config.json what transformers 4.57 reads, beside what 5 writes."""
    data = read_json(folder / CONFIG)
    data |= legacy_rope(data.get("rope_parameters"))
    data.pop("_sliding_window_pattern", None)
    write_json(folder / CONFIG, data)
    path = folder / "tokenizer_config.json"
    data = read_json(path) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    data.pop("backend", None)
    extra = data.pop("extra_special_tokens", None)
    if isinstance(extra, list) and extra:
        data["additional_special_tokens"] = extra
    write_json(path, data)


def legacy_rope(parameters: Any) -> dict[str, Any]:
    """The rope settings as transformers 4 spells them: rope_theta, rope_scaling, rope_local_base_freq."""
    if not isinstance(parameters, dict):
        return {}
    if "full_attention" in parameters:
        local = parameters.get("sliding_attention") or {}
        spelled = legacy_rope(parameters["full_attention"])
        return spelled | ({"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {})
    result = {"rope_theta": parameters["rope_theta"]} if "rope_theta" in parameters else {}
    if parameters.get("rope_type", "default") != "default":
        result["rope_scaling"] = {k: v for k, v in parameters.items() if k != "rope_theta"}
    return result


@contextmanager
def _one_line(folder: Path, what: str = "the model") -> Iterator[None]:
    """Turn whatever a library raises over a folder into one line, Rust panics (BaseException) included."""
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{folder}: {what} does not load ({words[:300]}); restore the folder") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings of transformers; its settings are put back afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
