# SPDX-License-Identifier: Apache-2.0
"""The repository keeps its own rules: names, sizes, imports, licences, and nothing of anybody's machine."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lect import registry

ROOT = Path(__file__).resolve().parents[2]
LARGEST_METHOD, MEDIAN_METHOD = 350, 120
CLAIMS = {
    f"{path.parent.name}/{path.stem.removeprefix('test_')}": path
    for path in sorted((ROOT / "tests" / "claims").glob("*/test_*.py"))
}
OWN = {name: info for name, info in registry.methods().items() if info.module.startswith("lect.")}
LAWS = {
    f"laws/{path.stem}": path for path in sorted((ROOT / "src/lect/laws").glob("*.py")) if path.name != "__init__.py"
}


def tracked() -> list[Path]:
    """The files of the repository: what git tracks, or in an unpacked archive all but what tools leave."""
    answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = answer.stdout.split("\0") if answer.returncode == 0 else []
    if not any(names):
        skipped = {".git", ".venv", "site", "dist", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if not skipped & set(p.relative_to(ROOT).parts)]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


FILES = tracked()
PYTHON = [p for p in FILES if p.suffix == ".py"]


def text_of(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return None


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_methods_laws_and_claim_tests_are_the_same_set() -> None:
    assert sorted(CLAIMS) == sorted([*OWN, *LAWS])


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_file_tests_and_asserts(name: str) -> None:
    tree = ast.parse(CLAIMS[name].read_text("utf-8"))
    tests = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    asserting = [n for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    raising = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in ("raises", "assert_close")]
    assert tests and asserting + raising


def test_methods_are_small() -> None:
    sizes = {name: lines(info.path) for name, info in OWN.items()}
    laws = {name: lines(path) for name, path in LAWS.items()}
    assert {name: size for name, size in (sizes | laws).items() if size > LARGEST_METHOD} == {}
    assert statistics.median(sizes.values()) <= MEDIAN_METHOD


@pytest.mark.parametrize("name", OWN)
def test_a_method_imports_no_other_method(name: str) -> None:
    info = OWN[name]
    group = "stages" if info.step else "parts"
    own = f"lect.{group}.{name.split('/')[0]}"
    methods = {other.module for other in OWN.values()} - {info.module}
    for node in ast.walk(ast.parse(info.path.read_text("utf-8"))):
        found: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        for module in found:
            assert module not in methods, f"{name} imports {module}"
            elsewhere = module.startswith(("lect.stages.", "lect.parts."))
            assert not elsewhere or module == own or module.startswith(f"{own}."), f"{name} imports {module}"
            assert not module.startswith(("lect.registry", "lect.runner", "lect.recipe", "lect.cli", "lect.plan"))


@pytest.mark.parametrize("name", LAWS)
def test_a_law_has_a_card_and_needs_nothing_heavy(name: str) -> None:
    tree = ast.parse(LAWS[name].read_text("utf-8"))
    cards = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CARD"
    ]
    assert [set(ast.literal_eval(card)) for card in cards] == [{"title", "paper", "claim", "differs", "version"}]
    code = f"import sys, lect.{name.replace('/', '.')}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "pyarrow", "lect.registry", "lect.runner"} & set(done.stdout.split())


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, lect.cli, lect.recipe, lect.registry; lect.registry.methods(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "pyarrow", "numpy", "pandas"} & set(done.stdout.split())


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_python_files_name_their_licence(path: Path) -> None:
    assert path.read_text("utf-8").startswith("# SPDX-License-Identifier: Apache-2.0\n")


def test_licence_texts_are_there() -> None:
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text("utf-8")
    assert "LICENSE-MPL-2.0.txt" in (ROOT / "NOTICE").read_text("utf-8")
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text("utf-8")


# The words are put together here, so that this file does not name what it forbids.
PLACES = ("work", "root", "home/\\w+", "Users/\\w+", "opt/pypi")
HOSTS = ("pypi\\" + ".org/simple", "files\\.pythonhosted", "deb\\.deb" + "ian", "registry\\.npm")
MARKS = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
FORBIDDEN = {
    "a path of one machine": rf"(?<![\w.$}}])/(?:{'|'.join(PLACES)})/",
    "a package index or mirror": "|".join(rf"\b{host}" for host in HOSTS),
    "an unfinished mark": rf"\b(?:{'|'.join(MARKS)})\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_holds(what: str) -> None:
    found = []
    for path in FILES:
        text = text_of(path)
        for match in re.finditer(FORBIDDEN[what], text or ""):
            found.append(f"{path.relative_to(ROOT)}: {match.group()}")
    assert found == []


def test_the_search_finds_what_it_looks_for() -> None:
    assert re.search(FORBIDDEN["a path of one machine"], "see /" + "root/x") is not None
    assert re.search(FORBIDDEN["a package index or mirror"], "https://deb." + "debian.org") is not None
    assert re.search(FORBIDDEN["an unfinished mark"], "# TO" + "DO: later") is not None


def test_tracked_files_are_small() -> None:
    large = [p.relative_to(ROOT).as_posix() for p in FILES if p.stat().st_size > 2_000_000]
    assert large == []


def test_a_wheel_would_hold_what_the_package_needs() -> None:
    """Everything in the package folder that is no cache is tracked, so that a clone has what this checkout has."""
    there = {p for p in (ROOT / "src" / "lect").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert sorted(p.relative_to(ROOT).as_posix() for p in there - set(FILES)) == []
