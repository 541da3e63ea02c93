# SPDX-License-Identifier: Apache-2.0
"""What training costs, from sizes alone: operations, memory and seconds; the same formulas before and after a run."""

from __future__ import annotations

from dataclasses import dataclass

EXPECTED_UTILISATION = 0.45
COMPILE_SECONDS = 60.0
ACTIVATION_BYTES = 40.0
"""Bytes kept for the backward pass, by token and square root of the parameters: fitted, see LOG.md."""
RECOMPUTED = 0.1
"""Share of these that is left where layers are run again: the greatest of four shapes, see LOG.md."""
ROW_TOKENS = 4096
"""By default a step of more tokens than this runs as several rows, and their gradients are added in fp32."""
FIXED_BYTES = 1700 * 2**20
"""What Python, torch, the compiler, the text and the steps before take: measured, see LOG.md."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Floating-point operations, peak bytes of memory, bytes of one checkpoint, and seconds."""

    flops: float
    memory_bytes: int
    checkpoint_bytes: int
    seconds: float


def training_flops(tokens: float, matmul_parameters: int, attended: float = 0.0, attention_width: int = 0) -> float:
    """Operations to train on ``tokens`` tokens: 6 a parameter and token, plus causal attention.

    ``attended`` is the sum of squared sequence lengths; ``attention_width`` is heads times their width, summed over
    the layers. A causal layer does 2 * length^2 * width operations forward, and twice that backward.
    """
    return 6.0 * tokens * matmul_parameters + 6.0 * attended * attention_width


def tokens_within(seconds: float, parameters: int, matmul_flops: float) -> float:
    """Tokens that training probably sees in ``seconds``, compiling included: what :func:`plan` says, turned round."""
    return max(0.0, seconds - COMPILE_SECONDS) * matmul_flops * EXPECTED_UTILISATION / training_flops(1, parameters)


def plan(
    *,
    tokens: float,
    parameters: int,
    matmul_flops: float,
    batch_tokens: int,
    row_tokens: int = ROW_TOKENS,
    rows: int = 0,
    half: bool = True,
    recomputed: int = 0,
    utilisation: float = EXPECTED_UTILISATION,
) -> Cost:
    """Predict a run; ``matmul_flops`` is the machine's measured rate, ``half`` says that the compute is in bf16,
    ``recomputed`` how many parameters are in layers that are run a second time for the backward pass; these operations
    take time, but are none of the model's, so that ``flops`` leaves them out.

    Memory: live weights and gradients (2 bytes each in bf16, 4 in fp32), fp32 masters (bf16 only) and two fp32
    moments, what one row keeps for the backward pass, and what the process itself takes. Every parameter is taken to
    multiply every token, as it does where the head is tied.
    """
    flops = training_flops(tokens, parameters)
    state = parameters * (2 + 2 + 4 + 8 if half else 4 + 4 + 8)
    activations = min(batch_tokens, row_tokens) * parameters**0.5 * ACTIVATION_BYTES * (1 if half else 2)
    activations *= RECOMPUTED if recomputed else 1
    logits = min(64 * 2**20, batch_tokens * rows * 2)
    return Cost(
        flops=flops,
        memory_bytes=int(state + activations + logits + FIXED_BYTES),
        checkpoint_bytes=12 * parameters,
        seconds=COMPILE_SECONDS + (flops + 2.0 * tokens * recomputed) / (matmul_flops * utilisation),
    )
