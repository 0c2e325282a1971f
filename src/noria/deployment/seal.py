"""From the service's log into the lake: each prediction once, whenever this is called or killed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from noria.core import Window, digest
from noria.deployment import log
from noria.deployment.live import state
from noria.deployment.log import Frames, Group, Row
from noria.deployment.scoring import counted
from noria.records import Entry, Scored
from noria.system import System
from noria.tables import PREDICTIONS, SHADOW, TIME

if TYPE_CHECKING:
    import sqlite3

    from noria.store import Home

AT_ONCE = 200_000
_SETTLED = timedelta(hours=2)
_MICRO = timedelta(microseconds=1)
_PLACES = {name: place for place, name in enumerate(Row._fields)}
_KINDS: dict[str, pl.DataType] = {
    str(kind): kind for kind in (pl.String(), pl.Int64(), pl.Int32(), pl.Float64(), pl.Boolean(), pl.Date(), TIME, pl.Null())
}
_FIXED = {
    "_id": "id",
    "_time": "time",
    "_unit": "unit",
    "_score": "score",
    "_scores": "scores",
    "_act": "act",
    "_act_propensity": "act_propensity",
    "_variant": "variant",
    "_variant_propensity": "variant_propensity",
    "_release": "release",
    "_fallback": "fallback",
    "_review": "review",
    "_scored_at": "scored_at",
}


def kind_name(kind: pl.DataType) -> str:
    """How a layout writes a column's type; types that JSON has no values for travel as text."""
    return str(kind) if str(kind) in _KINDS else str(pl.String())


def sweep(home: Home, system: System) -> Entry[Scored] | None:
    """Seals what was asked over HTTP into ``predictions`` and ``shadow``, and removes files that are finished.

    Of several answers of one ``_id`` the first stands; those that say something else are counted as ``predictions_same_id``. Returns the newest
    record it wrote. Raises ``Corrupt`` when a file is not what was written.
    """
    folder = home.path / "service"
    if not folder.is_dir():
        return None
    lost = log.lost(folder)
    if lost:
        home.measurements.add("predictions_lost", lost)
    newest: Entry[Scored] | None = None
    for file in sorted(folder.glob("predictions-*.db")):
        newest = _swept(home, system, file) or newest
    return newest


def _swept(home: Home, system: System, file: Path) -> Entry[Scored] | None:
    newest: Entry[Scored] | None = None
    with log.readable(file):
        connection = log.connect(file, sync=home.settings.durable)
    with closing(connection):
        while found := log.groups(connection, file, most=AT_ONCE):
            newest = _seal(home, system, found) or newest
            with log.readable(file):
                log.mark(connection, found[-1].seq)
        done = _hour(file) + _SETTLED <= home.clock.now()
    if done:
        for path in (file, *(file.with_name(file.name + tail) for tail in ("-wal", "-shm"))):
            path.unlink(missing_ok=True)
    return newest


def unsealed(home: Home) -> list[pl.DataFrame]:
    """The rows of ``predictions`` that the service has logged and no turn has sealed yet."""
    folder, found = home.path / "service", list[pl.DataFrame]()
    for file in sorted(folder.glob("predictions-*.db")):
        with log.readable(file):
            connection = log.connect(file, sync=home.settings.durable)
        with closing(connection):
            found += [_framed(group).predictions for group in _every(connection, file)]
    return found


def _every(connection: sqlite3.Connection, file: Path) -> Iterator[Group]:
    """All groups that are not sealed, some at once."""
    after = 0
    while found := log.groups(connection, file, most=AT_ONCE, after=after):
        yield from found
        after = found[-1].seq


def _seal(home: Home, system: System, found: Sequence[Group]) -> Entry[Scored] | None:
    made = [_framed(group) for group in found]
    rows, apart = _fresh(home, pl.concat([some.predictions for some in made], how="diagonal_relaxed"))
    shadow = _heard(home, pl.concat([some.shadow for some in made], how="vertical"), rows)
    if rows.is_empty() and shadow.is_empty():
        _count(home, apart)
        return None
    untyped = [name for name, kind in rows.schema.items() if kind == pl.Null]  # no type yet: no column yet
    rows, shadow = rows.drop(untyped).sort(PREDICTIONS.order), shadow.sort(SHADOW.order)
    said = [f"{name} {release}" for name, release in shadow.select("_id", "_release").iter_rows()]
    key = f"requests/{digest([rows['_id'].to_list(), said])[:16]}"
    commits = [home.lake.write(name, some, key=key) for name, some in (("predictions", rows), ("shadow", shadow)) if some.height]
    times = (rows if rows.height else shadow)["_time"]
    window = Window(times.min() - _MICRO, times.max())  # type: ignore[operator, arg-type]  # times
    refused = rows.filter((pl.col("_release") != "") & pl.col("_score").is_null()).height
    unknown = sum(some.unknown for some in made)
    record = counted(system, window, rows, commits[0].rows, refused=refused, unknown=unknown)
    entry = home.commit(record, key=key, parents=state(home).parents, tables=commits)
    _count(home, apart)
    return entry


def _between(rows: pl.DataFrame) -> tuple[datetime, datetime]:
    """The span of time that rows were asked in, as the lake reads it."""
    first, last = rows["_time"].min(), rows["_time"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return first - _MICRO, last


def _fresh(home: Home, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows that are not in the lake, each id once; and how many others of the same id said something else."""
    if rows.is_empty():
        return rows, 0
    rows = rows.sort("_scored_at", maintain_order=True)
    first_of_id = pl.col("_id").is_first_distinct()
    rows, again = rows.filter(first_of_id), rows.filter(~first_of_id)
    apart = _apart(again, rows)
    if home.lake.schema("predictions") is not None:
        there = home.lake.read("predictions", columns=["_id"], _time=_between(rows))
        sealed = pl.col("_id").is_in(there["_id"].implode())
        rows, again = rows.filter(~sealed), rows.filter(sealed)
        if not again.is_empty():
            apart += _apart(again, home.lake.read("predictions", _time=_between(again)))
    return rows, apart


def _heard(home: Home, shadow: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """What bundles said in shadow of predictions that are in the lake, or come with ``rows``; each once. It may come after its prediction."""
    if shadow.is_empty():
        return shadow
    shadow = shadow.unique(["_id", "_release"], keep="first", maintain_order=True)
    known = [rows.select("_id")]
    if home.lake.schema("predictions") is not None:
        known.append(home.lake.read("predictions", columns=["_id"], _time=_between(shadow)))
    shadow = shadow.join(pl.concat(known), on="_id", how="semi", maintain_order="left")
    if shadow.is_empty() or home.lake.schema("shadow") is None:
        return shadow
    there = home.lake.read("shadow", columns=["_id", "_release"], _time=_between(shadow))
    return shadow.join(there, on=["_id", "_release"], how="anti", maintain_order="left")


def _count(home: Home, apart: int) -> None:
    if apart:
        home.measurements.add("predictions_same_id", apart)


def _apart(again: pl.DataFrame, standing: pl.DataFrame) -> int:
    """How many rows have the ``_id`` of one that stands and say something else; when they were scored is no difference."""
    if again.is_empty():
        return 0
    typed = [frame.select(name for name, kind in frame.schema.items() if kind != pl.Null) for frame in (again, standing)]
    names = [name for name in {**typed[0].schema, **typed[1].schema} if name not in ("_id", "_scored_at")]
    other = {name: f"standing {name}" for name in typed[1].columns if name != "_id"}
    both = typed[0].join(typed[1].rename(other), on="_id", how="inner")
    differs = [_differs(both, [column for column in (name, other.get(name, "")) if column in both.columns]) for name in names]
    return int(both.select(pl.any_horizontal(differs).sum()).item())


def _differs(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Expr:
    """Whether the values of one or two columns differ; without a common type, or alone, whatever is there does."""
    kinds = [frame.schema[column] for column in columns]
    if len(kinds) == 2 and (kinds[0] == kinds[1] or all(kind.is_numeric() for kind in kinds)):
        return pl.col(columns[0]).ne_missing(pl.col(columns[1]))
    return pl.any_horizontal(pl.col(column).is_not_null() for column in columns)


def _framed(group: Group) -> Frames:
    """A group's rows as the rows of the two tables."""
    if group.frames is not None or group.layout is None:
        assert group.frames is not None
        return group.frames
    columns = list(zip(*group.rows, strict=True))
    layout = group.layout
    names = {name: columns[_PLACES[field]] for name, field in _FIXED.items()}
    fixed = {name: pl.Series(values, dtype=_written(PREDICTIONS.columns[name])) for name, values in names.items()}
    series = {"_features": pl.Series([layout.plan] * len(group.rows), dtype=pl.String)} | fixed
    ordered = [series[name].cast(kind).alias(name) for name, kind in PREDICTIONS.columns.items()]
    rest = [*_columns(layout.context, columns[_PLACES["context"]]), *_columns(layout.features, columns[_PLACES["features"]])]
    return Frames(pl.DataFrame([*ordered, *rest]), _shadowed(group.rows), sum(columns[_PLACES["unknown"]]))


def _columns(described: Iterable[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> list[pl.Series]:
    turned = list(zip(*rows, strict=True)) or [()] * len(list(described))
    return [
        pl.Series(name, values, dtype=_written(_KINDS[kind])).cast(_KINDS[kind])
        for (name, kind), values in zip(described, turned, strict=True)
    ]


def _written(kind: Any) -> Any:
    """The type in which a column travels: times are whole microseconds."""
    return pl.Int64 if kind == TIME else kind


def _shadowed(rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    name, time, shadow = (_PLACES[field] for field in ("id", "time", "shadow"))
    said = [(row[name], row[time], *one) for row in rows for one in row[shadow]]
    written = {column: _written(kind) for column, kind in SHADOW.columns.items()}
    frame = pl.DataFrame(said, schema=written, orient="row")
    return frame.with_columns(pl.col(column).cast(kind) for column, kind in SHADOW.columns.items())


def _hour(file: Path) -> datetime:
    return datetime.strptime(file.stem.rsplit("-", 1)[1] + "+0000", "%Y%m%dT%H%z")
