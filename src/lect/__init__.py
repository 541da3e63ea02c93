# SPDX-License-Identifier: Apache-2.0
"""lect: adapt an open language model to a variety of a language, with the proof in one report."""

import os

__version__ = "0.1.0"

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch, at its first tensor: large ones in huge pages, on Linux
