"""The house stands as designed: who may import whom, what is public, what is light, where time comes from, how large things are."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import noria
from noria.settings import HELP, Settings

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "noria"

STEPS = frozenset({"scoping", "data", "development", "deployment", "monitoring", "business"})
BASE = frozenset({"core"})
VOCABULARY = BASE | {"records", "tables", "system", "settings", "stats"}
STORED = VOCABULARY | {"store"}
SHARED = STORED | {"features", "model", "measure"}
WHEEL = SHARED | STEPS
MAY: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "stats": BASE,
    "system": BASE,
    "settings": BASE,
    "records": BASE,
    "tables": BASE,
    "store": VOCABULARY,
    "features": STORED,
    "model": STORED,
    "measure": STORED,
    **dict.fromkeys(STEPS, SHARED),
    "diagnosis": WHEEL,
    "loop": WHEEL | {"diagnosis"},
    "replay": WHEEL | {"diagnosis", "loop"},
    "web": WHEEL | {"diagnosis", "loop", "replay"},
    "story": WHEEL | {"diagnosis", "loop", "replay"},
    "readiness": STORED,
    "cli": WHEEL | {"diagnosis", "loop", "replay", "web", "story", "readiness"},
}
"""Whom each room may import, itself apart. The order is the order of the data flow."""


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """The room of a file: its folder under the package, or its own name; empty for the package itself."""
    parts = path.relative_to(SOURCE).parts
    return parts[0].removesuffix(".py") if parts[0] != "__init__.py" else ""


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of ours anywhere in a file: at the top, inside functions, for types only, or by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "noria":
                    yield node.lineno, [*alias.name.split("."), ""][1]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute, so that they can be read"
            if node.module == "noria":
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif node.module is not None and node.module.startswith("noria."):
                yield node.lineno, node.module.split(".")[1]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    own = room(path)
    if not own:
        return
    assert own in MAY, f"a new room: say in this test whom {own} may import"
    wrong = [
        f"{path.name}:{line} imports noria.{other}"
        for line, other in imports(ast.parse(path.read_text()))
        if other in MAY and other != own and other not in MAY[own]
    ]
    assert not wrong, f"{own} may import {', '.join(sorted(MAY[own])) or 'nothing of ours'}"


def test_every_room_is_there() -> None:
    assert {room(path) for path in files()} - {""} == set(MAY)


def test_the_import_rule_sees_every_kind_of_import() -> None:
    text = "import noria.data\nfrom noria import cli\nif TYPE_CHECKING:\n    from noria.store.home import Home\ndef f():\n    from noria.web import report\n"
    assert sorted(other for _, other in imports(ast.parse(text))) == ["cli", "data", "store", "web"]


PUBLIC = [
    "Alerts",
    "AtLeast",
    "AtMost",
    "Boosting",
    "Candidate",
    "Combine",
    "Costs",
    "Decide",
    "Estimate",
    "Estimator",
    "Every",
    "Fitness",
    "Gate",
    "Label",
    "Last",
    "Linear",
    "NoriaError",
    "Objective",
    "Outcome",
    "Parts",
    "Prior",
    "Query",
    "Request",
    "Retrain",
    "Rollout",
    "Rule",
    "Seasonal",
    "Serve",
    "Source",
    "System",
    "Value",
    "Verdict",
    "Window",
]


def test_the_public_names() -> None:
    assert noria.__all__ == PUBLIC
    for name in PUBLIC:
        assert getattr(noria, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        noria.nothing  # noqa: B018


HEAVY = [
    "numpy",
    "scipy",
    "sklearn",
    "polars",
    "pyarrow",
    "duckdb",
    "sqlglot",
    "deltalake",
    "sqlalchemy",
    "alembic",
    "treelite",
    "skops",
    "optuna",
    "granian",
    "uvloop",
    "jinja2",
    "altair",
    "vl_convert",
    "cyclopts",
    "rich",
    "prometheus_client",
    "pandas",
]


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    ["import noria", "import noria; noria.System", "from noria.cli import main; main(['--help'])"],
    ids=["import", "system", "help"],
)
def test_light_to_import(code: str) -> None:
    assert loaded_by(code) & set(HEAVY) == set()


def test_only_the_clock_asks_for_the_time() -> None:
    """Not ``datetime.now``, ``time.time``, ``date.today`` … anywhere but in core/clock.py."""
    asked = {
        "now",
        "utcnow",
        "today",
        "time",
        "time_ns",
        "monotonic",
        "monotonic_ns",
        "perf_counter",
        "perf_counter_ns",
        "process_time",
    }
    owners = {"datetime", "date", "time", "dt"}
    wrong = []
    for path in files():
        if path == SOURCE / "core" / "clock.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in asked
                and isinstance(node.value, ast.Name)
                and node.value.id in owners
            ):
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.value.id}.{node.attr}")
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno} from time import")
    assert wrong == []


def test_settings_are_one_table() -> None:
    assert set(HELP) == set(Settings.__struct_fields__)
    assert len(HELP) < 40


LARGE_FILES: dict[str, str] = {
    "system.py": "everything a user can declare, with its documentation, on one page",
    "records.py": "everything the steps exchange, with its documentation, on one page",
}
"""Files above 600 lines, each with the reason."""


def test_files_are_small() -> None:
    large = {str(path.relative_to(SOURCE)) for path in files() if len(path.read_text().splitlines()) > 600}
    assert large == set(LARGE_FILES)


LONG_FUNCTIONS: dict[str, str] = {}
"""Functions above 60 lines (docstrings apart), each with the reason."""


def functions() -> Iterator[tuple[str, int]]:
    """(name, lines without the docstring) of every function."""
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
                start = (first.end_lineno or first.lineno) if doc else node.lineno
                yield f"{path.relative_to(SOURCE)}:{node.name}", (node.end_lineno or 0) - start


def test_functions_are_short() -> None:
    assert {name for name, lines in functions() if lines > 60} == set(LONG_FUNCTIONS)


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path.relative_to(SOURCE)) for path in files() if ast.get_docstring(ast.parse(path.read_text())) is None]
    assert silent == []


def test_the_lock_names_versions_and_no_place() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    assert all(
        line == f"{want.name}=={next(iter(want.specifier)).version}" for line, want in zip(lines, locked.values(), strict=True)
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for text in [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]:
        wanted = Requirement(text)
        pinned = locked[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(next(iter(pinned.specifier)).version), text


def test_every_file_of_the_package_is_in_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    ignored = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "src"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert [name for name in ignored if not name.endswith(".pyc")] == []
