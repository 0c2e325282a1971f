"""The lease: one writer, and whoever lost it is refused (with processes that really are stopped and killed)."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from noria.core import LeaseLost
from noria.records import Approved
from noria.store import Home
from noria.store.lease import Place
from noria.store.schema import leases

from .conftest import put

HOLDER = """
import sys
from pathlib import Path
from noria.core import LeaseLost, SystemClock
from noria.records import Approved
from noria.settings import Settings
from noria.store import Home

with Home.open(Path(sys.argv[1]), Settings(durable=False, lease_seconds=int(sys.argv[2])), SystemClock()) as home:
    with home.hold("worker"):
        print("holding", flush=True)
        for line in sys.stdin:
            try:
                home.commit(Approved(subject=line.strip(), by="worker"), key=line.strip())
                print("written", flush=True)
            except LeaseLost as error:
                print("refused:", error, flush=True)
"""


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()
    return said(process)


@contextmanager
def holder(path: Path, lease_seconds: int = 3600) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the home and commits what it is told."""
    command = [sys.executable, "-c", HOLDER, str(path), str(lease_seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert said(process) == "holding"
            yield process
        finally:
            process.kill()


def test_a_second_worker_is_refused_and_told_who_holds_it(open_home: Callable[..., Home]) -> None:
    first, second = open_home(), open_home()
    with first.hold("worker"):
        with pytest.raises(LeaseLost, match=rf"held by 'worker' \(process {os.getpid()} on .*\) since "), second.hold("worker"):
            pass
        with pytest.raises(LeaseLost, match="holds no lease"):
            second.commit(Approved(subject="a", by="b"), key="a")
    with second.hold("worker") as lease:
        assert lease.epoch == 2


def test_inside_a_hold_the_same_lease_is_given_again(home: Home) -> None:
    with home.hold("worker") as outer:
        with home.hold("worker") as inner:
            assert inner == outer
        home.commit(Approved(subject="a", by="b"), key="a")


def test_a_worker_of_the_same_name_in_another_process_is_refused(home: Home) -> None:
    with holder(home.path, lease_seconds=0) as process:
        with pytest.raises(LeaseLost, match=f"process {process.pid}"), home.hold("worker"):
            pass  # running: whatever its lease's seconds say
        assert say(process, "a") == "written"


def test_a_killed_worker_is_followed_at_once(home: Home) -> None:
    with holder(home.path) as process:
        assert say(process, "a") == "written"
        process.send_signal(signal.SIGKILL)
        process.wait()
        with home.hold("next") as lease:
            assert lease.epoch == 2
            home.commit(Approved(subject="b", by="next"), key="b")
    assert [entry.key for entry in home.ledger.read()] == ["a", "b"]


def test_a_paused_worker_that_wakes_is_refused(open_home: Callable[..., Home]) -> None:
    home = open_home(lease_seconds=0)
    with holder(home.path) as process:
        assert say(process, "a") == "written"
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        with home.hold("next"):
            home.commit(Approved(subject="b", by="next"), key="b")
            process.send_signal(signal.SIGCONT)
            assert say(process, "c").startswith("refused: 'worker' lost its lease (epoch 1): 'next' holds it now (epoch 2)")
            home.commit(Approved(subject="d", by="next"), key="d")
        assert say(process, "e").startswith("refused:")  # given back, but not to the one that lost it
    assert [entry.key for entry in home.ledger.read()] == ["a", "b", "d"]


def test_a_paused_worker_keeps_its_lease_for_its_seconds(open_home: Callable[..., Home]) -> None:
    home = open_home(lease_seconds=3600)
    with holder(home.path) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        with pytest.raises(LeaseLost), home.hold("next"):
            pass
        process.send_signal(signal.SIGCONT)
        assert say(process, "a") == "written"


def test_a_worker_that_lost_its_lease_removes_no_file_of_the_next(open_home: Callable[..., Home]) -> None:
    first, second = open_home(), open_home()
    with first.hold("worker"):
        put(first, 1)
        change_lease(first, pid=os.getpid(), started="a process that is gone")
        with second.hold("other"):
            put(second, 2)
            first.lake.untidy.add("predictions")
            first.lake.upkeep()
            assert second.lake.check() == []
            assert second.lake.read("predictions").height == 40


def change_lease(home: Home, seconds: int = 0, **place: object) -> None:
    """Moves the lease's times into the past, and its holder elsewhere."""
    with home.ledger.transaction() as connection:
        row = connection.execute(sa.select(leases)).one()
        moved = msgspec.structs.replace(msgspec.json.decode(row.place, type=Place), **place)
        values = {"renewed": row.renewed - seconds * 1_000_000, "since": row.since - seconds * 1_000_000}
        connection.execute(leases.update().values(place=msgspec.json.encode(moved).decode(), **values))


def test_a_clock_that_jumps_a_day_expires_nothing_on_one_machine(open_home: Callable[..., Home]) -> None:
    first, second = open_home(), open_home()
    with first.hold("worker"):
        change_lease(first, seconds=86_400)
        with pytest.raises(LeaseLost), second.hold("other"):
            pass
        change_lease(first, space="pid:[another container]")
        with pytest.raises(LeaseLost), second.hold("other"):  # one machine has one monotonic clock
            pass
        first.commit(Approved(subject="a", by="b"), key="a")


def test_the_lease_of_another_machine_runs_out(open_home: Callable[..., Home]) -> None:
    first, second = open_home(), open_home()
    with first.hold("worker"):
        change_lease(first, boot="another machine")
        with pytest.raises(LeaseLost), second.hold("other"):
            pass
        change_lease(first, seconds=61)
        with second.hold("other"), pytest.raises(LeaseLost, match="'other' holds it now"):
            first.commit(Approved(subject="a", by="b"), key="a")


def test_the_number_of_a_dead_process_may_be_given_again(open_home: Callable[..., Home]) -> None:
    first, second = open_home(), open_home()
    with first.hold("worker"):
        change_lease(first, pid=os.getpid(), started="an earlier process of this number")
        with second.hold("other") as lease:
            assert lease.epoch == 2


def test_a_lease_that_could_not_be_given_back_is_no_hindrance(home: Home) -> None:
    other = sqlite3.connect(home.path / "ledger.db", isolation_level=None)
    with home.hold("worker"):
        other.execute("begin immediate")
    other.execute("rollback")
    other.close()
    with home.hold("worker") as lease:
        assert lease.epoch == 2
