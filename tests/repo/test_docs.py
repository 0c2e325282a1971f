"""The docs say what the code does: reference pages are made from it, links lead somewhere, blocks run, words are the project's own."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from noria.cli.app import run
from noria.cli.commands import COMMANDS
from noria.cli.common import load_system
from noria.core import errors
from noria.records import KINDS, kind_of
from noria.settings import HELP

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FLIGHTS = ROOT / "examples" / "flights"


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "settings.md", "records.md", "tables.md", "errors.md"])
def test_the_reference_is_that_of_the_code(name: str) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text() == reference().pages()[name], "run: python scripts/reference.py"


def test_everything_has_a_place_in_the_reference() -> None:
    text = {page.name: page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")}
    assert all(f"\n### {command.name}\n" in text["commands.md"] for command in COMMANDS)
    assert all(f"`NORIA_{name.upper()}`" in text["settings.md"] for name in HELP)
    assert all(f"\n### `{kind_of(kind)}`\n" in text["records.md"] for kind in KINDS)
    classes = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.NoriaError)]
    assert all(f"| `{name}` |" in text["errors.md"] for name in classes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert "://" not in target or target.startswith("https://"), target
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_named_in_the_docs_are_there(page: Path) -> None:
    names = {command.name for command in COMMANDS}
    for word in re.findall(r"`noria ([a-z]+)", page.read_text()):
        assert word in names, f"`noria {word}` is no command"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def test_the_readme_shows_the_flights_declaration() -> None:
    (python,) = blocks(ROOT / "README.md", "python")
    assert python == (FLIGHTS / "system.py").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_console_blocks_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every `$ noria …` of a page, in order, on the first days of the flights instead of the year; what writes, writes elsewhere."""
    if not (FLIGHTS / "data" / "weather.parquet").exists():
        pytest.fail("the flights' data is not there: run `make data`")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("NORIA_HOME", str(tmp_path / "home"))
    ran = []
    for block in blocks(ROOT / page, "console"):
        for line in block.splitlines():
            if not line.startswith("$ noria "):
                continue
            words = shlex.split(line.removeprefix("$ noria "))
            words = ["2013-01-04" if word in ("2014-01-01", "2013-04-02") else word for word in words]
            words = [str(tmp_path / word) if word in ("report.html", "mine.py") else word for word in words]
            code = run(words)
            seen = capsys.readouterr()
            assert (
                code == 0 or "too few labels" in seen.err or "nothing was gated" in seen.err or "nothing is released" in seen.err
            ), (line, seen)
            ran.append(words[0])
    assert "replay" in ran


def test_python_blocks_run() -> None:
    ran = 0
    for page in (ROOT / "docs").glob("*.md"):
        for block in blocks(page, "python"):
            exec(compile(block, str(page.relative_to(ROOT)), "exec"), {})
            ran += 1
    assert ran


def test_the_project_speaks_of_itself() -> None:
    """Relative to the repository only: no page names a folder of somebody's machine."""
    for page in [*PAGES, *(ROOT / "examples").rglob("*.py")]:
        assert not re.search(r"/(work|tmp|home|root)/", page.read_text()), page


def test_the_examples_are_declared_right() -> None:
    assert load_system(FLIGHTS / "system.py").name == "late-flights"
    assert load_system(ROOT / "examples" / "elec2" / "system.py").name == "elec2"
