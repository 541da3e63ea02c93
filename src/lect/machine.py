# SPDX-License-Identifier: Apache-2.0
"""What machine this is, what it can do, and what a piece of work cost on it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

PACKAGES = (
    "lect",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "gguf",
    "numpy",
    "pyarrow",
    "rensa",
    "py3langid",
)
RESET_PEAK = "5"  # proc(5): writing 5 to clear_refs sets the peak resident size to the current one
HUGE_PAGE = 2 * 2**20
RESERVED_BLOCK = 2**30
MADV_HUGEPAGE = 14  # madvise(2)
NO_LIMIT = -1  # mallopt(3): taken for the greatest size


def device() -> str:
    """``cuda`` where a GPU can be used, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def describe() -> dict[str, Any]:
    """Processor, cores, memory in bytes, system and present load, for the record."""
    return {
        "cpu": _cpu(),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()),
    }


def _cpu() -> str:
    """The processor's name and those of its abilities that decide the speed of matrix products."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    abilities = [a for a in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if a in facts.get("flags", "").split()]
    return f"{facts.get('model name', platform.machine())} ({', '.join(abilities)})"


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fast_bf16(device: str) -> bool:
    """Whether the hardware multiplies bf16 matrices faster than fp32 ones."""
    import torch

    abilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device != "cpu" or any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def matmul_flops(size: int = 2048, rounds: int = 5) -> float:
    """Operations per second of a square bf16 matrix product, median of several rounds."""
    import torch

    a_nn = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    rates = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        a_nn @ a_nn
        rates.append(2 * size**3 / (time.perf_counter() - start))
    return statistics.median(rates[1:])


class Meter:
    """Measures wall seconds and the peak resident memory (bytes) of what runs inside a ``with``."""

    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def __enter__(self) -> Meter:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        self._start = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._start
        self.peak_memory_bytes = peak_memory_bytes()


def peak_memory_bytes() -> int:
    """The greatest resident size of this process since it started, or since a Meter was opened, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def release_memory(collect: bool = False) -> None:
    """Give memory that nothing uses back to the system; with ``collect``, what only cycles hold too.

    glibc keeps blocks of up to 32 MB that were freed: most of what it took to read a large tokenizer. Arrow keeps
    what it read a corpus with.
    """
    if collect:
        gc.collect()
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def held_memory() -> Iterator[None]:
    """Inside, blocks that are freed stay with the process for whatever takes as much again; glibc only.

    A training step takes and frees what the step before took and freed. Left to itself glibc hands the large blocks
    back each time, and the system clears them anew, page by page. Half of what is free is laid out beforehand, so that
    it comes in huge pages where the system has any. Afterwards all of it is given back.
    """
    _allocator(keep=NO_LIMIT, mapped=NO_LIMIT, ahead=64 * 2**20)
    _reserve(psutil.virtual_memory().available // 2)
    try:
        yield
    finally:
        _allocator(keep=64 * 2**20, mapped=32 * 2**20, ahead=0)  # where glibc's own moving limits end
        release_memory()


def _allocator(*, keep: int, mapped: int, ahead: int) -> None:
    """Tell glibc how many free bytes to keep, from what size on to map a block by itself, and how far to reach ahead.

    The numbers are ``M_TRIM_THRESHOLD``, ``M_MMAP_THRESHOLD`` and ``M_TOP_PAD`` of ``mallopt(3)``.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((-1, keep), (-3, mapped), (-2, ahead)):
            mallopt(parameter, value)


def _reserve(size: int) -> None:
    """Let the heap reach ``size`` bytes further, in huge pages; none is taken before it is used.

    torch can ask for huge pages itself, but aligns every tensor for it, and glibc cannot put a second such block where
    a first one was: a run grew by 70 MB a step.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        taken = [libc.malloc(ctypes.c_size_t(RESERVED_BLOCK)) for _ in range(size // RESERVED_BLOCK)]
        blocks = [start for start in taken if start]
        for start in blocks:
            first = -(-start // HUGE_PAGE) * HUGE_PAGE
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(start + RESERVED_BLOCK - first), MADV_HUGEPAGE)
        for start in reversed(blocks):
            libc.free(ctypes.c_void_p(start))


class Growth:
    """Gives free memory back where the process has come to hold an eighth more than at the first :meth:`check`."""

    first: int = 0

    def check(self) -> None:
        """To be called at the same place of each step; after memory was given back the next call is the first."""
        held = psutil.Process().memory_info().rss
        if not self.first:
            self.first = held
        elif 8 * held > 9 * self.first:
            release_memory()
            self.first = 0
