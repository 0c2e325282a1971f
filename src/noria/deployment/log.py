"""The service's log of predictions: one SQLite file per process and hour, written in groups by a thread of its own.

A prediction is handed over in memory, and the thread commits whatever has gathered, with one fsync for all of it (WAL, synchronous=FULL). In
mode ``durable`` the reply waits for that commit: nothing acknowledged is ever lost. In mode ``fast`` it does not: what was acknowledged and
waits at the moment of a crash can be lost. That is at most ``limit`` predictions, and beyond it the rest of one request of many rows:
typically those of the last ``GATHER`` seconds, those of the commit under way, and those that came during it. A counter in shared memory knows
how many were acknowledged, so that what a killed process lost is counted exactly (``lost``).

While the disk refuses, new predictions are refused too (``Unavailable``), those acknowledged are tried again until they are written, and when
none are left the disk is tried with a write of no meaning, so that the log recovers by itself. A prediction that cannot be written wherever
it goes (a value without an encoding) is left out and counted (``unwritable``); it holds up no other.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import io
import logging
import mmap
import os
import queue
import secrets
import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from noria.core import Corrupt, Unavailable
from noria.core.clock import Clock

GATHER = 0.03
RETRY = 0.25
PATIENCE = 10.0
_PROBE = 65_536
_logger = logging.getLogger("noria.service")
_COUNTS, _ONE = struct.Struct("<QQ"), struct.Struct("<Q")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Layout(msgspec.Struct, frozen=True):
    """The columns of a group's rows: the feature plan's id, and (name, type) of the features and of the context columns."""

    plan: str
    features: tuple[tuple[str, str], ...]
    context: tuple[tuple[str, str], ...]


class Row(NamedTuple):
    """One prediction as it is logged; times in microseconds, values in the layout's order.

    ``shadow`` has (release, score, scores, act) of every bundle that did not answer, or whose act was left to a person.
    """

    id: str
    time: int
    unit: str
    features: Sequence[Any]
    context: Sequence[Any]
    score: float | None
    scores: Sequence[float] | None
    act: float | None
    act_propensity: float | None
    variant: str
    variant_propensity: float | None
    release: str
    fallback: str | None
    review: bool
    scored_at: int
    unknown: bool
    shadow: Sequence[tuple[str, float | None, Sequence[float] | None, float | None]]


class Frames(NamedTuple):
    """Many predictions at once, as batch scoring makes them: rows of ``predictions`` and of ``shadow``."""

    predictions: pl.DataFrame
    shadow: pl.DataFrame
    unknown: int


class Group(NamedTuple):
    """What one commit holds: rows with their layout, or frames. ``seq`` is its place in the file."""

    seq: int
    layout: Layout | None
    rows: list[Any]
    frames: Frames | None


class PredictionLog:
    """Takes predictions from one event loop and writes them from a thread. Close it to write the rest."""

    def __init__(self, folder: Path, clock: Clock, *, durable: bool, limit: int, sync: bool = True) -> None:
        """``durable``: callers will wait for the disk. ``limit``: how many may wait for it. ``sync``: whether the disk is waited for at all."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._clock = folder, clock
        self._durable, self._limit, self._sync = durable, limit, sync
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._open: tuple[str, sqlite3.Connection] | None = None
        self._layouts: dict[int, Layout] = {}
        self._written: set[int] = set()
        self._taken, self._settled = 0, 0  # predictions; the first is written by the loop alone, the second by the thread
        self.fault = ""
        self.unwritable = 0
        self._name = f"predictions-{secrets.token_hex(8)}"  # no process writes where another has written, whatever its number
        self._counter = _Counter(folder / f"{self._name}.count")
        self._thread = threading.Thread(target=self._run, name="noria-log", daemon=True)
        self._thread.start()

    @property
    def acknowledged(self) -> int:
        """Predictions handed over by this process."""
        return self._counter.acknowledged

    @property
    def committed(self) -> int:
        """Predictions of this process that are on the disk."""
        return self._counter.committed

    def waiting(self) -> int:
        """How many predictions were handed over and are not on the disk yet."""
        return self._taken - self._settled

    def layout(self, layout: Layout) -> int:
        """The number by which rows of this layout are handed over."""
        number = next((n for n, known in self._layouts.items() if known == layout), len(self._layouts) + 1)
        self._layouts[number] = layout
        return number

    def check(self) -> None:
        """Raises ``Unavailable`` while the log cannot take more: then nothing may be answered."""
        if self.fault:
            raise Unavailable(f"the log of predictions cannot be written: {self.fault}", hint="free disk space in the home")
        if self._taken - self._settled >= self._limit:
            raise Unavailable("too many predictions wait for the disk", hint="ask again in a moment, or run more workers")

    def add(self, layout: int, row: Row) -> asyncio.Future[None] | None:
        """Takes one prediction. In mode ``durable`` the future is done when it is on the disk, and raises ``Unavailable`` when it cannot be."""
        return self._put((layout, row, 1))

    def add_frames(self, frames: Frames) -> asyncio.Future[None] | None:
        """Takes many; see ``add``. Raises ``Unavailable`` as ``check`` does: others may have come while these were made."""
        self.check()
        return self._put((0, frames, frames.predictions.height))

    def _put(self, item: tuple[int, Any, int]) -> asyncio.Future[None] | None:
        future = asyncio.get_running_loop().create_future() if self._durable else None
        if future is None:
            self._counter.acknowledge(item[2])
        self._taken += item[2]
        self._queue.put((*item, future))
        return future

    def close(self) -> None:
        """Writes what waits, and closes the file; raises nothing: what cannot be written stays counted as lost.

        A disk that does not answer is left to the thread, which writes on for as long as the process lives; the counter stays open for it.
        """
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(timeout=PATIENCE)
        if self._thread.is_alive():
            _logger.error(
                "the log of predictions is still being written; what is not written when the process ends is counted as lost"
            )
            return
        self._counter.close()

    # ------------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=RETRY if self.fault else None)
            except queue.Empty:
                self._probe()
                continue
            if not self._durable and not self._stopping.is_set():
                self._stopping.wait(GATHER)
            batch: list[Any] = []
            while True:
                if item is not None:
                    batch.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            while batch and (batch := self._commit(batch)):
                if self._stopping.wait(RETRY):
                    break
            if self._stopping.is_set() and self._queue.empty():
                self._close()
                return

    def _commit(self, batch: list[Any]) -> list[Any]:
        """Writes a batch; what of it has to be tried again. An item that cannot be written is found by halving, and left out."""
        try:
            connection = self._connection(self._clock.now())
            connection.execute("begin immediate")
            for layout, items in _runs(batch):
                self._insert(connection, layout, items)
            connection.execute("commit")
        except Exception as error:
            if _of_the_disk(error):
                self._gave_up(error)
                if not self._durable:
                    return batch
                self._settle(batch, (f"the log of predictions cannot be written: {error}", "free disk space in the home"))
                return []
            self._undo()
            if len(batch) == 1:
                self._leave_out(batch, error)
                return []
            half = len(batch) // 2
            left = self._commit(batch[:half])
            return left + batch[half:] if left else self._commit(batch[half:])
        self.fault = ""
        done = sum(item[2] for item in batch)
        self._counter.commit(done)
        if self._durable:
            self._counter.acknowledge(done)
        self._settle(batch, None)
        return []

    def _settle(self, batch: list[Any], fault: tuple[str, str] | None) -> None:
        """Nothing of this batch waits any more."""
        self._settled += sum(item[2] for item in batch)
        _resolve([item[3] for item in batch if item[3] is not None], fault)

    def _leave_out(self, batch: list[Any], error: Exception) -> None:
        if not self.unwritable:
            _logger.error(
                "a prediction cannot be written and is left out (%s); more of them are counted only", type(error).__name__
            )
        self.unwritable += sum(item[2] for item in batch)
        self._settle(batch, ("the prediction cannot be written in the log", "see the service's log"))

    def _probe(self) -> None:
        """Takes the fault away when the disk takes something again, about as large as a group."""
        try:
            connection = self._connection(self._clock.now())
            connection.execute("begin immediate")
            connection.execute("create table if not exists probe (one integer primary key check (one = 1), body blob not null)")
            connection.execute("insert or replace into probe (one, body) values (1, zeroblob(?))", (_PROBE,))
            connection.execute("commit")
        except Exception as error:
            self._gave_up(error)
        else:
            self.fault = ""

    def _gave_up(self, error: Exception) -> None:
        if not self.fault:
            _logger.error("the log of predictions cannot be written: %s", error)
        self.fault = str(error) or type(error).__name__
        self._undo()
        self._close()

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self._open is not None:
                self._open[1].execute("rollback")
        self._written = set()  # a layout may have gone with it

    def _insert(self, connection: sqlite3.Connection, layout: int, items: list[Any]) -> None:
        if layout and layout not in self._written:
            connection.execute("insert or replace into layouts (id, body) values (?, ?)", (layout, _pack(self._layouts[layout])))
            self._written.add(layout)
        if layout:
            rows, shadow, n = _pack([item[1] for item in items]), None, len(items)
        else:
            frames: Frames = items[0][1]
            rows, shadow, n = _ipc(frames.predictions), _pack((_ipc(frames.shadow), frames.unknown)), items[0][2]
        connection.execute(
            "insert into groups (layout, n, rows, shadow, sum) values (?, ?, ?, ?, ?)",
            (layout, n, rows, shadow, _sum(rows, shadow)),
        )

    def _connection(self, now: datetime) -> sqlite3.Connection:
        name = f"{self._name}-{now:%Y%m%dT%H}.db"
        if self._open is None or self._open[0] != name:
            self._close()
            self._open = (name, connect(self._folder / name, sync=self._sync))
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            with suppress(sqlite3.Error):
                self._open[1].close()
        self._open, self._written = None, set()


def _runs(batch: list[Any]) -> Iterator[tuple[int, list[Any]]]:
    """The batch in runs that go into one group: rows of one layout, or one pair of frames."""
    run: list[Any] = []
    for item in batch:
        if run and (item[0] != run[0][0] or item[0] == 0):
            yield run[0][0], run
            run = []
        run.append(item)
    if run:
        yield run[0][0], run


def _of_the_disk(error: Exception) -> bool:
    """Whether the same may be written later: not when the fault lies in what is written."""
    return isinstance(error, (sqlite3.Error, OSError, MemoryError)) and not isinstance(error, sqlite3.DataError)


def _resolve(futures: list[asyncio.Future[None]], fault: tuple[str, str] | None) -> None:
    """Tells whoever waits, in their own loop, once for all of a loop: the fault and what to do, or that it is done."""
    if not futures:
        return

    def tell() -> None:
        for future in futures:
            if future.done():
                continue  # whoever waited has gone
            if fault is None:
                future.set_result(None)
            else:
                future.set_exception(Unavailable(fault[0], hint=fault[1]))

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        futures[0].get_loop().call_soon_threadsafe(tell)


class _Counter:
    """How many predictions a process acknowledged and how many of them are on the disk, in memory that outlives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        fresh = path.with_suffix(".new")
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(handle, _COUNTS.size)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held as long as the process lives
        fresh.rename(path)  # ``lost`` sees it only now that it is held
        self._handle = handle
        self._memory = mmap.mmap(handle, _COUNTS.size)
        self.acknowledged, self.committed = 0, 0

    def acknowledge(self, n: int) -> None:
        """By one thread only."""
        self.acknowledged += n
        _ONE.pack_into(self._memory, 0, self.acknowledged)

    def commit(self, n: int) -> None:
        """By one thread only."""
        self.committed += n
        _ONE.pack_into(self._memory, _ONE.size, self.committed)

    def close(self) -> None:
        _COUNTS.pack_into(self._memory, 0, self.acknowledged, self.committed)
        self._memory.close()
        if self.acknowledged == self.committed:
            self._path.unlink(missing_ok=True)
        os.close(self._handle)


def lost(folder: Path) -> int:
    """How many predictions processes that have ended acknowledged and did not write; they are counted once."""
    total = 0
    for path in sorted(folder.glob("predictions-*.count")):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its process lives
            data = file.read(_COUNTS.size)
            if len(data) == _COUNTS.size:
                acknowledged, committed = _COUNTS.unpack(data)
                total += max(0, acknowledged - committed)
            path.unlink(missing_ok=True)
    return total


# ------------------------------------------------------------------------------------------------------------- the files


def connect(path: Path, *, sync: bool = True) -> sqlite3.Connection:
    """Opens a file of the log, and makes it when it is not there."""
    fresh = not path.exists()
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute(f"pragma synchronous={'full' if sync else 'off'}")
    connection.execute(
        "create table if not exists groups (seq integer primary key, layout integer not null, n integer not null, "
        "rows blob not null, shadow blob, sum blob not null)"
    )
    connection.execute("create table if not exists layouts (id integer primary key, body blob not null)")
    connection.execute("create table if not exists sealed (one integer primary key check (one = 1), seq integer not null)")
    if fresh:
        path.chmod(0o600)
    return connection


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Says of which file SQLite complains: ``Corrupt`` when it is damaged, ``Unavailable`` when it cannot be read now."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable(
            f"{file} cannot be read: {error}", hint="see whether the disk is full, or who holds the file"
        ) from error
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"{file} cannot be read: {error}", hint="restore it from a backup, or move it away") from error


def groups(connection: sqlite3.Connection, file: Path, *, most: int, after: int = 0) -> list[Group]:
    """The groups after ``after`` that are not sealed yet, in order, up to about ``most`` predictions.

    Raises ``Corrupt`` for bytes that changed.
    """
    with readable(file):
        return _groups(connection, file, most, after)


def _groups(connection: sqlite3.Connection, file: Path, most: int, after: int) -> list[Group]:
    found: list[Group] = []
    layouts = {
        number: msgspec.msgpack.decode(body, type=Layout) for number, body in connection.execute("select id, body from layouts")
    }
    read = connection.execute(
        "select seq, layout, n, rows, shadow, sum from groups "
        "where seq > max(?, coalesce((select seq from sealed), 0)) order by seq",
        (after,),
    )
    for seq, layout, n, rows, shadow, checked in read:
        if most <= 0:
            break
        most -= n
        if _sum(rows, shadow) != checked:
            raise Corrupt(
                f"{file}: group {seq} of the log of predictions is not what was written", hint="restore it from a backup"
            )
        if layout:
            found.append(Group(seq, layouts[layout], _unpack(rows), None))
        else:
            beside, unknown = _unpack(shadow)
            frames = Frames(pl.read_ipc(io.BytesIO(rows)), pl.read_ipc(io.BytesIO(beside)), unknown)
            found.append(Group(seq, None, [], frames))
    return found


def mark(connection: sqlite3.Connection, seq: int) -> None:
    """Says that everything up to ``seq`` is in the lake."""
    connection.execute("insert or replace into sealed (one, seq) values (1, ?)", (seq,))


def _sum(rows: bytes, shadow: bytes | None) -> bytes:
    return hashlib.blake2b(rows + (shadow or b""), digest_size=16).digest()


def _ipc(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()
