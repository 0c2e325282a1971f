"""The engine that reads sources where they lie.

The home's engine is shut off from everything but the lake, because a declaration's SQL runs there. Here only Noria's own SQL runs, over
the files that a declaration names.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import duckdb
import polars as pl

from noria.core import NoriaError
from noria.store import Home


class Reader:
    """Runs SQL over Parquet files; connects at the first query.

    >>> Reader()("select 1 as a").item()
    1
    """

    def __init__(self, *, threads: int = 2, memory: str = "1GB") -> None:
        self._options: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "memory_limit": memory,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __call__(self, query: str) -> pl.DataFrame:
        """The rows of a query; raises ``NoriaError`` with the engine's own words."""
        try:
            if self._connection is None:
                self._connection = duckdb.connect(config=self._options)
                self._connection.execute("set TimeZone='UTC'")
            frame = pl.from_arrow(self._connection.sql(query).to_arrow_table())
        except duckdb.Error as error:
            raise NoriaError(str(error)) from error
        assert isinstance(frame, pl.DataFrame)
        return frame


_readers: WeakKeyDictionary[Home, Reader] = WeakKeyDictionary()


def reader_of(home: Home) -> Reader:
    """The home's reader: one as long as the home is open, because connecting costs more than a turn's reading."""
    reader = _readers.get(home)
    if reader is None:
        reader = _readers[home] = Reader(threads=home.settings.threads, memory=home.settings.memory)
    return reader
