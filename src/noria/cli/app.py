"""The parser, and the one place where an error becomes an exit code."""

from __future__ import annotations

import json as text
import sys
from collections.abc import Sequence

from cyclopts import App

import noria
from noria.cli.commands import GROUPS
from noria.core import DeclarationError, NoriaError


def build() -> App:
    """The application with every command; a command's module is imported when it is called."""
    app = App(
        name="noria",
        help="The whole lifecycle of a machine-learning system as one closed loop.",
        version=noria.__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for title, commands in GROUPS.items():
        for command in commands:
            app.command(f"noria.cli.{command.target}", name=command.name, help=command.about, group=title)
    app.register_install_completion_command(add_to_startup=False)
    return app


def run(arguments: Sequence[str]) -> int:
    """Runs one command: 0 when it did what was asked, 1 when it could not and said why, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        code = build()(list(arguments))
    except NoriaError as error:
        explain(error, as_json="--json" in arguments)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return code if isinstance(code, int) else 0


def explain(error: NoriaError, *, as_json: bool) -> None:
    """Says what happened, where, and what to do: as JSON on stdout when JSON was asked for, else as text on stderr."""
    if as_json:
        shape: dict[str, object] = dict(error.as_json())
        if isinstance(error, DeclarationError):
            shape["problems"] = [{"place": p.place, "message": p.message, "hint": p.hint} for p in error.problems]
        print(text.dumps(shape, ensure_ascii=False))
        return
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  what to do: {error.hint}", file=sys.stderr)
