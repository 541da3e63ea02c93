# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import nullcontext

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


def test_large_tensors_ask_for_huge_pages_where_nothing_else_was_chosen():
    told = "import os, lect; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    for chosen, seen in ((None, "1"), ("0", "0")):
        given = {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"THP_MEM_ALLOC_ENABLE": chosen} if chosen else {})
        found = subprocess.run([sys.executable, "-c", told], env=given, check=True, capture_output=True, text=True)
        assert found.stdout.strip() == seen
