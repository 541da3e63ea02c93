# SPDX-License-Identifier: Apache-2.0
"""The kinds of vocabulary steps: a method decides the new tokens, the kind changes tokenizer and model and proves it.

A method of kind :class:`VocabStep` returns a :class:`~lect.ops.tokenizer.Cut`: the new ``tokenizer.json`` and the
old id of each new one (-1 for a new token). A method of kind :class:`VocabSubset` only says which tokens to keep.
A method of kind :class:`VocabNew` adds tokens, and an ``init/…`` part makes their first rows.
The kind reads the text, moves embedding and head rows, rewrites every id that configuration, generation settings,
post-processor and padding name, gates on the proof, and reports. Test text is read after all is decided.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from lect.artefacts import Artefact, Corpus, Model
from lect.errors import UserError
from lect.method import Estimate, Part, PartSpec, Run, Sizes, Step, knobs
from lect.ops.growth import pieces
from lect.ops.rows import embedding_rows, named_ids, with_rows
from lect.ops.text import backend, byte_count, encode
from lect.ops.tokenizer import PLACEHOLDER, Cut, Vocabulary, literals
from lect.parts.init.kind import NewTokens

__all__ = ["Survey", "VocabNew", "VocabStep", "VocabSubset", "look", "rebuilt"]

Ids = NDArray[np.int32]
ROLES = ("target", "kept")
LEARN = ("train", "calibration", "")
PROOF_TOKENS = 64
PROOF_POSITIONS = 16
PROOF_DOCUMENTS = 2
HEAPS = 60.0, 0.4  # distinct tokens with their ancestors = 60 * tokens ** 0.4, measured on the bundled text


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a method knows when it decides: the tokenizer, the text in its tokens, and what may not go."""

    vocabulary: Vocabulary
    tokenizer: Any
    texts: dict[str, list[str]]
    """The training documents (those of no split too), by role."""
    train: dict[str, list[Ids]]
    """Token ids of each training document (those of no split too), by role."""
    calibration: dict[str, list[Ids]]
    """The same for the calibration split."""
    fixed: frozenset[int]
    """Ids that stay whatever the text: alphabet, control tokens, and what files and templates name."""
    required: frozenset[int]
    """``fixed``, and every token that training and calibration text use, with all that leads to it."""
    usable: frozenset[int]
    """Ids that have a token and an embedding row."""
    nameless: tuple[int, ...]
    """Rows without a token that the configuration names; they stay, behind the tokens."""


@knobs
class VocabStep(Step):
    """A step that gives the model another vocabulary."""

    inputs: ClassVar[dict[str, type[Artefact]]] = {"model": Model, "corpus": Corpus}
    output: ClassVar[type[Artefact]] = Model
    gates: ClassVar[dict[str, tuple[float, str]]] = {
        "kept_logits": (1e-4, "greatest difference of fp32 logits of kept tokens between the base and the new model"),
        "unknown": (0.0, "texts with an unknown token that had none before (corpus, and every old token as a text)"),
    }

    def surgery(self, survey: Survey, run: Run) -> Cut:
        """Decide the new tokenizer and where each of its rows comes from."""
        raise NotImplementedError

    def fill(self, new: Any, live: Any, survey: Survey, made: Any, origin: list[int], run: Run) -> None:
        """Make the first rows of new tokens, in place; a step without new tokens has nothing to do."""

    def rows_after(self, sizes: Sizes) -> int:
        """The rows that the step will probably leave: by Heaps' law, with constants measured on the bundled text."""
        scale, power = HEAPS
        texts = [n / max(1.0, sizes.bytes_per_token) for n in (sizes.target_bytes, sizes.kept_bytes) if n]
        return min(sizes.rows, int(500 + sum(scale * n**power for n in texts)))

    def estimate(self, sizes: Sizes) -> Estimate:
        """Seconds from bytes of text, and the sizes that so many rows leave."""
        rows = self.rows_after(sizes)
        width = sizes.embedding_parameters / max(1, sizes.rows)
        embedding = int(rows * width)
        parameters = sizes.parameters - sizes.embedding_parameters + embedding
        seconds = 10 + sizes.rows * 5e-5 + (sizes.target_bytes + sizes.kept_bytes) * 1e-6 + parameters * 3e-8
        after = replace(
            sizes,
            parameters=parameters,
            embedding_parameters=embedding,
            rows=rows,
            model_bytes=sizes.model_bytes * parameters // max(1, sizes.parameters),
            base_parameters=sizes.base_parameters or sizes.parameters,
            base_embedding_parameters=sizes.base_embedding_parameters or sizes.embedding_parameters,
        )
        memory = 4 * (sizes.parameters + parameters) + 8 * (sizes.target_bytes + sizes.kept_bytes)
        return Estimate(seconds=seconds, memory_bytes=memory, disk_bytes=after.model_bytes, sizes=after)

    def change(self, live: Any, survey: Survey, cut: Cut, run: Run) -> tuple[Any, Any, list[int], dict[int, int]]:
        """The new tokenizer and model, the old id of each row (-1 for a new one), and the row of each old id."""
        made = rebuilt(survey.tokenizer, cut.data)
        origin = [*cut.origin, *survey.nameless]
        numbers = {old: n for n, old in reversed(list(enumerate(origin))) if old >= 0}
        new = with_rows(live, origin, numbers)
        self.fill(new, live, survey, made, origin, run)
        return made, new, origin, numbers

    def apply(self, run: Run, model: Model, corpus: Corpus) -> Model:
        """Survey, decide, change, prove, write, report."""
        tokenizer, live = model.tokenizer(), model.load()
        survey = look(tokenizer, live, corpus)
        made, new, origin, numbers = self.change(live, survey, self.surgery(survey, run), run)
        for name, value in _proof(self.gates, survey, corpus, tokenizer, made, origin).items():
            run.gate(name, value, run.limit(name, self.gates[name][0]))
        difference = _logits_difference(live, new, survey, origin, numbers)
        run.gate("kept_logits", difference, run.limit("kept_logits", self.gates["kept_logits"][0]))
        rows, before, after = embedding_rows(live), live.num_parameters(), new.num_parameters()
        run.fact(
            rows={"before": rows, "after": len(origin)},
            parameters={"before": before, "after": after},
            text=_text_facts(survey, corpus, tokenizer, made, origin),
        )
        run.say(f"vocabulary: {rows:,} rows -> {len(origin):,}; parameters {after / before:.1%} of before")
        del live
        return Model.write(run.folder, new, made, run, dtype=model.dtype)


@knobs
class VocabSubset(VocabStep):
    """A step that keeps some of the tokens and changes the segmentation of no text of the corpus."""

    gates: ClassVar[dict[str, tuple[float, str]]] = {
        **VocabStep.gates,
        "segmentation": (0.0, "documents of the corpus (all but test) that segment differently than before"),
    }

    def keep(self, survey: Survey, run: Run) -> Collection[int]:
        """Decide which ids to keep beside ``survey.required``; merge ancestors come along by themselves."""
        raise NotImplementedError

    def surgery(self, survey: Survey, run: Run) -> Cut:
        """Cut the tokenizer down to what is kept."""
        chosen = {*survey.required, *self.keep(survey, run)} & survey.usable
        return survey.vocabulary.cut(survey.vocabulary.ancestors(chosen))


@knobs
class VocabNew(VocabStep):
    """A step that gives the model tokens that it did not have."""

    gates: ClassVar[dict[str, tuple[float, str]]] = {
        **VocabStep.gates,
        "decoding": (0.0, "documents of the corpus (all but test) that decode to something else than before"),
        "longer": (1.0, "tokens of the target text (all but test), over those of the tokenizer before"),
    }

    init: Annotated[PartSpec, Part("init")] = "subword_mean"
    """How the first input rows of new tokens are made (tied tables: the only ones)."""
    head_init: Annotated[PartSpec, Part("init")] = "subword_mean"
    """How the first output rows of new tokens are made where the head is a table of its own."""

    def fill(self, new: Any, live: Any, survey: Survey, made: Any, origin: list[int], run: Run) -> None:
        """Ask the initialisers for the rows of both tables; what is not finite is refused by the part's name."""
        fresh = [n for n, i in enumerate(origin) if i < 0]
        if not fresh:
            return
        after = Vocabulary.read(made)
        spelled = pieces(survey.vocabulary, survey.tokenizer, after, [after.strings[n] for n in fresh])
        tables = [("input", self.init, live.get_input_embeddings(), new.get_input_embeddings())]
        head = live.get_output_embeddings()
        if head is not None and head.weight is not tables[0][2].weight:
            tables.append(("output", self.head_init, head, new.get_output_embeddings()))
        for side, spec, old_table, new_table in tables:
            tokens = NewTokens(
                old=survey.vocabulary,
                new=after,
                origin=origin,
                pieces=spelled,
                old_tokenizer=survey.tokenizer,
                new_tokenizer=made,
                texts=survey.texts["target"],
                kept_texts=survey.texts["kept"],
                live=live,
                side=side,
                seed=run.seed,
                progress=run.progress,
            )
            with torch.random.fork_rng(devices=[]):
                rows_md = run.part("init", spec).rows(old_table.weight.detach().float(), tokens)
            if not bool(torch.isfinite(rows_md).all()):
                raise UserError(f"vocab: init {spec} made rows that are no numbers; choose another initialiser")
            with torch.no_grad():
                new_table.weight[torch.tensor(fresh)] = rows_md.to(new_table.weight.dtype)


def rebuilt(tokenizer: Any, data: dict[str, Any]) -> Any:
    """A ``PreTrainedTokenizerFast`` around a new ``tokenizer.json`` with the settings of ``tokenizer``."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
    known = set(rust.get_vocab())
    drop = {"tokenizer_object", "tokenizer_file", "vocab_file", "merges_file", "added_tokens_decoder", "vocab"}
    drop |= {"merges", "name_or_path", "backend", "is_local", "local_files_only", "tokenizer_class"}
    settings = {k: v for k, v in tokenizer.init_kwargs.items() if k not in drop}
    for key in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(settings.get(key), list | tuple):
            settings[key] = [token for token in settings[key] if str(token) in known]
    made = PreTrainedTokenizerFast(tokenizer_object=rust, **settings)
    made.backend_tokenizer.post_processor = rust.post_processor
    made.chat_template = tokenizer.chat_template
    if len(made) != len(known):
        extra = sorted(set(made.get_vocab()) - known)
        raise UserError(f"tokenizer: its settings name tokens that it does not have: {', '.join(extra[:5])}")
    return made


def look(tokenizer: Any, live: Any, corpus: Corpus) -> Survey:
    """Read the text in the base tokenizer's tokens and find what must stay."""
    vocabulary = Vocabulary.read(tokenizer)
    rows = embedding_rows(live)
    usable = frozenset(i for i in vocabulary.strings if i < rows)
    texts = {r: corpus.texts(r, "train") + corpus.texts(r, "") for r in ROLES}
    train = {r: [*_encoded(tokenizer, texts[r])] for r in ROLES}
    calibration = {r: [*_encoded(tokenizer, corpus.texts(r, "calibration"))] for r in ROLES}
    if not any(len(ids) for ids in train["target"]):
        raise UserError("vocab: the corpus has no training text in the target role; give more text")
    config = named_ids(live.config.to_dict()) | named_ids(_generation(live))
    template = tokenizer.chat_template or ""
    template = "\n".join(template.values()) if isinstance(template, dict) else template
    in_template = {i for ids in encode(tokenizer, literals(template)) for i in ids}
    special = {i for i in tokenizer.all_special_ids if not PLACEHOLDER.fullmatch(vocabulary.strings.get(i, ""))}
    named = vocabulary.named(template) | vocabulary.special() | special | in_template | config
    fixed = vocabulary.ancestors((named | vocabulary.alphabet) & usable)
    used = {int(i) for part in (train, calibration) for texts in part.values() for i in _distinct(texts)}
    beyond = sorted(i for i in used if i >= rows)
    if beyond:
        raise UserError(
            f"model: the text uses token {vocabulary.strings[beyond[0]]!r} (id {beyond[0]}), but the embedding has "
            f"only {rows} rows; this tokenizer is not this model's"
        )
    return Survey(
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        texts=texts,
        train=train,
        calibration=calibration,
        fixed=frozenset(fixed),
        required=frozenset(vocabulary.ancestors(used) | fixed),
        usable=usable,
        nameless=tuple(sorted(i for i in config if i < rows and i not in usable)),
    )


def _encoded(tokenizer: Any, texts: list[str]) -> Iterator[Ids]:
    """Token ids of each text as an array, a thousand texts at a time."""
    for start in range(0, len(texts), 1000):
        for ids in encode(tokenizer, texts[start : start + 1000]):
            yield np.asarray(ids, dtype=np.int32)


def _distinct(documents: list[Ids]) -> list[int]:
    return list(np.unique(np.concatenate([np.empty(0, np.int32), *documents])).tolist())


def _generation(live: Any) -> dict[str, Any]:
    config = getattr(live, "generation_config", None)
    return dict(config.to_dict()) if config is not None else {}


def _proof(
    asked: Collection[str], survey: Survey, corpus: Corpus, old: Any, new: Any, origin: list[int]
) -> dict[str, float]:
    """Measure those of the gates in ``asked`` that need both tokenizers alone.

    ``unknown`` counts texts (every old token is one too) that became unknown, ``segmentation`` documents that segment
    differently, ``decoding`` those that decode differently; ``longer`` is the ratio of target tokens.
    """
    was, now = survey.vocabulary.unknown, Vocabulary.read(new).unknown
    back = np.asarray(origin, dtype=np.int32)
    differ = lost = garbled = 0
    count = {"before": 0, "after": 0}
    for role in ROLES:
        for splits, known in ((("train", ""), survey.train), (("calibration",), survey.calibration)):
            texts = [t for split in splits for t in corpus.texts(role, split)]
            for before, after in zip(known[role], _encoded(new, texts), strict=True):
                differ += not np.array_equal(before, back[after])
                lost += now is not None and bool((after == now).any()) and not bool((before == was).any())
                if role == "target":
                    count["before"] += len(before)
                    count["after"] += len(after)
                if "decoding" in asked:
                    garbled += _decoded(old, before) != _decoded(new, after)
    if now is not None:
        tokens = sorted({survey.vocabulary.surface(token) for token in survey.vocabulary.strings.values()})
        unknown = [t for t, after in zip(tokens, _encoded(new, tokens), strict=True) if bool((after == now).any())]
        lost += sum(not bool((before == was).any()) for before in _encoded(old, unknown))
    measured = {"unknown": lost, "segmentation": differ, "decoding": garbled}
    longer = {"longer": count["after"] / max(1, count["before"])}
    return {name: float(value) for name, value in (measured | longer).items() if name in asked}


def _decoded(tokenizer: Any, ids: Ids) -> str:
    return str(backend(tokenizer).decode(ids.tolist(), skip_special_tokens=False))


def _logits_difference(live: Any, new: Any, survey: Survey, origin: list[int], numbers: dict[int, int]) -> float:
    """The greatest |difference| between old and new fp32 logits of kept tokens, on some documents of each role.

    Causal models give the logits of the last positions only; each of them has read the whole of the excerpt.
    """
    pairs = [(n, i) for n, i in enumerate(origin) if i >= 0]
    here_n, there_n = torch.tensor([n for n, _ in pairs]), torch.tensor([i for _, i in pairs])
    more: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(live.forward).parameters:
        more["logits_to_keep"] = PROOF_POSITIONS
    worst = 0.0
    for texts in survey.train.values():
        for ids in [t for t in texts if len(t)][:PROOF_DOCUMENTS]:
            both = []
            kept = [int(i) for i in ids[:PROOF_TOKENS] if int(i) in numbers] or there_n[:PROOF_TOKENS].tolist()
            for network, row in ((live, kept), (new, [numbers[i] for i in kept])):
                ids_bt = torch.tensor([row], device=network.device)
                if network.config.is_encoder_decoder:
                    more["decoder_input_ids"] = ids_bt
                with torch.inference_mode():
                    both.append(network(input_ids=ids_bt, **more).logits[0].float().cpu())
            worst = max(worst, float((both[0][:, there_n] - both[1][:, here_n]).abs().max()))
    return worst


def _text_facts(survey: Survey, corpus: Corpus, old: Any, new: Any, origin: list[int]) -> dict[str, Any]:
    """Bytes per token of the corpus, and of test text before and after, with how much of it changed, by role."""
    back = np.asarray(origin, dtype=np.int32)
    kept = np.zeros(max([*survey.vocabulary.strings, *origin]) + 1, dtype=bool)
    kept[back[back >= 0]] = True
    facts: dict[str, Any] = {}
    for role in ROLES:
        read = byte_count([t for split in LEARN for t in corpus.texts(role, split)])
        if count := sum(map(len, survey.train[role] + survey.calibration[role])):
            facts[role] = {"bytes_per_token": read / count}
        texts = corpus.texts(role, "test")
        before, after = list(_encoded(old, texts)), list(_encoded(new, texts))
        if tokens := sum(map(len, before)):
            size = byte_count(texts)
            facts.setdefault(role, {})["test"] = {
                "documents": len(texts),
                "resegmented_documents": sum(
                    not np.array_equal(a, back[b]) for a, b in zip(before, after, strict=True)
                ),
                "resegmented_tokens": sum(int((~kept[a]).sum()) for a in before) / tokens,
                "bytes_per_token": {"before": size / tokens, "after": size / sum(map(len, after))},
            }
    return facts
