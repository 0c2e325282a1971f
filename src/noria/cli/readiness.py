"""``readiness``: the ML Test Score, from evidence; and what a person states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.common import (
    DEFAULT_FILE,
    AtOption,
    ByOption,
    FileArgument,
    HomeOption,
    JsonOption,
    NoteOption,
    day,
    opened,
    person,
    show,
)
from noria.core import Conflict, NotFound, duration
from noria.records import Released, Trained, TrainingSet

if TYPE_CHECKING:
    from noria.readiness import Score
    from noria.store import Home
    from noria.system import System

_MARK = {"evidence": "[green]1  [/]", "statement": "[yellow]0.5[/]", "lapsed": "[red]0  [/]", "missing": "[red]0  [/]"}


def readiness(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    state: Annotated[
        str | None, Parameter(help="State that this test (such as data.privacy) is done by hand and documented.")
    ] = None,
    reproduce: Annotated[
        bool, Parameter(negative="", show_default=False, help="Train the release again from its training set, and compare.")
    ] = False,
    lasts: Annotated[str, Parameter(help="How long the statement counts.")] = "180d",
    note: NoteOption = "",
    by: ByOption = None,
    at: AtOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Computes the ML Test Score from the evidence in the ledger: 28 tests, four sections, and the weakest section counts.

    A test that evidence shows gets a point; one that a person states (--state, with a --note) half a point until the statement lapses.
    """
    from noria import readiness as room

    owner = "readiness" if state is not None or reproduce else ""
    with opened(file, home, at=at, owner=owner, computes=True) as (store, system):
        if reproduce:
            _reproduced(store, system)
        if state is not None:
            room.state(store, state, by=person(by), note=note, until=store.clock.now() + duration(lasts))
        newest = store.ledger.read(newest=1)
        now = newest[-1].at if newest and at is None else store.clock.now()
        made = room.score(store, system, now)
    show(made, lambda: _table(made), as_json=json)
    return 0


def _reproduced(store: Home, system: System) -> None:
    """Trains the release in force again."""
    from noria import data, development

    released = store.ledger.latest(Released)
    found = [e for e in store.ledger.read(Trained) if released is not None and e.record.bundle == released.record.bundle]
    if not found:
        raise NotFound("there is no release that was trained in this home", hint="release one first")
    training = next(e for e in store.ledger.parents(found[-1].id) if isinstance(e.record, TrainingSet))
    made = data.training_set(store, system, training.at)
    if made is None or made[0].id != training.id:
        raise Conflict(
            "the release's training set cannot be made again: labels were revised since, or the declaration is another",
            hint="what was trained on is recorded, but what is known now is more; train anew and release that",
        )
    development.reproduce(store, system, found[-1], *made)


def _table(made: Score) -> Any:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    parts: list[Any] = [f"[bold]ML Test Score {made.total:g}[/] of 7 as of {day(made.at)}: {made.means}"]
    for section, total in made.sections.items():
        table = Table(
            box=None,
            pad_edge=False,
            title=f"\n{section} {total:g} of 7",
            title_justify="left",
            title_style="bold",
            show_header=False,
        )
        for width in (3, None, None):
            table.add_column(width=width, overflow="fold")
        for answer in made.answers:
            if answer.id.startswith(f"{section}."):
                until = f" (until {answer.until:%Y-%m-%d})" if answer.until is not None else ""
                todo = f"\n[dim]→ {escape(answer.todo)}[/]" if answer.todo else ""
                table.add_row(_MARK[answer.how], escape(answer.asks), f"{escape(answer.says)}{until}{todo}")
        parts.append(table)
    parts.append(f"\nnext: {escape(made.next)}" if made.next else "\nnothing is left to do")
    return Group(*parts)
