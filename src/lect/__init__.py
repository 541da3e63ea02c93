# SPDX-License-Identifier: Apache-2.0
"""lect: adapt an open language model to a variety of a language, with the proof in one report."""

__version__ = "0.1.0"
