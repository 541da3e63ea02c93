# SPDX-License-Identifier: Apache-2.0
"""File name is registration: for lect's own methods and for those of another package."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lect import registry
from lect.errors import UserError

METHOD = '''
from typing import Annotated, ClassVar
from lect.artefacts import Corpus
from lect.method import Range, Step, knobs
CARD = {"title": "Upper case", "paper": "", "claim": "makes 100 % of letters upper case", "differs": [], "version": 1,
        "off": None, "needs": [], "xfail": {}}

@knobs
class Shout(Step):
    """Text in capitals."""
    inputs: ClassVar = {"corpus": Corpus}
    output: ClassVar = Corpus
    gates: ClassVar = {"loud": (0.5, "how loud")}
    times: Annotated[int | None, Range(at_least=1)] = None
    """How many
    times."""
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package outside lect with room for methods."""
    folder = tmp_path / "shouting" / "stages" / "corpus"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent, folder.parent.parent):
        (place / "__init__.py").touch()
    point = EntryPoint(name="shouting", value="shouting", group="lect.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    monkeypatch.syspath_prepend(tmp_path)
    registry.methods.cache_clear()
    yield folder
    registry.methods.cache_clear()
    for name in [n for n in sys.modules if n.startswith("shouting")]:
        del sys.modules[name]


def test_another_package_adds_a_method_with_one_file(outside: Path) -> None:
    (outside / "shout.py").write_text(METHOD)
    info = registry.find("corpus/shout")
    assert (info.inputs, info.output, info.step) == ({"corpus": "Corpus"}, "Corpus", True)
    assert info.gates == {"loud": (0.5, "how loud")}
    knob = info.knobs["times"]
    assert (knob.type, knob.optional, knob.default, knob.doc) == ("int", True, None, "How many times.")
    assert str(knob.takes) == "int at least 1 or null"
    assert type(registry.build_step("corpus/shout", {"times": 2})).__name__ == "Shout"


def test_a_name_that_is_there_already_is_refused(outside: Path) -> None:
    (outside / "split.py").write_text(METHOD)
    with pytest.raises(UserError, match="corpus/split stands in"):
        registry.methods()


def test_a_file_that_is_no_method_is_refused_by_name(outside: Path) -> None:
    (outside / "shout.py").write_text(METHOD.replace("CARD", "KARD"))
    with pytest.raises(UserError, match=r"shout\.py: a method's file holds one literal CARD"):
        registry.methods()


def test_a_miss_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'vocab/trim'"):
        registry.find("vocab/trin")
    with pytest.raises(UserError, match=r"Did you mean 'cosine'"):
        registry.check_part("schedule", "cosinus", "continue.schedule")
    with pytest.raises(UserError, match="unknown key"):
        registry.check_part("schedule", {"use": "cosine", "wiht": {}}, "continue.schedule")


def test_a_slot_takes_a_name_or_a_mapping() -> None:
    short = registry.check_part("schedule", "cosine", "x")
    assert (
        short
        == registry.check_part("schedule", {"use": "schedule/cosine"}, "x")
        == registry.check_part("schedule", short, "x")
    )
