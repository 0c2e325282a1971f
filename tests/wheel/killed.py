"""A replay that can be killed with SIGKILL at a chosen effect boundary: the child process of the tests beside this file."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

from noria.cli.common import load_system as load
from noria.core import parse_time
from noria.replay import replay
from noria.settings import Settings
from noria.store import Artifacts, Home, Lake

OFTEN = 4


def kind(boundary: str) -> str:
    """What is written, without when and which: dates, hashes and numbers are left out."""
    return re.sub(r"[0-9a-f]{12,}|\d[\d:T+.-]*", "", boundary)


def turn_the_wheel(home: Path, declaration: Path, start: str, end: str) -> None:
    """Replays ``declaration`` from ``start`` to ``end``, one day a turn."""
    settings = Settings(home=home, durable=False)
    span = parse_time(start), parse_time(end)
    replay(home, load(declaration), *span, timedelta(days=1), settings=settings).close()


def die_at_the_first_new_boundary(  # noqa: PLR0917  a process is started with plain arguments
    home: Path, declaration: Path, start: str, end: str, seen: Path, from_on: str = ""
) -> None:
    """As ``turn_the_wheel``, but kills itself at the first effect boundary that ``seen`` does not list, and lists it.

    ``from_on`` leaves out the boundaries before the first one with this text. What comes back day by day is died at four times, and after
    that in a quarter of its places. Boundaries lie after every table write, artifact and ledger transaction: what is before one of them is after another.
    """
    known = set(seen.read_text().splitlines()) if seen.exists() else set()

    def cross(boundary: str) -> None:
        if boundary in known or not (from_on in boundary or any(from_on in one for one in known)):
            return
        if crc32(boundary.encode()) % OFTEN and sum(kind(one) == kind(boundary) for one in known) >= OFTEN:
            return
        with seen.open("a") as log:
            log.write(boundary + "\n")
            log.flush()
            os.fsync(log.fileno())
        os.kill(os.getpid(), signal.SIGKILL)

    def fenced(kind: type, name: str, label: Callable[..., str]) -> None:
        original = getattr(kind, name)

        def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            cross(f"{kind.__name__}.{name} {label(*args, **kwargs)}")
            return result

        setattr(kind, name, wrapped)

    fenced(Home, "commit", lambda record, *, key, **_: key)
    fenced(Home, "commit_all", lambda items, **_: " ".join(item[1] for item in items))
    fenced(Lake, "write", lambda table, frame, *, key: f"{table} {key}")
    fenced(Artifacts, "put", lambda data: str(len(data)))
    turn_the_wheel(home, declaration, start, end)
