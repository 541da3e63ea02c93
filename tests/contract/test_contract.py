# SPDX-License-Identifier: Apache-2.0
"""Every check of the contract over every method there is."""

from __future__ import annotations

import pytest

from lect.registry import methods
from lect.testing.contract import CHECKS, STEP_CHECKS, Bench

CASES = [
    pytest.param(name, check, id=f"{name}-{check}")
    for name, info in methods().items()
    for check in [*CHECKS, *(STEP_CHECKS if info.step else ())]
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_contract(name: str, check: str, bench: Bench, request: pytest.FixtureRequest) -> None:
    info = methods()[name]
    if reason := info.card["xfail"].get(check):
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError))
    (CHECKS | STEP_CHECKS)[check](info, bench)


def test_known_failures_can_only_become_fewer() -> None:
    assert sum(len(info.card["xfail"]) for info in methods().values()) <= 1
