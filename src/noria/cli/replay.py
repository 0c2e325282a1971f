"""``replay``: history through the production code."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from noria.cli.common import (
    DEFAULT_FILE,
    FileArgument,
    HomeOption,
    JsonOption,
    console,
    day,
    home_path,
    load_system,
    opened,
    show,
)
from noria.core import duration, parse_time
from noria.records import Alerted, Released, RolloutMoved, Scored, Valued
from noria.settings import read_settings

if TYPE_CHECKING:
    from noria.loop import Turn
    from noria.store import Home


class Tally(msgspec.Struct):
    """What a replay has seen so far; grows by reading only what each turn added."""

    seq: int = 0
    predictions: int = 0
    releases: int = 0
    rollouts: int = 0
    stopped: int = 0
    value: float = 0.0
    currency: str = ""
    at: datetime | None = None
    alerts: set[str] = msgspec.field(default_factory=set)
    accounts: dict[str, float] = msgspec.field(default_factory=dict)

    def add(self, home: Home, done: Turn | None = None) -> None:
        """Takes in what was recorded since the last call."""
        for entry in home.ledger.read(after=self.seq):
            record = entry.record
            self.seq, self.at = entry.seq, entry.at
            if isinstance(record, Scored):
                self.predictions += record.n
            elif isinstance(record, Released):
                self.releases = record.number
            elif isinstance(record, RolloutMoved):
                self.rollouts = max(self.rollouts, record.rollout)
            elif isinstance(record, Alerted):
                (self.alerts.discard if record.state == "resolved" else self.alerts.add)(record.alert)
            elif isinstance(record, Valued):
                known = self.accounts.get(str(record.window), 0.0)
                self.value += record.total - known
                self.accounts[str(record.window)] = record.total
                self.currency = record.currency
        if done is not None:
            self.stopped += bool(done.stopped)
            self.at = done.at

    def says(self) -> str:
        """One line for the progress bar."""
        from noria.web.facts import amount

        parts = [
            f"{self.predictions:,} predictions",
            f"{self.releases} releases",
            f"{len(self.alerts)} open alerts",
            amount(self.value, self.currency),
        ]
        return " · ".join(parts)


def replay(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    start: Annotated[str, Parameter(name="--from", help="Where history begins, for example 2013-01-01.")],
    end: Annotated[str, Parameter(name="--to", help="Where it ends.")],
    every: Annotated[str, Parameter(help="Time between two turns.")] = "1d",
    compare: Annotated[
        str | None,
        Parameter(
            help="Retraining policies to run side by side: declared, never, recalibrated, triggered, or a time such as 28d."
        ),
    ] = None,
    jobs: Annotated[int, Parameter(help="How many of these policies to run at the same time.")] = 1,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Runs history through the same code under a simulated clock, and says what it was worth.

    It may be interrupted; the same command goes on where it stopped. With --compare, each policy lives through the same history in a home of its
    own (compare/NAME in the home), and a table says what each came to.
    """
    from noria.replay import moments
    from noria.replay import replay as run
    from noria.web import facts
    from noria.web.summary import business_text

    system, settings = load_system(file), read_settings()
    first, last, step = parse_time(start), parse_time(end), duration(every)
    turns = len(moments(first, last, step))
    path = home_path(system, home, settings)
    if compare is not None:
        from noria.cli.compare import side_by_side

        return side_by_side(file, path, compare, (first, last, step), jobs=jobs, json=json)
    if path.is_dir() and any(path.iterdir()):
        with opened(file, home):
            pass  # a home of another system is refused
    tally = Tally()
    bar = TurnBar(turns, first, step, quiet=json)
    try:
        with bar:
            store = run(path, system, first, last, step, settings=settings, on_turn=lambda h, t: bar.move(h, t, tally))
    except KeyboardInterrupt:
        where = day(tally.at) if tally.at else "the beginning"
        print(f"\nstopped after {where}; nothing is lost. Run the same command again to go on from there.", file=sys.stderr)
        return 130
    with store:
        tally.add(store)
        money = facts.totals(store, system)
        data = {
            "system": system.name,
            "turns": turns,
            "predictions": tally.predictions,
            "releases": tally.releases,
            "open_alerts": sorted(tally.alerts),
            "stopped_turns": tally.stopped,
            "business": money,
            "since_release": facts.totals(store, system, released=True),
            "home": str(path),
        }
        show(data, lambda: business_text(store, system), as_json=json)
    return 0


class TurnBar:
    """Progress of a replay: a live bar on a terminal, a line a month elsewhere, nothing when quiet."""

    def __init__(self, turns: int, first: datetime, step: Any, *, quiet: bool) -> None:
        self._first, self._step, self._turns = first, step, turns
        self._quiet, self._month = quiet, (first.year, first.month)
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> None:
        out = console()
        if self._quiet or not out.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[says]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=out)
        self._progress.start()
        self._task = self._progress.add_task(day(self._first), total=self._turns, says="")

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def move(self, home: Home, done: Turn, tally: Tally) -> None:
        """After one turn."""
        tally.add(home, done)
        if self._progress is not None:
            completed = (done.at - self._first) // self._step
            self._progress.update(self._task, completed=completed, description=day(done.at), says=tally.says())
            if done.stopped:
                self._progress.console.print(f"{day(done.at)} stopped at {done.stopped}: {done.reason}")
        elif not self._quiet:
            month = (done.at.year, done.at.month)
            if month != self._month or done.stopped:
                self._month = month
                note = f" · stopped at {done.stopped}: {done.reason}" if done.stopped else ""
                print(f"{day(done.at)}  {tally.says()}{note}", flush=True)
