# SPDX-License-Identifier: Apache-2.0
"""How near a training step comes to the machine: to its own matrix products alone, and to one large square product.

The trimmed model is trained for a while at each number of tokens an update, three times; the figures are medians.
Before and after each time, all matrix products of such a step run alone, one after another on operands that are not in
the cache: forward, and the two of the backward pass, of every linear layer, those of the head in the blocks of the
loss, and attention's (two forward, and four backward, or five where its weights are not kept) in its blocks over rows
of the target text. Norms, the optimiser and the data are in the step and not in the products; the share without
attention's products stands in the details. Last, the memory that the loss over a large vocabulary takes beyond what it
gets and gives. Products and loss keep freed memory in the process as the training does.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.harness import at_least, at_most, ratio
from bench.vocab.place import Place, corpus

CONFIG: dict[str, Any] = {
    "model": "gemma-3-270m",
    "text": "bundled:eu",
    "keep": "bundled:en",
    "batch_tokens": [512, 2048],
    "turn_tokens": 20_480,
    "turns": 3,
    "rounds": 3,
    "loss": {"tokens": 4096, "rows": 262_144, "width": 640},
}
LOSS = """
import json, sys
import torch
from lect import machine
from lect.engine import loss
told = json.loads(sys.argv[1])
kernels = loss.Kernels.compiled() if told["compiled"] else loss.Kernels()

def run(tokens, rows):
    hidden = torch.randn(tokens, told["width"]).bfloat16().requires_grad_()
    head = torch.randn(rows, told["width"]).bfloat16().requires_grad_()
    target = torch.randint(rows, (tokens,))
    weight = torch.full((tokens,), 1 / tokens)
    machine.release_memory(collect=True)
    with machine.held_memory(), machine.Meter() as meter:
        before = machine.peak_memory_bytes()
        loss.blocked_loss(hidden, head, target, weight, 0.0, kernels).backward()
    return meter.peak_memory_bytes - before - 2 * (hidden.numel() + head.numel())

run(64, 4096)
print(run(told["tokens"], told["rows"]))
"""
GOALS = {}
for _tokens in CONFIG["batch_tokens"]:
    GOALS[f"share_of_products_{_tokens}"] = at_least(0.75)
    GOALS[f"share_of_square_{_tokens}"] = at_least(0.40)
GOALS["loss_bytes_compiled"] = at_most(64 * 2**20)
CODE = ["src/lect/engine", "src/lect/stages/pretrain", "src/lect/parts/packing", "src/lect/machine.py"]
CODE += ["src/lect/stages/vocab/trim.py", "bench/vocab/place.py"]
ORDER = 70
ATTENTION_ROWS = 10


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One trim; for each size products and training in turns."""
    from lect import artefacts, models

    shutil.rmtree(folder / "run", ignore_errors=True)
    place, base = Place(folder / "run"), artefacts.Model(models.resolve(config["model"]))
    read = corpus(place, config["text"], config["keep"])
    trimmed = place.step("trim", "vocab/trim", {}, model=base, corpus=read)[0]
    outline = trimmed.outline()
    found: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    for tokens in config["batch_tokens"]:
        rows = offsets(trimmed, read, tokens, ATTENTION_ROWS)
        told = {"tokens": config["turn_tokens"], "batch_tokens": tokens, "max_length": tokens}
        told |= {"evaluations": 1, "evaluation_tokens": 256}

        sides, turns = [alone(outline, rows, tokens, config["rounds"])], []
        for turn in range(config["turns"]):
            name = f"train-{tokens}-{turn}"
            made, facts = place.step(name, "pretrain/continue", told, base=base, model=trimmed, corpus=read)
            shutil.rmtree(made.folder)
            sides.append(alone(outline, rows, tokens, config["rounds"]))
            linear, attention, square = (statistics.fmean(pair) for pair in zip(*sides[-2:], strict=True))
            seconds = facts["step_seconds"] / facts["steps"]
            rate = facts["flops"] / facts["step_seconds"]
            turns.append(
                {
                    "step_seconds": seconds,
                    "products_seconds": linear,
                    "attention_products_seconds": attention,
                    "share_of_products": ratio(linear + attention, seconds),
                    "share_without_attention": ratio(linear, seconds),
                    "share_of_square": ratio(rate, square),
                    "tokens_per_second": facts["tokens_per_second"],
                    "flops_per_second": rate,
                    "square_flops_per_second": square,
                    "filled": facts["filled"],
                }
            )
            print(tokens, turns[-1], flush=True)
        for figure in ("share_of_products", "share_of_square", "tokens_per_second"):
            found[f"{figure}_{tokens}"] = statistics.median(turn[figure] for turn in turns)
        details[str(tokens)] = turns
    for name, compiled in (("compiled", True), ("plain", False)):
        command = [sys.executable, "-c", LOSS, json.dumps({**config["loss"], "compiled": compiled})]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[f"loss_bytes_{name}"] = float(said.split()[-1])
    return {"figures": found, "details": details}


def alone(outline: Any, rows: list[list[int]], tokens: int, rounds: int) -> tuple[float, float, float]:
    """Seconds of a step's products, without attention and of attention, and the rate of a square one."""
    from lect import machine

    with machine.held_memory():
        return products(outline, tokens, rounds), attention_products(outline, rows), machine.matmul_flops()


def products(outline: Any, tokens: int, rounds: int) -> float:
    """Seconds that all matrix products of one step take alone; the median of rounds."""
    import torch
    from torch import nn

    from lect.engine.loss import BLOCK_BYTES

    head = outline.get_output_embeddings()
    linear = [(m.out_features, m.in_features) for m in outline.modules() if isinstance(m, nn.Linear) and m is not head]
    rows, width = head.weight.shape
    block = max(256, BLOCK_BYTES // (2 * tokens) // 64 * 64)
    blocks = [(min(block, rows - low), width) for low in range(0, rows, block)]
    operands = {
        (n, k): tuple(torch.randn(shape).bfloat16() for shape in ((tokens, k), (n, k), (tokens, n)))
        for n, k in {*linear, *blocks}
    }
    cold = torch.empty(64 * 2**20)
    times = []
    for _ in range(rounds + 1):
        total = 0.0
        for shape in [*linear, *blocks]:
            in_tk, weight_nk, out_tn = operands[shape]
            cold.fill_(1.0)
            start = time.perf_counter()
            in_tk @ weight_nk.t()
            out_tn @ weight_nk
            out_tn.t() @ in_tk
            total += time.perf_counter() - start
        times.append(total)
    return statistics.median(times[1:])


def offsets(model: Any, read: Any, tokens: int, rows: int) -> list[list[int]]:
    """Where the documents of some rows of the target text begin and end, laid as the training lays them."""
    from lect.engine.data import Encoded, Ends, Stream
    from lect.registry import build_part

    tokenizer = model.tokenizer()
    documents = [document for document in read.documents("target") if document.split == "train"]
    packing = build_part("packing", "one_document")
    told = {"longest": tokens, "room": tokens, "seed": 0, "device": "cpu"}
    stream = Stream(Encoded.of(tokenizer, documents), packing, Ends.of(tokenizer), **told)
    return [stream.batch(number).row.offsets.tolist() for number in range(rows)]


def attention_products(outline: Any, rows: list[list[int]]) -> float:
    """Seconds that the products of attention take alone in one step; the mean over the rows."""
    import torch

    from lect.engine.attention import blocks, kept

    config = outline.config.get_text_config()
    heads, groups, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    windows = [config.sliding_window if kind == "sliding_attention" else 0 for kind in config.layer_types]
    total = 0.0
    for row in rows:
        q = torch.randn(groups, heads // groups * row[-1], width).bfloat16()
        k = torch.randn(groups, row[-1], width).bfloat16()
        for window in windows:
            scores = 2 if kept(q.view(-1, heads, width), window) else 3  # the slope of the weights; once more backward
            for block in blocks(row, window):
                q_grd = q[:, : (block.stop - block.first) * heads // groups]
                k_gkd = k[:, block.low : block.stop]
                weights_grk = torch.bmm(q_grd, k_gkd.transpose(1, 2))
                start = time.perf_counter()
                for _ in range(scores):
                    torch.bmm(q_grd, k_gkd.transpose(1, 2))
                for _ in range(2):  # values, and the slope of the queries
                    torch.bmm(weights_grk, k_gkd)
                for _ in range(2):  # the slopes of keys and values
                    torch.bmm(weights_grk.transpose(1, 2), q_grd)
                total += time.perf_counter() - start
    return total / len(rows)
