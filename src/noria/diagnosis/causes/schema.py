"""The columns of a source changed: one went, came, or holds another type; or it is there by name only."""

from __future__ import annotations

import re
from datetime import timedelta

import numpy as np

from noria.core import Check, Estimate, Verdict
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.tested import Tested, check
from noria.records import Blocked, Entry, Ingested, SchemaFrozen
from noria.store.rows import NOT_READABLE

WORDS = re.compile(r"no column|has column|column .+ was ")
LATELY = timedelta(days=7)
EMPTY = 0.98
UNREADABLE = 0.2


def schema_changed(case: Case) -> Tested:
    """A source's columns are not what they were when they were frozen."""
    made = [*_blocked(case), *_emptied(case), *_unreadable(case), *_appeared(case)]
    failed = [one for one in made if one.verdict is Verdict.FAIL]
    stopped = any(one.name == "columns as frozen" for one in failed)
    found, strength, blocks = streams.limited(case, failed, 1.0 if stopped else 0.93 if failed else 0.0)
    sources = ", ".join(sorted({one.subject.split(".")[0] for one in found})) or "the source"
    act = f"ask the owner of {sources} what became of the column; mend it where it comes from, or map it in the declaration, then turn again"
    known = any(streams.streams(case)) or case.home.ledger.latest(SchemaFrozen) is not None or bool(case.of(Blocked))
    clear = check("columns as frozen", False if known else None, detail="every source has the columns that were frozen")
    return Tested("schema changed", "data", act, found or (clear,), strength, blocks=blocks)


def standing(case: Case) -> list[Entry[Blocked]]:
    """What stops the sources: the symptoms themselves, or what was blocked within a week and not taken in since."""
    return case.of(Blocked) or [
        entry
        for entry in case.home.ledger.read(Blocked, since=case.now - LATELY, until=case.until)
        if not case.home.ledger.read(Ingested, prefix=f"ingest/{entry.record.source}/", after=entry.seq, until=case.until)
    ]


def of_schema(blocked: Blocked) -> bool:
    """Whether a source was stopped for its columns (and not because it could not be read)."""
    return WORDS.search(blocked.reason) is not None


def _blocked(case: Case) -> list[Check]:
    return [
        check("columns as frozen", True, subject=e.record.source, detail=f"{e.record.reason}; {e.record.hint}")
        for e in standing(case)[-5:]
        if of_schema(e.record)
    ]


def _emptied(case: Case) -> list[Check]:
    """Columns that held values and hold none any more, though the source goes on bringing rows."""
    made = []
    for stream in streams.streams(case).values():
        for column in stream.columns:
            days = [(day, cell) for day, cell in stream.of(column) if day.n >= 5]
            shares = np.array([cell.nulls / day.n for day, cell in days], float)
            at = streams.broken([day.day for day, _ in days], shares, floor_=0.01)
            if at is None or at.after < EMPTY or at.before > 0.5:
                continue
            said = f"{column} of {stream.name} is empty in {at.after:.0%} of the rows since {at.at:%Y-%m-%d}, in {at.before:.0%} before"
            subject = f"{stream.name}.{column}"
            made.append(
                check("columns hold values", True, subject=subject, size=Estimate(at.after, n=at.days), bound=EMPTY, detail=said)
            )
    return made


def _unreadable(case: Case) -> list[Check]:
    """Most rows are put aside because a value cannot be read as its column's type: the column was given another one."""
    made = []
    for stream in streams.streams(case).values():
        if stream.logged:
            continue
        records = [
            e.record
            for e in case.home.ledger.read(Ingested, prefix=f"ingest/{stream.name}/", since=case.window.start, until=case.until)
        ]
        batches = [one for one in records if one.received]
        shares = np.array([one.reasons.get(NOT_READABLE, 0) / one.received for one in batches], float)
        if not len(shares) or shares[-1] <= UNREADABLE:
            continue
        said = f"{shares[-1]:.0%} of the newest rows of {stream.name} hold a value that cannot be read as its column's type"
        made.append(
            check(
                "values of the type", True, subject=stream.name, size=Estimate(float(shares[-1])), bound=UNREADABLE, detail=said
            )
        )
    return made


def _appeared(case: Case) -> list[Check]:
    """A column that appeared while one that is read lost its values since: a renaming. Alone it is a fact, and no fault."""
    made = []
    for entry in case.home.ledger.read(SchemaFrozen, since=case.window.start - case.window.length, until=case.until):
        record = entry.record
        stream = streams.streams(case).get(record.source)
        if not record.changes or stream is None:
            continue
        for column in stream.columns:
            if not streams.is_read(case, stream, column):
                continue
            after = [(day, cell) for day, cell in stream.of(column) if day.day > entry.at]
            before = [(day, cell) for day, cell in stream.of(column) if day.day <= entry.at]
            now, past = (sum(c.nulls for _, c in some) / max(sum(d.n for d, _ in some), 1) for some in (after, before))
            if after and before and now > past + 0.3 and now < EMPTY:
                said = f"{'; '.join(record.changes)}, and {column} of {record.source} is empty in {now:.0%} of the rows since, in {past:.0%} before"
                made.append(
                    check(
                        "no column renamed",
                        True,
                        subject=f"{record.source}.{column}",
                        size=Estimate(now),
                        bound=past + 0.3,
                        detail=said,
                    )
                )
    return made
