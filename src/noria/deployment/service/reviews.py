"""The review queue: predictions that were left to a person and that nobody has decided on yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from noria.deployment.seal import unsealed
from noria.store.events import LABELS_SOURCE, EventLog
from noria.system import System
from noria.tables import LABELS, PREDICTIONS

if TYPE_CHECKING:
    from noria.store import Home

MOST = 1000
_SHOWN = ("_time", "_score", "_scores", "_release")


def waiting(home: Home, system: System, *, most: int = MOST) -> list[dict[str, Any]]:
    """What waits, oldest first, at most ``most``: id, when it was asked, the score as advice (not under ``human``), and the row as served.

    Both what is in the lake and what the service has logged since are looked at.
    """
    rows = _open(home)
    if rows is None:
        return []
    rows = rows.sort("_time", "_id").head(most)
    hidden = system.serve.degree in ("human", "shadow")
    own = [name for name in rows.columns if not name.startswith("_")]
    return [
        {
            "id": row["_id"],
            "asked_at": row["_time"],
            "score": None if hidden else row["_score"],
            "scores": None if hidden else row["_scores"],
            "release": row["_release"],
            "row": {name: row[name] for name in own},
        }
        for row in rows.iter_rows(named=True)
    ]


def count(home: Home) -> int:
    """How many predictions wait for a person."""
    rows = _open(home)
    return 0 if rows is None else rows.height


def _open(home: Home) -> pl.DataFrame | None:
    """The rows that wait, in no order."""
    parts = [frame.filter(pl.col("_review")) for frame in unsealed(home)]
    if home.lake.schema(PREDICTIONS.name) is not None:
        parts.append(home.engine.sql("select * from p where _review", p=home.lake.scan(PREDICTIONS.name)))
    parts = [part for part in parts if not part.is_empty()]
    if not parts:
        return None
    rows = pl.concat(parts, how="diagonal_relaxed").unique("_id", keep="first", maintain_order=True)
    return rows.filter(~pl.col("_id").is_in(decided(home)))


def decided(home: Home) -> list[str]:
    """The ids of the predictions that a person has decided on, whether a turn has taken that in or not."""
    found: set[str] = set()
    path = home.path / "service" / "events.db"
    if path.exists():
        log = EventLog(path, durable=home.settings.durable)
        try:
            events = log.unsealed(LABELS_SOURCE, 2**62)
        finally:
            log.close()
        found |= {event.row["id"] for event in events if "id" in event.row and "act" in event.row}
    if home.lake.schema(LABELS.name) is not None:
        known = home.lake.read(LABELS.name, columns=["_id", "_act"])
        found |= set(known.filter(pl.col("_act").is_not_null())["_id"].drop_nulls().to_list())
    return sorted(found)
