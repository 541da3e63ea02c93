# SPDX-License-Identifier: Apache-2.0
"""The processes of a launch by ``torchrun``: how many, which this is, and what process 0 tells the others.

Process 0 does everything that one process does. The others wait for its orders in the launch's key-value store, one
JSON object each, and take part in the steps that spread. Without ``torchrun`` nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import time
from functools import cache
from typing import Any

LAUNCHED = "TORCHELASTIC_RUN_ID"  # what torchrun sets and nothing else does
POLL_SECONDS = 0.05
GRACE_SECONDS = 3.0
END = "end"


def size() -> int:
    """How many processes there are."""
    return int(os.environ["WORLD_SIZE"]) if LAUNCHED in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if LAUNCHED in os.environ else 0


@cache
def store() -> Any:
    """The key-value store of the launch, which torchrun keeps."""
    from torch.distributed import rendezvous  # type: ignore[attr-defined]

    return next(iter(rendezvous("env://", rank(), size())))[0]


class Orders:
    """What process 0 has the others do, in order; both sides count from 0."""

    count = 0

    @classmethod
    def give(cls, order: dict[str, Any]) -> None:
        """Tell all other processes."""
        store().set(f"order/{cls.count}", json.dumps(order))
        cls.count += 1

    @classmethod
    def take(cls) -> dict[str, Any] | None:
        """Wait for the next order; None when process 0 has ended."""
        key = f"order/{cls.count}"
        while True:
            if store().check([key]):
                cls.count += 1
                order: dict[str, Any] = json.loads(store().get(key))
                return order
            if ended(0.0):
                return None
            time.sleep(POLL_SECONDS)


def end() -> None:
    """Say that process 0 ends, for whatever reason it told; the others then end too."""
    if size() > 1 and rank() == 0:
        store().set(END, "")


def ended(within: float = GRACE_SECONDS) -> bool:
    """Whether process 0 says within so many seconds that it ends."""
    until = time.monotonic() + within
    while not store().check([END]):
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_SECONDS)
    return True
