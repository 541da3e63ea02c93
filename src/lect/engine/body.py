# SPDX-License-Identifier: Apache-2.0
"""A decoder as the engine sees it: token rows in, hidden rows out, a head, and layers that can be compiled.

Documents lie end to end in one row (``flat``), so there is one shape to compile and no padding between them; the
attention of :mod:`lect.engine.attention` keeps them apart. A model that does not take that attention runs one padded
row a document instead (``rows``): causal and padded on the right, so that no mask is needed and nothing mixes.
Which of the two holds is measured on the model itself before a run, not looked up. On leaving the ``with``, the
model is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lect.engine import attention
from lect.errors import UserError

PROBE = (5, 9, 7)
TOLERANCE = 0.05
BORDERS = 16
LAYER_LISTS = ("layers", "h", "blocks", "block")
OPTIONS = {"cpp.use_decompose_tanh": True}  # by exponentials: a third of the time of GELU on a CPU

Whole = Callable[[Callable[[], Tensor]], Tensor]


def itself(work: Callable[[], Tensor]) -> Tensor:
    """What the work gives."""
    return work()


@dataclass(frozen=True)
class Row:
    """T tokens of documents laid end to end: ids, positions inside each document, and the borders (int32)."""

    ids_t: Tensor
    positions_t: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, documents: list[list[int]], device: str = "cpu") -> Row:
        """Lay documents end to end."""
        lengths = torch.tensor([len(d) for d in documents])
        ids = torch.tensor([i for d in documents for i in d], device=device)
        positions = torch.cat([torch.arange(n) for n in lengths.tolist()]).to(device)
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).to(torch.int32)
        return cls(ids, positions, offsets)

    def borders(self) -> Tensor:
        """The offsets, padded with empty documents at the end: 16, 64, 256 ... in all.

        Layers are compiled for one shape; of so few there are no more than the compiler keeps.
        """
        count = len(self.offsets)
        size = BORDERS
        while size < count:
            size *= 4
        return torch.cat([self.offsets, self.offsets[-1:].expand(size - count)])


class Body:
    """The stack below the head of a causal language model; see :func:`opened`."""

    def __init__(self, live: Any) -> None:
        self.live = live
        self.base: Any = live.base_model
        self.layers = _layers(self.base)
        self.whole: Whole = itself
        """Runs what uses parts outside of the layers, such as the head; gathers those where they are sharded."""
        self.cap = float(getattr(live.config, "final_logit_softcapping", None) or 0.0)
        self.factor = float(getattr(live.config, "logit_scale", None) or 1.0)
        self.factor /= float(getattr(live.config, "logits_scaling", None) or 1.0)
        self.layout = "rows"
        self.recomputes = False

    @property
    def head(self) -> nn.Parameter:
        """The matrix of the logits, (V, D)."""
        weight: nn.Parameter = self.live.get_output_embeddings().weight
        return weight

    def hidden(self, row: Row) -> Tensor:
        """Hidden states under the head's factor, one row a token: (T, D)."""
        states_td = self._flat(row) if self.layout == "flat" else self._rows(row)
        return states_td if self.factor == 1.0 else states_td * self.factor

    def _flat(self, row: Row) -> Tensor:
        output = self.base(
            input_ids=row.ids_t[None],
            position_ids=row.positions_t[None],
            use_cache=False,
            cu_seq_lens_q=row.borders(),
        )
        states: Tensor = output[0][0]
        return states

    def _rows(self, row: Row) -> Tensor:
        lengths = row.offsets.diff().tolist()
        ids_nt = nn.utils.rnn.pad_sequence(list(torch.split(row.ids_t, lengths)), batch_first=True)
        states_ntd = self.base(input_ids=ids_nt, use_cache=False)[0]
        return torch.cat([states_d[:length] for states_d, length in zip(states_ntd, lengths, strict=True)])

    def compile(self) -> None:
        """Compile each layer; layers of one kind share their code."""
        import torch._inductor as inductor

        known = inductor.list_options()
        options = {name: value for name, value in OPTIONS.items() if name in known}
        for layer in self.layers:
            layer.compile(dynamic=False, options=options)
        self.recompute(self.recomputes)

    def uncompile(self) -> None:
        """Run the layers as written again."""
        for layer in self.layers:
            layer._compiled_call_impl = None
        self.recompute(self.recomputes)

    def recompute(self, on: bool) -> None:
        """Keep of each layer only what goes into it, and run it a second time when its gradients are due.

        The layer runs compiled both times where it is compiled. Nothing is drawn in it, so no random state is kept.
        """
        self.recomputes = on
        for layer in self.layers if on else ():
            call = layer._compiled_call_impl or layer._call_impl
            again = partial(checkpoint, call, use_reentrant=False, preserve_rng_state=False)
            layer._compiled_call_impl = again

    def choose_layout(self) -> None:
        """Take the flat layout if documents in it are apart and come out as they do alone; else keep rows."""
        size = self.live.get_input_embeddings().weight.shape[0]
        documents = [[(17 * n + 31 * i + 5) % size for i in range(length)] for n, length in enumerate(PROBE)]
        changed = [[(i + 7) % size for i in documents[0]], *documents[1:]]
        device = str(self.head.device)
        before = self.live.config._attn_implementation
        alone = self._rows(Row.of(documents, device))
        _switch(self.live, attention.NAME)
        try:
            first, second = (self._flat(Row.of(d, device)) for d in (documents, changed))
            apart = torch.equal(first[PROBE[0] :], second[PROBE[0] :])
            differs = (first - alone).float().norm() / alone.float().norm()
            if apart and differs.item() <= TOLERANCE:
                self.layout = "flat"
        except (NotImplementedError, TypeError, ValueError, RuntimeError):
            pass
        finally:
            if self.layout != "flat":
                _switch(self.live, before)
        if self.layout == "flat" and self.head.is_cuda:
            attention.Kernels.flash = attention.agrees(*head_sizes(self.live), device)

    def check_head(self) -> None:
        """Refuse a model whose logits are not this body's hidden states times its head."""
        device = str(self.head.device)
        row = Row.of([list(range(3, 3 + PROBE[0]))], device)
        expected_tv = self.live(input_ids=row.ids_t[None], use_cache=False).logits[0].float()
        logits_tv = self.hidden(row).float() @ self.head.float().t()
        if self.cap:
            logits_tv = self.cap * torch.tanh(logits_tv / self.cap)
        if logits_tv.shape != expected_tv.shape or not torch.allclose(
            logits_tv, expected_tv, rtol=TOLERANCE, atol=TOLERANCE * expected_tv.abs().max().item()
        ):
            name = type(self.live).__name__
            raise UserError(
                f"{name}: its logits are not its hidden states times its head, so the engine cannot train it; "
                "use a plain causal language model"
            )


@contextmanager
def opened(live: Any, flat: bool = True) -> Iterator[Body]:
    """A checked :class:`Body` of ``live``; a model that is no causal decoder is a UserError.

    Without ``flat`` the layout is ``rows``, whatever the model would take.
    """
    name = type(live).__name__
    if "CausalLM" not in name and "LMHead" not in name:
        raise UserError(f"{name} predicts no next token, so continued pretraining cannot train it; use a causal model")
    training, before = live.training, live.config._attn_implementation
    attention_table = _attention_table()
    attention_table[attention.NAME] = attention.attend
    body = Body(live)
    table = live.get_input_embeddings()
    dense = table.sparse
    live.eval()
    try:
        # Rows that were looked up are added to the gradient of the head where both are one tensor, without a table of
        # zeros for it.
        table.sparse = table.weight is body.head
        with torch.no_grad():
            body.check_head()
            if flat:
                body.choose_layout()
        yield body
    finally:
        table.sparse = dense
        body.recomputes = False
        body.uncompile()
        attention.Kernels.flash = False
        _switch(live, before)
        live.train(training)
        attention_table.pop(attention.NAME, None)


def head_sizes(live: Any) -> tuple[int, int, int]:
    """How many query heads and key heads a layer has, and how wide one is; no heads where the model says nothing."""
    config = live.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    groups = int(getattr(config, "num_key_value_heads", 0) or heads)
    return heads, groups, int(getattr(config, "head_dim", 0) or config.hidden_size // max(1, heads))


def _attention_table() -> Any:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS


def _switch(live: Any, name: str) -> None:
    """Set the attention of every part of the model, past the checks that know only shipped names."""
    configs = {id(m.config): m.config for m in live.modules() if hasattr(m, "config")}
    for config in configs.values():
        config._attn_implementation_internal = name


def _layers(base: Any) -> list[nn.Module]:
    """The decoder layers, or a UserError."""
    for name in LAYER_LISTS:
        for owner in (base, getattr(base, "decoder", None)):
            layers = getattr(owner, name, None)
            if isinstance(layers, nn.ModuleList):
                return list(layers)
    raise UserError(f"{type(base).__name__}: no list of decoder layers found; use a decoder of a known family")
