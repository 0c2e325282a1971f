"""The service's log: in groups, durable, counted; a full disk, a killed process and a damaged byte are told."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from noria.core import Corrupt, SimulatedClock, Unavailable
from noria.deployment import log
from noria.deployment.log import Frames, Layout, PredictionLog, Row

NOW = datetime(2024, 1, 1, 5, tzinfo=UTC)
LAYOUT = Layout("plan", (("x", "Float64"),), (("unit", "String"),))


def row(number: int, *, text: str = "") -> Row:
    name, at = f"u{number}{text}@20240101T050000Z", 1_704_085_200_000_000
    return Row(name, at, f"u{number}", (0.5,), ("u",), 0.5, None, 1.0, 1.0, "champion", 1.0, "sha", None, False, at, False, ())


def held(folder: Path) -> list[str]:
    """The ids in every file, in order."""
    found = []
    for file in sorted(folder.glob("predictions-*.db")):
        connection = log.connect(file)
        found += [one[0] for group in log.groups(connection, file, most=10**9) for one in group.rows]
        connection.close()
    return found


def opened(folder: Path, *, durable: bool, limit: int = 1000) -> PredictionLog:
    return PredictionLog(folder, SimulatedClock(NOW), durable=durable, limit=limit, sync=False)


async def wait_for(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_what_was_taken_is_written_in_order_when_it_closes(tmp_path: Path) -> None:
    async def many() -> None:
        made = opened(tmp_path, durable=False)
        layout = made.layout(LAYOUT)
        for number in range(1000):
            assert made.add(layout, row(number)) is None
        made.close()
        assert (made.acknowledged, made.committed) == (1000, 1000)

    asyncio.run(many())
    assert held(tmp_path) == [row(number).id for number in range(1000)]
    assert log.lost(tmp_path) == 0
    assert not list(tmp_path.glob("*.count"))


def test_many_wait_for_one_commit(tmp_path: Path) -> None:
    async def many() -> None:
        made = opened(tmp_path, durable=True)
        layout = made.layout(LAYOUT)
        futures = [made.add(layout, row(number)) for number in range(200)]
        await asyncio.gather(*[future for future in futures if future is not None])
        assert made.acknowledged == made.committed == 200
        assert len(held(tmp_path)) == 200
        (file,) = tmp_path.glob("predictions-*.db")
        connection = log.connect(file)
        assert connection.execute("select count(*) from groups").fetchone()[0] < 100
        connection.close()
        made.close()

    asyncio.run(many())


def fill(made: PredictionLog) -> None:
    """Lets the database grow no further: what a full disk does."""
    (name, connection) = made._open  # type: ignore[misc]
    pages = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {pages}")
    connect = log.connect
    made._open = (name, connection)

    def limited(path: Path, *, sync: bool = True) -> sqlite3.Connection:
        found = connect(path, sync=sync)
        found.execute(f"pragma max_page_count = {pages}")
        return found

    log.connect = limited  # type: ignore[assignment]


def test_a_full_disk_refuses_keeps_what_was_acknowledged_and_recovers_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = log.connect
    monkeypatch.setattr(log, "connect", connect)  # put back afterwards
    monkeypatch.setattr(log, "RETRY", 0.001)

    async def full() -> None:
        made = opened(tmp_path, durable=False)
        layout = made.layout(LAYOUT)
        made.add(layout, row(0))
        await wait_for(lambda: made.committed == 1)
        fill(made)
        made.add(layout, row(1, text="x" * 100_000))  # acknowledged before anybody knew
        await wait_for(lambda: made.fault)
        with pytest.raises(Unavailable, match="cannot be written"):
            made.check()
        monkeypatch.setattr(log, "connect", connect)  # somebody has made room
        await wait_for(lambda: made.committed == 2)
        made.check()
        made.add(layout, row(2))
        made.close()

    asyncio.run(full())
    assert [name[:2] for name in held(tmp_path)] == ["u0", "u1", "u2"]
    assert log.lost(tmp_path) == 0


def test_in_durable_mode_a_full_disk_is_told_to_whoever_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = log.connect
    monkeypatch.setattr(log, "connect", connect)
    monkeypatch.setattr(log, "RETRY", 0.001)

    async def full() -> None:
        made = opened(tmp_path, durable=True)
        layout = made.layout(LAYOUT)
        first = made.add(layout, row(0))
        assert first is not None
        await first
        fill(made)
        second = made.add(layout, row(1, text="x" * 100_000))
        assert second is not None
        with pytest.raises(Unavailable):
            await second
        with pytest.raises(Unavailable, match="cannot be written"):
            made.check()  # so nobody asks any more, and nothing is there to be tried again
        monkeypatch.setattr(log, "connect", connect)  # somebody has made room
        await wait_for(lambda: not made.fault)
        made.check()
        third = made.add(layout, row(2))
        assert third is not None
        await third
        assert made.acknowledged == 2
        made.close()

    asyncio.run(full())
    assert [name[:2] for name in held(tmp_path)] == ["u0", "u2"]


class Held:
    """A disk that takes as long as it is told to: ``began`` when a commit is under way, which ends with ``release``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.release = threading.Event(), threading.Event()
        insert = PredictionLog._insert

        def slow(made: PredictionLog, *given: Any) -> None:
            self.began.set()
            assert self.release.wait(30)
            insert(made, *given)

        monkeypatch.setattr(PredictionLog, "_insert", slow)


def frames(*numbers: int) -> Frames:
    return Frames(pl.DataFrame({"_id": [f"f{number}" for number in numbers]}), pl.DataFrame(), 0)


@pytest.mark.parametrize("durable", [True, False])
def test_too_many_that_wait_stop_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    """Predictions count, not hand-overs, and those of the commit under way with them: that is what a crash can take."""
    disk = Held(monkeypatch)

    async def many() -> None:
        made = opened(tmp_path, durable=durable, limit=5)
        layout = made.layout(LAYOUT)
        told = [made.add(layout, row(0))]
        await wait_for(disk.began.is_set)
        told.append(made.add_frames(frames(1, 2, 3)))
        assert made.waiting() == 4
        made.check()
        told.append(made.add(layout, row(4)))
        assert made.waiting() == 5
        with pytest.raises(Unavailable, match="too many"):
            made.check()
        with pytest.raises(Unavailable, match="too many"):
            made.add_frames(frames(5))
        disk.release.set()
        await wait_for(lambda: made.waiting() == 0)
        made.check()
        if durable:
            await asyncio.gather(*[future for future in told if future is not None])
        made.close()
        assert (made.acknowledged, made.committed) == (5, 5)

    asyncio.run(many())


@pytest.mark.parametrize("durable", [True, False])
def test_what_cannot_be_written_is_left_out_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    disk, bad = Held(monkeypatch), {3, 4, 17}

    async def some() -> None:
        made = opened(tmp_path, durable=durable)
        layout = made.layout(LAYOUT)
        told = [made.add(layout, row(0))]
        await wait_for(disk.began.is_set)  # all others go into one batch
        for number in range(1, 20):
            told.append(made.add(layout, row(number)._replace(context=(object(),)) if number in bad else row(number)))
        disk.release.set()
        await wait_for(lambda: made.waiting() == 0)
        assert (made.fault, made.unwritable, made.committed) == ("", 3, 17)
        made.check()
        if durable:
            said = await asyncio.gather(*[future for future in told if future is not None], return_exceptions=True)
            assert {number for number, one in enumerate(said) if isinstance(one, Unavailable)} == bad
            assert [one for number, one in enumerate(said) if number not in bad] == [None] * 17
        last = made.add(layout, row(20))
        if last is not None:
            await last
        made.close()

    asyncio.run(some())
    assert held(tmp_path) == [row(number).id for number in range(21) if number not in bad]
    assert [record.message for record in caplog.records] == [
        "a prediction cannot be written and is left out (TypeError); more of them are counted only"
    ]
    assert log.lost(tmp_path) == (0 if durable else 3)  # in mode durable they were never acknowledged


def test_halving_and_a_full_disk_write_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills after the first half of a batch with a bad one in it: only what is not there yet is tried again."""
    disk = Held(monkeypatch)
    monkeypatch.setattr(log, "RETRY", 0.001)
    refused = iter([False, True, True])  # of the writes of two rows: the first is let through, and two are not

    async def some() -> None:
        made = opened(tmp_path, durable=False)
        layout = made.layout(LAYOUT)
        made.add(layout, row(0))
        await wait_for(disk.began.is_set)
        insert = PredictionLog._insert

        def refusing(self: PredictionLog, connection: Any, number: int, items: list[Any]) -> None:
            if len(items) == 2 and next(refused, False):
                raise sqlite3.OperationalError("database or disk is full")
            insert(self, connection, number, items)

        monkeypatch.setattr(PredictionLog, "_insert", refusing)
        for number in range(1, 9):
            made.add(layout, row(number)._replace(context=(object(),)) if number == 3 else row(number))
        disk.release.set()
        await wait_for(lambda: made.waiting() == 0)
        assert (made.fault, made.unwritable, made.committed) == ("", 1, 8)
        made.close()

    asyncio.run(some())
    assert held(tmp_path) == [row(number).id for number in range(9) if number != 3]


def test_a_process_of_the_same_number_writes_elsewhere(tmp_path: Path) -> None:
    """In containers every process has the same number: what its layout 1 was is no other's."""
    other = Layout("other", (("y", "Float64"),), (("key", "String"),))

    async def two() -> None:
        for layout in (LAYOUT, other):
            made = opened(tmp_path, durable=False)
            made.add(made.layout(layout), row(0))
            made.close()

    asyncio.run(two())
    found = []
    for file in tmp_path.glob("predictions-*.db"):
        connection = log.connect(file)
        found += [group.layout for group in log.groups(connection, file, most=10)]
        connection.close()
    assert len(found) == 2
    assert set(found) == {LAYOUT, other}


def test_a_process_of_the_same_number_takes_no_loss_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = log.connect

    def full(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    async def two() -> None:
        monkeypatch.setattr(log, "connect", full)
        made = opened(tmp_path, durable=False)
        made.add(made.layout(LAYOUT), row(0))
        made.close()
        monkeypatch.setattr(log, "connect", connect)
        opened(tmp_path, durable=False).close()

    asyncio.run(two())
    assert log.lost(tmp_path) == 1


def test_a_disk_that_does_not_answer_is_left_to_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Held(monkeypatch)
    monkeypatch.setattr(log, "PATIENCE", 0.01)

    async def one() -> None:
        made = opened(tmp_path, durable=False)
        made.add(made.layout(LAYOUT), row(0))
        await wait_for(disk.began.is_set)
        made.close()
        assert log.lost(tmp_path) == 0  # nothing is lost yet: somebody still writes
        disk.release.set()
        made._thread.join(30)
        assert made.committed == 1
        monkeypatch.setattr(log, "PATIENCE", 30)
        made.close()  # as the end of the process does it

    asyncio.run(one())
    assert held(tmp_path) == [row(0).id]
    assert not list(tmp_path.glob("*.count"))


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    async def one() -> None:
        made = opened(tmp_path, durable=False)
        made.add(made.layout(LAYOUT), row(7))
        made.close()

    asyncio.run(one())
    (file,) = tmp_path.glob("predictions-*.db")
    connection = log.connect(file)
    (rows,) = connection.execute("select rows from groups").fetchone()
    connection.execute("update groups set rows = ?", (rows.replace(b"u7", b"u8"),))
    with pytest.raises(Corrupt, match="not what was written"):
        log.groups(connection, file, most=10)
    connection.close()


def test_what_is_sealed_is_not_read_again(tmp_path: Path) -> None:
    async def some() -> None:
        made = opened(tmp_path, durable=True)
        layout = made.layout(LAYOUT)
        for number in range(5):
            future = made.add(layout, row(number))
            assert future is not None
            await future
        made.close()

    asyncio.run(some())
    (file,) = tmp_path.glob("predictions-*.db")
    connection = log.connect(file)
    first = log.groups(connection, file, most=2)
    assert len(first) == 2
    log.mark(connection, first[-1].seq)
    assert [group.rows[0][0][:2] for group in log.groups(connection, file, most=100)] == ["u2", "u3", "u4"]
    connection.close()


KILLED = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_log
from noria.core import SystemClock, Unavailable
from noria.deployment.log import PredictionLog

async def main():
    durable = sys.argv[3] == "durable"
    made = PredictionLog(Path(sys.argv[2]), SystemClock(), durable=durable, limit=300)
    layout = made.layout(test_log.LAYOUT)
    number = 0
    while True:
        for _ in range(50):
            try:
                made.check()
            except Unavailable:
                break
            future = made.add(layout, test_log.row(number))
            number += 1
        if future is not None:
            await future
        print(number, flush=True)
        await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("mode", ["durable", "fast"])
def test_a_killed_process_loses_nothing_durable_and_what_it_loses_is_counted(tmp_path: Path, mode: str) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 3000:
            break
    assert log.lost(tmp_path) == 0  # the process lives: nothing is lost yet
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = max([acknowledged, *(int(line) for line in process.stdout if line.endswith("\n"))])
    process.stdout.close()
    process.wait()
    there = held(tmp_path)
    assert there == [row(number).id for number in range(len(there))]
    lost = log.lost(tmp_path)
    if mode == "durable":
        assert len(there) >= acknowledged
        assert lost == 0
    else:
        assert len(there) + lost >= acknowledged
        assert lost <= 300
    assert log.lost(tmp_path) == 0  # counted once
