"""The command line. ``main`` is the entry point; nothing heavy is imported before a command is known."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from noria.cli.commands import overview


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and leaves the process with its exit code: 0 done, 1 an error that is explained, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given in (["--help"], ["-h"], ["help"]):
        print(overview())
        return
    from noria.cli.app import run

    sys.exit(run(given))
