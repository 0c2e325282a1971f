"""Runs the feature query over the lake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from noria.core import DataFault, quoted
from noria.features.plan import FeatureColumn, Plan, plan
from noria.features.sql import MICROSECOND, Way, sql, table_name
from noria.system import Every, Feature, Request, System
from noria.tables import TIME, source_table

if TYPE_CHECKING:
    from noria.store import Home
    from noria.store.engine import Scan

ONE_BY_ONE = 16
FEW_ASKED = 4096
FEW_PAIRS = 20_000_000
BOUND = 1e12
BOUND_OF_SQUARES = 1e9


def schemas(home: Home, system: System) -> dict[str, Mapping[str, pl.DataType]]:
    """The columns of every source that has rows in the lake, by the source's name: the second argument of ``plan``."""
    found = {name: home.lake.schema(source_table(name)) for name in system.sources}
    return {name: schema for name, schema in found.items() if schema is not None}


def compute(home: Home, system: System, spine: pl.DataFrame) -> pl.DataFrame:
    """The features of each row of ``spine`` as they could be known at that row's ``_time``.

    ``spine`` has ``_id``, ``_time`` and the columns of the predicted row that features use; several rows may ask at one time. Returns
    ``_id`` and one column per feature (``Float64`` or ``String``), in the spine's order. A ``last`` of a source that never had a row has
    no type yet; it comes as a column of nulls of type ``Null``.

    Raises ``DeclarationError`` when the features do not fit the sources, and ``DataFault`` when the spine lacks a column or when numbers
    are too large for exact sums.
    """
    known = schemas(home, system)
    _complete(system, spine)
    asks = system.predict.of if isinstance(system.predict, Every) else system.predict
    own: Mapping[str, pl.DataType] = {} if isinstance(asks, Request) else known.get(asks.name, {})
    resolved = plan(system, known if own or isinstance(asks, Request) else {**known, asks.name: _columns(spine)})
    rows = _numbered(resolved, spine, own)
    if spine.is_empty():
        return _typed(resolved, rows.select("_id"))
    asked = _span(spine)
    scans = {name: _scan(home, resolved, name, asked) for name in resolved.sources if name in known}
    scans = {name: scan for name, scan in scans.items() if scan.files}
    way = _way(home, resolved, scans, asked, spine.height)
    tables: dict[str, Any] = {table_name(resolved, name): scan for name, scan in scans.items()}
    query = sql(resolved, way=way, asked=asked, present=scans.keys(), once=True)
    try:
        return _typed(resolved, home.engine.sql(query, spine=rows, **tables))
    except Exception as error:
        if not _is_overflow(error):
            raise
        raise _too_large(home, resolved, scans, error) from error


def _columns(spine: pl.DataFrame) -> dict[str, pl.DataType]:
    """The predicted row's columns, read off the spine: its source has no row in the lake."""
    return {name: kind for name, kind in spine.schema.items() if not name.startswith("_")}


def _scan(home: Home, resolved: Plan, source: str, asked: tuple[datetime, datetime]) -> Scan:
    return home.lake.scan(source_table(source), _known=(asked[0] - resolved.sources[source] - MICROSECOND, asked[1]))


def _way(home: Home, resolved: Plan, scans: Mapping[str, Scan], asked: tuple[datetime, datetime], height: int) -> Way:
    """How to compute: pairs for few rows against few, tiles otherwise. The numbers are the same."""
    if height > FEW_ASKED:
        return "tiles"
    if height <= ONE_BY_ONE:
        return "pairs"
    for name, scan in scans.items():
        table = quoted(table_name(resolved, name))
        after = asked[0] - resolved.sources[name]
        query = f"SELECT COUNT(*) AS n FROM {table} WHERE _known >= TIMESTAMPTZ '{after}' AND _known <= TIMESTAMPTZ '{asked[1]}'"
        if home.engine.sql(query, **{table_name(resolved, name): scan})["n"][0] * height > FEW_PAIRS:
            return "tiles"
    return "pairs"


def _needed(features: Iterable[Feature]) -> set[str]:
    """The columns of the spine that are read by name (expressions may read more)."""
    joined = {"_id", "_time"} | {name for feature in features for name, _ in feature.by}
    return joined | {feature.expr[1:-1] for feature in features if feature.op == "column"}


def _complete(system: System, spine: pl.DataFrame) -> None:
    """Raises ``DataFault`` when the spine lacks a column or a time."""
    needed = _needed(system.flat_features)
    if missing := sorted(needed - set(spine.columns)):
        raise DataFault(
            f"the rows to be predicted have no column {', '.join(missing)}",
            hint=f"they have {', '.join(spine.columns)}; the features need all of {', '.join(sorted(needed))}",
        )
    if spine.schema["_time"] != TIME or spine["_time"].null_count():
        told = f"_time is {spine.schema['_time']} with {spine['_time'].null_count()} nulls"
        raise DataFault(told, hint=f"it has to be {TIME}, never null")


def _numbered(resolved: Plan, spine: pl.DataFrame, own: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The spine as the query wants it; a column of nulls without a type takes its type from ``own``."""
    needed = _needed([column.feature for column in resolved.columns])
    whole = any(column.feature.op == "expression" for column in resolved.columns)
    kept = [name for name in spine.columns if whole or name in needed]
    typed = [pl.col(name).cast(own.get(name, pl.String())) for name in kept if spine.schema[name] == pl.Null]
    numbers = {"_t": pl.col("_time").dt.epoch("us"), "_n": pl.int_range(pl.len(), dtype=pl.Int64)}
    return spine.select(kept).with_columns(*typed, **numbers)


def _span(spine: pl.DataFrame) -> tuple[datetime, datetime]:
    """The earliest and the latest asked time."""
    first: Any = spine["_time"].min()
    last: Any = spine["_time"].max()
    return first, last


def _typed(resolved: Plan, frame: pl.DataFrame) -> pl.DataFrame:
    kinds = {True: pl.Float64(), False: pl.String(), None: pl.Null()}
    made = [
        pl.col(c.name).cast(kinds[c.numeric]) if c.name in frame.columns else pl.lit(None, kinds[c.numeric]).alias(c.name)
        for c in resolved.columns
    ]
    return frame.select(pl.col("_id").cast(pl.String), *made)


def _is_overflow(error: BaseException) -> bool:
    """Whether the engine says that a number left the range of exact sums."""
    import duckdb

    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, duckdb.OutOfRangeException | duckdb.ConversionException):
        seen = seen.__cause__
    return seen is not None


def _too_large(home: Home, resolved: Plan, scans: Mapping[str, Scan], error: Exception) -> DataFault:
    """Names the features whose values are too large to be summed exactly, with the largest value found."""
    found = [
        f"{column.name} (largest value {largest:.6g})"
        for column in resolved.columns
        if column.feature.agg in ("sum", "mean", "std") and column.feature.source in scans
        for largest in [_largest(home, resolved, column, scans)]
        if largest >= (BOUND_OF_SQUARES if column.feature.agg == "std" else BOUND)
    ]
    if not found:
        return DataFault(
            f"a feature's expression failed on a row: {str(error).splitlines()[0]}", hint="use try_cast for what may not convert"
        )
    return DataFault(
        f"values are too large for exact sums: {', '.join(found)}",
        hint="sums take values within ±1e12 (squares: a sum below 1e26); divide in the expression, or filter the rows that are wrong",
    )


def _largest(home: Home, resolved: Plan, column: FeatureColumn, scans: Mapping[str, Scan]) -> float:
    source = column.feature.source
    name = table_name(resolved, source)
    value = f"TRY_CAST((\n{column.feature.expr}\n) AS DOUBLE)"
    query = f"SELECT MAX(ABS({value})) AS most FROM {quoted(name)} WHERE ABS({value}) < CAST('Infinity' AS DOUBLE)"
    most = home.engine.sql(query, **{name: scans[source]})["most"][0]
    return 0.0 if most is None else float(most)
