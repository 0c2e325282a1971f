"""``drill``: a rollback rehearsed and timed before it is needed."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from noria.cli.common import (
    DEFAULT_FILE,
    ByOption,
    FileArgument,
    HomeOption,
    JsonOption,
    check_owner,
    home_path,
    load_system,
    person,
    show,
)
from noria.core import SystemClock, Verdict
from noria.settings import read_settings


def drill(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    workers: Annotated[int | None, Parameter(help="Processes that answer. Default: 1.")] = None,
    by: ByOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Rehearses a rollback on a copy of the home, with the real service under load, and times it. What is live is not touched."""
    from noria.cli.worker import declared
    from noria.deployment.drill import drill as rehearse
    from noria.store import Home

    system, settings = load_system(file), read_settings(workers=workers)
    with Home.open(home_path(system, home, settings), settings, SystemClock(), create=False) as store:
        check_owner(store, system)
        entry, rehearsal = rehearse(store, system, declared(file), by=person(by))
    data = {"key": entry.key, "rehearsal": rehearsal}
    show(data, lambda: _table(rehearsal), as_json=json)
    return 0 if rehearsal.record.verdict is Verdict.PASS else 1


def _table(rehearsal: Any) -> Any:
    from rich.console import Group
    from rich.table import Table

    from noria.cli.steps import checks_table

    record = rehearsal.record
    table = Table(box=None, pad_edge=False)
    for name in ("", "from", "to", "first new answer", "last old answer"):
        table.add_column(name, header_style="dim", justify="right" if "answer" in name else "left")
    for phase in rehearsal.phases:
        table.add_row(phase.name, _name(phase.was), _name(phase.to), _seconds(phase.first), _seconds(phase.last))
    head = f"drill of release {record.release}: {record.verdict}; {rehearsal.requests:,} requests, {rehearsal.failed:,} failed"
    return Group(head, table, checks_table(record.checks))


def _name(bundle: str) -> str:
    return bundle[:12] or "doing nothing"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.3f} s"
