"""Labels corrected from a file: a batch with a name, a person and a reason. Closed cohorts get a new revision by it; the old one is kept.

The corrections go the way of every given label: into the log of events, and with the next turn into the table ``labels``, where the newest known
counts. So a batch can be traced (``Relabelled``), and taken back by giving the labels of before.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from noria.core import DataFault, NotFound, digest, duration, micros
from noria.data.given import asked_at
from noria.data.times import next_edge
from noria.measure import closed_until, given
from noria.measure.given import plain
from noria.records import CohortClosed, Entry, Relabelled
from noria.store import EventLog, Home
from noria.store.events import LABELS_SOURCE, NewEvent, log_path
from noria.system import System
from noria.tables import LABELS, OUTCOMES

MOST_WRONG = 5


def relabel(home: Home, system: System, file: Path, *, by: str, note: str = "") -> Entry[Relabelled]:
    """Takes in a file of corrected labels; the next turn makes the new revisions.

    Parameters
    ----------
    file:
        CSV or Parquet with the columns ``id`` (a prediction's) and ``label``; others are ignored.
    by, note:
        Who corrected them, and why.

    The same file given again is the same batch while the newest labels say what it says: nothing happens twice. After others have said something
    else it is a new batch, and takes effect again. Raises ``NotFound`` when there is no such file, and ``DataFault`` that names the
    rows which cannot be read; then none was taken.
    """
    read = _read(file)
    content = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    before = home.ledger.read(Relabelled, prefix=f"relabelled/{content}")
    batch = f"{content}-{len(before)}" if before else content
    rows = [_row(system, place, row, by) for place, row in enumerate(read)]
    wrong = [said for said in rows if isinstance(said, str)] + _twice(rows)
    if wrong:
        more = f"; and {len(wrong) - MOST_WRONG} more" if len(wrong) > MOST_WRONG else ""
        raise DataFault(
            "; ".join(wrong[:MOST_WRONG]) + more, hint="the file needs the columns id and label; nothing was taken in"
        )
    good: list[dict[str, Any]] = [said for said in rows if isinstance(said, dict)]
    with closing(EventLog(log_path(home.path), durable=home.settings.durable)) as log:
        begun = log.time_of(LABELS_SOURCE, _event(good[0], batch))  # taken in by a call that was killed before its record
        if before and begun is None and _newest(home, log, good) == {row["id"]: _plain(row["label"]) for row in good}:
            return before[-1]
        stamp = micros(home.clock.now()) if begun is None else begun
        log.append(LABELS_SOURCE, [NewEvent(_event(row, batch), stamp, stamp, row) for row in good])
    asked = asked_at(pl.DataFrame({"_id": [row["id"] for row in good]}, schema={"_id": pl.String}))["_asked"]
    ends = _cohorts(home, system, asked)
    last = home.ledger.latest(CohortClosed)
    record = Relabelled(
        batch=batch,
        by=by,
        note=note,
        n=len(good),
        changed=_changed(home, good, asked),
        rows=digest(good),
        cohorts=tuple(ends),
    )
    return home.commit(record, key=f"relabelled/{batch}", parents=[last.id] if last is not None else [])


def _event(row: dict[str, Any], batch: str) -> str:
    """The id of the event that a correction is."""
    return f"{row['id']}/relabelled/{batch}"


def _newest(home: Home, log: EventLog, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the newest label given for each of the rows' predictions says, in the lake or on its way there."""
    said: list[tuple[tuple[int, int, str], str, Any]] = []
    ids = {row["id"] for row in rows}
    if home.lake.schema(LABELS.name) is not None:
        frame = home.lake.read(LABELS.name, columns=["_id", "_known", "_time", "_row", "_label", "_class"])
        for row in frame.filter(pl.col("_id").is_in(list(ids))).iter_rows(named=True):
            label = row["_class"] if row["_class"] is not None else row["_label"]
            said.append(((micros(row["_known"]), micros(row["_time"]), row["_row"]), row["_id"], label))
    for event in log.unsealed(LABELS_SOURCE, micros(home.clock.now())):
        if event.row.get("id") in ids:
            said.append(((event.known, event.time, event.hash), event.row["id"], event.row.get("label")))
    given_ = sorted(((order, name, _plain(label)) for order, name, label in said if label is not None), key=lambda one: one[0])
    return {name: label for _, name, label in given_}


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise NotFound(f"there is no file {file}", hint="name a CSV or Parquet file with the columns id and label")
    try:
        if file.suffix.lower() == ".parquet":
            rows = pl.read_parquet(file).to_dicts()
        else:
            with file.open(newline="", encoding="utf-8") as text:
                rows = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError, csv.Error, pl.exceptions.PolarsError) as error:
        raise DataFault(
            f"{file.name} cannot be read: {error}", hint="write CSV or Parquet with the columns id and label"
        ) from None
    if not rows:
        raise DataFault(f"{file.name} has no rows", hint="it needs the columns id and label")
    lacking = [name for name in ("id", "label") if name not in rows[0]]
    if lacking:
        raise DataFault(f"{file.name} has no column {', '.join(lacking)}", hint="it needs the columns id and label")
    return rows


def _row(system: System, place: int, row: dict[str, Any], by: str) -> dict[str, Any] | str:
    """The correction as it is written down; or what is wrong with it."""
    label: Any = row["label"]
    if isinstance(label, str) and system.task != "multiclass":
        words = {"true": True, "false": False}
        try:
            label = words[label.strip().lower()] if label.strip().lower() in words else float(label)
        except ValueError:
            return f"row {place + 1}: label {label!r} is neither true, false nor a number"
    try:
        return plain(system, given(system, {"id": row["id"], "label": label, "by": by}))
    except DataFault as fault:
        return f"row {place + 1}: {fault.message}"


def _twice(rows: list[dict[str, Any] | str]) -> list[str]:
    """The ids with more than one correction: which of them is meant cannot be told."""
    ids = Counter(said["id"] for said in rows if isinstance(said, dict))
    return [f"the id {name!r} has {n} corrections" for name, n in ids.items() if n > 1]


def _cohorts(home: Home, system: System, asked: pl.Series) -> list[datetime]:
    """The ends of the closed cohorts that will be revised."""
    done, every = closed_until(home), duration(system.every)
    ends = {next_edge(moment, every) for moment in asked.drop_nulls().to_list()}
    return sorted(end for end in ends if done is not None and end <= done)


def _changed(home: Home, rows: list[dict[str, Any]], asked: pl.Series) -> int:
    """How many of the corrections say something else than the newest revision."""
    first, last = asked.min(), asked.max()
    if home.lake.schema(OUTCOMES.name) is None or not isinstance(first, datetime) or not isinstance(last, datetime):
        return 0
    span = (first - timedelta(microseconds=1), last)
    known = home.lake.read(OUTCOMES.name, columns=["_id", "_revision", "_label", "_class"], _time=span)
    known = known.sort("_revision").unique("_id", keep="last")
    said = pl.DataFrame({"_id": [row["id"] for row in rows], "_said": [str(_plain(row["label"])) for row in rows]})
    both = said.join(known, on="_id")
    old = [str(_plain(name if name is not None else label)) for name, label in zip(both["_class"], both["_label"], strict=True)]
    return sum(a != b for a, b in zip(both["_said"].to_list(), old, strict=True))


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, bool | int | float) else value
