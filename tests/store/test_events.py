"""What was acknowledged is there, once, whoever else writes and whenever somebody dies."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.core import Corrupt, DataFault, Unavailable
from noria.store import Appended, Event, EventLog, NewEvent

Opening = Callable[..., EventLog]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opening]:
    """Opens logs (by default the same file again and again) and closes them at the end."""
    made: list[EventLog] = []

    def open_one(name: str = "service/events.db", **options: Any) -> EventLog:
        made.append(EventLog(tmp_path / name, **({"durable": False, "wait_seconds": 0} | options)))
        return made[-1]

    yield open_one
    for log in made:
        log.close()


def event(name: str, time: int = 0, *, known: int | None = None, **row: Any) -> NewEvent:
    return NewEvent(name, time, time if known is None else known, row)


def test_what_is_appended_is_read_in_order(opened: Opening) -> None:
    log = opened()
    assert log.append("a", [event("1", 5, x=1.5, word="é", none=None, yes=True, many=2**62)]) == Appended(1, 0, ())
    log.append("b", [event("1", 3, known=9)])
    log.append("a", [event("2", 4)])
    first, second, third = log.since(0)
    assert first == Event(1, "a", "1", 5, 5, {"x": 1.5, "word": "é", "none": None, "yes": True, "many": 2**62}, first.hash)
    assert (second.source, second.time, second.known) == ("b", 3, 9)
    assert log.since(first.seq) == [second, third]
    assert log.since(0, limit=2) == [first, second]
    assert log.last() == third.seq
    assert opened().since(0) == [first, second, third]


def test_the_same_again_is_a_duplicate_and_another_content_a_conflict(opened: Opening) -> None:
    log = opened()
    log.append("a", [event("1", x=1)])
    again = [event("1", known=7, x=1), event("1", x=2), event("1", 1, x=1), event("2", x=1), event("2", x=1), event("1", x=2)]
    assert log.append("a", again) == Appended(1, 2, ("1", "1", "1"))
    assert [(e.id, e.row, e.known) for e in log.since(0)] == [("1", {"x": 1}, 0), ("2", {"x": 1}, 0)], "the first stands"
    assert [(e.id, e.time, e.row) for e in log.conflicts("a")] == [("1", 0, {"x": 2}), ("1", 1, {"x": 1})], "each is kept, once"
    assert log.append("b", [event("1", x=2)]) == Appended(1, 0, ()), "an id is one of its source"
    assert log.conflicts("b") == []


def test_a_hash_is_that_of_the_content(opened: Opening) -> None:
    log = opened()
    log.append("a", [event("1", x=1, y=2), event("2", x=1, y=2), event("3", 1, x=1, y=2)])
    log.append("b", [NewEvent("1", 0, 99, {"y": 2, "x": 1})])
    one, two, three, other = log.since(0)
    assert len({e.hash for e in (one, two, three, other)}) == 4
    second = opened("other.db")
    second.append("a", [NewEvent("1", 0, 55, {"y": 2, "x": 1})])
    assert second.since(0)[0].hash == one.hash, "neither the order of the columns nor when it came is content"
    assert len(one.hash) == 20


def test_changed_says_whether_to_look(opened: Opening) -> None:
    log, other = opened(), opened()
    assert log.changed()
    log.since(0)
    assert not log.changed()
    log.append("a", [event("1")])
    assert log.changed(), "own writes count"
    assert [e.id for e in log.since(0)] == ["1"]
    assert not log.changed()
    other.append("a", [event("2")])
    assert log.changed()
    assert log.changed(), "asking does not answer it"
    assert [e.id for e in log.since(1)] == ["2"]
    assert not log.changed()
    log.append("a", [event("3"), event("4")])
    log.since(2, limit=1)
    assert log.changed(), "there may be more"


def test_sealing_twice_is_harmless_and_pruning_takes_only_what_is_sealed(opened: Opening) -> None:
    log = opened()
    log.append("a", [event(str(n), n) for n in range(6)])
    log.append("a", [event("0", 77), event("5", 0, known=50)])
    assert [e.id for e in log.unsealed("a", 3)] == ["0", "1", "2", "3"], "what is known by then"
    seqs = [e.seq for e in log.unsealed("a", 3)]
    for _ in range(2):
        log.seal(seqs)
        assert [e.id for e in log.unsealed("a", 99)] == ["4", "5"]
    log.seal([10_000])
    assert log.prune(3) == 3
    assert [e.id for e in log.since(0)] == ["3", "4", "5"]
    assert log.prune(99) == 1
    assert [e.id for e in log.since(0)] == ["4", "5"]
    assert log.conflicts("a") == []
    log.seal([e.seq for e in log.since(0)])
    assert log.prune(99) == 2
    log.append("a", [event("new")])
    assert [e.seq for e in log.since(0)] == [7], "a number is never given again: whoever reads on from 6 misses nothing"


@pytest.mark.parametrize("row", [{"x": object()}, {"x": 2**70}, {"x": "\ud800"}])
def test_what_cannot_be_written_down_is_refused_with_its_batch(opened: Opening, row: dict[str, Any]) -> None:
    log = opened()
    with pytest.raises(DataFault, match="an event of 'a'"):
        log.append("a", [event("1"), NewEvent("2", 0, 0, row)])
    assert log.since(0) == []


def test_the_file_is_for_its_owner_only(opened: Opening) -> None:
    log = opened()
    log.append("a", [event("1")])
    for path in log.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700
    assert {path.name for path in log.path.parent.iterdir()} == {"events.db", "events.db-wal", "events.db-shm"}


names = st.sampled_from(["1", "2", "3"])
actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.tuples(names, st.integers(0, 3), st.integers(0, 1)), max_size=4)),
        st.tuples(st.just("seal"), st.integers(0, 3)),
        st.tuples(st.just("prune"), st.integers(0, 4)),
    ),
    max_size=12,
)


@given(actions=actions)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_behaves_as_a_dictionary_would(tmp_path_factory: pytest.TempPathFactory, actions: list[Any]) -> None:
    log = EventLog(tmp_path_factory.mktemp("log") / "events.db", durable=False)
    there: dict[str, list[Any]] = {}  # id → [seq, time, x, sealed]
    seq = 0
    try:
        for what, given_ in actions:
            if what == "append":
                accepted, conflicts = 0, []
                for name, time, x in given_:
                    if name not in there:
                        seq, accepted = seq + 1, accepted + 1
                        there[name] = [seq, time, x, False]
                    elif there[name][1:3] != [time, x]:
                        conflicts.append(name)
                said = log.append("a", [event(name, time, x=x) for name, time, x in given_])
                assert said == Appended(accepted, len(given_) - accepted - len(conflicts), tuple(conflicts))
            elif what == "seal":
                log.seal([e.seq for e in log.unsealed("a", given_)])
                for row in there.values():
                    row[3] = row[3] or row[1] <= given_
            else:
                gone = [name for name, row in there.items() if row[3] and row[1] < given_]
                assert log.prune(given_) == len(gone)
                for name in gone:
                    del there[name]
            left = sorted(there.items(), key=lambda item: item[1][0])
            assert [(e.seq, e.id, e.time, e.row["x"]) for e in log.since(0)] == [(r[0], n, r[1], r[2]) for n, r in left]
            assert [e.id for e in log.unsealed("a", 2)] == [n for n, r in left if not r[3] and r[1] <= 2]
            assert log.last() == seq
    finally:
        log.close()


# ------------------------------------------------------------------------------------------------------ several processes

WRITER = """
import sys
from pathlib import Path
from noria.store import EventLog, NewEvent
path, who, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = EventLog(path)
for number in range(n):
    log.append("own", [NewEvent(f"{who}-{number}", number, number, {"who": who, "n": number})])
    said = log.append("shared", [NewEvent(str(number), 0, 0, {"n": number})])
    print(number, said.accepted, flush=True)
"""


def writer(path: Path, who: str, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), who, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_many_processes_append_at_once(tmp_path: Path, opened: Opening) -> None:
    """They also make the file at once: nobody has made it before."""
    path, n = tmp_path / "events.db", 40
    running = [writer(path, who, n) for who in "xyz"]
    said = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    log = opened("events.db")
    found = log.since(0)
    assert {e.id for e in found if e.source == "own"} == {f"{who}-{k}" for who in "xyz" for k in range(n)}
    assert sorted(int(e.id) for e in found if e.source == "shared") == list(range(n))
    assert sum(int(word) for words in said for word in words[1::2]) == n, "one of them was first with each"
    assert len({e.seq for e in found}) == 4 * n
    for who in "xyz":
        own = [e.row["n"] for e in found if e.row.get("who") == who]
        assert own == sorted(own), "each one's events are in its order"


def test_a_process_killed_while_appending_loses_nothing_acknowledged(tmp_path: Path, opened: Opening) -> None:
    path = tmp_path / "events.db"
    acknowledged = 0
    for who, wait_for in (("x", 5), ("y", 17), ("z", 31)):
        process = writer(path, who, 100_000)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(wait_for)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        count = sum(line.endswith("\n") for line in lines)
        log = opened("events.db")
        own = [e.row["n"] for e in log.since(0, limit=10**6) if e.row.get("who") == who]
        assert count >= wait_for
        assert own == list(range(len(own))), "no gap"
        assert count <= len(own) <= count + 1, "what was acknowledged, and at most the one that was under way"
        acknowledged += count
    assert opened("events.db").append("own", [event("after")]).accepted == 1
    assert acknowledged >= 53


# ------------------------------------------------------------------------------------------------------------------- faults


def test_a_lock_that_is_not_given_up_is_waited_for_and_named(opened: Opening, tmp_path: Path) -> None:
    log = opened()
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("begin immediate")
    try:
        with pytest.raises(Unavailable, match=r"events\.db stayed locked"):
            log.append("a", [event("1")])
        assert log.since(0) == [], "reading does not wait"
    finally:
        other.execute("rollback")
        other.close()
    assert log.append("a", [event("1")]).accepted == 1


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond ``limit`` bytes: what a full disk looks like from inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_refuses_the_batch_whole_and_recovers_by_itself(opened: Opening) -> None:
    log = opened(durable=True)
    log.append("a", [event("1")])
    batch = [event(f"b{n}", text="x" * 2000) for n in range(60)]
    size = log.path.with_name("events.db-wal").stat().st_size
    for room in (0, 500, 50_000):
        with small_files(size + room), pytest.raises(Unavailable, match=r"no room on the disk for .*events\.db"):
            log.append("a", batch)
        assert [e.id for e in log.since(0)] == ["1"]
    assert log.append("a", batch).accepted == 60
    assert len(opened().since(0)) == 61


def test_a_full_disk_makes_no_half_log(opened: Opening, tmp_path: Path) -> None:
    with small_files(1000), pytest.raises(Unavailable, match="no room"):
        opened()
    assert list((tmp_path / "service").iterdir()) == []
    assert opened().append("a", [event("1")]).accepted == 1


def whole(opened: Opening) -> Path:
    """A log of some pages, closed, with everything in its one file."""
    log = opened()
    log.append("a", [event(f"e{n}", n, text=f"row {n} " * 40) for n in range(100)])
    log.close()
    assert not log.path.with_name("events.db-wal").exists()
    return log.path


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "zeros"])
def test_a_damaged_file_is_named_and_never_taken_for_an_empty_log(opened: Opening, damage: str) -> None:
    path = whole(opened)
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "other": b"PAR1" * 3000,
            "zeros": content[:4096] + bytes(len(content) - 4096),
        }[damage]
    )
    with pytest.raises(Corrupt, match=r"events\.db is damaged") as error:
        opened().since(0)
    assert error.value.hint


def test_a_flipped_bit_in_a_row_is_found(opened: Opening) -> None:
    path = whole(opened)
    content = bytearray(path.read_bytes())
    place = content.index(b"row 50 row 50")
    content[place + 4] ^= 1
    path.write_bytes(content)
    log = opened()
    with pytest.raises(Corrupt, match="event 51 is not what was written"):
        log.since(0)
    assert len(log.since(51)) == 49


def test_a_log_of_a_later_version_is_left_alone(opened: Opening) -> None:
    path = whole(opened)
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 2")
    connection.close()
    with pytest.raises(Unavailable, match="newer Noria"):
        opened()
