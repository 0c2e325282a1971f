"""One row from outside: JSON, checked against the predicted row's columns, as a spine of one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from noria import features as feature_room
from noria.core import DataFault, NoriaError
from noria.deployment.scoring import context_columns
from noria.system import Every, Request, System
from noria.tables import TIME, source_table

if TYPE_CHECKING:
    from noria.store import Home

_LARGEST_INT = 2**63
_SQL_TYPES = (
    (re.compile(r"(TINY|SMALL|BIG|HUGE)?INT(EGER)?|INT\d+|LONG"), pl.Int64()),
    (re.compile(r"DOUBLE|FLOAT\d*|REAL|NUMERIC.*|DECIMAL.*"), pl.Float64()),
    (re.compile(r"BOOL(EAN)?"), pl.Boolean()),
    (re.compile(r"TIMESTAMP.*|DATETIME"), TIME),
    (re.compile(r"DATE"), pl.Date()),
)


class FieldError(DataFault):
    """A field of a request is wrong; the message names it and never repeats its content."""


def decode(body: bytes) -> dict[str, Any]:
    """A JSON object from bytes; raises ``FieldError`` for anything else, for a key that comes twice, and for NaN."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise FieldError("a key comes twice in the JSON", hint="send each key once")
        return found

    def constant(name: str) -> Any:
        raise FieldError(f"the JSON holds {name}, which is no number", hint="leave out what is not known")

    try:
        found = json.loads(body, object_pairs_hook=once, parse_constant=constant)
    except FieldError:
        raise
    except (ValueError, RecursionError):  # not JSON, not UTF-8, too deep, or a number of thousands of digits
        raise FieldError("the body is not JSON", hint='send {"row": {…}} as UTF-8') from None
    if not isinstance(found, dict):
        raise FieldError("the body is not a JSON object", hint='send {"row": {…}}')
    return found


def row_schema(home: Home, system: System) -> dict[str, pl.DataType]:
    """The columns of a predicted row and their types, as declared (a request) or as they are in the lake.

    Raises ``NoriaError`` while a source has no rows yet.
    """
    if isinstance(system.predict, Request):
        return {name: _of_sql(kind) for name, kind in system.predict.columns.items()}
    source = system.predict.of if isinstance(system.predict, Every) else system.predict
    found = home.lake.schema(source_table(source.name))
    if found is None:
        raise NoriaError(
            f"the source {source.name} has no rows yet, so the columns of a row are not known", hint="run a turn first"
        )
    return {name: kind for name, kind in found.items() if not name.startswith("_")}


def _of_sql(kind: str) -> pl.DataType:
    said = kind.strip().upper()
    return next((found for pattern, found in _SQL_TYPES if pattern.fullmatch(said)), pl.String())


def needed(system: System, schema: Mapping[str, pl.DataType]) -> set[str]:
    """The columns that a row has to have: keys, context, and whatever the features read of the predicted row."""
    names = set(context_columns(system, list(schema)))
    if isinstance(system.predict, Request):
        names |= set(system.predict.columns) - {system.predict.time}
    for column in feature_room.plan(system).columns:
        feature = column.feature
        names |= {name for name, _ in feature.by}
        if feature.op == "column":
            names.add(feature.expr.strip('"'))
        elif feature.op == "expression":
            names |= {name for name in schema if re.search(rf"\b{re.escape(name)}\b", feature.expr)}
    return names & set(schema)


def spine_of(system: System, schema: Mapping[str, pl.DataType], row: Any, asked: datetime) -> pl.DataFrame:
    """A spine of one row: ``_id``, ``_time`` and the row's columns. Raises ``FieldError`` that names the field."""
    if not isinstance(row, dict):
        raise FieldError("row: it has to be an object", hint=f"its fields are {', '.join(sorted(schema))}")
    extra = sorted(set(row) - set(schema))
    if extra:
        raise FieldError(f"row.{_safe(extra[0])}: there is no such field", hint=f"the fields are {', '.join(sorted(schema))}")
    missing = sorted(needed(system, schema) - set(row))
    if missing:
        raise FieldError(f"row.{missing[0]}: it is missing", hint=f"needed are {', '.join(sorted(needed(system, schema)))}")
    values = {name: pl.Series(name, [checked(name, row[name], kind)], dtype=kind) for name, kind in schema.items() if name in row}
    frame = pl.DataFrame(list(values.values()))
    return frame.with_columns(pl.lit(asked, dtype=TIME).alias("_time"), pl.lit(row_id(system, row, asked)).alias("_id"))


def checked(name: str, value: Any, kind: pl.DataType) -> Any:
    """``value`` as a value of ``kind``; raises ``FieldError``."""
    place = f"row.{name}"
    if value is None:
        raise FieldError(f"{place}: it is null", hint=f"a {_said(kind)} is needed")
    if kind == pl.String and isinstance(value, str):
        return value
    if kind == pl.Boolean and isinstance(value, bool):
        return value
    if kind.is_integer() and isinstance(value, int) and not isinstance(value, bool) and -_LARGEST_INT <= value < _LARGEST_INT:
        return value
    if kind.is_numeric() and not kind.is_integer() and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise FieldError(f"{place}: it is not a finite number")
        return number
    if kind.is_temporal() and isinstance(value, str):
        moment = _moment(value, place)
        return moment.date() if kind == pl.Date else moment
    raise FieldError(f"{place}: it is not a {_said(kind)}", hint=f"a {_said(kind)} is needed")


def _said(kind: pl.DataType) -> str:
    if kind == pl.String:
        return "text"
    if kind == pl.Boolean:
        return "boolean"
    if kind.is_temporal():
        return "time with a zone, in ISO 8601"
    return "whole number" if kind.is_integer() else "number"


def _moment(text: str, place: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise FieldError(f"{place}: it is not a time", hint="write for example 2013-01-31T06:00:00Z") from None
    if moment.tzinfo is None:
        raise FieldError(f"{place}: it has no time zone", hint="write for example 2013-01-31T06:00:00Z")
    return moment


def asked_at(given: Any, now: datetime) -> datetime:
    """When the row is asked: ``now``, or the time given; raises ``FieldError`` for a time that has not come."""
    if given is None:
        return now
    if not isinstance(given, str):
        raise FieldError("asked_at: it is not a time", hint="write for example 2013-01-31T06:00:00Z")
    moment = _moment(given, "asked_at").astimezone(now.tzinfo)
    if moment > now:
        raise FieldError("asked_at: it lies in the future", hint="leave it out to ask now")
    return moment


def row_id(system: System, row: Mapping[str, Any], asked: datetime) -> str:
    """``key@20130101T060000Z``, as batch scoring names the row."""
    source = system.predict.of if isinstance(system.predict, Every) else system.predict
    keys = (source.key,) if isinstance(source.key, str) else tuple(source.key)
    fraction = f".{asked.microsecond:06d}" if asked.microsecond else ""
    texts = (str(row[name]).lower() if isinstance(row[name], bool) else str(row[name]) for name in keys)  # as SQL writes them
    return "|".join(texts) + f"@{asked:%Y%m%dT%H%M%S}{fraction}Z"


def _safe(name: str) -> str:
    """A field's name as far as it may be repeated."""
    return name if re.fullmatch(r"\w{1,63}", name) else "…"
