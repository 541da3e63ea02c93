# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lect import machine

BLOCK = 48 * 2**20  # glibc maps blocks of more than 32 MB one by one
PAGES = BLOCK // 4096


def faults(context) -> int:
    """Pages that the system cleared while a block was taken and freed eight times more."""
    import resource

    with context:
        block = b"x" * BLOCK
        del block
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            block = b"x" * BLOCK
            del block
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_held_memory_is_not_faulted_in_again():
    assert faults(nullcontext()) >= 8 * PAGES
    assert faults(machine.held_memory()) < PAGES
    assert faults(nullcontext()) >= 8 * PAGES


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_held_memory_is_given_back():
    with machine.held_memory():
        block = b"x" * (8 * BLOCK)
        del block
        held = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss < held - 7 * BLOCK


HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.skipif(not HUGE.exists() or "[never]" in HUGE.read_text(), reason="this system has no huge pages")
def test_held_memory_comes_in_huge_pages():
    def pages() -> int:
        lines = Path("/proc/self/smaps").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))

    with machine.held_memory():
        before = pages()
        block = b"x" * BLOCK
        assert pages() > before
        del block


def test_memory_that_grew_is_given_back_once(monkeypatch):
    sizes, released = iter([800, 850, 900, 901, 700, 780, 788]), []
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=next(sizes)))
    monkeypatch.setattr(machine.psutil, "Process", lambda: process)
    monkeypatch.setattr(machine, "release_memory", lambda: released.append(True))
    growth, counts = machine.Growth(), []
    for _ in range(7):
        growth.check()
        counts.append(len(released))
    assert counts == [0, 0, 0, 1, 1, 1, 2]
