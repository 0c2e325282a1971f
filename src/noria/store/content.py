"""What a frame says, apart from how it is stored: types that every reader of the lake knows, and the hash of ordered rows."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl

from noria.core import Conflict, canonical

Schema = dict[str, pl.DataType]

_SIMPLE: dict[str, pl.DataType] = {
    "string": pl.String(),
    "long": pl.Int64(),
    "integer": pl.Int32(),
    "short": pl.Int16(),
    "byte": pl.Int8(),
    "double": pl.Float64(),
    "float": pl.Float32(),
    "boolean": pl.Boolean(),
    "binary": pl.Binary(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
    "timestamp_ntz": pl.Datetime("us"),
}
_NAMES = {kind: name for name, kind in _SIMPLE.items()}
_WIDER: dict[pl.DataType, pl.DataType] = {
    pl.UInt8(): pl.Int16(),
    pl.UInt16(): pl.Int32(),
    pl.UInt32(): pl.Int64(),
    pl.UInt64(): pl.Int64(),
}


def stored_type(kind: pl.DataType, column: str) -> pl.DataType:
    """The type in which the lake keeps a column; raises ``Conflict`` for types that tables cannot hold.

    Unsigned numbers become the next wider signed, categories become strings, times become microseconds (in UTC when they
    have a zone).

    >>> stored_type(pl.UInt32(), "n")
    Int64
    """
    if kind in _NAMES:
        return kind
    if kind in _WIDER:
        return _WIDER[kind]
    if isinstance(kind, pl.Datetime):
        return pl.Datetime("us", "UTC" if kind.time_zone else None)
    if isinstance(kind, pl.Categorical | pl.Enum):
        return pl.String()
    if isinstance(kind, pl.Decimal):
        return kind
    if isinstance(kind, pl.List | pl.Array):
        inner = kind.inner
        return pl.List(stored_type(inner if isinstance(inner, pl.DataType) else inner(), column))
    if isinstance(kind, pl.Struct):
        return pl.Struct({field.name: stored_type(_instance(field.dtype), column) for field in kind.fields})
    raise Conflict(
        f"the column {column!r} has the type {kind}, which a table cannot hold",
        hint="cast it to a number, string, time, list or struct",
    )


def stored(frame: pl.DataFrame, known: Schema | None) -> pl.DataFrame:
    """The frame in the types of the lake. Columns without any type (all null) take that of ``known``.

    Raises ``Conflict`` for a column whose type differs from ``known``, and for a new one without a type.
    """
    casts: list[pl.Expr] = []
    for name, kind in frame.schema.items():
        there = None if known is None else known.get(name)
        if kind == pl.Null:
            if there is None:
                raise Conflict(f"the new column {name!r} has only nulls and no type", hint="cast it, for example to pl.Float64")
            casts.append(pl.col(name).cast(there))
            continue
        wanted = stored_type(kind, name)
        if there is not None and wanted != there:
            raise Conflict(
                f"the column {name!r} was {there} and now comes as {wanted}", hint="cast it, or write it under a new name"
            )
        if wanted != kind:
            casts.append(pl.col(name).cast(wanted))
    return frame.with_columns(casts) if casts else frame


def type_name(kind: pl.DataType) -> Any:
    """A stored type in Delta's JSON: a name, or an object for lists and structs."""
    if kind in _NAMES:
        return _NAMES[kind]
    if isinstance(kind, pl.Decimal):
        return f"decimal({kind.precision},{kind.scale})"
    if isinstance(kind, pl.List):
        return {"type": "array", "elementType": type_name(_instance(kind.inner)), "containsNull": True}
    if isinstance(kind, pl.Struct):
        return {"type": "struct", "fields": [field_json(f.name, _instance(f.dtype)) for f in kind.fields]}
    raise Conflict(f"the type {kind} has no form in a table")


def field_json(name: str, kind: pl.DataType) -> dict[str, Any]:
    """A column in Delta's JSON."""
    return {"name": name, "type": type_name(kind), "nullable": True, "metadata": {}}


def type_of(name: Any) -> pl.DataType:
    """The inverse of ``type_name``.

    >>> type_of(type_name(pl.List(pl.Decimal(10, 2))))
    List(Decimal(precision=10, scale=2))
    """
    if isinstance(name, dict):
        if name["type"] == "array":
            return pl.List(type_of(name["elementType"]))
        return pl.Struct({field["name"]: type_of(field["type"]) for field in name["fields"]})
    if name.startswith("decimal("):
        precision, scale = name[8:-1].split(",")
        return pl.Decimal(int(precision), int(scale))
    return _SIMPLE[name]


def rows_hash(frame: pl.DataFrame) -> str:
    """The hash of a frame's logical content: names, types and values of its rows in their order.

    The order of columns does not matter, nor how the frame lies in memory; the order of rows does.

    >>> rows_hash(pl.DataFrame({"a": [1], "b": ["x"]})) == rows_hash(pl.DataFrame({"b": ["x"], "a": [1]}))
    True
    """
    hasher = hashlib.sha256()
    names = sorted(frame.columns)
    hasher.update(canonical([[name, type_name(frame.schema[name])] for name in names] + [frame.height]))
    for name in names:
        _feed(hasher, frame[name])
    return hasher.hexdigest()


def _feed(hasher: Any, column: pl.Series) -> None:
    kind = column.dtype
    nulls = column.null_count()
    hasher.update(np.packbits(column.is_null().to_numpy()).tobytes() if nulls else b"\0")
    if isinstance(kind, pl.List):
        lengths = column.list.len().fill_null(0)
        hasher.update(lengths.cast(pl.Int64).to_numpy().tobytes())
        _feed(hasher, column.filter(lengths > 0).explode())
    elif isinstance(kind, pl.Struct):
        for field in kind.fields:
            _feed(hasher, column.struct.field(field.name))
    elif kind == pl.String:
        texts = column.drop_nulls()
        hasher.update(texts.str.len_bytes().cast(pl.Int64).to_numpy().tobytes())
        hasher.update(texts.str.join("").item().encode())
    elif kind == pl.Binary:
        parts = column.drop_nulls().to_list()
        hasher.update(np.fromiter(map(len, parts), np.int64, len(parts)).tobytes())
        hasher.update(b"".join(parts))
    elif isinstance(kind, pl.Decimal):
        hasher.update("\0".join(map(str, column.drop_nulls().to_list())).encode())
    elif kind in (pl.Float64, pl.Float32):
        values = (column.drop_nulls() if nulls else column).to_numpy()
        unknown = np.isnan(values)
        hasher.update((np.where(unknown, np.array(np.nan, values.dtype), values) if unknown.any() else values).tobytes())
    else:
        values = (column.drop_nulls() if nulls else column).to_physical().to_numpy()
        hasher.update(values.astype(np.int64).tobytes())


def _instance(kind: Any) -> pl.DataType:
    return kind if isinstance(kind, pl.DataType) else kind()
