"""``init``, ``check``, ``diff``: the commands about a declaration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from noria.cli.common import (
    DEFAULT_FILE,
    FileArgument,
    FileOption,
    HomeOption,
    JsonOption,
    home_path,
    load_system,
    opened,
    show,
)
from noria.core import Conflict, DeclarationError, NoriaError, NotFound, SettingsError, SystemClock, check_name
from noria.records import Declared, Entry, Record
from noria.settings import read_settings
from noria.system import System


def init(
    name: Annotated[str, Parameter(help="The system's name: a-z, 0-9, '.', '_', '-'.")],
    files: Annotated[
        list[Path] | None,
        Parameter(help="Parquet or CSV files: first the rows to be predicted, then where the label comes from, then others."),
    ] = None,
    /,
    *,
    request: Annotated[
        str | None,
        Parameter(help='Instead of files: the columns of a request by HTTP, such as "customer:VARCHAR,amount:DOUBLE".'),
    ] = None,
    to: Annotated[Path, Parameter(help="The file to write.")] = DEFAULT_FILE,
    home: HomeOption = None,  # noqa: ARG001  # every command takes it
    json: JsonOption = False,
) -> int:
    """Writes a declaration to start from. What it guesses from the columns is marked, for you to mend."""
    from noria.cli.template import declaration, requested

    check_name(name, "system's name")
    if (request is None) == (not files):
        raise SettingsError("a declaration starts from files or from a request", hint="name files, or give --request")
    if to.exists():
        raise Conflict(f"{to} is already there", hint="name another file with --to")
    to.parent.mkdir(parents=True, exist_ok=True)
    text = requested(name, request) if request is not None else declaration(name, files or [], to.resolve().parent)
    to.write_text(text, encoding="utf-8")
    show({"file": str(to)}, lambda: f"wrote {to}. Read it, mend what is marked, then run: noria check {to}", as_json=json)
    return 0


def check(file: FileArgument = DEFAULT_FILE, /, *, home: HomeOption = None, json: JsonOption = False) -> int:
    """Finds every mistake in a declaration at once, each with its place, and says how long a rollout would take to decide.

    Reads the sources' columns and, when there is a home, its closed cohorts; never writes.
    """
    from noria import data

    system = load_system(file)
    problems = data.check(system, system.folder)
    if problems:
        raise DeclarationError(problems, where=str(file))
    counts = f"{len(system.sources)} sources, {len(system.flat_features)} features, {len(system.recipes)} candidates"
    result = {
        "system": system.name,
        "declaration": system.id,
        "task": system.task,
        "sources": len(system.sources),
        "features": len(system.flat_features),
        "candidates": len(system.recipes),
        "problems": [],
    }
    ways, lines = _to_decision(system, home)
    result["to_decision"] = ways
    right = f"{file} is right: {system.name}, {system.task}, {counts} (declaration {system.id[:12]})"
    show(result, lambda: "\n".join([right, *(f"a rollout's decision: {line}" for line in lines)]), as_json=json)
    return 0


def _to_decision(system: System, home: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
    """The days until a rollout decides, as data and as lines; without a home or closed cohorts a line that says what is missing."""
    from dataclasses import asdict

    from noria import deployment
    from noria.store import Home

    settings = read_settings()
    path = home_path(system, home, settings)
    if not path.is_dir():
        return [], [f"not known yet, there is no home {path.name} yet"]
    try:
        with Home.open(path, settings, SystemClock(), create=False, write=False) as store:
            found = deployment.planned(store, system)
    except NoriaError as error:
        return [], [f"not known yet, {error}"]
    if isinstance(found, str):
        return [], [f"not known yet, {found}"]
    return [asdict(one) for one in found], [str(one) for one in found]


def diff(
    left: Annotated[str | None, Parameter(help="A declaration file or a record's id. Default: the declaration in force.")] = None,
    right: Annotated[str | None, Parameter(help="The same. Default: the declaration's file as it is now.")] = None,
    /,
    *,
    file: FileOption = DEFAULT_FILE,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Shows what differs between two declarations or two records, line by line."""
    one = _side(left, file, home, default="in force")
    other = _side(right, file, home, default="file")
    changes = list(differences(one, other))
    rows = [{"at": place, "was": before, "is": after} for place, before, after in changes]
    show(rows, lambda: "\n".join(_line(*change) for change in changes) or "no difference", as_json=json)
    return 0


def _line(place: str, before: Any, after: Any) -> str:
    if before is None:
        return f"+ {place}: {_text(after)}"
    if after is None:
        return f"- {place}: {_text(before)}"
    return f"~ {place}: {_text(before)} → {_text(after)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def differences(one: Any, other: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """Every place where two plain values differ, with both sides; ``None`` on the side where there is nothing.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    [('b.c', 2, 3)]
    """
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in [*one, *(key for key in other if key not in one)]:
            found += differences(one.get(key), other.get(key), f"{place}.{key}" if place else str(key))
        return found
    if isinstance(one, list) and isinstance(other, list):
        one, other = _named(one), _named(other)
        return differences(one, other, place)
    return [] if one == other else [(place, one, other)]


def _named(items: list[Any]) -> dict[str, Any]:
    """A list as a mapping, by name where every item has one of its own, so that an inserted item is one difference."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return {f"[{name}]": item for name, item in zip(names, items, strict=True)}
    return {f"[{place}]": item for place, item in enumerate(items)}


def _side(what: str | None, file: Path, home: Path | None, *, default: str) -> Any:
    """Plain data of one side of a comparison."""
    if what is None and default == "file":
        return load_system(file).spec()
    if what is not None and what.endswith(".py"):
        return load_system(Path(what)).spec()
    with opened(file, home) as (store, _):
        if what is None:
            last = store.ledger.latest(Declared)
            if last is None:
                raise NotFound("no declaration is in force yet", hint="run `noria turn` first, or name two files")
            return last.record.spec
        entry: Entry[Record] = find(store, what)
        return entry.record.spec if isinstance(entry.record, Declared) else msgspec.to_builtins(entry.record)


def find(store: Any, what: str) -> Entry[Record]:
    """A record by id, by the beginning of its id (8 digits or more), or by key. Raises ``NotFound``, ``Conflict`` when several match."""
    by_key = store.ledger.find(what)
    if by_key is not None:
        return by_key  # type: ignore[no-any-return]  # the store is typed where it is opened
    if len(what) == 64:
        return store.ledger.get(what)  # type: ignore[no-any-return]
    matches = [entry for entry in store.ledger.read() if entry.id.startswith(what)] if len(what) >= 8 else []
    if len(matches) > 1:
        raise Conflict(f"{len(matches)} records begin with {what}", hint="give more of the id")
    if not matches:
        raise NotFound(f"there is no record {what}", hint="give 8 digits or more of a record's id, or its key")
    return matches[0]  # type: ignore[no-any-return]
