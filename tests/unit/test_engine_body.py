# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import warnings
from unittest import mock

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen

from lect.engine import attention
from lect.engine.attention import document_attention
from lect.engine.body import Row, opened
from lect.errors import UserError
from lect.testing import pico

DOCUMENTS = [[5, 6, 7, 8, 9, 10] * 4, [11, 12, 13] * 30, [40]]


def dense(q, k, v, offsets, window, scale):
    """The equation, with a full mask: same document, not later, inside the window."""
    total = q.shape[1]
    document = torch.bucketize(torch.arange(total), offsets[1:].long(), right=True)
    distance = torch.arange(total)[:, None] - torch.arange(total)
    seen = (document[:, None] == document) & (distance >= 0)
    if window:
        seen &= distance < window
    repeat = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(repeat, 0), v.repeat_interleave(repeat, 0)
    return torch.softmax((q @ k.transpose(1, 2) * scale).masked_fill(~seen, float("-inf")), -1) @ v


@pytest.mark.parametrize("borders", [[0, 1, 8, 208, 333, 783], [0, 261, 522, 783, 783], [0, 783], [*range(0, 784, 9)]])
@pytest.mark.parametrize("keep", [0, attention.KEEP_BYTES])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("window", [0, 5, 150])
def test_attention_equals_a_full_mask(groups, window, keep, borders, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 64)
    monkeypatch.setattr(attention, "KEEP_BYTES", keep)
    torch.manual_seed(0)
    offsets = torch.tensor(borders, dtype=torch.int32)
    q = torch.randn(4, 783, 8, requires_grad=True)
    k, v = (torch.randn(groups, 783, width, requires_grad=True) for width in (8, 6))
    upstream = torch.randn(4, 783, 6)
    expected = dense(q, k, v, offsets, window, 0.3)
    found = document_attention(*(x.transpose(0, 1).contiguous() for x in (q, k, v)), offsets, window, 0.3).transpose(
        0, 1
    )
    torch.testing.assert_close(found, expected)
    pairs = zip(
        torch.autograd.grad(found, (q, k, v), upstream),
        torch.autograd.grad(expected, (q, k, v), upstream),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(0, 900), min_size=1, max_size=9), st.sampled_from([0, 1, 5, 150, 512]))
def test_blocks_hold_each_query_of_a_document_once_and_few_shapes(lengths, window):
    offsets = [0, *itertools.accumulate(lengths)]
    seen = []
    for block in attention.blocks(offsets, window):
        real = range(offsets[-1])[block.real]
        assert 0 <= block.low <= block.first <= real[0] and real[-1] < block.stop <= offsets[-1]
        assert block.start <= real[0] and real[-1] < block.end
        assert list(range(block.first, block.stop)[block.inside]) == list(real)
        first_key = block.start if window == 0 else max(block.start, real[0] - window + 1)
        assert block.low <= first_key
        seen += real
        assert (block.stop - block.first) % attention.UNIT == 0 or block.stop == offsets[-1]
    assert seen == list(range(offsets[-1]))


@given(
    st.lists(st.integers(0, 900) | st.integers(1, 40) | st.integers(240, 257), min_size=1, max_size=9),
    st.sampled_from([0, 1, 5, 150, 512, 700, 2000]),
)
@example([1, 255], 0)
def test_kept_weights_have_room_for_any_documents(lengths, window):
    offsets = [0, *itertools.accumulate(lengths)]
    sizes = [(b.stop - b.first) * (b.stop - b.low) for b in attention.blocks(offsets, window)]
    row = torch.empty(offsets[-1], 3, 1, device="meta")
    with mock.patch.object(attention, "KEEP_BYTES", 1 << 40):
        assert 3 * sum(sizes) <= attention.kept(row, window)
    assert not attention.kept(row.expand(-1, -1, 4).repeat(1, 1 << 20, 1), window) or not offsets[-1]


@pytest.mark.parametrize(
    "borders, count", [([0, 4, 8, 12, 12], 3), ([0, 12], 1), ([0, 4, 12], 1), ([0, 4, 8, 11, 12], 1)]
)
def test_only_documents_of_one_length_are_multiplied_together(borders, count):
    found, inside = attention.even(12, torch.tensor(borders))
    assert found == count and inside[-1] == 12 // count
    assert attention._split(torch.arange(24.0).view(12, 2, 1), found).shape == (count, 12 // count, 2, 1)


def documented(left_shift=0):
    """torch's kernel for rows of documents, by its documentation: the window counts keys beside the query's own."""

    def varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
        assert torch.equal(cu_q, cu_k) and max_q == max_k >= cu_q.diff().max() and window_size[1] == 0
        assert enable_gqa or q.shape[1] == k.shape[1]
        left = window_size[0] + left_shift
        return dense(*(x.transpose(0, 1) for x in (q, k, v)), cu_q, left + 1 if left >= 0 else 0, scale).transpose(0, 1)

    return varlen_attn


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_kernel_of_torch_is_taken_where_it_is_seen_to_agree(groups, monkeypatch):
    given = 4, groups, 16, "cpu"
    assert not attention.agrees(*given), "there is none for the CPU"
    monkeypatch.setattr(varlen, "varlen_attn", documented(left_shift=1))
    assert not attention.agrees(*given), "its window is one key wider"
    monkeypatch.setattr(varlen, "varlen_attn", documented())
    with torch.no_grad():
        assert attention.agrees(*given)


@pytest.mark.parametrize("family", pico.CAUSAL)
def test_layers_give_the_same_states_by_either_kernel(family, monkeypatch):
    calls = []
    monkeypatch.setattr(varlen, "varlen_attn", lambda *a, **k: calls.append(1) or documented()(*a, **k))
    live, _ = pico.build(family)
    with opened(live.bfloat16()) as body:
        row, states = Row.of(DOCUMENTS), []
        for attention.Kernels.flash in (False, True):
            assert not calls
            states.append(body.hidden(row).float())
    assert len(calls) == len(body.layers)
    assert not attention.Kernels.flash, "left behind"
    assert (states[0] - states[1]).norm() <= 0.02 * states[0].norm()


@pytest.mark.filterwarnings("ignore")
def test_the_kernel_takes_what_it_is_given():
    """Its own check of names, types and shapes, on tensors without numbers."""
    with FakeTensorMode():
        shapes = [(60, count, 64) for count in (4, 2, 2)]
        q, k, v = (torch.empty(shape, dtype=torch.bfloat16, device="cuda") for shape in shapes)
        offsets = torch.empty(16, dtype=torch.int32, device="cuda")
        for window in (0, 50):
            assert attention.flash(q, k, v, offsets, window, 0.3).shape == q.shape


@pytest.mark.parametrize("family", pico.CAUSAL)
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_documents_of_a_row_never_see_each_other(family, flat, implementation):
    """Hidden states and gradients of a document are those it has alone, bit for bit untouched by the others."""
    live, _ = pico.build(family)
    live.set_attn_implementation(implementation)
    weight = live.get_input_embeddings().weight
    with opened(live, flat=flat) as body:
        assert body.layout == ("flat" if flat else "rows")
        at = slice(24, 114)
        states = body.hidden(Row.of(DOCUMENTS))
        changed = body.hidden(Row.of([[i + 50 for i in DOCUMENTS[0]], DOCUMENTS[1], [77]]))
        alone = body.hidden(Row.of([DOCUMENTS[1]]))
        assert torch.equal(states[at], changed[at])
        assert not torch.equal(states[:24], changed[:24])
        torch.testing.assert_close(states[at], alone, rtol=1e-4, atol=1e-5)
        direction = torch.randn(alone.shape, generator=torch.Generator().manual_seed(3))
        (grad,) = torch.autograd.grad((states[at] * direction).sum(), weight)
        (grad_alone,) = torch.autograd.grad((alone * direction).sum(), weight)
        grad, grad_alone = (g.to_dense() for g in (grad, grad_alone))  # rows looked up, where the head is the table
        touched = grad.abs().sum(1).nonzero()[:, 0].tolist()
        assert set(touched) == set(DOCUMENTS[1]), "tokens of another document got a gradient"
        torch.testing.assert_close(grad, grad_alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", pico.CAUSAL)
def test_head_and_states_give_the_models_own_logits(family):
    live, _ = pico.build(family)
    with torch.no_grad():
        expected = live(input_ids=torch.tensor([DOCUMENTS[0]])).logits[0]
        with opened(live) as body:
            found = body.hidden(Row.of(DOCUMENTS))[: len(DOCUMENTS[0])] @ body.head.t()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_model_whose_attention_is_its_own_runs_in_rows():
    live, _ = pico.build("llama")

    def stubborn(*args, **kwargs):
        raise NotImplementedError

    original = attention.attend
    try:
        attention.attend = stubborn
        with opened(live) as body:
            assert body.layout == "rows"
            assert body.hidden(Row.of(DOCUMENTS)).shape == (115, 32)
    finally:
        attention.attend = original


def test_nothing_is_left_behind_after_an_exception():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    live, _ = pico.build("gemma3")
    live.train()
    before = live.config._attn_implementation
    with pytest.raises(ZeroDivisionError), opened(live) as body:
        body.compile()
        raise ZeroDivisionError
    assert live.config._attn_implementation == before
    assert live.training
    assert attention.NAME not in ALL_ATTENTION_FUNCTIONS
    assert all(m._compiled_call_impl is None for m in live.modules())


def test_masked_models_and_odd_heads_are_refused():
    masked, _ = pico.build("bert")
    with pytest.raises(UserError, match="BertForMaskedLM predicts no next token"), opened(masked):
        pass
    live, _ = pico.build("llama")
    live.lm_head.bias = torch.nn.Parameter(torch.ones(live.config.vocab_size) * 9)
    with pytest.raises(UserError, match="not its hidden states times its head"), opened(live):
        pass


def test_layers_see_borders_of_few_shapes_and_attend_as_without_the_padding():
    counts = [*range(1, 300), 1023, 1024, 4000]
    rows = [Row.of([[7]] * count) for count in counts]
    assert {len(row.borders()) for row in rows} == {16, 64, 256, 1024, 4096}
    assert all(row.borders()[: len(row.offsets)].equal(row.offsets) for row in rows)
    row = Row.of([list(range(n)) for n in (1, 30, 2, 40)])
    torch.manual_seed(0)
    q, k, v = (torch.randn(73, heads, 8, requires_grad=True) for heads in (4, 2, 2))
    found = []
    for borders in (row.offsets, row.borders()):
        out = document_attention(q, k, v, borders, 9, 0.3)
        found.append([out, *torch.autograd.grad(out.cos().sum(), (q, k, v))])
    assert len(row.borders()) > len(row.offsets) and all(map(torch.equal, *found))


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_give_the_same_states_and_share_their_code():
    torch.compiler.reset()
    live, _ = pico.build("gemma3")
    row = Row.of(DOCUMENTS)
    with opened(live) as body:
        expected = body.hidden(row)
        body.compile()
        found = body.hidden(row)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        weight = body.head
        grads = [torch.autograd.grad(x.cos().sum(), weight)[0].to_dense() for x in (found, expected)]
        torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)
    assert all(module._compiled_call_impl is None for module in live.modules()), "compiled layers were left behind"
    torch.compiler.reset()


def gradients(family, recompute, flat, compiled=False):
    """Gradients of all weights, the bytes saved for the backward pass, and how often layers were run."""
    live, _ = pico.build(family)
    saved, calls = [0], [0]

    def pack(tensor):
        saved[0] += tensor.numel() * tensor.element_size()
        return tensor

    def count(*_):
        calls[0] += 1

    with opened(live, flat=flat) as body:
        body.recompute(recompute)
        if compiled:
            body.compile()
        else:
            body.layers[0].register_forward_pre_hook(count)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            states_td = body.hidden(Row.of(DOCUMENTS))
        states_td.pow(2).sum().backward()
    assert all(layer._compiled_call_impl is None for layer in body.layers), "left as it was"
    grads = {n: p.grad.to_dense() for n, p in live.named_parameters() if p.grad is not None}
    return grads, saved[0], calls[0]


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("family", pico.CAUSAL)
def test_layers_run_again_give_the_same_gradients_from_less(family, flat):
    expected, kept, once = gradients(family, False, flat)
    found, less, twice = gradients(family, True, flat)
    assert found.keys() == expected.keys() and (once, twice) == (1, 2)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert less < kept / 5


def test_compiled_layers_run_again_too():
    with warnings.catch_warnings(action="ignore"):  # the compiler's own
        try:
            expected, kept, _ = gradients("gemma3", False, True, compiled=True)
        except Exception as error:
            pytest.skip(f"nothing compiles here: {type(error).__name__}")
        found, less, _ = gradients("gemma3", True, True, compiled=True)
    torch.compiler.reset()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad)
    assert less < kept / 4
