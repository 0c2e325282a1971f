"""``story``: the thirteen steps in the life of an advertising model, with every trap, on a simulated stream."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.cli.common import HomeOption, JsonOption, console, day, load_system
from noria.core import Conflict, canonical

if TYPE_CHECKING:
    from noria.story import Chapter


def story(*, home: HomeOption = None, json: JsonOption = False) -> int:
    """Tells the thirteen steps on a simulated stream of advertisements, and says of each planted trap whether it was seen.

    The declarations, the data and everything that was recorded stay in --home (by default a new temporary folder), to be looked at with the other
    commands. Takes two to three minutes. Exit code 1 when a trap was missed.
    """
    from noria.story import plain, tell

    folder = home or Path(tempfile.mkdtemp(prefix="noria-story-"))
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty", hint="name another folder with --home")
    chapters: list[Chapter] = []
    with _Days(quiet=json) as days:
        for chapter in tell(folder, load_system, on_day=days.move):
            chapters.append(chapter)
            if not json:
                days.say(chapter)
    missed = [trap.what for chapter in chapters for trap in chapter.traps if not trap.seen]
    seen = sum(len(chapter.traps) for chapter in chapters) - len(missed)
    if json:
        data = {
            "simulated": True,
            "folder": str(folder),
            "chapters": [plain(c) for c in chapters],
            "seen": seen,
            "missed": missed,
        }
        print(canonical(data).decode())
    else:
        print(f"\n{seen} of {seen + len(missed)} seen. What was recorded is in {folder}; look at it with, for example:")
        print(f"  noria status {folder}/clicks.py --home {folder}/home")
        print(f"  noria diagnose {folder}/clicks.py --home {folder}/home --newest 3")
    return 1 if missed else 0


class _Days:
    """The day that is being told, on a terminal; nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._out = console()
        self._live = self._out.is_terminal and not quiet
        self._quiet = quiet
        self._status: Any = None

    def __enter__(self) -> _Days:
        if not self._quiet:
            self._out.print(
                "[bold]The thirteen steps[/]: an advertising model and its traps. [dim]Everything here is simulated.[/]"
            )
        if self._live:
            self._status = self._out.status("2024-01-01")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def move(self, moment: datetime) -> None:
        if self._status is not None:
            self._status.update(day(moment))

    def say(self, chapter: Chapter) -> None:
        from rich.markup import escape

        self._out.print(f"\n[bold]{chapter.steps}  {escape(chapter.title)}[/] [dim]day {chapter.day}[/]")
        self._out.print(f"   {escape(chapter.happened)}")
        for trap in chapter.traps:
            mark = "[green]seen[/]  " if trap.seen else "[red]MISSED[/]"
            self._out.print(f"   {mark} {escape(trap.what)}")
            self._out.print(f"          [dim]{escape(trap.says)}[/]")
