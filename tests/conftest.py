# SPDX-License-Identifier: Apache-2.0
"""Every test runs without a network, in its own cache folder."""

from __future__ import annotations

import os
import socket

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest

from lect.testing.contract import Bench


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every socket that is not local to this machine's kernel."""

    class Blocked(socket.socket):
        def connect(self, address):
            if self.family != socket.AF_UNIX:
                raise RuntimeError(f"a test tried to reach {address}")
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Blocked)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Pico models and corpora, made once."""
    return Bench(tmp_path_factory.mktemp("bench"))
