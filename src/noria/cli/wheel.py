"""``turn``, ``up``, ``serve``, ``replay``: the commands that turn the wheel."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from noria.cli.common import (
    DEFAULT_FILE,
    AtOption,
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
from noria.core import SettingsError, duration, parse_time
from noria.records import Alerted, Released, RolloutMoved, Scored, Valued
from noria.settings import read_settings

if TYPE_CHECKING:
    from noria.loop import Turn
    from noria.store import Home


def turn(file: FileArgument = DEFAULT_FILE, /, *, at: AtOption = None, home: HomeOption = None, json: JsonOption = False) -> int:
    """Does what is due now, once: ingests, scores, closes cohorts, watches, accounts, trains and moves the rollout as needed."""
    from noria import loop
    from noria.monitoring.channels import channels
    from noria.monitoring.outbox import deliver, prepare

    given = channels(read_settings().alerts, json=json)
    with opened(file, home, at=at, owner="turn", create=True) as (store, system):
        prepare(store, given)
        done = loop.turn(store, system)
        for wrong in deliver(store, system, given):
            print(f"an alert could not be sent ({wrong}); the next turn tries again", file=sys.stderr)
    data = {"at": done.at, "did": done.did, "stopped": done.stopped, "reason": done.reason, "hint": done.hint}
    show(data, lambda: _turned(done), as_json=json)
    return 1 if done.stopped else 0


def _turned(done: Turn) -> str:
    did = ", ".join(done.did) or "nothing was due"
    if not done.stopped:
        return f"{day(done.at)}: {did}"
    return f"{day(done.at)}: {did}\nstopped at {done.stopped}: {done.reason}\n  what to do: {done.hint}"


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
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Runs history through the same code under a simulated clock, and says what it was worth.

    It may be interrupted; the same command goes on where it stopped.
    """
    from noria.replay import moments
    from noria.replay import replay as run
    from noria.web import facts
    from noria.web.summary import business_text

    system, settings = load_system(file), read_settings()
    first, last, step = parse_time(start), parse_time(end), duration(every)
    turns = len(moments(first, last, step))
    path = home_path(system, home, settings)
    if path.is_dir() and any(path.iterdir()):
        with opened(file, home):
            pass  # a home of another system is refused
    tally = Tally()
    bar = _Bar(turns, first, step, quiet=json)
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


class _Bar:
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


def serve(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    host: Annotated[str | None, Parameter(help="Where to listen. Default: the machine itself only.")] = None,
    port: Annotated[int | None, Parameter(help="The port. Default: 8000.")] = None,
    workers: Annotated[int | None, Parameter(help="Processes that answer. Default: 1.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Serves predictions by HTTP with the champion, until it is stopped."""
    from noria.cli.worker import declared
    from noria.deployment import serve as run

    settings = read_settings(host=host, port=port, workers=workers)
    with opened(file, home) as (store, system):
        path, name = store.path, system.name
    url = f"http://{settings.host}:{settings.port}"
    show({"url": url}, lambda: f"serving {name} at {url}; the token is in {path / 'service' / 'token'}", as_json=json)
    sys.stdout.flush()
    run(path, declared(file), settings)
    return 0


def up(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    every: Annotated[str, Parameter(help="Time between two turns.")] = "1m",
    host: Annotated[str | None, Parameter(help="Where to listen. Default: the machine itself only.")] = None,
    port: Annotated[int | None, Parameter(help="The port. Default: 8000.")] = None,
    workers: Annotated[int | None, Parameter(help="Processes that answer. Default: 1.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Keeps turning the wheel, serves predictions and writes the report into the home, until it is stopped."""
    from noria.cli.worker import work

    pause = duration(every).total_seconds()
    if pause <= 0:
        raise SettingsError(f"--every {every} is not a time between two turns", hint='write for example "1m"')
    return work(file, home, pause, read_settings(host=host, port=port, workers=workers), as_json=json)
