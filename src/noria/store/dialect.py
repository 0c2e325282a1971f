"""The one place that knows which database lies under the ledger: SQLite in the home, or Postgres by its URL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from noria.core import Conflict, Corrupt, NoriaError, SystemClock, Unavailable, micros

WRITES = {"noria_writes": True}


def ledger_url(url: str, folder: Path) -> str:
    """The URL of the ledger: the setting, or SQLite in the home."""
    return url or f"sqlite:///{folder / 'ledger.db'}"


def connect(url: str, *, wait_seconds: int, durable: bool, write: bool) -> Engine:
    """An engine whose transactions are serial for writers and never wait longer than ``wait_seconds`` for a lock."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True, connect_args={"options": f"-c lock_timeout={wait_seconds * 1000}"})
    engine = sa.create_engine(url, connect_args={"timeout": wait_seconds, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None
        run = connection.execute
        if write:
            run("pragma journal_mode=wal")
        run(f"pragma synchronous={'full' if durable else 'off'}")
        run("pragma foreign_keys=on")
        run("pragma temp_store=memory")
        if not write:
            run("pragma query_only=on")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("noria_writes"):  # a single query is a snapshot by itself
            connection.exec_driver_sql("begin immediate")

    return engine


def clock_micros(connection: Connection) -> int:
    """Physical time for leases that are seen from several machines: the database's own, so that their clocks need not agree."""
    if connection.dialect.name == "sqlite":
        return micros(SystemClock().now())
    seconds = connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one()
    return int(float(seconds) * 1_000_000)


def for_update(query: sa.Select[Any]) -> sa.Select[Any]:
    """Locks the rows that are read until the transaction ends. (SQLite's writers are alone from the beginning; it leaves this out.)"""
    return query.with_for_update()


def guards(dialect: str, table: str) -> list[str]:
    """Statements after which ``table`` takes new rows only: what was written is neither changed nor deleted."""
    if dialect == "sqlite":
        return [
            f"create trigger {table}_no_{what} before {what} on {table} begin select raise(abort, '{table} is append-only'); end"
            for what in ("update", "delete")
        ]
    return [
        f"create function {table}_append_only() returns trigger language plpgsql as "
        f"$$ begin raise exception '{table} is append-only'; end $$",
        f"create trigger {table}_append_only before update or delete on {table} "
        f"for each row execute function {table}_append_only()",
    ]


@contextmanager
def mapped(url: str) -> Iterator[None]:
    """Errors of the database as ours: locked or full or away → ``Unavailable``, damaged → ``Corrupt``, a lost race → ``Conflict``."""
    try:
        yield
    except sa.exc.IntegrityError as error:
        raise Conflict(f"the ledger refused a row: {error.orig}", hint="another writer was first; run again") from error
    except sa.exc.DBAPIError as error:
        raise _as_ours(error, sa.make_url(url).render_as_string(hide_password=True)) from error
    except sa.exc.TimeoutError as error:
        raise Unavailable("no connection to the ledger became free in time", hint="run again") from error


def _as_ours(error: sa.exc.DBAPIError, url: str) -> NoriaError:
    text = str(error.orig).lower()
    if "locked" in text or "lock timeout" in text or "busy" in text:
        return Unavailable(
            f"the ledger {url} stayed locked by another process",
            hint="see who holds it with `noria status`, or raise NORIA_DATABASE_WAIT_SECONDS; nothing was written",
        )
    if "full" in text or "disk i/o" in text or "no space" in text:
        return Unavailable(f"no room on the disk for the ledger {url}", hint="free some space and run again; nothing was lost")
    if "malformed" in text or "not a database" in text:
        return Corrupt(f"the ledger {url} is damaged: {error.orig}", hint="restore ledger.db from a backup")
    if "readonly" in text or "read-only" in text or "query_only" in text:
        return Unavailable(f"the ledger {url} is open for reading only", hint="open the home for writing")
    if "append-only" in text:
        return Conflict(f"{error.orig}", hint="records are never changed; write a new one")
    return Unavailable(f"the ledger {url} did not answer: {error.orig}", hint="check that the database runs, then run again")
