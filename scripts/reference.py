"""Writes docs/reference/*.md from the code: commands, settings, records, tables, errors. A test compares the pages with what this makes."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from noria import tables
from noria.cli.app import build
from noria.cli.commands import GROUPS, Command
from noria.core import errors
from noria.records import KINDS, kind_of
from noria.settings import HELP, Settings

DOCS = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- made by scripts/reference.py from the code; change the code and run it again -->"


def pages() -> dict[str, str]:
    """Every page of the reference by its file's name."""
    made = {
        "commands.md": commands(),
        "settings.md": settings(),
        "records.md": records(),
        "tables.md": shared_tables(),
        "errors.md": error_tree(),
    }
    return {name: re.sub("(?<!`)``(?!`)", "`", "\n".join([NOTE, "", *lines])).rstrip() + "\n" for name, lines in made.items()}


def commands() -> list[str]:
    sections = _sections(build().generate_docs(output_format="markdown"))
    lines = [
        "# Commands",
        "",
        "Every command takes `--help`, `--json` (one JSON document on stdout) and `--home`. Without a file it reads `./system.py`.",
    ]
    lines += [
        "Exit codes: 0 done; 1 it could not be done, and the message says why and what to do; 2 wrong usage; 130 interrupted.",
        "",
    ]
    lines += ["`noria --install-completion` sets up completion for the shell; `noria --version` prints the version.", ""]
    for title, some in GROUPS.items():
        lines += [f"## {title}", ""]
        for command in some:
            lines += [f"### {command.name}", "", *_documented(command), *sections[command.name], ""]
    return lines


def _sections(text: str) -> dict[str, list[str]]:
    """The usage, arguments and options of each command, from the parser's own description."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## noria ", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        blocks = [block for block in body.strip().split("\n\n") if block.strip()]
        found[name.strip()] = [line for k, block in enumerate(blocks) if k != 1 for line in [*block.splitlines(), ""]]
    return found


def _documented(command: Command) -> list[str]:
    module, function = command.target.split(":")
    text = inspect.getdoc(getattr(importlib.import_module(f"noria.cli.{module}"), function)) or ""
    return [*text.splitlines(), ""]


def settings() -> list[str]:
    lines = ["# Settings", "", "Read once, from variables of the environment. None of them changes a result.", ""]
    lines += ["| variable | default | unit | what it does |", "|---|---|---|---|"]
    defaults = Settings()
    for name, (unit, about) in HELP.items():
        default = getattr(defaults, name)
        shown = "" if default == "" else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        lines.append(f"| `NORIA_{name.upper()}` | {shown} | {unit} | {about} |")
    return lines


def records() -> list[str]:
    lines = ["# Records", "", _first(inspect.getdoc(importlib.import_module("noria.records")) or ""), ""]
    lines += [
        "Around every record is an *entry*: `id` (the hash of the logical content), `key` (which effect this is, once in a ledger), `at` (logical"
    ]
    lines += ["time), `parents` (the ids of the records that it was made from).", ""]
    steps = dict.fromkeys(kind.STEP for kind in KINDS)
    for step in steps:
        lines += [f"## {'The wheel' if step == 'wheel' else step.capitalize()}", ""]
        for kind in KINDS:
            if step == kind.STEP:
                lines += [f"### `{kind_of(kind)}`", "", *(inspect.getdoc(kind) or "").splitlines(), ""]
                lines += ["| field | type |", "|---|---|"]
                lines += [
                    f"| `{field.name}` | `{_type(kind.__annotations__[field.name])}` |" for field in msgspec.structs.fields(kind)
                ]
                lines.append("")
    return lines


def _type(annotation: object) -> str:
    return str(annotation).replace("|", "\\|")


def shared_tables() -> list[str]:
    lines = ["# Tables", "", *(inspect.getdoc(tables) or "").splitlines(), ""]
    for table in tables.TABLES:
        lines += [f"## `{table.name}`", "", f"Written by `{table.writer}`: {table.about}.", ""]
        lines += [f"Key: {_names(table.key)}. Order: {_names(table.order)}.", "", "| column | type |", "|---|---|"]
        lines += [
            f"| `{name}` | `{kind if not isinstance(kind, type) else kind.__name__}` |" for name, kind in table.columns.items()
        ]
        lines.append("")
    return lines


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def error_tree() -> list[str]:
    lines = [
        "# Errors",
        "",
        "Every error that Noria raises on purpose is a `NoriaError`. `message` says what happened and where, `hint` what to do. On the wire",
    ]
    lines += [
        'and with `--json` it is `{"error": …, "kind": …, "hint": …}`; a declaration\'s mistakes are listed under `problems`.',
        "",
        "| class | is a | when |",
        "|---|---|---|",
    ]
    for kind, parent in _errors(errors.NoriaError, ""):
        lines.append(f"| `{kind.__name__}` | {parent} | {_first(inspect.getdoc(kind) or '')} |")
    return lines


def _errors(kind: type[Exception], parent: str) -> Iterator[tuple[type[Exception], str]]:
    yield kind, parent
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _errors(child, f"`{kind.__name__}`")


def _first(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def main() -> None:
    DOCS.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
