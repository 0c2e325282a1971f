"""Volume, fallbacks, unknown categories, sources and the live service's minutes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from noria.core import SimulatedClock, SystemClock, Verdict, Window
from noria.deployment.service.metrics import BOUNDS, Metrics
from noria.monitoring.operations import operations
from noria.monitoring.windows import found, value_of
from noria.records import Ingested, Monitored, Scored
from noria.store.minutes import Minute, leave_minute, minute_of, minutes


def window(told: Any, day: int) -> Window:
    return Window(told.START + day * told.DAY, told.START + (day + 1) * told.DAY)


def predictions(told: Any, day: int, rows: int, fallbacks: int = 0) -> pl.DataFrame:
    times = [told.START + day * told.DAY + timedelta(minutes=k + 1) for k in range(rows)]
    frame = pl.DataFrame({
        "_time": times,
        "_scored_at": [told.START + (day + 1) * told.DAY] * rows,
        "_release": ["r"] * rows,
        "_score": [0.5] * rows,
        "_fallback": ["slow"] * fallbacks + [None] * (rows - fallbacks),
    })  # fmt: skip
    return frame.with_columns(pl.col("_fallback").cast(pl.String))


def ingested(told: Any, day: int, rows: int, *, restated: int = 0, quarantined: int = 0) -> Ingested:
    upto = told.START + (day + 1) * told.DAY
    return Ingested(
        source="sensor", upto=upto, received=rows + quarantined, accepted=rows, quarantined=quarantined, reasons={}, files=(),
        rows="r", first=upto - told.DAY, last=upto - timedelta(hours=2), restated=restated,
    )  # fmt: skip


def live(story: Any, told: Any, days: int, past: list[Monitored], **changes: Any) -> Monitored:
    """Days of a source and of predictions; the last one's record."""
    for day in range(len(past), len(past) + days):
        story.clock.move(told.START + (day + 1) * told.DAY)
        rows = changes.get("rows", 100)
        if rows:
            marks = {name: changes[name] for name in ("restated", "quarantined") if name in changes}
            story.home.commit(ingested(told, day, rows, **marks), key=f"ingest/sensor/{day:03d}")
        scored = Scored(window=window(told, day), n=100, rows="r", variants={}, acts={}, unknown=changes.get("unknown", 0))
        story.home.commit(scored, key=f"score/{window(told, day).end.isoformat()}")
        frame = predictions(told, day, 100, changes.get("fallbacks", 0))
        made = operations(story.home, story.system, window(told, day), frame, past[-28:])
        past.append(Monitored(window=window(told, day), about="traffic", release="r", n=100, signals=tuple(made)))
    return past[-1]


def failing(record: Monitored) -> set[tuple[str, str]]:
    return {(s.name, s.subject) for s in record.signals if s.verdict is Verdict.FAIL}


def test_a_quiet_source_is_quiet_and_each_fault_is_named(begin: Any, told: Any) -> None:
    story, past = begin(), []  # type: ignore[var-annotated]
    live(story, told, 20, past)
    assert all(not failing(record) for record in past)
    assert value_of(past[-1], "freshness hours", "sensor") == 2.0
    assert failing(live(story, told, 1, past, restated=30)) == {("duplicates", "sensor")}
    assert failing(live(story, told, 1, past, quarantined=40)) == {("quarantined", "sensor")}
    assert failing(live(story, told, 1, past, rows=30)) == {("rows", "sensor")}
    assert failing(live(story, told, 1, past, rows=500)) == {("rows", "sensor")}
    assert failing(live(story, told, 1, past, fallbacks=20)) == {("fallbacks", "volume")}
    assert failing(live(story, told, 1, past, unknown=20)) == {("unknown", "volume")}


def test_a_source_that_stays_away_gets_older(begin: Any, told: Any) -> None:
    story, past = begin(), []  # type: ignore[var-annotated]
    live(story, told, 20, past)
    live(story, told, 1, past, rows=0)
    assert failing(past[-1]) == {("rows", "sensor")}
    live(story, told, 1, past, rows=0)
    assert failing(past[-1]) == {("rows", "sensor"), ("freshness hours", "sensor")}
    assert value_of(past[-1], "freshness hours", "sensor") == 50.0


def test_a_replay_measures_no_latency_and_a_live_service_does(begin: Any, told: Any) -> None:
    story = begin()
    made = operations(story.home, story.system, window(told, 0), predictions(told, 0, 10), [])
    assert found(made, "latency p99 ms", "service").verdict is Verdict.NOT_MEASURED  # type: ignore[union-attr]
    folder = story.home.path / "service" / "minutes"
    at = minute_of(told.START) + 5
    counts = [0] * (len(BOUNDS) + 1)
    counts[4], counts[-1] = 970, 30
    leave_minute(folder, Minute(at=at, requests=1000, errors=20, bounds=BOUNDS, counts=tuple(counts)))
    story.home.clock = SystemClock()
    made = operations(story.home, story.system, window(told, 0), predictions(told, 0, 10), [])
    story.home.clock = SimulatedClock(told.START)
    latency, errors = found(made, "latency p99 ms", "service"), found(made, "errors", "service")
    assert (latency.value, latency.bound, latency.verdict) == (10_000.0, 500.0, Verdict.FAIL)  # type: ignore[union-attr]
    assert (errors.value, errors.verdict) == (0.02, Verdict.FAIL)  # type: ignore[union-attr]


def test_a_worker_leaves_what_it_answered_in_each_minute(told: Any, tmp_path: Path) -> None:
    metrics = Metrics()
    start = minute_of(told.START)
    assert metrics.minute(start, {"/v1/predict"}) is None
    for status in ("200", "200", "503"):
        metrics.add("requests", "/v1/predict", status)
        metrics.took("/v1/predict", 0.004)
    metrics.add("requests", "/metrics", "200")
    metrics.took("/metrics", 2.0)
    assert metrics.minute(start, {"/v1/predict"}) is None
    made = metrics.minute(start + 1, {"/v1/predict"})
    assert made is not None
    assert (made.at, made.requests, made.errors, sum(made.counts)) == (start, 3, 1, 3)
    assert metrics.minute(start + 2, {"/v1/predict"}) is None
    leave_minute(tmp_path, made)
    leave_minute(tmp_path, made)
    path = tmp_path / "2013-01-01.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at": 3, "requ')
    assert [one.requests for one in minutes(tmp_path, window(told, 0))] == [3, 3]
    assert not list(minutes(tmp_path, window(told, 1)))


def test_files_of_minutes_long_past_go(told: Any, tmp_path: Path) -> None:
    for day in (0, 1, 100):
        at = minute_of(told.START + day * told.DAY)
        leave_minute(tmp_path, Minute(at=at, requests=1, errors=0, bounds=(1.0,), counts=(1, 0)))
    assert [path.stem for path in sorted(tmp_path.glob("*.jsonl"))] == ["2013-04-11"]
