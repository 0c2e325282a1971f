"""Who may write: one worker at a time, told apart by an epoch that only grows.

Taking the lease raises its epoch in the database; every commit first renews the lease *at its own epoch* in the same transaction.
A worker that was paused, lost the lease and wakes is refused there, whatever it still believes (the fencing token).

When is a silent worker's lease free? On the same machine its process tells: gone (or its number given to another process)
means free at once; stopped means free after ``lease_seconds``; running means taken. From another machine only time tells.
Seconds are counted on the machine's monotonic clock, or on the database server's, so that a clock that is set cannot expire
anything.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from noria.core import LeaseLost, from_micros, stopwatch
from noria.store.dialect import clock_micros, for_update
from noria.store.schema import leases

NAME = "home"


class Place(msgspec.Struct, frozen=True):
    """Where a worker runs: its machine since its last start, and its process with the time that it was started at."""

    host: str
    boot: str
    space: str
    pid: int
    started: str


@dataclass(frozen=True)
class Lease:
    """The right to write, until somebody has a higher ``epoch``."""

    epoch: int
    owner: str
    token: str


def take(connection: Connection, owner: str, lease_seconds: int, mine: str = "") -> Lease:
    """Takes the lease in the running transaction; raises ``LeaseLost`` when another live worker has it.

    ``mine`` is the token of a lease that the caller had and could not give back (a full disk): it does not stand in its own way.
    """
    row = connection.execute(for_update(sa.select(leases).where(leases.c.name == NAME))).one_or_none()
    now = clock_micros(connection)
    if row is not None and row.token not in ("", mine) and not _is_free(row, now, lease_seconds):
        place = msgspec.json.decode(row.place, type=Place)
        raise LeaseLost(
            f"this home is held by {row.owner!r} (process {place.pid} on {place.host}) since {from_micros(row.since):%Y-%m-%d %H:%M:%S} UTC",
            hint="let it finish, or stop that process; nothing was written",
        )
    epoch = 1 if row is None else row.epoch + 1
    lease = Lease(epoch, owner, os.urandom(16).hex())
    place_text = msgspec.json.encode(here(os.getpid())).decode()
    values = {
        "epoch": epoch,
        "owner": owner,
        "token": lease.token,
        "place": place_text,
        "since": now,
        "renewed": now,
        "tick": stopwatch(),
    }
    if row is None:
        connection.execute(leases.insert().values(name=NAME, **values))
    else:
        connection.execute(leases.update().where(leases.c.name == NAME).values(**values))
    return lease


def renew(connection: Connection, lease: Lease) -> None:
    """Renews the lease in the running transaction; raises ``LeaseLost`` when somebody else has taken it since."""
    mine = (leases.c.name == NAME) & (leases.c.epoch == lease.epoch) & (leases.c.token == lease.token)
    done = connection.execute(leases.update().where(mine).values(renewed=clock_micros(connection), tick=stopwatch()))
    if done.rowcount != 1:
        row = connection.execute(sa.select(leases.c.owner, leases.c.epoch).where(leases.c.name == NAME)).one_or_none()
        whom = f"{row.owner!r} holds it now (epoch {row.epoch})" if row else "nobody holds it"
        raise LeaseLost(
            f"{lease.owner!r} lost its lease (epoch {lease.epoch}): {whom}",
            hint="nothing was written; the next turn goes on from the ledger",
        )


def release(connection: Connection, lease: Lease) -> None:
    """Gives the lease back, when it is still ours."""
    mine = (leases.c.name == NAME) & (leases.c.token == lease.token)
    connection.execute(leases.update().where(mine).values(token=""))


def here(pid: int) -> Place:
    """The place of a process of this machine."""
    return Place(platform.node(), _text("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid"), pid, _process(pid)[1])


def _is_free(row: sa.Row[tuple[object, ...]], now: int, lease_seconds: int) -> bool:
    place = msgspec.json.decode(row.place, type=Place)
    mine = here(os.getpid())
    same_machine = bool(mine.boot) and (place.boot, place.space) == (mine.boot, mine.space)
    if same_machine:
        state, started = _process(place.pid)
        if not state or started != place.started or state in "ZX":
            return True
        return state in "Tt" and stopwatch() - row.tick >= lease_seconds
    if place.boot and place.boot == mine.boot:  # another container of this machine: one monotonic clock
        return bool(stopwatch() - row.tick >= lease_seconds)
    return bool(now - row.renewed >= lease_seconds * 1_000_000)


def _process(pid: int) -> tuple[str, str]:
    """A process's state letter and start time, both empty when it does not live. (Where there is no /proc: alive is "R".)"""
    text = _text(f"/proc/{pid}/stat")
    if text:
        fields = text.rpartition(")")[2].split()
        return fields[0], fields[19]
    if Path("/proc/self/stat").exists():
        return "", ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "", ""
    except PermissionError:
        pass
    return "R", ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
