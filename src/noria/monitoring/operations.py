"""How the system runs: volume, lateness, refusals, fallbacks, unknown categories; what each source brought; the live service's latency and errors.

Everything is held against its own last 28 windows or a fixed share. Latency and errors are physical: a run under a simulated clock has none,
and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import polars as pl

from noria.core import Verdict, Window, duration
from noria.monitoring.windows import judged, number
from noria.records import Ingested, Monitored, Scored, Signal
from noria.store import Home
from noria.store.minutes import minutes, quantile
from noria.system import System

PAST = 28
LEAST_PAST = 14
FEW, MANY = 0.5, 2.0
REFUSED = 0.01
LATE = 0.01
SHARE = 0.01
ERRORS = 0.01
HOUR = timedelta(hours=1)
Table = Sequence[Mapping[tuple[str, str], float | None]]


def operations(home: Home, system: System, window: Window, frame: pl.DataFrame, past: Sequence[Monitored]) -> list[Signal]:
    """All of it for one window; ``frame`` are its predictions, ``past`` the windows before, the newest last."""
    before = [{(s.name, s.subject): s.value for s in record.signals} for record in past[-PAST:]]
    return [
        *_traffic(system, frame, past),
        *_answers(home, system, window, frame, before),
        *_sources(home, system, window, before),
        *_service(home, system, window),
    ]


def _traffic(system: System, frame: pl.DataFrame, past: Sequence[Monitored]) -> list[Signal]:
    """Volume against its own past (its third smallest and third largest windows), rows scored late, and rows that could not be scored."""
    rows = float(frame.height)
    low, high = _range([float(record.n) for record in past[-PAST:]])
    made = [
        Signal(
            "rows", "volume", "operation", rows, low if high is None or rows <= high else high, judged(rows, low=low, high=high)
        )
    ]
    if not frame.height:
        return made
    after = (frame["_scored_at"] - frame["_time"]) > duration(system.every) + timedelta(seconds=1)
    late = number(float(after.fill_null(False).mean() or 0.0))  # type: ignore[arg-type]  # the mean of booleans is a float
    made.append(Signal("late", "volume", "operation", late, LATE, judged(late, high=LATE)))
    unanswered = (frame["_release"].fill_null("") != "") & frame["_score"].is_null()
    refused = number(float(unanswered.mean() or 0.0))  # type: ignore[arg-type]  # the mean of booleans is a float
    made.append(Signal("refused", "volume", "operation", refused, REFUSED, judged(refused, high=REFUSED)))
    return made


def _answers(home: Home, system: System, window: Window, frame: pl.DataFrame, before: Table) -> list[Signal]:
    """The share of answers that the fallback gave, and of rows with a category that the training never saw."""
    made = []
    if frame.height and "_fallback" in frame.columns:
        share = float(frame["_fallback"].is_not_null().sum()) / frame.height
        made.append(_share("fallbacks", "volume", "operation", share, before))
    scored = home.ledger.read(Scored, since=window.start, until=window.end + 2 * duration(system.every))
    inside = [e.record for e in scored if window.start < e.record.window.end <= window.end]
    rows = sum(record.n for record in inside)
    if rows:
        unknown = sum(record.unknown for record in inside) / rows
        made.append(_share("unknown", "volume", "operation", unknown, before))
    return made


def _sources(home: Home, system: System, window: Window, before: Table) -> list[Signal]:
    """Of each source what came in this window: rows, the age of its newest row, and the shares restated and quarantined."""
    came: dict[str, list[Ingested]] = {name: [] for name in system.sources}
    for entry in home.ledger.read(Ingested, since=window.start, until=window.end):
        came.setdefault(entry.record.source, []).append(entry.record)
    made: list[Signal] = []
    for name, records in came.items():
        rows = float(sum(record.accepted for record in records))
        seen = [one["rows", name] for one in before if ("rows", name) in one]
        if not rows and not seen:
            continue
        low, high = _range([float(value) for value in seen if value is not None])
        bound = low if high is None or rows <= high else high
        made.append(Signal("rows", name, "input", rows, bound, judged(rows, low=low, high=high)))
        made += _age(name, system, window, records, before)
        received = sum(record.received for record in records)
        restated, aside = sum(r.restated for r in records), sum(r.quarantined for r in records)
        if received:
            made.append(_share("duplicates", name, "input", restated / received, before))
            made.append(_share("quarantined", name, "input", aside / received, before))
    return made


def _age(name: str, system: System, window: Window, records: Sequence[Ingested], before: Table) -> list[Signal]:
    """The hours from the newest row's own time to the window's end; without new rows it grows from window to window."""
    newest = max((record.last for record in records if record.last is not None), default=None)
    if newest is not None:
        hours = max(0.0, (window.end - newest) / HOUR)
    else:
        known = before[-1].get(("freshness hours", name)) if before else None
        if known is None:
            return []
        hours = known + duration(system.every) / HOUR
    past = sorted(v for one in before if (v := one.get(("freshness hours", name))) is not None)
    high = MANY * max(past[-3], duration(system.every) / HOUR) if len(past) >= LEAST_PAST else None
    return [Signal("freshness hours", name, "input", number(hours), number(high), judged(number(hours), high=high))]


def _service(home: Home, system: System, window: Window) -> list[Signal]:
    """The live service's 99 % quantile of seconds (the histogram's bound, in milliseconds) and share of errors."""
    names = (("latency p99 ms", "service"), ("errors", "service"))
    folder = home.path / "service" / "minutes"
    if home.clock.latency(0.0) is None:
        note = "a simulated clock measures no latency"
        return [Signal(*name, "operation", None, None, Verdict.NOT_MEASURED, note=note) for name in names]
    requests = errors = 0
    counts: list[int] = []
    bounds: tuple[float, ...] = ()
    for minute in minutes(folder, window) if folder.exists() else ():
        if bounds not in ((), minute.bounds):
            continue
        bounds = minute.bounds
        requests, errors = requests + minute.requests, errors + minute.errors
        counts = [a + b for a, b in zip(counts or [0] * len(minute.counts), minute.counts, strict=True)]
    if not requests:
        note = "no request was answered"
        return [Signal(*name, "operation", None, None, Verdict.NOT_MEASURED, note=note) for name in names]
    seconds = quantile(bounds, tuple(counts), 0.99)
    most = duration(system.serve.timeout) / timedelta(milliseconds=1)
    rail = next((r.bound for r in system.objective.guardrails if r.metric == "latency_p99_ms"), most)
    slow = 1000 * min(seconds or 0.0, bounds[-1])
    failed = errors / requests
    return [
        Signal(*names[0], "operation", number(slow), rail, judged(number(slow), high=rail)),
        Signal(*names[1], "operation", number(failed), ERRORS, judged(number(failed), high=ERRORS)),
    ]


def _share(name: str, subject: str, level: str, share: float, before: Table) -> Signal:
    """A share that is rare as a rule: beyond 1 %, and beyond twice its third largest window when there are enough to know."""
    past = sorted(v for one in before if (v := one.get((name, subject))) is not None)
    bound = max(SHARE, MANY * past[-3]) if len(past) >= LEAST_PAST else SHARE
    value = number(share)
    return Signal(name, subject, level, value, number(bound), judged(value, high=bound))  # type: ignore[arg-type]  # a level's name


def _range(past: Sequence[float]) -> tuple[float | None, float | None]:
    """Half the third smallest and twice the third largest of the windows before; nothing from fewer than 14."""
    if len(past) < LEAST_PAST:
        return None, None
    counts = sorted(past)
    return FEW * counts[2], MANY * counts[-3]
