"""One row from outside: JSON, checked against the predicted row's columns, as a spine of one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from noria import features as feature_room
from noria.core import DataFault, NoriaError
from noria.deployment.scoring import context_columns
from noria.system import Every, Request, System
from noria.tables import TIME, source_table

if TYPE_CHECKING:
    from noria.store import Home

_LARGEST_INT = 2**63
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_SQL_TYPES = (
    (re.compile(r"(TINY|SMALL|BIG|HUGE)?INT(EGER)?|INT\d+|LONG"), pl.Int64()),
    (re.compile(r"DOUBLE|FLOAT\d*|REAL|NUMERIC.*|DECIMAL.*"), pl.Float64()),
    (re.compile(r"BOOL(EAN)?"), pl.Boolean()),
    (re.compile(r"TIMESTAMP.*|DATETIME"), TIME),
    (re.compile(r"DATE"), pl.Date()),
)


class FieldError(DataFault):
    """A field of a request is wrong; the message names it and never repeats its content."""

    def as_json(self) -> dict[str, str]:
        return super().as_json() | {"kind": DataFault.__name__}


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
    return spine_of_rows(system, schema, frozenset(needed(system, schema)), [row], asked)


def spine_of_rows(
    system: System,
    schema: Mapping[str, pl.DataType],
    wanted: frozenset[str],
    rows: Sequence[Any],
    asked: datetime | Sequence[datetime],
) -> pl.DataFrame:
    """A spine of many rows, all asked at one time, or each at its own; ``wanted`` are the columns that a row has to have.

    Rows of one key asked at one time are told apart by a microsecond each. Raises ``FieldError`` that names the row (where there are several) and the field.
    """
    if not rows:
        raise FieldError("rows: there are none", hint="send at least one row")
    places = [f"rows[{number}]" for number in range(len(rows))] if len(rows) > 1 else ["row"]
    for place, row in zip(places, rows, strict=True):
        _shaped(place, row, schema, wanted)
    given = [name for name in schema if any(name in row for row in rows)]
    columns = {name: _column(name, schema[name], rows, places, optional=name not in wanted) for name in given}
    keys = [key_of(system, row) for row in rows]
    moments = [asked] * len(rows) if isinstance(asked, datetime) else list(asked)
    if len(set(keys)) < len(keys):
        seen: dict[tuple[str, datetime], int] = {}
        for number, at in enumerate(zip(keys, moments, strict=True)):
            seen[at] = seen.get(at, -1) + 1
            moments[number] = at[1] + timedelta(microseconds=seen[at])
    stamps = {moment: stamped(moment) for moment in set(moments)}
    ids = [f"{key}@{stamps[moment]}" for key, moment in zip(keys, moments, strict=True)]
    fixed = [pl.Series("_time", moments, dtype=TIME), pl.Series("_id", ids, dtype=pl.String)]
    return pl.DataFrame([*columns.values(), *fixed])


def _shaped(place: str, row: Any, schema: Mapping[str, pl.DataType], wanted: frozenset[str]) -> None:
    """Whether a row is an object with the right fields."""
    if not isinstance(row, Mapping):
        raise FieldError(f"{place}: it has to be an object", hint=f"its fields are {', '.join(sorted(schema))}")
    if not row.keys() <= schema.keys():
        extra = sorted(str(name) for name in row if name not in schema)
        raise FieldError(f"{place}.{_safe(extra[0])}: there is no such field", hint=f"the fields are {', '.join(sorted(schema))}")
    if not wanted <= row.keys():
        missing = sorted(wanted - row.keys())
        raise FieldError(f"{place}.{missing[0]}: it is missing", hint=f"needed are {', '.join(sorted(wanted))}")


def _column(
    name: str, kind: pl.DataType, rows: Sequence[Mapping[str, Any]], places: Sequence[str], *, optional: bool
) -> pl.Series:
    """One column of many rows: looked at as a whole, and value by value where that finds something."""
    values = [row.get(name) for row in rows] if optional else [row[name] for row in rows]
    types = set(map(type, values))
    if kind == pl.String and types == {str}:
        return pl.Series(name, values, dtype=kind)
    if kind == pl.Boolean and types == {bool}:
        return pl.Series(name, values, dtype=kind)
    if kind.is_float() and types == {float} and bool(np.isfinite(np.array(values)).all()):
        return pl.Series(name, values, dtype=kind)
    found = [
        None if optional and name not in row else checked(name, row[name], kind, place=place)
        for place, row in zip(places, rows, strict=True)
    ]
    return pl.Series(name, found, dtype=kind)


def checked(name: str, value: Any, kind: pl.DataType, *, place: str = "row") -> Any:
    """``value`` as a value of ``kind``; raises ``FieldError``."""
    place = f"{place}.{name}"
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
    if kind == pl.Date and isinstance(value, str):
        return _day(value, place)
    if kind.is_temporal() and isinstance(value, str):
        return moment_of(value, place)
    raise FieldError(f"{place}: it is not a {_said(kind)}", hint=f"a {_said(kind)} is needed")


def _said(kind: pl.DataType) -> str:
    if kind == pl.String:
        return "text"
    if kind == pl.Boolean:
        return "boolean"
    if kind == pl.Date:
        return "day, such as 2013-01-31"
    if kind.is_temporal():
        return "time with a zone, in ISO 8601"
    return "whole number" if kind.is_integer() else "number"


def moment_of(text: str, place: str) -> datetime:
    """A time with a zone, in UTC. Raises ``FieldError``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise FieldError(f"{place}: it is not a time", hint="write for example 2013-01-31T06:00:00Z") from None
    if moment.tzinfo is None:
        raise FieldError(f"{place}: it has no time zone", hint="write for example 2013-01-31T06:00:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise FieldError(f"{place}: it is out of reach", hint="times lie in the years 1 to 9999, in UTC") from None


def _day(text: str, place: str) -> date:
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise FieldError(f"{place}: it is not a day", hint="write for example 2013-01-31")


def asked_at(given: Any, now: datetime) -> datetime:
    """When the row is asked: ``now``, or the time given; raises ``FieldError`` for a time that has not come."""
    if given is None:
        return now
    if not isinstance(given, str):
        raise FieldError("asked_at: it is not a time", hint="write for example 2013-01-31T06:00:00Z")
    moment = moment_of(given, "asked_at")
    if moment > now:
        raise FieldError("asked_at: it lies in the future", hint="leave it out to ask now")
    return moment


def keys_of(system: System) -> tuple[str, ...]:
    """The columns of the predicted row's key."""
    source = system.predict.of if isinstance(system.predict, Every) else system.predict
    return (source.key,) if isinstance(source.key, str) else tuple(source.key)


def key_reader(system: System) -> Callable[[Mapping[str, Any]], str]:
    """``key_of`` for many rows of one system."""
    names = keys_of(system)
    if len(names) > 1:
        return lambda row: key_of(system, row)
    (name,) = names

    def read(row: Mapping[str, Any]) -> str:
        value = row[name]
        return value if isinstance(value, str) else _text(value)

    return read


def key_of(system: System, row: Mapping[str, Any]) -> str:
    """The key of a row as its id has it: several columns are joined by ``|``, truth values are written as SQL writes them."""
    names = keys_of(system)
    if len(names) == 1:
        value = row[names[0]]
        return value if isinstance(value, str) else _text(value)
    return "|".join(_text(row[name]) for name in names)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def stamped(asked: datetime) -> str:
    """A time as an id has it: ``20130101T060000Z``, with the fraction of a second where there is one.

    >>> from datetime import UTC
    >>> stamped(datetime(2013, 1, 1, 6, tzinfo=UTC))
    '20130101T060000Z'
    """
    text = asked.isoformat()  # quicker than strftime: 2013-01-01T06:00:00.000001+00:00
    fraction = text[19:26] if asked.microsecond else ""
    return f"{text[:4]}{text[5:7]}{text[8:13]}{text[14:16]}{text[17:19]}{fraction}Z"


def _safe(name: str) -> str:
    """A field's name as far as it may be repeated."""
    return name if re.fullmatch(r"\w{1,63}", name) else "…"
