"""Steady load for a rehearsal: rows that were asked lately, over a few connections that are kept open, as fast as a small pause lets them."""

from __future__ import annotations

import http.client
import math
import threading
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl

from noria.core import stopwatch
from noria.deployment.service.rows import keys_of, needed, row_schema
from noria.system import Every, Request, System
from noria.tables import PREDICTIONS, source_table

if TYPE_CHECKING:
    from noria.store import Home

ROWS = 64
PAUSE_SECONDS = 0.005
TIMEOUT_SECONDS = 10.0
MOST = 50_000
Row = dict[str, Any]


class Said(NamedTuple):
    """What came of one request; ``failed`` is set when it was not answered with 200."""

    connection: int
    sent: float
    done: float
    failed: bool
    id: str = ""
    release: str = ""
    fallback: str = ""


class _Answer(msgspec.Struct):
    id: str
    release: str
    fallback: str


class Load:
    """Asks from the start of the block to its end. ``said`` grows by each answer; each row belongs to one connection."""

    def __init__(self, port: int, token: str, rows: Sequence[Row], connections: int) -> None:
        self.connections = connections
        self.said: list[Said] = []
        self._port, self._rows = port, rows
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(place,), name=f"noria-load-{place}") for place in range(connections)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, place: int) -> None:
        bodies = [msgspec.json.encode({"row": row}) for row in self._rows[place :: self.connections]]
        decode = msgspec.json.Decoder(_Answer).decode
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_SECONDS)
        number = 0
        while not self._stop.is_set() and len(self.said) < MOST:
            sent = stopwatch()
            try:
                connection.request("POST", "/v1/predict", bodies[number % len(bodies)], self._headers)
                reply = connection.getresponse()
                body = reply.read()
                if reply.status == 200:
                    answer = decode(body)
                    self.said.append(Said(place, sent, stopwatch(), False, answer.id, answer.release, answer.fallback))
                else:
                    self.said.append(Said(place, sent, stopwatch(), True))
            except (OSError, http.client.HTTPException, msgspec.DecodeError):
                self.said.append(Said(place, sent, stopwatch(), True))
                connection.close()  # the next request opens it again
            number += 1
            self._stop.wait(PAUSE_SECONDS)
        connection.close()


def sample(home: Home, system: System) -> list[Row]:
    """The newest rows that were asked, as a client would send them; what the tables do not have of a row is made up by its type.

    A system that was never asked gets rows that are made up altogether.
    """
    schema = row_schema(home, system)
    wanted = sorted(needed(system, schema))
    kinds = {name: schema[name] for name in wanted}
    found = _newest(home, system)
    rows = [{name: _value(row.get(name), kind) for name, kind in kinds.items()} for row in found]
    return rows or [_made_up(keys_of(system), kinds, number) for number in range(ROWS)]


def _newest(home: Home, system: System) -> list[Row]:
    table, order = PREDICTIONS.name, "_time"
    if not isinstance(system.predict, Request):
        source = system.predict.of if isinstance(system.predict, Every) else system.predict
        table, order = source_table(source.name), "_known"
    if home.lake.schema(table) is None:
        return []
    newest = home.engine.sql(f"select * from p order by {order} desc limit {ROWS}", p=home.lake.scan(table))
    return newest.to_dicts()


def _value(value: Any, kind: pl.DataType) -> Any:
    """A value as JSON has it, of the column's kind."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _plain(kind)
    if kind.is_integer():
        return int(value)
    if kind.is_numeric():
        return float(value)
    if isinstance(value, datetime | date):
        return value.isoformat()[:10] if kind == pl.Date else value.isoformat()
    return value if kind == pl.Boolean else str(value)


def _plain(kind: pl.DataType) -> Any:
    if kind == pl.Boolean:
        return False
    if kind.is_temporal():
        return "2024-01-01" if kind == pl.Date else "2024-01-01T00:00:00+00:00"
    return 0 if kind.is_integer() else 0.0 if kind.is_numeric() else "a"


def _made_up(keys: Sequence[str], kinds: Mapping[str, pl.DataType], number: int) -> Row:
    own = {name: number if kinds[name].is_numeric() else f"drill-{number}" for name in keys if name in kinds}
    return {name: _plain(kind) for name, kind in kinds.items()} | own
