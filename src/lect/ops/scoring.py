# SPDX-License-Identifier: Apache-2.0
"""What a causal model thinks of a text: bits of every token, and greedy continuations, in batches.

The logits of a batch never exist at once: hidden states go through the head a block of tokens and a block of
vocabulary rows at a time, and the blocks' log-sum-exps are joined in fp32. Before that is trusted, the head in
blocks is compared with the model's own logits on a short probe; a model whose logits are made otherwise is run
sequence by sequence instead.

Shapes: b batch, t tokens, n tokens that are scored, d hidden width, v vocabulary rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lect import machine
from lect.artefacts import Model
from lect.errors import UserError
from lect.ops.text import encode

__all__ = ["Reader", "compute_dtype"]

BATCH_TOKENS = 4096
BLOCK_TOKENS = 512
BLOCK_ROWS = 2048
LARGE_BYTES = 100_000_000
PROBE = 1e-3
Tick = Callable[[int], None]


def compute_dtype(precision: str, model: Model, device: str) -> torch.dtype:
    """The type to compute in: as named, or (``auto``) bf16 for a large model where the hardware multiplies it fast."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    return torch.bfloat16 if model.bytes >= LARGE_BYTES and machine.fast_bf16(device) else torch.float32


def nothing(_: int) -> None:
    """A tick that nobody hears."""


@dataclass(kw_only=True)
class Reader:
    """A causal model with its tokenizer, ready to be asked about text; a model that looks ahead is refused."""

    live: Any
    tokenizer: Any
    device: str = "cpu"
    scale: Callable[[Tensor], Tensor] | None = field(init=False, default=None)
    """What the model does to its logits after the head, if the head can be taken in blocks; else None."""

    @classmethod
    def open(cls, model: Model, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Reader:
        """Load a model folder for reading."""
        return cls(live=model.load(dtype=dtype, device=device), tokenizer=model.tokenizer(), device=device)

    def __post_init__(self) -> None:
        if getattr(self.live.config, "is_encoder_decoder", False):
            raise UserError(
                f"{type(self.live).__name__}: an encoder-decoder cannot be read left to right; give a causal one"
            )
        self.live.eval()
        self.scale = self._probe()

    @property
    def start(self) -> list[int]:
        """The token that stands before a text: the tokenizer's own, else its end of text, else none."""
        ids = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id]
        return [i for i in ids if i is not None][:1]

    @property
    def longest(self) -> int:
        """How many tokens the model reads at once."""
        limit = getattr(self.live.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else 1 << 30

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without any special token."""
        return encode(self.tokenizer, texts)

    @torch.inference_mode()
    def bits(
        self, sequences: Sequence[Sequence[int]], firsts: Sequence[int], tick: Tick = nothing
    ) -> list[NDArray[np.float64]]:
        """The bits (-log2 p) of every token from position ``firsts[i]`` on, given all tokens before it.

        Position 0 has nothing before it and costs the bits of a uniform guess. A sequence that is longer than the
        model reads at once is cut; each later piece has at least half of that length before it.
        """
        bits = [np.full(len(ids) - first, math.log2(self.rows)) for ids, first in zip(sequences, firsts, strict=True)]
        pieces = [
            (i, left, at) for i, ids in enumerate(sequences) for left, at in _pieces(len(ids), firsts[i], self.longest)
        ]
        pieces.sort(key=lambda p: (len(sequences[p[0]][p[1] :][: self.longest]), p))
        for batch in _batches(pieces, [min(len(sequences[i]) - left, self.longest) for i, left, _ in pieces]):
            ids = [list(sequences[i][left : left + self.longest]) for i, left, _ in batch]
            skips = [at - left for _, left, at in batch]
            for (i, _, at), piece in zip(batch, self._batch_bits(ids, skips), strict=True):
                bits[i][at - firsts[i] : at - firsts[i] + len(piece)] = piece
            tick(sum(at <= max(firsts[i], 1) for i, _, at in batch))
        return bits

    @property
    def rows(self) -> int:
        """How many rows the model's head has."""
        return int(self.live.config.get_text_config().vocab_size)

    def _batch_bits(self, sequences: list[list[int]], firsts: list[int]) -> list[NDArray[np.float64]]:
        """Bits of the tokens from ``firsts`` on; causal, so padding on the right is never seen."""
        if self.scale is None:
            return [self._own_bits(ids, first) for ids, first in zip(sequences, firsts, strict=True)]
        width = max(map(len, sequences))
        ids_bt = torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences], device=self.device)
        hidden_btd = self.live.base_model(input_ids=ids_bt, use_cache=False).last_hidden_state
        spans = [(b, first - 1, len(ids) - 1) for b, (ids, first) in enumerate(zip(sequences, firsts, strict=True))]
        hidden_nd = torch.cat([hidden_btd[b, low:high] for b, low, high in spans])
        targets_n = torch.cat([ids_bt[b, low + 1 : high + 1] for b, low, high in spans])
        log_n = (
            torch.cat(
                [
                    self._log_probabilities(hidden_nd[at : at + BLOCK_TOKENS], targets_n[at : at + BLOCK_TOKENS])
                    for at in range(0, len(targets_n), BLOCK_TOKENS)
                ]
            )
            if len(targets_n)
            else torch.zeros(0)
        )
        bits_n = (-log_n.double() / math.log(2)).cpu().numpy()
        ends = np.cumsum([high - low for _, low, high in spans])[:-1]
        return list(np.split(bits_n, ends))

    def _log_probabilities(self, hidden_nd: Tensor, targets_n: Tensor) -> Tensor:
        """Natural log-probability of each target, fp32, with a block of vocabulary rows at a time."""
        head = self.live.get_output_embeddings()
        weight_vd, bias_v = head.weight, getattr(head, "bias", None)
        assert self.scale is not None
        sums, targets = [], torch.zeros(len(targets_n), device=hidden_nd.device)
        for at in range(0, weight_vd.shape[0], BLOCK_ROWS):
            rows = slice(at, at + BLOCK_ROWS)
            logits_nv = torch.nn.functional.linear(hidden_nd, weight_vd[rows], None if bias_v is None else bias_v[rows])
            logits_nv = self.scale(logits_nv).float()
            # One fused pass; logsumexp itself takes three and was measured twice as slow on a CPU.
            sums.append(logits_nv[:, 0] - torch.log_softmax(logits_nv, dim=-1)[:, 0])
            place_n = targets_n - at
            here_n = (place_n >= 0) & (place_n < logits_nv.shape[1])
            found_n = logits_nv.gather(1, place_n.clamp(0, logits_nv.shape[1] - 1)[:, None])[:, 0]
            targets = torch.where(here_n, found_n, targets)
        return targets - torch.logsumexp(torch.stack(sums, dim=-1), dim=-1)

    def _own_bits(self, ids: list[int], first: int) -> NDArray[np.float64]:
        """The same from the model's own logits of one sequence."""
        logits_tv = self.live(input_ids=torch.tensor([ids], device=self.device), use_cache=False).logits[0]
        targets_n = torch.tensor(ids[first:], device=self.device, dtype=torch.long)
        losses_n = torch.nn.functional.cross_entropy(logits_tv[first - 1 : -1].float(), targets_n, reduction="none")
        return np.asarray((losses_n.double() / math.log(2)).cpu().numpy())

    @torch.inference_mode()
    def _probe(self) -> Callable[[Tensor], Tensor] | None:
        """Refuse a model that looks ahead; find out how logits come from hidden states, or return None."""
        some = [i % self.rows for i in (5, 7, 11, 13)]
        ids_bt = torch.tensor([some, [*some[:3], 17 % self.rows]], device=self.device)
        logits_btv = self.live(input_ids=ids_bt, use_cache=False).logits.float()
        size = float(logits_btv.abs().max()) + 1e-6
        if float((logits_btv[0, :3] - logits_btv[1, :3]).abs().max()) > PROBE * size:
            raise UserError(
                f"{type(self.live).__name__}: sees the text ahead and gives it no probability; give a causal model"
            )
        head = self.live.get_output_embeddings()
        if head is None or getattr(head, "weight", None) is None:
            return None
        hidden_btd = self.live.base_model(input_ids=ids_bt, use_cache=False).last_hidden_state
        if hidden_btd.shape[-1] != head.weight.shape[-1]:
            return None
        cap = getattr(self.live.config.get_text_config(), "final_logit_softcapping", None)
        scale: Callable[[Tensor], Tensor] = (lambda x: x) if cap is None else (lambda x: torch.tanh(x / cap) * cap)
        mine_btv = scale(head(hidden_btd)).float()
        same = mine_btv.shape == logits_btv.shape and float((mine_btv - logits_btv).abs().max()) <= PROBE * size
        return scale if same else None

    def greedy(
        self,
        prompts: Sequence[str],
        done: Callable[[int, str], bool],
        tokens: int,
        batch: int = 16,
        tick: Tick = nothing,
    ) -> list[str]:
        """Continue each prompt with the likeliest token until ``done(index, text so far)`` or ``tokens`` are made.

        Text so far ends at its last whole character. Prompts of similar length are padded on the left together.
        """
        room = max(1, self.longest - tokens - len(self.start))
        ids = [self.start + one[-room:] for one in self.encode(list(prompts))]
        order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
        made = [""] * len(ids)
        for at in range(0, len(order), batch):
            chosen = order[at : at + batch]
            for i, text in zip(chosen, self._greedy([ids[i] for i in chosen], chosen, done, tokens), strict=True):
                made[i] = text
            tick(len(chosen))
        return made

    @torch.inference_mode()
    def _greedy(
        self, ids: list[list[int]], names: list[int], done: Callable[[int, str], bool], tokens: int
    ) -> list[str]:
        from transformers import StoppingCriteria

        width = max(map(len, ids))
        if width == 0:
            raise UserError(
                "an empty prompt and a model without a start token: nothing can be continued; give some text"
            )
        ids_bt = torch.tensor([[0] * (width - len(one)) + one for one in ids], device=self.device)
        seen_bt = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in ids], device=self.device)
        reader = self

        class Done(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
                texts = [reader.decode(row) for row in input_ids[:, width:].tolist()]
                flags = [done(name, text) for name, text in zip(names, texts, strict=True)]
                return torch.tensor(flags, dtype=torch.bool, device=input_ids.device)

        made_bt = self._generate(ids_bt, seen_bt, Done(), tokens)
        return [self.decode(row) for row in made_bt[:, width:].tolist()]

    @torch.inference_mode()
    def write(self, ids_bt: Tensor, tokens: int) -> list[float]:
        """Write exactly ``tokens`` tokens greedily; the clock at the start and after each of them, in seconds."""
        from transformers import StoppingCriteria

        times = [time.perf_counter()]

        class Clock(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
                if input_ids.device.type != "cpu":
                    torch.cuda.synchronize(input_ids.device)
                times.append(time.perf_counter())
                return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

        self._generate(ids_bt, torch.ones_like(ids_bt), Clock(), tokens, least=tokens)
        return times

    def _generate(self, ids_bt: Tensor, seen_bt: Tensor, criterion: Any, tokens: int, least: int = 0) -> Tensor:
        """Call ``generate`` greedily, whatever the folder's own generation settings say."""
        from transformers import GenerationConfig, StoppingCriteriaList

        stop, padding = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        plan = GenerationConfig(
            max_new_tokens=tokens,
            min_new_tokens=least,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=stop,
            pad_token_id=padding if padding is not None else stop or 0,
        )
        made_bt: Tensor = self.live.generate(
            ids_bt,
            attention_mask=seen_bt,
            generation_config=plan,
            stopping_criteria=StoppingCriteriaList([criterion]),
        )
        return made_bt

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens up to the last whole character; special tokens give none."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).rstrip("\ufffd")


def _pieces(length: int, first: int, longest: int) -> Iterator[tuple[int, int]]:
    """Yield (left end, first position scored) of the pieces that score positions ``max(first, 1)..length-1``."""
    at = max(first, 1)
    while at < length:
        left = 0 if length <= longest else max(0, min(at - longest // 2, length - longest))
        if at < longest and at <= first:
            left = 0
        yield left, at
        at = left + longest


def _batches(pieces: Sequence[tuple[int, int, int]], lengths: Sequence[int]) -> Iterator[list[tuple[int, int, int]]]:
    """Cut pieces in order of length into batches of at most BATCH_TOKENS, padding counted."""
    batch: list[tuple[int, int, int]] = []
    for piece, length in zip(pieces, lengths, strict=True):
        if batch and length * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
