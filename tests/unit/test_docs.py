# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the code does: generated pages are fresh, commands parse, recipes and examples work."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lect import recipe, registry
from lect.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = ("methods", "reference")
PROSE = sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in GENERATED)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "src/lect/data/README.md", *sorted(DOCS.rglob("*.md"))]


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load(ROOT / "scripts" / "build_docs.py", "build_docs")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text("utf-8"), re.M | re.S)


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for language in ("sh", "bash", "console"):
            for block in blocks(page, language):
                lines = [line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]
                found += [(page.name, line) for line in lines if re.match(r"(\S*/)?lect ", line)]
    return found


def test_generated_pages_are_fresh(generator: ModuleType) -> None:
    assert generator.stale(generator.pages()) == [], "stale pages; run: make docs"


def test_a_changed_page_is_found_stale(generator: ModuleType) -> None:
    pages = generator.pages()
    name = next(iter(pages))
    assert generator.stale(pages | {name: "old"}) == [name]
    assert generator.stale({path: text for path, text in pages.items() if path != name}) == [name]


def test_every_method_and_verb_has_its_place(generator: ModuleType) -> None:
    pages = generator.pages()
    index, cli = pages["methods/index.md"], pages["reference/cli.md"]
    for name, info in registry.methods().items():
        assert f"[`{name}`]({name}.md)" in index
        assert all(f"| `{knob}` |" in pages[f"methods/{name}.md"] for knob in info.knobs)
    verbs = [verb for verb, _ in generator.verbs()]
    assert verbs and set(verbs) == {name for name in app if not name.startswith("-")}
    assert all(f"## lect {verb}\n" in cli for verb in verbs)


def test_the_generator_imports_no_torch() -> None:
    code = "import sys, runpy; runpy.run_path('scripts/build_docs.py')['pages'](); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_there_are_commands_to_test() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda text: text[:60])
def test_every_shown_command_parses(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_a_wrong_command_does_not_parse() -> None:
    with pytest.raises(Exception, match="mintues"):
        app.parse_args(["plan", "model", "text", "--mintues", "3"], exit_on_error=False, print_error=False)


def settings() -> list[tuple[str, str, str]]:
    """(where, step or gates, knob) of every setting that a page or the command line shows."""
    found = []
    for page in [*PAGES, ROOT / "src/lect/cli.py", ROOT / "src/lect/verbs.py"]:
        for name, knob in re.findall(r"(?<![\w.])([a-z_]+)\.([a-z_]+)=[\w.]+", page.read_text("utf-8")):
            found += [(page.name, name, knob)] if name != "step" else []
    return sorted(set(found))


@pytest.mark.parametrize(("page", "name", "knob"), settings())
def test_every_shown_setting_is_one(page: str, name: str, knob: str) -> None:
    if name == "gates":
        assert any(knob in info.gates for info in registry.steps().values())
    else:
        named = [info for info in registry.steps().values() if info.name.split("/")[1] == name]
        assert any(knob in info.knobs for info in named)


def shown_recipes() -> list[tuple[str, str]]:
    return [(page.name, block) for page in PAGES for block in blocks(page, "yaml") if "steps:" in block]


@pytest.mark.parametrize(("page", "text"), shown_recipes(), ids=lambda text: text[:40])
def test_every_shown_recipe_resolves(page: str, text: str) -> None:
    resolved = recipe.resolve(recipe.parse(text))
    assert resolved.steps and recipe.resolve(resolved.as_dict()) == resolved


def test_the_example_method_is_one(tmp_path: Path) -> None:
    """The method that `adding-a-method.md` writes is read by the registry and does what its claim says."""
    text = blocks(DOCS / "adding-a-method.md", "python")[0]
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "kinds.py").write_text((ROOT / "src/lect/stages/corpus/kinds.py").read_text("utf-8"), "utf-8")
    (folder / "variety.py").write_text(text, "utf-8")
    info = registry._read("corpus/variety", True, "variety", folder / "variety.py", folder / "kinds.py")
    assert info.inputs == {"corpus": "Corpus"} and info.output == "Corpus" and list(info.knobs) == ["share"]
    method = load(folder / "variety.py", "variety").Variety
    assert method(share=0.5).drop("one two one one one", None) == "few_words"
    assert method(share=0.4).drop("one two one one one", None) is None
    assert method(**info.card["off"]).drop("one " * 500, None) is None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_pages_hold(page: Path) -> None:
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: [{text}]({target})"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{page.name}: [{text}]({target})"


def test_every_prose_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert all(path.relative_to(DOCS).as_posix() in navigation for path in PROSE)
