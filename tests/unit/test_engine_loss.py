# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from lect.engine import loss
from lect.engine.loss import blocked_loss


def naive(hidden, head, target, weight, cap):
    """The equation: every logit at once."""
    logits = hidden @ head.t()
    if cap:
        logits = cap * torch.tanh(logits / cap)
    return (torch.nn.functional.cross_entropy(logits, target, reduction="none") * weight).sum()


def problem(tokens=37, rows=1000, width=24, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(rows, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    target = torch.randint(rows, (tokens,), generator=generator)
    target[:3] = torch.tensor([0, rows - 1, 255])
    weight = torch.rand(tokens, generator=generator, dtype=torch.float64)
    weight[-4:] = 0
    return hidden, head, target, weight


@pytest.mark.parametrize("cap", [0.0, 5.0])
@pytest.mark.parametrize("keep_bytes", [0, 2**30])
def test_equals_cross_entropy_over_all_logits(cap, keep_bytes, monkeypatch):
    monkeypatch.setattr(loss, "BLOCK_BYTES", 1)
    monkeypatch.setattr(loss, "KEEP_BYTES", keep_bytes)
    hidden, head, target, weight = problem()
    expected = naive(hidden, head, target, weight, cap)
    expected_grads = torch.autograd.grad(3 * expected, (hidden, head))
    found = blocked_loss(hidden, head, target, weight, cap)
    grads = torch.autograd.grad(3 * found, (hidden, head))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_bf16_stays_close_to_fp64():
    exact = problem()
    expected = torch.autograd.grad(naive(*exact, 0.0), exact[:2])
    half = problem(dtype=torch.bfloat16)
    grads = torch.autograd.grad(blocked_loss(*half[:3], half[3].float()), half[:2])
    for one, other in zip(grads, expected, strict=True):
        assert (one.double() - other).norm() / other.norm() < 0.02


def test_without_gradients_it_makes_none_and_huge_logits_stay_finite():
    hidden, head, target, weight = problem()
    with torch.no_grad():
        value = blocked_loss(hidden * 1e4, head, target, weight)
    assert value.isfinite()
    assert not value.requires_grad


def test_logits_of_a_batch_never_exist_at_once():
    """Beyond the head's own gradient, a large vocabulary takes under 64 MB (with a little for what Python holds)."""
    seen = []
    hidden = torch.randn(256, 8, dtype=torch.bfloat16).requires_grad_()
    head = torch.randn(262_144, 8, dtype=torch.bfloat16).requires_grad_()

    def watch(logits, sums, weight, cap):
        seen.append(logits.numel() * logits.element_size())
        return loss.slope(logits, sums, weight, cap)

    target = torch.arange(256) * 1000
    blocked_loss(hidden, head, target, torch.full((256,), 1 / 256), 0.0, loss.Kernels(slope=watch)).backward()
    assert sum(seen) == 256 * 262_144 * 2
    assert max(seen) <= loss.BLOCK_BYTES
    assert head.grad.isfinite().all()


@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_weights_made_of_the_losses_are_constants_to_the_gradient(cap):
    hidden, head, target, weight = problem()
    expected = naive(hidden, head, target, weight * own(hidden, head, target, cap).detach().square(), cap)
    wanted = torch.autograd.grad(expected, (hidden, head))
    found = blocked_loss(hidden, head, target, weight, cap, weigh=torch.square)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(torch.autograd.grad(found, (hidden, head)), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def own(hidden, head, target, cap):
    """The loss of every token by itself."""
    return torch.stack([naive(hidden, head, target, one, cap) for one in torch.eye(len(target), dtype=hidden.dtype)])


def lesson(tokens=37, rows=1000, width=16, dtype=torch.float64, **knobs):
    """A teacher for :func:`problem`, of another width and with three rows more."""
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, width, generator=draw, dtype=torch.float64).to(dtype)
    head = torch.randn(rows + 3, width, generator=draw, dtype=torch.float64).to(dtype)
    return loss.Teacher(hidden_ne=hidden, head_ve=head, **knobs)


def taught(hidden, head, target, weight, cap, teacher):
    """The equation: (1 - s) times cross-entropy, plus s times the cross-entropy under the teacher's softmax."""
    soft = teacher.hidden_ne @ teacher.head_ve[: len(head)].t()
    if teacher.cap:
        soft = teacher.cap * torch.tanh(soft / teacher.cap)
    logits = hidden @ head.t()
    if cap:
        logits = cap * torch.tanh(logits / cap)
    between = -(torch.softmax(soft / teacher.temperature, -1) * torch.log_softmax(logits, -1)).sum(-1)
    plain = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return (((1 - teacher.share) * plain + teacher.share * between) * weight).sum()


@pytest.mark.parametrize(("cap", "soft_cap"), [(0.0, 0.0), (5.0, 3.0)])
@pytest.mark.parametrize("share", [0.667, 1.0])
@pytest.mark.parametrize("keep_bytes", [0, 2**30])
def test_a_teacher_takes_its_share_of_loss_and_gradient(cap, soft_cap, share, keep_bytes, monkeypatch):
    monkeypatch.setattr(loss, "BLOCK_BYTES", 1)
    monkeypatch.setattr(loss, "KEEP_BYTES", keep_bytes)
    hidden, head, target, weight = problem()
    teacher = lesson(share=share, temperature=0.6, cap=soft_cap)
    expected = taught(hidden, head, target, weight, cap, teacher)
    expected_grads = torch.autograd.grad(3 * expected, (hidden, head))
    found = blocked_loss(hidden, head, target, weight, cap, teacher=teacher)
    grads = torch.autograd.grad(3 * found, (hidden, head))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(blocked_loss(hidden, head, target, weight, cap, teacher=teacher), found)


def test_a_teacher_in_bf16_stays_close_to_fp64():
    exact, half = problem(), problem(dtype=torch.bfloat16)
    knobs = {"share": 0.667, "temperature": 0.5}
    expected = torch.autograd.grad(taught(*exact, 0.0, lesson(**knobs)), exact[:2])
    found = blocked_loss(*half[:3], half[3].float(), teacher=lesson(dtype=torch.bfloat16, **knobs))
    for one, other in zip(torch.autograd.grad(found, half[:2]), expected, strict=True):
        assert (one.double() - other).norm() / other.norm() < 0.02


def test_logits_of_a_teacher_never_exist_at_once_either():
    """Its blocks and the student's are together no larger than the student's alone."""
    seen = []
    hidden = torch.randn(256, 8, dtype=torch.bfloat16).requires_grad_()
    head = torch.randn(131_072, 8, dtype=torch.bfloat16).requires_grad_()
    other = torch.randn(256, 4, dtype=torch.bfloat16), torch.randn(131_072, 4, dtype=torch.bfloat16)
    teacher = loss.Teacher(hidden_ne=other[0], head_ve=other[1], share=0.5)

    def watch(logits, *given):
        seen.append(logits.numel() * logits.element_size() + given[3].numel() * given[3].element_size())
        return loss.teach(logits, *given)

    for rows in (65_536, 131_072):  # kept between the passes, and made again
        seen.clear()
        given = hidden, head[:rows], torch.arange(256) * 200, torch.full((256,), 1 / 256)
        blocked_loss(*given, 0.0, loss.Kernels(teach=watch), teacher=teacher).backward()
        assert sum(seen) == 2 * 256 * rows * 2
        assert max(seen) <= loss.BLOCK_BYTES
    assert head.grad.isfinite().all()


def filtered(hidden, head, target, weight, cap, least, size):
    """Gradients block by block and token by token, and the share of the softmax's places that they rest on."""
    logits = hidden @ head.t()
    bend = 1 - torch.tanh(logits / cap) ** 2 if cap else torch.ones_like(logits)
    chances = torch.softmax(cap * torch.tanh(logits / cap) if cap else logits, -1)
    order = (hidden[weight > 0] @ head.t()).mean(0).argsort(descending=True)
    slope = torch.zeros_like(logits)
    places = 0
    for token, answer in enumerate(target.tolist()):
        for block in order.split(size):
            if weight[token] > 0 and ((chances[token, block] >= least).any() or answer in block.tolist()):
                slope[token, block] = chances[token, block]
                slope[token, answer] = chances[token, answer] - 1
                places += len(block)
    slope = slope * bend * weight[:, None]
    return (slope @ head).detach(), (slope.t() @ hidden).detach(), places / logits.numel()


@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_the_filter_leaves_out_blocks_below_the_threshold(cap, monkeypatch):
    monkeypatch.setattr(loss, "FILTER_ROWS", 16)
    hidden, head, target, weight = problem()
    *expected, share = filtered(hidden, head, target, weight, cap, 1e-3, 16)
    assert 0.05 < share < 0.9
    found = blocked_loss(hidden, head, target, weight, cap, least=1e-3)
    grads = torch.autograd.grad(3 * found, (hidden, head))
    torch.testing.assert_close(found, naive(hidden, head, target, weight, cap), rtol=1e-5, atol=1e-5)
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, 3 * other, rtol=1e-4, atol=1e-4)
    every = blocked_loss(hidden, head, target, weight, cap, weigh=torch.square, least=1e-30)
    plain = blocked_loss(hidden, head, target, weight, cap, weigh=torch.square)
    for one, other in zip(*(torch.autograd.grad(v, (hidden, head)) for v in (every, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    nothing = blocked_loss(hidden, head, target, torch.zeros_like(weight), cap, least=1e-3)
    assert all(grad.count_nonzero() == 0 for grad in torch.autograd.grad(nothing, (hidden, head)))


def test_the_filter_stays_within_the_rounding_of_bf16(monkeypatch):
    """At 2**-16 no further from fp64 than without it, to a tenth, with less than half of the work."""
    monkeypatch.setattr(loss, "FILTER_ROWS", 16)
    exact, half, seen = problem(), problem(dtype=torch.bfloat16), []

    def watch(logits, *given):
        seen.append(logits.numel())
        return loss.slope(logits, *given)

    expected = torch.autograd.grad(naive(*exact, 0.0), exact[:2])
    far = []
    for least in (0.0, 2**-16):
        value = blocked_loss(*half[:3], half[3].float(), 0.0, loss.Kernels(slope=watch), least=least)
        pairs = zip(torch.autograd.grad(value, half[:2]), expected, strict=True)
        far.append([((one.double() - other).norm() / other.norm()).item() for one, other in pairs])
    assert sum(seen[1:]) < seen[0]
    assert all(other < 1.1 * one < 0.022 for one, other in zip(*far, strict=True)), far
