# SPDX-License-Identifier: Apache-2.0
"""How fast each model reads and writes, and how much memory it takes, as a user of transformers meets it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from lect.artefacts import Corpus, Model
from lect.errors import UserError
from lect.machine import peak_memory_bytes
from lect.method import Range, Run, knobs
from lect.ops.scoring import Reader, compute_dtype
from lect.stages.evaluate.kinds import Reading, size_of, test_documents, windows

CARD = {
    "title": "Speed and memory in transformers",
    "paper": "",
    "claim": "bytes a second are tokens a second times the model's own bytes per token on the same text",
    "differs": [],
    "version": 1,
    "off": None,
    "needs": [],
    "xfail": {"same_seed": "it measures time, which never repeats to the byte"},
    "pico": {"rounds": 1, "tokens": 2, "prompt_bytes": 64, "memory": False},
}
SAMPLE_BYTES = 40_000


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The text that is read, and the sample on which bytes per token are counted."""

    prompt: str
    sample: list[str]


BYTES_A_TOKEN = 3


@knobs
class Speed(Reading):
    """Shows how many bytes a second each model reads and writes, and its peak memory.

    ``prefill`` is the time to the first new token of a prompt of your test text, ``decode`` that of each token
    after it, both in ``generate`` with a cache at batch 1; ``forward`` is one call that gives the logits of every
    token, as for scoring. What a model writes is its own affair, so written bytes are counted as tokens times its
    bytes per token on your test text. Base and adapted take turns and the median counts, so that a slow spell of
    the machine hits both. Peak memory is that of a fresh process that loads the model and reads the prompt; the
    libraries' own share is given beside it.
    """

    rounds: Annotated[int, Range(at_least=1, at_most=1000)] = 5
    """Turns of each model, after one that is not counted."""
    tokens: Annotated[int, Range(at_least=2, at_most=100000)] = 24
    """Tokens that are written in each turn."""
    prompt_bytes: Annotated[int, Range(at_least=16, at_most=1000000)] = 1024
    """Bytes of test text that are read in each turn."""
    memory: bool = True
    """Whether to start a fresh process for each model to measure its memory."""

    def material(self, run: Run, corpus: Corpus) -> Texts:
        """Test text of the target role, joined until it is long enough."""
        texts = [d.text for d in test_documents(corpus, "target")]
        if not texts:
            raise UserError("evaluate/speed: no target text is in the test split; give more, or raise split.test")
        joined = "\n\n".join(texts)
        while size_of(joined) < self.prompt_bytes:
            joined += "\n\n" + joined
        return Texts(
            prompt=next(windows(joined, self.prompt_bytes)),
            sample=[next(windows("\n\n".join(texts), SAMPLE_BYTES))],
        )

    def measurements(self, run: Run, subjects: dict[str, Model], material: Texts) -> dict[str, Any]:
        """Both models in memory, taking turns; then each alone in a process of its own."""
        dtype = compute_dtype(self.precision, subjects["base"], run.device)
        name_of_type = str(dtype).removeprefix("torch.")
        run.fact(precision=name_of_type, threads=torch.get_num_threads(), load_average=list(os.getloadavg()))
        readers = {name: Reader.open(model, dtype, run.device) for name, model in subjects.items()}
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in readers}
        for turn in range(self.rounds + 1):
            for name, reader in readers.items():
                seconds = self.turn(reader, material.prompt)
                if turn:
                    turns[name].append(seconds)
                run.progress(turn, self.rounds, "round", model=name)
        results: dict[str, Any] = {}
        for name, reader in readers.items():
            per_token = size_of(material.sample[0]) / max(1, len(reader.encode(material.sample)[0]))
            read_tokens = len(reader.encode([material.prompt])[0])
            rates = {
                kind: [(self.tokens - 1 if kind == "decode" else read_tokens) / t[kind] for t in turns[name]]
                for kind in turns[name][0]
            }
            results[name] = {"rates": rates, "bytes_per_token": per_token, "prompt_tokens": read_tokens}
        del readers
        if self.memory:
            for name, model in subjects.items():
                results[name]["memory"] = fresh_peak(model, name_of_type, run.device, material.prompt)
        return results

    def reads(self) -> tuple[float, bool]:
        """The prompt twice a turn, and each written token as if it were ten, for it is read alone."""
        return (self.rounds + 1) * (2.0 * self.prompt_bytes + 10 * BYTES_A_TOKEN * self.tokens), True

    @torch.inference_mode()
    def turn(self, reader: Reader, prompt: str) -> dict[str, float]:
        """Seconds of one prefill, one decode of ``tokens - 1`` further tokens, and one forward."""
        ids_bt = torch.tensor([reader.start + reader.encode([prompt])[0]], device=reader.device)[:, : reader.longest]
        begin = time.perf_counter()
        reader.live(input_ids=ids_bt, use_cache=False).logits[0, -1, 0].item()
        forward = time.perf_counter() - begin
        room = ids_bt[:, : max(1, reader.longest - self.tokens)]
        times = reader.write(room, self.tokens)
        return {"prefill": times[1] - times[0], "decode": times[-1] - times[1], "forward": forward}

    def report(self, run: Run, material: Texts, results: dict[str, Any]) -> dict[str, Any]:
        """Medians of each model, the median ratio of the rounds, and peak memory."""
        size = size_of(material.prompt)
        speed: dict[str, Any] = {}
        for name, found in results.items():
            speed[name] = {"bytes_per_token": found["bytes_per_token"]}
            for kind, rates in found["rates"].items():
                tokens = statistics.median(rates)
                own = found["bytes_per_token"] if kind == "decode" else size / found["prompt_tokens"]
                speed[name][f"{kind}_tokens_per_second"] = tokens
                speed[name][f"{kind}_bytes_per_second"] = tokens * own
        if "adapted" in results:
            base, adapted = speed["base"], speed["adapted"]
            speed["ratio"] = {key: adapted[key] / base[key] for key in base if key.endswith("bytes_per_second")}
        fragment: dict[str, Any] = {"speed": speed}
        if self.memory:
            fragment["memory"] = {name: found["memory"] for name, found in results.items()}
        return fragment


def fresh_peak(model: Model, dtype: str, device: str, prompt: str) -> dict[str, int]:
    """Peak memory in bytes of a fresh process that loads the folder as any user would and reads the prompt."""
    reader_ids = json.dumps({"folder": str(model.folder), "dtype": dtype, "device": device, "prompt": prompt})
    command = [sys.executable, "-c", "from lect.stages.evaluate.speed import tell_peak; tell_peak()"]
    done = subprocess.run(command, input=reader_ids, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(
            f"evaluate/speed: the process that measures the memory of {model.folder} ended with status "
            f"{done.returncode} ({last}); free some memory, or leave this out with speed.memory=false"
        )
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def tell_peak() -> None:
    """Load the model named on standard input with transformers alone, read the prompt, print the peak as JSON."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = json.load(sys.stdin)
    libraries = peak_memory_bytes()
    live = AutoModelForCausalLM.from_pretrained(
        asked["folder"], dtype=getattr(torch, asked["dtype"]), use_safetensors=True, local_files_only=True
    ).to(asked["device"])
    tokenizer = AutoTokenizer.from_pretrained(asked["folder"], local_files_only=True)
    longest = getattr(live.config.get_text_config(), "max_position_embeddings", None)
    ids_bt = torch.tensor([tokenizer(asked["prompt"]).input_ids[:longest]], device=asked["device"])
    with torch.inference_mode():
        live(input_ids=ids_bt, use_cache=True, logits_to_keep=1)
    peak = torch.cuda.max_memory_allocated() if asked["device"] != "cpu" else peak_memory_bytes()
    print(json.dumps({"peak_bytes": peak, "library_bytes": libraries}))
