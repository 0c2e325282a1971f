"""A rollback rehearsed: the real service on a copy of the home, real rows asked without a pause, back to the release before and forth again.

What is live is not touched: the copy has a folder, a port and a token of its own, and is removed at the end. What is recorded is whether it held;
the seconds are measurements.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from noria import features as feature_room
from noria.core import Check, Estimate, LeaseLost, NotEnoughData, Unavailable, Verdict, overall, stopwatch
from noria.deployment.live import Live, state
from noria.deployment.load import Load, Said, sample
from noria.deployment.rollout import promote, rollback
from noria.deployment.seal import unsealed
from noria.records import Drilled, Entry
from noria.settings import Settings
from noria.store import Home
from noria.store.copying import copy_home
from noria.system import System

STEADY, SETTLED = 100, 20
STOP_SECONDS = 30.0
CONNECTIONS_A_WORKER, MOST_CONNECTIONS = 4, 16
_LOOK = 0.01


class Phase(msgspec.Struct, frozen=True):
    """One change of release. ``first`` and ``last`` are the seconds from the record to the first answer of the new release, and to the last
    of the old one (0: none came after the record; ``None``: none ever came).
    """

    name: str
    was: str
    to: str
    first: float | None
    last: float


class Change(NamedTuple):
    """A change as it was made: between which releases, when it was recorded, and whether all answers came from the new one in the end."""

    name: str
    was: str
    to: str
    since: float
    settled: bool


class Rehearsal(msgspec.Struct, frozen=True):
    """What was rehearsed: the changes with their seconds, how many requests were made, and the record with its checks."""

    phases: tuple[Phase, ...]
    requests: int
    failed: int
    record: Drilled


def drill(
    home: Home, system: System, load: Callable[[], System], *, by: str, start: float = 120.0, patience: float = 30.0
) -> tuple[Entry[Drilled], Rehearsal]:
    """Rehearses going back from the champion and forth again, and records whether it held.

    ``load`` gives the declaration in another process, and has to be picklable. ``start`` bounds the seconds until the service answers,
    ``patience`` those of each change. The lease is taken while the home is copied and while the outcome is written, and not between, so
    that turns go on. Raises ``NotEnoughData`` when nothing is released,
    ``Unavailable`` when the home cannot be copied or the service does not start.
    """
    live = state(home)
    if live.champion is None:
        raise NotEnoughData("nothing is released, so there is nothing to go back from", hint="run `noria status`")
    folder = Path(tempfile.mkdtemp(prefix=f".{home.path.name}-drill-", dir=home.path.parent))  # only its owner may read it
    try:
        with _held(home, patience):
            copy_home(home, folder)
        rehearsal = _rehearsed(folder, home, system, load, live, by=by, patience=(start, patience))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for phase in rehearsal.phases:
        for answer, seconds in (("first", phase.first), ("last", phase.last)):
            if seconds is not None:
                home.measurements.add("drill_seconds", seconds, phase=phase.name, answer=answer)
    with _held(home, patience):
        number = home.ledger.count(Drilled)
        entry = home.commit(rehearsal.record, key=f"drilled/{number:04d}", parents=live.parents)
    return entry, rehearsal


def _rehearsed(
    folder: Path, home: Home, system: System, load: Callable[[], System], live: Live, *, by: str, patience: tuple[float, float]
) -> Rehearsal:
    settings = msgspec.structs.replace(home.settings, home=folder, host="127.0.0.1", port=_free_port(), token="", log="fast")
    was, to = live.champion or "", live.previous or ""
    with Home.open(folder, settings, home.clock, create=False) as copy:
        rows = sample(copy, system)
        if live.rollout is not None:  # what is under way would be stopped first
            with copy.hold("drill"):
                rollback(copy, system, by=by)
        with _serving(folder, load, settings, patience[0]) as (token, living):
            count = min(len(rows), MOST_CONNECTIONS, CONNECTIONS_A_WORKER * settings.workers)
            with Load(settings.port, token, rows, count) as asking:
                wait = _Waiter(asking, living, patience[1])
                wait.steady(was)
                changes = []
                for name, old, new in (("rollback", was, to), ("promote", to, was)):
                    with copy.hold("drill"):
                        rollback(copy, system, by=by) if name == "rollback" else promote(copy, system, new, by=by)
                    since = stopwatch()
                    changes.append(Change(name, old, new, since, wait.settled(new, since)))
        checks = _checks(copy, system, asking.said, changes)
    record = Drilled(release=live.number, back_to=to, verdict=overall(checks), checks=checks, by=by)
    ends = [*(change.since for change in changes[1:]), float("inf")]
    timed = tuple(_phase(asking.said, change, upto) for change, upto in zip(changes, ends, strict=True))
    return Rehearsal(timed, len(asking.said), sum(one.failed for one in asking.said), record)


def _phase(said: Sequence[Said], change: Change, upto: float) -> Phase:
    """The seconds of a change; ``upto`` is when the next one began."""
    after = [one for one in said if change.since < one.done <= upto and not one.failed]
    new = [one.done - change.since for one in after if one.release == change.to]
    old = [one.done - change.since for one in after if one.release == change.was]
    return Phase(change.name, change.was, change.to, min(new, default=None), max(old, default=0.0))


# ---------------------------------------------------------------------------------------------------------- the service


@contextmanager
def _serving(
    folder: Path, load: Callable[[], System], settings: Settings, patience: float
) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The service on the copy, in a process of its own, until the block ends. Gives its token, and whether it lives."""
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(folder, load, settings), name="noria-drill")
    child.start()
    try:
        _wait_until(lambda: _answers(folder, settings) or not child.is_alive(), patience)
        if not child.is_alive() or not _answers(folder, settings):
            raise Unavailable("the service on the copy did not start", hint="try `noria serve`: it says why")
        yield (folder / "service" / "token").read_text().strip(), child.is_alive
    finally:
        child.terminate()
        child.join(STOP_SECONDS)
        if child.is_alive() and child.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.join()
        child.close()


def _serve(folder: Path, load: Callable[[], System], settings: Settings) -> None:
    """In the other process: a group of its own, so that Ctrl-C reaches only the one that waits; when that one is killed, this one ends too."""
    from noria.deployment.service.parent import end_with_parent
    from noria.deployment.service.server import serve

    os.setsid()
    end_with_parent()
    serve(folder, load, settings)


def _answers(folder: Path, settings: Settings) -> bool:
    if not (folder / "service" / "token").exists():
        return False
    with suppress(OSError), socket.create_connection((settings.host, settings.port), timeout=1):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(done: Callable[[], bool], seconds: float) -> bool:
    begun, never = stopwatch(), threading.Event()
    while not done():
        if stopwatch() - begun > seconds:
            return False
        never.wait(_LOOK)
    return True


@contextmanager
def _held(home: Home, patience: float) -> Iterator[None]:
    """The lease, waiting for a turn that has it."""
    begun, never = stopwatch(), threading.Event()
    while True:
        held = home.hold("drill")
        try:
            held.__enter__()
            break
        except LeaseLost:
            if stopwatch() - begun > patience:
                raise
            never.wait(0.25)
    try:
        yield
    finally:
        held.__exit__(None, None, None)


class _Waiter:
    """Waits for what the answers show."""

    def __init__(self, asking: Load, living: Callable[[], bool], patience: float) -> None:
        self._asking, self._living, self._patience = asking, living, patience

    def steady(self, release: str) -> None:
        """Until every connection has got answers. Raises ``Unavailable`` when they do not come."""
        least = max(STEADY // self._asking.connections, SETTLED)
        if not self._until(lambda: all(n >= least for n in self._counts(lambda one: one.release == release).values())):
            raise Unavailable(
                "the service on the copy does not answer from the release in force", hint="try `noria serve`: it says why"
            )

    def settled(self, release: str, since: float) -> bool:
        """Until the newest answers of every connection, asked after ``since``, come from ``release``; whether it came to that."""
        return self._until(lambda: all(self._newest(place, release, since) for place in range(self._asking.connections)))

    def _newest(self, place: int, release: str, since: float) -> bool:
        mine = [one for one in list(self._asking.said) if one.connection == place][-SETTLED:]
        return len(mine) == SETTLED and mine[0].sent > since and all(one.release == release and not one.failed for one in mine)

    def _counts(self, fits: Callable[[Said], bool]) -> dict[int, int]:
        counts = dict.fromkeys(range(self._asking.connections), 0)
        for one in list(self._asking.said):
            counts[one.connection] += not one.failed and fits(one)
        return counts

    def _until(self, done: Callable[[], bool]) -> bool:
        return _wait_until(lambda: done() or not self._living(), self._patience) and self._living()


# ------------------------------------------------------------------------------------------------------------ the checks


def _checks(copy: Home, system: System, said: Sequence[Said], changes: Sequence[Change]) -> tuple[Check, ...]:
    failed = sum(one.failed for one in said)
    broken = sum(one.fallback.startswith("error") for one in said)
    found = [
        _none("no failed request", failed, "every request was answered with 200"),
        _none("no answer for a broken model", broken, "no model failed on a row, so no fallback had to answer for one"),
    ]
    for change in changes:
        which = change.to[:12] or "doing nothing"
        verdict = Verdict.PASS if change.settled else Verdict.FAIL
        detail = f"in the end all answers came from {which}" if change.settled else f"the answers did not all come from {which}"
        found.append(Check("answers from the other release", verdict, change.name, detail=detail))
    logged = unsealed(copy)
    rows = pl.concat(logged, how="diagonal_relaxed") if logged else pl.DataFrame({"_id": []}, schema={"_id": pl.String})
    missing = len({one.id for one in said if not one.failed} - set(rows["_id"].to_list()))
    found.append(_none("every answer is in the log", missing, "each acknowledged prediction was found in the log of the copy"))
    found.append(_same_scores(system, said, rows, changes))
    return tuple(found)


def _none(name: str, count: int, detail: str) -> Check:
    verdict = Verdict.FAIL if count else Verdict.PASS
    return Check(name, verdict, estimate=Estimate(float(count)), bound=0.0, detail=detail)


def _same_scores(system: System, said: Sequence[Said], rows: pl.DataFrame, changes: Sequence[Change]) -> Check:
    """The same row with the same features got the same score before the rollback and after coming back."""
    name, release = "answers after equal those before", changes[0].was
    began, back = changes[0].since, changes[1].since
    before = {one.id for one in said if not one.failed and one.done <= began}
    after = {one.id for one in said if not one.failed and one.sent > back and one.release == release}
    own = [column.name for column in feature_room.plan(system).columns if column.name in rows.columns]
    if not before or not after or "_release" not in rows.columns:
        return Check(name, Verdict.NOT_MEASURED, detail="there were no answers to compare")
    mine = rows.filter(pl.col("_release") == release).with_columns(_key=pl.col("_id").str.replace(r"@[^@]*$", ""))
    first, second = (
        mine.filter(pl.col("_id").is_in(sorted(some))).select("_key", *own, "_score").unique() for some in (before, after)
    )
    pairs = first.join(second, on=["_key", *own], nulls_equal=True, suffix="_after")
    if pairs.is_empty():
        return Check(name, Verdict.NOT_MEASURED, detail="no row was asked twice with the same features")
    differ = pairs.filter(~pl.col("_score").eq_missing(pl.col("_score_after"))).height
    return _none(name, differ, "the same rows with the same features got the same scores")
