# SPDX-License-Identifier: Apache-2.0
"""Pico models with new tokens, made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from torch import Tensor

from lect.parts.init.kind import NewTokens
from lect.testing.new_tokens import extended

Extended = Callable[..., tuple[Tensor, NewTokens]]


@pytest.fixture(scope="session")
def pico_new(tmp_path_factory: pytest.TempPathFactory) -> Extended:
    """``extended`` with a folder of its own and a memory."""

    @cache
    def made(family: str = "gemma3", side: str = "input", seed: int = 0) -> tuple[Tensor, NewTokens]:
        return extended(family, tmp_path_factory.mktemp("new") / "run", side=side, seed=seed)

    return made


@pytest.fixture(scope="session")
def many(pico_new: Extended) -> Callable[[int], NewTokens]:
    """New tokens in any number, for statistics; nothing but their number is true of them."""

    def made(count: int, **other: object) -> NewTokens:
        return replace(pico_new()[1], origin=[-1] * count, **other)

    return made
