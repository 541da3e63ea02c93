# SPDX-License-Identifier: Apache-2.0
"""The verbs and flags are pinned, start quickly without torch, and bad input ends in one line and status 2."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from lect import cli

VERBS = {
    "adapt": ["model", "text", "out", "keep", "minutes", "tokens", "settings"],
    "plan": ["model", "text", "keep", "minutes", "tokens", "settings"],
    "run": ["recipe", "out", "settings"],
    "check": ["recipe", "settings"],
    "list": ["stage"],
    "show": ["method"],
    "eval": ["model", "text", "keep", "out", "settings"],
    "generate": ["model", "prompt", "tokens"],
    "export": ["model", "to", "out", "settings"],
    "report": ["folder"],
}


def lect(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lect", *words], capture_output=True, text=True, check=False)


def test_verbs_and_flags_are_these_and_no_others() -> None:
    found = {name: cli.app[name].default_command for name in cli.app if not name.startswith("-")}
    assert {name: list(inspect.signature(verb).parameters) for name, verb in found.items()} == VERBS


@pytest.mark.parametrize("words", [("--help",), ("list",), ("show", "vocab/trim"), ("check", "--help")])
def test_light_verbs_import_no_torch(words: tuple[str, ...]) -> None:
    code = (
        "import sys, lect.cli\nsys.argv[1:] = sys.argv[1:]\n"
        "try: lect.cli.main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("adpt",),
        ("adapt", "x"),
        ("adapt", "no-such-model", "no-such-text", "--out", "x"),
        ("show", "vocab/trimm"),
        ("list", "vocap"),
        ("run", "no-such-recipe.yaml", "--out", "x"),
        ("check", "no-such-recipe.yaml"),
        ("report", "no-such-folder"),
        ("generate", "no-such-model", "x"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words: tuple[str, ...], tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lect", *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("lect: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_help_of_every_verb_explains_every_parameter() -> None:
    for verb, names in VERBS.items():
        doc = inspect.getdoc(cli.app[verb].default_command) or ""
        assert all(f":param {name}:" in doc for name in names), verb
