# SPDX-License-Identifier: Apache-2.0
"""Decode speed of two GGUF files in llama.cpp, run by turns: medians of tokens and bytes per second as JSON.

python bench/llamacpp_speed.py base.gguf adapted.gguf [--text FILE] [--runs 7] [--threads 2]

Both go through the same text one token at a time, as greedy decoding does (one forward pass and one argmax over the
vocabulary a token), so that bytes per second compare the same bytes: a text that a model makes up itself would differ
in length and in how well it is cut into tokens. Runs alternate, so that a busy moment of the machine hits both.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from lect.testing.llamacpp import LlamaCpp

PROMPT_TOKENS = 16
TEXT_TOKENS = 300  # a context of llama.cpp holds 512 by default
TEXT = (
    "Testu-dokumentu batean taula bat txertatzeko, jarri kurtsorea taula agertzea nahi duzun lekuan eta aukeratu "
    "Taula - Txertatu taula. Elkarrizketa-koadroan, idatzi errenkada eta zutabe kopurua eta sakatu Ados. Gelaxka "
    "batetik hurrengora joateko, sakatu tabuladorea. Formula bat idazteko, hasi gelaxka berdin ikurrarekin; emaitza "
    "berehala ikusiko duzu. Datuak ordenatu nahi badituzu, hautatu gelaxkak eta aukeratu Datuak - Ordenatu."
)


def compare(
    paths: dict[str, Path], text: str = TEXT, runs: int = 7, threads: int = 2, tokens: int = TEXT_TOKENS
) -> dict[str, Any]:
    """Medians by name for GGUF files, all over the same first bytes of ``text``."""
    clients = {name: LlamaCpp(path, threads) for name, path in paths.items()}
    try:
        ids = {name: client.encode(text)[:tokens] for name, client in clients.items()}
        shared = min(len(clients[name].decode(i).encode()) for name, i in ids.items())
        piece = text.encode()[:shared].decode("utf-8", "ignore")
        ids = {name: client.encode(piece) for name, client in clients.items()}
        seconds: dict[str, list[float]] = {name: [] for name in clients}
        for run in range(runs + 1):
            for name, client in clients.items():
                taken = client.step_seconds(ids[name], PROMPT_TOKENS)
                if run:  # the first round warms caches
                    seconds[name].append(taken)
        return {
            name: {
                "file": paths[name].name,
                "file_bytes": paths[name].stat().st_size,
                "tokens": len(ids[name]) - PROMPT_TOKENS,
                "tokens_per_second": (len(ids[name]) - PROMPT_TOKENS) / statistics.median(taken),
                "bytes_per_second": _timed_bytes(client, ids[name]) / statistics.median(taken),
                "seconds": taken,
            }
            for (name, client), taken in zip(clients.items(), seconds.values(), strict=True)
        }
    finally:
        for client in clients.values():
            client.__exit__()


def _timed_bytes(client: LlamaCpp, ids: list[int]) -> int:
    return len(client.decode(ids).encode()) - len(client.decode(ids[:PROMPT_TOKENS]).encode())


def decode_ratio(model: str, adapted: Path, precision: str, folder: Path) -> float:
    """Bytes per second of ``adapted`` over those of the base ``model``, both exported by lect in ``precision``."""
    from lect import models
    from lect.artefacts import Model
    from lect.method import Run
    from lect.registry import build_step

    base = Model(models.resolve(model))
    files = {}
    for name, source in (("base", base), ("adapted", Model(adapted))):
        place = folder / name
        (place / "out").mkdir(parents=True, exist_ok=True)
        (place / "scratch").mkdir(exist_ok=True)
        run = Run(folder=place / "out", scratch=place / "scratch")
        files[name] = build_step("export/gguf", {"dtype": precision}).apply(run, base=base, model=source).file
    result = compare(files)
    (folder / "speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return float(result["adapted"]["bytes_per_second"] / result["base"]["bytes_per_second"])


def main() -> None:
    """Compare two files and print JSON."""
    parser = argparse.ArgumentParser(description="Decode speed of two GGUF files in llama.cpp, by turns.")
    parser.add_argument("base", type=Path)
    parser.add_argument("adapted", type=Path)
    parser.add_argument("--text", type=Path, help="a text of 1 to 2 kB; a Basque one is built in")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    text = options.text.read_text("utf-8") if options.text else TEXT
    result = compare({"base": options.base, "adapted": options.adapted}, text, options.runs, options.threads)
    ratio = result["adapted"]["bytes_per_second"] / result["base"]["bytes_per_second"]
    print(json.dumps(result | {"bytes_per_second_ratio": ratio}, indent=1))


if __name__ == "__main__":
    main()
