"""A source brings rows twice: the same again, the same key and time with other values, or the same under a new key."""

from __future__ import annotations

import numpy as np

from noria.core import Check, Estimate, Verdict, quoted
from noria.data.summary import DAY
from noria.diagnosis import streams
from noria.diagnosis.case import Case
from noria.diagnosis.streams import Stream
from noria.diagnosis.tested import Tested, check
from noria.records import Ingested
from noria.store.rows import DUPLICATE
from noria.tables import source_table

MORE = 0.02
WHOLE = 0.6
MOST_ROWS = 200_000


def duplicates(case: Case) -> Tested:
    """The share of repeated rows of a source rose."""
    made = []
    for stream in streams.streams(case).values():
        if not stream.logged:
            made += _repeated(case, stream)
            made += _at_another_time(stream)
            again = _under_a_new_key(case, stream)
            made += [again] if again is not None else []
    found = [one for one in made if one.verdict is Verdict.FAIL]
    sources = ", ".join(sorted({one.subject for one in found})) or "the source"
    act = f"ask the owner of {sources} why rows come twice; drop what came twice, since windows and counts hold it twice"
    if not made:
        made = [check("rows come once", None, detail="no source has a history in the lake")]
    known = [one for one in made if one.verdict is Verdict.PASS]
    return Tested("duplicates", "data", act, tuple(found or known or made), 0.9 if found else 0.0, blocks=True)


def _repeated(case: Case, stream: Stream) -> list[Check]:
    """Rows put aside as duplicates, and rows that restate earlier ones, as shares of each batch."""
    found = case.home.ledger.read(
        Ingested, prefix=f"ingest/{stream.name}/", since=case.now - streams.HISTORY * DAY, until=case.until
    )
    batches = [entry.record for entry in found if entry.record.received >= 5]
    when = [batch.upto for batch in batches]
    made = []
    for name, counts in (
        ("rows come once", [batch.reasons.get(DUPLICATE, 0) for batch in batches]),
        ("rows are not restated", [batch.restated for batch in batches]),
    ):
        shares = np.array([n / batch.received for n, batch in zip(counts, batches, strict=True)], float)
        at = streams.broken(when, shares, floor_=MORE / 4)
        if at is None:
            made.append(check(name, None, subject=stream.name, detail=f"{len(shares)} batches are too few to compare"))
            continue
        bound = at.before + max(MORE, 3 * at.usual)
        word = "come a second time" if name == "rows come once" else "restate an earlier row"
        said = f"{at.after:.1%} of the rows of {stream.name} {word}, {at.before:.1%} before {at.at:%Y-%m-%d}"
        made.append(
            check(name, at.after > bound, subject=stream.name, size=Estimate(at.after, n=at.days), bound=bound, detail=said)
        )
    return made


def _at_another_time(stream: Stream) -> list[Check]:
    """Rows that say what another of the day said, at another time, while what is left without them is as much as ever (else values stand still)."""
    name = "rows differ in more than their time"
    days = [day for day in stream.days if day.n >= 5]
    shares = np.array([day.again / day.n for day in days], float)
    at = streams.broken([day.day for day in days], shares, floor_=MORE / 4)
    if at is None:
        return []
    once = np.array([day.n - day.again for day in days], float)
    since = np.array([day.day > at.at for day in days], bool)
    left = float(np.median(once[since]) / max(float(np.median(once[~since][-streams.REFERENCE :])), 1.0))
    bound = at.before + max(MORE, 3 * at.usual)
    said = (
        f"{at.after:.1%} of the rows of {stream.name} repeat another of the day at another time, {at.before:.1%} before "
        f"{at.at:%Y-%m-%d}; without them it brings {left:.0%} of what it brought"
    )
    found = at.after > bound and left >= WHOLE
    return [check(name, found, subject=stream.name, size=Estimate(at.after, n=at.days), bound=bound, detail=said)]


def _under_a_new_key(case: Case, stream: Stream) -> Check | None:
    """Rows that are another row in everything but the key. Only asked when there are more rows than before."""
    name = "rows differ in more than their key"
    source = streams.source_of(case, stream.name)
    counts = stream.counts()
    at = streams.broken(stream.dates, np.log(np.maximum(counts, 0.5)), floor_=0.03)
    schema = case.home.lake.schema(source_table(stream.name))
    if source is None or schema is None or at is None or at.after < at.before + 0.05:
        return None
    columns = [name for name in schema if not name.startswith("_") and name not in source.keys and name != source.time]
    if not source.keys or len(columns) < 2 or counts[-2 * streams.REFERENCE :].sum() > MOST_ROWS:
        return None
    start = at.at - streams.REFERENCE * DAY
    scan = case.home.lake.scan(source_table(stream.name), _known=(start, case.now))
    listed = ", ".join(["_time", *map(quoted, columns)])
    since = streams.between("_known", at.at, case.now)
    query = (
        f"with grouped as (select ({since}) as late, count(*) as n from t where {streams.between('_known', start, case.now)} "
        f"group by late, {listed}) select late, sum(n)::bigint as rows, count(*) as kinds from grouped group by late"
    )
    found = {row["late"]: 1 - row["kinds"] / row["rows"] for row in case.home.engine.sql(query, t=scan).iter_rows(named=True)}
    now, past = found.get(True, 0.0), found.get(False, 0.0)
    said = f"{now:.1%} of the rows of {stream.name} are another row but for the key, {past:.1%} before {at.at:%Y-%m-%d}"
    return check(
        name, now > past + max(MORE, past), subject=stream.name, size=Estimate(now, n=at.days), bound=past + MORE, detail=said
    )
