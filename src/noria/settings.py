"""Settings: one table, read once from the environment (``NORIA_…``) and the command line, passed as an argument."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from noria.core import SettingsError


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can differ from machine to machine. Nothing here changes a result."""

    home: Path = Path(".noria")
    ledger: str = ""
    threads: int = 2
    memory: str = "1GB"
    durable: bool = True
    lease_seconds: int = 60
    database_wait_seconds: int = 60
    compact_after: int = 64
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: str = ""
    token: str = ""
    workers: int = 1
    log: Literal["fast", "durable"] = "fast"
    waiting_limit: int = 10_000
    body_limit_bytes: int = 1_048_576
    alerts: str = ""


HELP: dict[str, tuple[str, str]] = {
    "home": ("path", "the folder that holds everything of one system"),
    "ledger": ("URL", "where the ledger is; empty: SQLite in the home"),
    "threads": ("count", "threads of the SQL engine"),
    "memory": ("size", "memory of the SQL engine before it spills to disk"),
    "durable": ("true/false", "wait for the disk at every commit"),
    "lease_seconds": ("seconds", "how long a silent worker keeps its home"),
    "database_wait_seconds": ("seconds", "how long to wait for a locked ledger"),
    "compact_after": ("commits", "small files of a table before they are joined"),
    "host": ("address", "where the service listens"),
    "port": ("number", "the service's port"),
    "hosts": ("names", "more names by which the service may be called, separated by commas; default: its own address only"),
    "token": ("text", "the service's token; empty: made at the first start, in the home"),
    "workers": ("count", "processes of the service"),
    "log": ("fast/durable", "durable: reply when the prediction is on the disk; fast: at once, and a crash takes what waits"),
    "waiting_limit": ("count", "predictions that may wait for the disk before new ones are refused; the most that a crash takes"),
    "body_limit_bytes": ("bytes", "the largest request body"),
    "alerts": (
        "URLs",
        "where alerts go, separated by commas: stdout, file:PATH, https://… (a webhook), smtp://HOST:PORT?from=…&to=…; #least=page behind one keeps back what is less urgent",
    ),
}


def read_settings(environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Settings from ``NORIA_HOME``, ``NORIA_THREADS``, … and then from ``given`` (``None`` means not given).

    >>> read_settings({"NORIA_THREADS": "4"}).threads
    4
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {name: environ[f"NORIA_{name.upper()}"] for name in HELP if f"NORIA_{name.upper()}" in environ}
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=lambda kind, value: kind(value))
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise SettingsError(f"a setting is wrong: {error}", hint="see `noria --help` for the settings") from None
