"""The short way to read a request: JSON straight into a typed row, checked while it is read.

Only what is right comes out here. Whatever the short way objects to (a wrong type, a missing field, a key that comes twice) is read again by
``rows``, which says what is wrong and where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any

import msgspec
import polars as pl

_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
_ZONED = Annotated[datetime, msgspec.Meta(tz=True)]


def _kind(kind: pl.DataType) -> Any:
    if kind == pl.String:
        return str
    if kind == pl.Boolean:
        return bool
    if kind.is_integer():
        return _INT64
    if kind.is_numeric():
        return float
    return date if kind == pl.Date else _ZONED


def reader(schema: Mapping[str, pl.DataType], needed: frozenset[str]) -> Callable[[bytes], dict[str, Any] | None]:
    """A function from the bytes of ``{"row": {…}}`` to the row, or to ``None`` when they have to be read the long way.

    >>> read = reader({"x": pl.Float64(), "shop": pl.String()}, frozenset({"x"}))
    >>> read(b'{"row": {"x": 1, "shop": "a"}}'), read(b'{"row": {"x": "1"}}'), read(b'{"row": {"x": 1, "x": 2}}')
    ({'x': 1.0, 'shop': 'a'}, None, None)
    """
    if not all(name.isidentifier() and not name.startswith("__") for name in schema):
        return lambda _body: None
    fields: list[Any] = []
    for name, kind in schema.items():
        fields.append((name, _kind(kind)) if name in needed else (name, _kind(kind) | msgspec.UnsetType, msgspec.UNSET))
    row = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, kw_only=True, gc=False)
    body_type = msgspec.defstruct("Body", [("row", row)], forbid_unknown_fields=True, gc=False)
    decode = msgspec.json.Decoder(body_type).decode
    as_dict = msgspec.structs.asdict
    optional = len(needed) < len(schema)
    times = tuple(name for name, kind in schema.items() if kind.is_temporal() and kind != pl.Date)

    def read(body: bytes) -> dict[str, Any] | None:
        try:
            found = as_dict(decode(body).row)  # type: ignore[attr-defined]  # the type is made here
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if optional:
            found = {name: value for name, value in found.items() if value is not msgspec.UNSET}
        colons = body.count(b":") - len(found) - 1
        if colons and (b"\\" in body or colons != sum(v.count(":") for v in found.values() if isinstance(v, str))):
            return None  # a key came twice: the last would win without a word
        if times and not all(FIRST <= found[name] <= LAST for name in times if name in found):
            return None  # in UTC it has no year
        return found

    return read
