"""What the live service measured, minute by minute: requests, errors, and how long answers took. Beside the log, never part of a record's making.

Every worker appends one line a minute to the file of the day; whoever watches adds up the lines of a window.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from noria.core import Window
from noria.core.window import EPOCH

KEEP = timedelta(days=70)
MINUTE = timedelta(minutes=1)


class Minute(msgspec.Struct, frozen=True):
    """What one worker answered in a minute: ``at`` is the minute's number since 1970, ``errors`` the replies with status 500 and above.

    ``counts`` are the replies within each of ``bounds`` (seconds), and above the last.
    """

    at: int
    requests: int
    errors: int
    bounds: tuple[float, ...]
    counts: tuple[int, ...]


def minute_of(moment: datetime) -> int:
    """The number of a moment's minute.

    >>> from datetime import UTC
    >>> minute_of(datetime(1970, 1, 1, 0, 2, 30, tzinfo=UTC))
    2
    """
    return (moment - EPOCH) // MINUTE


def leave_minute(folder: Path, minute: Minute) -> None:
    """Appends a line. Lines are short, so that those of several workers do not mix. Files older than 70 days go when a new day begins."""
    path = folder / f"{EPOCH + minute.at * MINUTE:%Y-%m-%d}.jsonl"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        oldest = f"{EPOCH + minute.at * MINUTE - KEEP:%Y-%m-%d}"
        for old in folder.glob("*.jsonl"):
            if old.stem < oldest:
                old.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, msgspec.json.encode(minute) + b"\n")
    finally:
        os.close(handle)


def minutes(folder: Path, window: Window) -> Iterator[Minute]:
    """The minutes that began within the window, of all workers. A line that is not whole is left out.

    >>> import tempfile
    >>> from datetime import UTC
    >>> folder = Path(tempfile.mkdtemp())
    >>> leave_minute(folder, Minute(at=61, requests=3, errors=1, bounds=(0.1,), counts=(2, 1)))
    >>> hour = Window(EPOCH + timedelta(hours=1), EPOCH + timedelta(hours=2))
    >>> [(one.requests, one.counts) for one in minutes(folder, hour)]
    [(3, (2, 1))]
    """
    first, last = minute_of(window.start), minute_of(window.end)
    day = window.start.replace(hour=0, minute=0, second=0, microsecond=0)
    while day <= window.end:
        path = folder / f"{day:%Y-%m-%d}.jsonl"
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with suppress(msgspec.DecodeError):
                one = msgspec.json.decode(line, type=Minute)
                if first <= one.at < last:
                    yield one
        day += timedelta(days=1)


def quantile(bounds: tuple[float, ...], counts: tuple[int, ...], share: float) -> float | None:
    """The bound within which a share of what was counted lies; infinite above the last bound, ``None`` when nothing was counted.

    >>> quantile((0.01, 0.1), (98, 1, 1), 0.99), quantile((0.01, 0.1), (0, 0, 0), 0.99)
    (0.1, None)
    """
    total = sum(counts)
    if not total:
        return None
    upto, ends = 0, []
    for count in counts:
        upto += count
        ends.append(upto)
    place = bisect_left(ends, share * total)
    return bounds[place] if place < len(bounds) else float("inf")
