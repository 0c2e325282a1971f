"""What the store promises when processes die, files are damaged, and disks are full."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from noria.core import Corrupt, LeaseLost, SimulatedClock, Unavailable
from noria.records import Approved
from noria.settings import Settings
from noria.store import Home

from .conftest import T0, day, put

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import T0, put
from noria.core import SimulatedClock
from noria.settings import Settings
from noria.store import Home, Lake, Ledger

def die(place, name, when):
    original = getattr(place, name)
    def replaced(*args, **kwargs):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(place, name, replaced)

def work(path, kind, name, when):
    with Home.open(path, Settings(), SimulatedClock(T0)) as home, home.hold("worker"):
        put(home, 0)
        put(home, 1)
        die(Ledger if name == "append" else Lake, name, when)
        if kind == "join":
            home.lake.compact_after = 2
            home.lake.upkeep()
        put(home, 2)

for case in sys.argv[3:]:
    child = os.fork()  # each in a process of its own, without importing everything again
    if child == 0:
        work(Path(sys.argv[2]) / case.replace(":", "-"), *case.split(":"))
        os._exit(0)
    print(case, os.waitpid(child, 0)[1], flush=True)
"""

COMMITS = [
    "commit:store_file:before",
    "commit:store_file:after",
    "commit:append:after",
    "commit:publish:after",
    "commit:published:before",
    "commit:write_log:before",
    "commit:write_log:after",
]
JOINS = ["join:store_file:after", "join:published:before", "join:write_log:before"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Homes whose workers killed themselves, one for each boundary of an effect."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder), *COMMITS, *JOINS]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == [f"{case} {int(signal.SIGKILL)}" for case in COMMITS + JOINS]
    return folder


@pytest.mark.parametrize("case", COMMITS)
def test_killed_anywhere_in_a_commit_the_batch_is_seen_once(case: str, open_home: Callable[..., Home], killed: Path) -> None:
    home = open_home(killed / case.replace(":", "-"))
    published = "published" in case or "write_log" in case
    assert home.lake.read("predictions").height == day(0).height * (3 if published else 2)
    with home.hold("next"):
        for number in (0, 1, 2, 3):
            put(home, number)
        home.lake.upkeep()
    wanted = pl.concat([day(number) for number in range(4)])
    assert_frame_equal(home.lake.read("predictions"), wanted)
    assert_frame_equal(seen_by_others(home), wanted)
    assert home.lake.check() == []
    assert [entry.key for entry in home.ledger.read()] == ["day/0", "day/1", "day/2", "day/3"]
    assert len(list((home.lake.folder / "predictions").glob("*.parquet"))) == 4  # what nobody refers to is gone
    straight = open_home("straight")
    with straight.hold("test"):
        for number in range(4):
            put(straight, number)
    assert home.lake.heads() == straight.lake.heads()
    assert [entry.id for entry in home.ledger.read()] == [entry.id for entry in straight.ledger.read()]


@pytest.mark.parametrize("case", JOINS)
def test_killed_while_files_are_joined(case: str, open_home: Callable[..., Home], killed: Path) -> None:
    home = open_home(killed / case.replace(":", "-"))
    with home.hold("next"):
        put(home, 2)
        home.lake.upkeep()
    wanted = pl.concat([day(number) for number in range(3)])
    assert_frame_equal(home.lake.read("predictions"), wanted)
    assert_frame_equal(seen_by_others(home), wanted)
    assert home.lake.check() == []


def seen_by_others(home: Home) -> pl.DataFrame:
    return pl.scan_delta(str(home.lake.folder / "predictions")).collect().sort("_time", "_id")


# ------------------------------------------------------------------------------------------------------------- damaged files


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0b100
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def three_days(open_home: Callable[..., Home], **more: object) -> Home:
    home = open_home(**more)
    with home.hold("test"):
        for number in range(3):
            put(home, number)
        home.lake.upkeep()
    return home


@pytest.mark.parametrize("damage", [empty, cut, flip, remove])
def test_a_damaged_file_is_named_and_never_read(damage: Callable[[Path], None], open_home: Callable[..., Home]) -> None:
    first = three_days(open_home)
    path = first.lake.scan("predictions").files[1]
    whole = path.read_bytes()
    heads = first.lake.heads()
    damage(path)
    for home in (first, open_home()):  # the process that wrote it, and one that did not
        with pytest.raises(Corrupt, match=path.name) as caught:
            home.lake.read("predictions")
        assert "noria repair" in caught.value.hint
        assert_frame_equal(home.lake.read("predictions", _time=(None, day(0)["_time"][-1])), day(0))  # other files are fine
        [fault] = home.lake.check()
        assert (fault.path, fault.table, fault.repairable) == (path, "predictions", False)
    again = open_home()
    if damage is not flip:  # a size is seen at once; bytes when they are used
        with pytest.raises(Corrupt, match=path.name), again.hold("test"):
            pass
    with again.hold("test", check=False):
        [said] = again.lake.repair()
        assert path.name in said
        assert "LOST" in said
        assert again.lake.heads() == heads
        with pytest.raises(Corrupt):
            again.lake.read("predictions")
        path.write_bytes(whole)  # the backup
        assert again.lake.repair() == []
        assert again.lake.read("predictions").height == 3 * day(0).height


def test_a_loss_that_was_accepted_changes_the_head(open_home: Callable[..., Home]) -> None:
    home = three_days(open_home)
    heads = home.lake.heads()
    flip(home.lake.scan("predictions").files[1])
    with home.hold("test"):
        [said] = home.lake.repair(accept_loss=True)
        assert "goes on without its 20 rows" in said
        assert home.lake.check() == []
        put(home, 3)
    assert home.lake.heads() != heads
    assert_frame_equal(home.lake.read("predictions"), pl.concat([day(0), day(2), day(3)]))
    assert_frame_equal(seen_by_others(home), home.lake.read("predictions"))


@pytest.mark.parametrize("damage", [empty, cut, flip, remove])
def test_a_joined_file_is_made_again_while_its_origins_are_there(
    damage: Callable[[Path], None], open_home: Callable[..., Home]
) -> None:
    home = three_days(open_home, compact_after=3)
    [path] = home.lake.scan("predictions").files
    heads = home.lake.heads()
    damage(path)
    [fault] = home.lake.check()
    assert fault.repairable
    with home.hold("test"):
        [said] = home.lake.repair()
        assert "made again from the 3 files" in said
        assert home.lake.check() == []
    assert home.lake.heads() == heads
    assert_frame_equal(home.lake.read("predictions"), pl.concat([day(0), day(1), day(2)]))
    assert_frame_equal(seen_by_others(home), home.lake.read("predictions"))


@pytest.mark.parametrize("damage", [empty, cut, flip, remove])
@pytest.mark.parametrize("version", [0, 2])
def test_a_damaged_log_entry_is_written_again(
    damage: Callable[[Path], None], version: int, open_home: Callable[..., Home]
) -> None:
    three_days(open_home)
    home = open_home()
    path = home.lake.folder / "predictions" / "_delta_log" / f"{version:020d}.json"
    whole = path.read_bytes()
    damage(path)
    assert home.lake.read("predictions").height == 60  # our answers do not depend on the log
    if (damage, version) == (remove, 2):  # as after a kill before the entry: made up in silence
        with home.hold("test"):
            assert path.read_bytes() == whole
        return
    with pytest.raises(Corrupt, match=path.name), home.hold("test"):
        pass
    assert path in [fault.path for fault in home.lake.check()]
    with home.hold("test", check=False):
        said = home.lake.repair()
        assert "written again from the ledger" in said[0]
    assert path.read_bytes() == whole
    assert home.lake.check() == []
    assert seen_by_others(home).height == 60


def test_damaged_checkpoints_and_foreign_commits_are_put_aside(open_home: Callable[..., Home]) -> None:
    home = three_days(open_home, compact_after=3)
    folder = home.lake.folder / "predictions"
    [checkpoint] = (folder / "_delta_log").glob("*.checkpoint.parquet")
    empty(checkpoint)
    assert [fault.path for fault in home.lake.check()] == [folder / "_delta_log"]
    with home.hold("test"):
        assert "checkpoints were removed" in home.lake.repair()[0]
    assert seen_by_others(home).height == 60
    write_deltalake(folder, day(7), mode="append")
    assert home.lake.read("predictions").height == 60
    with pytest.raises(Corrupt, match="not of this ledger"), open_home().hold("test"):
        pass
    with home.hold("test"):
        assert "put aside" in home.lake.repair()[0]
        put(home, 3)
    assert home.lake.check() == []
    assert seen_by_others(home).height == 80


# ------------------------------------------------------------------------------------------------------------- full disks


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond ``limit`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_does_not_fit_is_a_clear_error(home: Home) -> None:
    with home.hold("test"):
        put(home, 0)
        with small_files(600), pytest.raises(Unavailable, match=r"no room on the disk to write .*predictions"):
            home.lake.write("predictions", day(1), key="d1")
        with small_files(100), pytest.raises(Unavailable, match=r"no room on the disk to write .*artifacts"):
            home.artifacts.put(b"x" * 1000)
        assert_frame_equal(home.lake.read("predictions"), day(0))
        put(home, 1)
    assert home.lake.check() == []
    assert not list(home.path.rglob("*.part"))


def test_a_ledger_that_cannot_grow_is_a_clear_error(home: Home) -> None:
    with home.hold("test"):
        put(home, 0)
        commit = home.lake.write("predictions", day(1), key="d1")
        wal = (home.path / "ledger.db-wal").stat().st_size
        with small_files(wal), pytest.raises(Unavailable, match="no room on the disk for the ledger"):
            home.commit(Approved(subject="1", by="test"), key="day/1", tables=[commit])
        assert_frame_equal(home.lake.read("predictions"), day(0))
        assert home.ledger.count() == 1
        home.commit(Approved(subject="1", by="test"), key="day/1", tables=[commit])
    assert_frame_equal(home.lake.read("predictions"), pl.concat([day(0), day(1)]))
    assert home.lake.check() == []


def test_a_lease_that_does_not_fit_is_not_held(home: Home) -> None:
    with home.hold("test"):
        put(home, 0)
    wal = (home.path / "ledger.db-wal").stat().st_size
    with small_files(wal), pytest.raises(Unavailable, match="no room on the disk for the ledger"), home.hold("test"):
        pass
    with home.hold("test"):
        put(home, 1)
    assert home.lake.read("predictions").height == 40


def test_a_log_that_does_not_fit_follows_later(home: Home) -> None:
    with home.hold("test"):
        put(home, 0)
        log = home.lake.folder / "predictions" / "_delta_log"
        log.rename(log.with_name("elsewhere"))
        log.write_bytes(b"")  # a file where the folder should be: nothing can be written into it
        put(home, 1)
        assert_frame_equal(home.lake.read("predictions"), pl.concat([day(0), day(1)]))
        log.unlink()
        log.with_name("elsewhere").rename(log)
        put(home, 2)
    assert seen_by_others(home).height == 60
    assert home.lake.check() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_loses_nothing_and_recovers(small_disk: Path) -> None:
    with Home.open(small_disk / "home", Settings(durable=True), SimulatedClock(T0)) as home, home.hold("test"):
        put(home, 0)
        filler = small_disk / "filler"
        written, refusal = 0, ""
        while not refusal and written < 500:  # a turn at a time, until there is no room
            with filler.open("ab") as file:
                fill(file.fileno(), 64 * 1024)
            try:
                put(home, written + 1)
                written += 1
            except Unavailable as error:
                refusal = str(error)
        assert "no room on the disk" in refusal
        wanted = pl.concat([day(number) for number in range(written + 1)])
        assert_frame_equal(home.lake.read("predictions"), wanted)
        assert home.ledger.count() == written + 1
        filler.unlink()
        put(home, written + 1)
        put(home, written + 2)
        assert home.lake.check() == []
        assert home.lake.read("predictions").height == wanted.height + 40


def fill(handle: int, size: int) -> None:
    try:
        os.write(handle, b"\0" * size)
    except OSError:
        return


def test_nothing_acknowledged_waits_in_memory(open_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and every folder of a durable commit is flushed before it is acknowledged."""
    flushed: list[str] = []
    original = os.fsync

    def fsync(handle: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{handle}"))
        original(handle)

    home = open_home(durable=True)
    with home.hold("test"):
        put(home, 0)
        monkeypatch.setattr(os, "fsync", fsync)
        put(home, 1)
    table = home.lake.folder / "predictions"
    [newest] = set(table.glob("*.parquet")) - {home.lake.scan("predictions").files[0]}
    assert flushed == [
        str(table / f".{newest.name}.part"),
        str(table),
        str(table / "_delta_log" / ".00000000000000000001.json.part"),
        str(table / "_delta_log"),
    ]
    with home.ledger.reading() as connection:
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2  # SQLite flushes its own
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"


def test_a_publication_of_a_worker_that_lost_its_lease_is_refused(open_home: Callable[..., Home]) -> None:
    stale, fresh = open_home(), open_home()
    with stale.hold("stale"):
        put(stale, 0)
        commit = stale.lake.write("predictions", day(1), key="d1")
        with stale.ledger.transaction() as connection:
            connection.exec_driver_sql("update leases set token = ''")  # as if its seconds had run out
        with fresh.hold("fresh"):
            put(fresh, 5)
            with pytest.raises(LeaseLost, match="'fresh' holds it now"):
                stale.commit(Approved(subject="1", by="test"), key="day/1", tables=[commit])
            with pytest.raises(LeaseLost):
                stale.lake.publish_now(stale.lake.current().tables["predictions"].newest)  # type: ignore[arg-type]
            put(fresh, 6)
    assert_frame_equal(fresh.lake.read("predictions"), pl.concat([day(0), day(5), day(6)]))
    assert_frame_equal(seen_by_others(fresh), fresh.lake.read("predictions"))


def test_a_ledger_from_an_older_backup_is_believed(open_home: Callable[..., Home]) -> None:
    home = open_home(compact_after=1000)
    with home.hold("test"):
        put(home, 0)
        put(home, 1)
    home.close()
    backup = (home.path / "ledger.db").read_bytes()
    home = open_home(compact_after=1000)
    with home.hold("test"):
        put(home, 2)
        put(home, 3)
    DeltaTable(home.lake.folder / "predictions").create_checkpoint()
    home.close()
    (home.path / "ledger.db").write_bytes(backup)
    home = open_home(compact_after=3)
    assert_frame_equal(home.lake.read("predictions"), pl.concat([day(0), day(1)]))
    with pytest.raises(Corrupt, match="not of this ledger"), home.hold("test"):
        pass
    with home.hold("test", check=False):
        said = home.lake.repair()
        assert ["put aside" in line for line in said] == [True, True, False]
        assert "checkpoints were removed" in said[2]
        put(home, 5)
        home.lake.upkeep()
    assert home.lake.check() == []
    assert_frame_equal(home.lake.read("predictions"), pl.concat([day(0), day(1), day(5)]))
    assert_frame_equal(seen_by_others(home), home.lake.read("predictions"))


RACER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import T0, put
from noria.core import LeaseLost, SimulatedClock
from noria.settings import Settings
from noria.store import Home

children = []
with Home.open(Path(sys.argv[2]), Settings(durable=False), SimulatedClock(T0)):
    pass
for name in "ab":
    children.append(os.fork())
    if children[-1] == 0:
        refused = 0
        with Home.open(Path(sys.argv[2]), Settings(durable=False), SimulatedClock(T0)) as home:
            for number in range(8):
                while True:
                    try:
                        with home.hold(name):
                            put(home, number)
                        break
                    except LeaseLost:
                        refused += 1
                        os.sched_yield()
        os._exit(0)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
"""


def test_two_processes_at_the_same_work_do_it_once(open_home: Callable[..., Home], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RACER, str(Path(__file__).parent), str(tmp_path / "home")], check=False)
    assert done.returncode == 0
    home = open_home()
    assert_frame_equal(home.lake.read("predictions"), pl.concat([day(number) for number in range(8)]))
    assert [entry.key for entry in home.ledger.read()] == [f"day/{number}" for number in range(8)]
    assert home.lake.check() == []
