# SPDX-License-Identifier: Apache-2.0
"""Recipes: everything is filled in, everything unknown fails, and resolving is the identity on what it made."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lect import recipe
from lect.errors import UserError

STEPS = [{"use": "corpus/read"}, {"use": "corpus/split"}, {"use": "vocab/trim"}]
GOOD = {"model": "m", "text": ["t"], "steps": STEPS}


def test_every_default_is_filled_in_and_resolving_again_changes_nothing() -> None:
    resolved = recipe.resolve(GOOD)
    trim = resolved.steps[-1]
    assert trim.values and trim.inputs["model"] == "base" and trim.inputs["corpus"] == "split"
    assert resolved.gates["reload"] == 0.0
    again = recipe.resolve(recipe.parse(resolved.as_yaml()))
    assert again == resolved


def test_inputs_take_the_latest_artefact_of_their_type_and_base_stays_the_base() -> None:
    steps = [*STEPS, {"use": "export/huggingface"}, {"use": "evaluate/size"}]
    size = recipe.resolve(GOOD | {"steps": steps}).steps[-1]
    assert size.inputs["base"] == "base"
    assert size.inputs["model"] == "huggingface"


def test_from_names_an_earlier_artefact() -> None:
    steps = [*STEPS, {"use": "evaluate/size", "from": {"model": "base"}}]
    assert recipe.resolve(GOOD | {"steps": steps}).steps[-1].inputs["model"] == "base"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": "m"}, "Did you mean 'model'"),
        ({"model": ""}, "needs 'model'"),
        ({"steps": []}, "needs 'steps'"),
        ({"steps": "vocab/trim"}, "is a list"),
        ({"steps": [{"use": "vocab/trimm"}]}, "Did you mean 'vocab/trim'"),
        ({"steps": [{"use": "schedule/cosine"}]}, "is a part"),
        ({"steps": [{"use": "corpus/split"}]}, "needs a Corpus"),
        ({"steps": [*STEPS, {"use": "corpus/split"}]}, "'split' is taken"),
        ({"steps": [{"use": "corpus/read", "wiht": {}}]}, "Did you mean 'with'"),
        ({"steps": [*STEPS[:2], {"use": "vocab/trim", "with": {"max_rowz": 3}}]}, "Did you mean 'max_rows'"),
        ({"steps": [*STEPS[:2], {"use": "vocab/trim", "from": {"model": "split"}}]}, "'split' is a Corpus"),
        ({"steps": [*STEPS[:2], {"use": "vocab/trim", "from": {"model": "bse"}}]}, "Did you mean 'base'"),
        ({"gates": {"segmentatoin": 1}}, "Did you mean 'segmentation'"),
        ({"gates": {"reload": "much"}}, "is not allowed; it takes float"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": 1.5}, "seed: 1.5"),
        ({"lect": 2}, "format 2"),
        ({"text": 3}, "list of paths"),
    ],
)
def test_what_is_wrong_is_named(change: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe.resolve(GOOD | change)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_set_reaches_knobs_gates_and_seed() -> None:
    changed = recipe.override(GOOD, ["trim.multiple=8", "gates.reload=1e-3", "seed=7"])
    resolved = recipe.resolve(changed)
    assert resolved.steps[-1].values["multiple"] == 8
    assert resolved.gates["reload"] == 1e-3
    assert resolved.seed == 7
    assert "with" not in GOOD["steps"][-1], "the recipe that was given must stay as it was"


@pytest.mark.parametrize(
    "setting", ["trim", "=3", "trimm.multiple=3", "multiple=3", "trim.multiple=[", "trim.multiplo=3"]
)
def test_bad_settings_are_refused(setting: str) -> None:
    with pytest.raises(UserError):
        recipe.resolve(recipe.override(GOOD, [setting]))


@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_a_user_error(text: str) -> None:
    try:
        recipe.resolve(recipe.parse(text))
    except UserError as error:
        assert "\n" not in str(error)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=4)
)
def test_any_value_of_a_knob_is_taken_or_refused(value: object) -> None:
    steps = [{"use": "corpus/read"}, {"use": "corpus/split", "with": {"test": value}}]
    try:
        resolved = recipe.resolve(GOOD | {"steps": steps})
    except UserError:
        return
    assert 0 < resolved.steps[-1].values["test"] <= 1
    yaml.safe_load(resolved.as_yaml())
