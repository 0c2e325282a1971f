"""The home: everything of one system in one folder, opened once in a process and passed to every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from noria.core import Clock, Corrupt, LeaseLost, NotFound, Unavailable, micros
from noria.records import Entry, Record
from noria.settings import Settings
from noria.store import dialect, lease
from noria.store.artifacts import Artifacts
from noria.store.engine import Engine
from noria.store.files import make_folder
from noria.store.lake import Commit, Lake
from noria.store.lease import Lease
from noria.store.ledger import Item, Ledger
from noria.store.measurements import Measurements

R = TypeVar("R", bound=Record)


class _Same(Exception):
    """Nothing was new: the transaction is given up, and nothing was written."""


class Home:
    """Ledger, lake, artifacts, engine and measurements of one system; the one way to write.

    >>> import tempfile
    >>> from noria.core import SystemClock
    >>> from noria.records import Approved
    >>> with Home.open(Path(tempfile.mkdtemp()) / "home", Settings(durable=False), SystemClock()) as home, home.hold("example"):
    ...     home.commit(Approved(subject="release/1", by="ada"), key="approved/release/1").kind
    'approved'
    """

    def __init__(self, path: Path, settings: Settings, clock: Clock, ledger: Ledger, *, write: bool) -> None:
        self.path = path
        self.settings = settings
        self.clock = clock
        self.ledger = ledger
        self.engine = Engine(path, threads=settings.threads, memory=settings.memory)
        self.lake = Lake(
            path / "lake",
            ledger,
            self.engine,
            lambda: self._lease,
            durable=settings.durable,
            compact_after=settings.compact_after,
        )
        self.artifacts = Artifacts(path / "artifacts", durable=settings.durable)
        self.measurements = Measurements(path / "measurements.db", write=write)
        self._lease: Lease | None = None
        self._token = ""
        self._depth = 0
        self._checked = False

    @classmethod
    def open(cls, path: Path, settings: Settings, clock: Clock, *, create: bool = True, write: bool = True) -> Home:
        """Opens the home at ``path``; raises ``NotFound`` when there is none and ``create`` (or ``write``) is false."""
        path = Path(path).resolve()
        if create and write:
            make_folder(path / "lake", settings.durable)
        elif not path.is_dir():
            raise NotFound(f"there is no home at {path}", hint="begin with `noria turn`, or check --home")
        url = dialect.ledger_url(settings.ledger, path)
        if not settings.ledger and not (create and write) and not (path / "ledger.db").exists():
            raise NotFound(f"there is no ledger in {path}", hint="begin with `noria turn`, or check --home")
        ledger = Ledger(url, wait_seconds=settings.database_wait_seconds, durable=settings.durable, create=create, write=write)
        return cls(path, settings, clock, ledger, write=write)

    def close(self) -> None:
        """Writes the last measurements and closes everything."""
        try:
            self.measurements.close()
        finally:
            self.engine.close()
            self.ledger.close()

    def __enter__(self) -> Home:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def hold(self, owner: str, *, check: bool = True) -> Iterator[Lease]:
        """Takes the lease for the block; inside it (again) the same lease.

        Raises ``LeaseLost`` (with who holds it, since when) when another live worker has it. The first time in a process the
        lake is looked over (``check``): ``Corrupt`` names what is damaged.
        """
        if self._lease is None:
            with self.ledger.transaction() as connection:
                taken = lease.take(connection, owner, self.settings.lease_seconds, self._token)
            self._lease, self._token = taken, taken.token
            self.ledger.alone(held=True)
        held = self._lease
        self._depth += 1
        try:
            if check and not self._checked:
                self._look_over()
            yield held
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._lease = None
                self.ledger.alone(held=False)
                self.lake.abandon()
                with suppress(Unavailable), self.ledger.transaction() as connection:  # what happened inside is the news
                    lease.release(connection, held)

    def _look_over(self) -> None:
        self.lake.untidy |= {folder.name for folder in self.lake.folder.iterdir()}  # what an earlier process left
        faults = self.lake.check(deep=False)
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise Corrupt(f"{faults[0]}{more}", hint="run `noria repair`: it says what can be made again and what is lost")
        self._checked = True

    def commit(self, record: R, *, key: str, parents: Sequence[str] = (), tables: Sequence[Commit] = ()) -> Entry[R]:
        """Writes a record and publishes pending rows with it: everything or nothing, durably, under the lease.

        A key that is there with the same content gives the entry that is there; nothing is written and the pending rows are given
        up. Raises ``Conflict`` for other content under the key, ``LeaseLost``, ``Unavailable``.
        """
        return self.commit_all([(record, key, parents)], tables=tables)[0]  # type: ignore[return-value]  # what went in comes out

    def commit_all(self, items: Sequence[Item], *, tables: Sequence[Commit] = ()) -> list[Entry[Record]]:
        """Several records in one transaction, in order; see ``commit``. The rows are published when any record is new."""
        held = self._lease
        if held is None:
            raise LeaseLost("this worker holds no lease on the home", hint="write inside `with home.hold(...)`")
        at = self.clock.now()
        entries: list[Entry[Record]] = []
        try:
            with self.ledger.transaction() as connection:
                lease.renew(connection, held)
                entries, new = self.ledger.append(connection, items, at, held.epoch)
                if not new:
                    raise _Same
                rows = self.lake.publish(connection, tables, micros(at), held.epoch)
        except _Same:
            self.lake.abandon()
            return entries
        except BaseException:
            self.lake.abandon()
            raise
        finally:
            self.ledger.forget({type(record) for record, _, _ in items})
        self.lake.published(rows)
        return entries
