"""The ledger: what is written once is read the same for ever."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.core import Conflict, NotFound, SimulatedClock, Unavailable, micros
from noria.records import Approved, Blocked, Entry, Record, Turned, entry_id
from noria.settings import Settings
from noria.store import Home
from noria.store import schema as tables

from .conftest import T0


def approved(subject: str, **more: object) -> Approved:
    return Approved(subject=subject, by="ada", **more)  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was(home: Home, clock: SimulatedClock) -> None:
    with home.hold("test"):
        first = home.commit(approved("a"), key="approved/a")
        clock.move(T0 + timedelta(hours=1))
        second = home.commit(Turned(did=("data",)), key="turn/1", parents=[first.id])
    assert home.ledger.get(second.id) == second
    assert home.ledger.find("turn/1") == second
    assert home.ledger.find("turn/2") is None
    assert second.parents == (first.id,)
    assert second.at == T0 + timedelta(hours=1)
    assert second.id == entry_id(second.record, "turn/1", second.at, (first.id,))
    assert home.ledger.children(first.id) == [second]
    assert home.ledger.parents(second.id) == [first]
    with pytest.raises(NotFound, match="no record 'nothing'"):
        home.ledger.get("nothing")


def test_the_same_key_with_the_same_content_is_written_once(home: Home, clock: SimulatedClock) -> None:
    with home.hold("test"):
        first = home.commit(approved("a"), key="k")
        clock.move(T0 + timedelta(days=1))
        assert home.commit(approved("a"), key="k") == first
        with pytest.raises(Conflict, match="differing: note"):
            home.commit(approved("a", note="other"), key="k")
        with pytest.raises(Conflict, match="this one is a turned"):
            home.commit(Turned(did=()), key="k")
        with pytest.raises(Conflict, match="differing: parents"):
            home.commit(approved("a"), key="k", parents=[first.id])
    assert home.ledger.count() == 1


def test_several_records_are_written_together_or_not_at_all(home: Home) -> None:
    with home.hold("test"):
        with pytest.raises(NotFound, match="names a parent"):
            home.commit_all([(approved("a"), "a", ()), (approved("b"), "b", ("missing",))])
        assert home.ledger.count() == 0
        home.commit_all([(approved("a"), "a", ()), (approved("b"), "b", ())])
        again = home.commit_all([(approved("b"), "b", ()), (approved("c"), "c", ())])
    assert [entry.key for entry in again] == ["b", "c"]
    assert [entry.key for entry in home.ledger.read()] == ["a", "b", "c"]


keys = st.text(alphabet="ab/é%_\U0001f600", min_size=1, max_size=6)
written = st.lists(st.tuples(keys, st.sampled_from(["x", "y"]), st.booleans(), st.integers(0, 3)), max_size=25)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=written, prefix=keys | st.just(""), newest=st.none() | st.integers(1, 5), hours=st.integers(0, 20))
def test_reading_is_filtering_what_was_appended(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[tuple[str, str, bool, int]],
    prefix: str,
    newest: int | None,
    hours: int,
) -> None:
    clock = SimulatedClock(T0)
    model: dict[str, Entry[Record]] = {}
    with Home.open(tmp_path_factory.mktemp("home"), Settings(durable=False), clock) as home, home.hold("test"):
        for key, text, turned, wait in written:
            clock.move(clock.now() + timedelta(hours=wait))
            record: Record = Turned(did=(text,)) if turned else approved(text)
            if key in model and model[key].record != record:
                with pytest.raises(Conflict):
                    home.commit(record, key=key)
            else:
                entry = home.commit(record, key=key)
                assert model.setdefault(key, entry) == entry
        rows = list(model.values())
        edge = T0 + timedelta(hours=hours)
        for kind in (None, Approved, Turned):
            fit = [row for row in rows if (kind is None or isinstance(row.record, kind)) and row.key.startswith(prefix)]
            assert home.ledger.read(kind, prefix=prefix) == fit
            assert home.ledger.read(kind, prefix=prefix, newest=newest) == (fit if newest is None else fit[-newest:])
            assert home.ledger.read(kind, prefix=prefix, since=edge) == [row for row in fit if row.at > edge]
            assert home.ledger.read(kind, prefix=prefix, until=edge) == [row for row in fit if row.at <= edge]
            assert home.ledger.read(kind, prefix=prefix, after=3) == [row for row in fit if row.seq > 3]
            assert home.ledger.count(kind, prefix=prefix) == len(fit)
            if kind is not None:
                assert home.ledger.latest(kind, prefix=prefix) == (fit[-1] if fit else None)


def insert(home: Home, key: str, payload: bytes) -> None:
    """What another version of Noria could have written."""
    kind = msgspec.json.decode(payload)["kind"]
    row = {"id": key, "key": key, "kind": kind, "at": micros(T0), "parents": "[]", "payload": payload.decode(), "epoch": 1}
    with home.ledger.transaction() as connection:
        connection.execute(tables.entries.insert().values(**row))


def test_records_of_another_version_are_read_or_refused_with_a_reason(home: Home) -> None:
    insert(home, "newer", b'{"kind":"approved","subject":"a","by":"b","seal":7}')  # has a field that we lack
    insert(home, "older", b'{"kind":"approved","subject":"a","by":"b"}')  # lacks fields that we have
    found = home.ledger.read(Approved)
    assert [entry.record for entry in found] == [Approved(subject="a", by="b"), Approved(subject="a", by="b")]
    insert(home, "strange", b'{"kind":"prophecy","subject":"a"}')
    with pytest.raises(Unavailable, match="of the kind 'prophecy', which this version") as caught:
        home.ledger.find("strange")
    assert "update" in caught.value.hint
    insert(home, "broken", b'{"kind":"blocked","source":"a"}')
    with pytest.raises(Unavailable, match="cannot be read as blocked: Object missing required field"):
        home.ledger.latest(Blocked)


def test_the_database_itself_forbids_changes(home: Home) -> None:
    with home.hold("test"):
        home.commit(approved("a"), key="a")
    for statement in ("update entries set key = 'b'", "delete from entries", "delete from edges"):
        if "edges" in statement:
            with home.hold("test"):
                home.commit(approved("b"), key="b", parents=[home.ledger.read()[0].id])
        with pytest.raises(Conflict, match="append-only"), home.ledger.transaction() as connection:
            connection.execute(sa.text(statement))
    assert home.ledger.count() == 2


def test_look_ups_use_indexes(home: Home) -> None:
    """No look-up of a kind or a key reads the whole ledger, so that the tenth year costs what the first day costs."""
    queries = {
        "select max(seq) from entries where kind = 'a' and key >= 'b' and key < 'c'": "COVERING INDEX entries_kind_key_seq",
        "select * from entries where kind = 'a' order by seq desc limit 1": "entries_kind_seq",
        "select * from entries where key = 'a'": "(key=?)",
        "select * from entries where id = 'a'": "(id=?)",
        "select * from commits where n > 5 order by n": "PRIMARY KEY",
        "select rows from commits where lake_table = 'a' and key = 'b'": "(lake_table=? AND key=?)",
    }
    with home.ledger.reading() as connection:
        for query, wanted in queries.items():
            plan = " ".join(str(row[-1]) for row in connection.exec_driver_sql(f"explain query plan {query}"))
            assert wanted in plan, query
            assert "SCAN" not in plan


def test_a_locked_ledger_is_a_clear_error_and_no_loss(home: Home) -> None:
    other = sqlite3.connect(home.path / "ledger.db", isolation_level=None)
    with home.hold("test"):
        other.execute("begin immediate")
        with pytest.raises(Unavailable, match="stayed locked"):
            home.commit(approved("a"), key="a")
        assert home.ledger.count() == 0  # reading goes on
        other.execute("rollback")
        home.commit(approved("a"), key="a")
    other.close()
    assert home.ledger.count() == 1


def test_a_ledger_that_is_no_database_is_named(tmp_path: Path, open_home: Callable[..., Home]) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ledger.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Exception, match=r"ledger\.db is damaged"):
        open_home()


def test_a_home_that_is_not_there(open_home: Callable[..., Home]) -> None:
    with pytest.raises(NotFound, match="no home"):
        open_home("none", create=False)
    with pytest.raises(NotFound, match="no home"):
        open_home("none", write=False)


def test_a_reader_cannot_write(open_home: Callable[..., Home]) -> None:
    with open_home().hold("test"):
        pass
    reader = open_home(write=False)
    assert reader.ledger.count() == 0
    with pytest.raises(Unavailable, match="reading only"), reader.hold("reader"):
        pass


def _shape(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        found = [
            " ".join(str(row[0]).split())
            for row in connection.execute("select sql from sqlite_master where sql is not null order by name")
        ]
    connection.close()
    return sorted(text for text in found if "alembic_version" not in text)


def test_migrations_and_creation_give_the_same_tables(home: Home, tmp_path: Path) -> None:
    from noria.store import dialect

    engine = dialect.connect(f"sqlite:///{tmp_path / 'old.db'}", wait_seconds=1, durable=False, write=True)
    tables.migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(sa.text("select version_num from alembic_version")).scalar_one() == tables.HEAD
    engine.dispose()
    assert _normal(_shape(tmp_path / "old.db")) == _normal(_shape(home.path / "ledger.db"))


def _normal(statements: list[str]) -> list[str]:
    return sorted("".join(statement.lower().split()).replace('"', "") for statement in statements)


def test_a_ledger_of_a_newer_noria_is_refused(home: Home, open_home: Callable[..., Home]) -> None:
    with home.ledger.transaction() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    with pytest.raises(Unavailable, match="written by a newer Noria"):
        open_home()


def test_the_tables_have_a_form_in_postgres() -> None:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    texts = [str(CreateTable(table).compile(dialect=postgresql.dialect())) for table in tables.metadata.sorted_tables]
    assert any("BIGSERIAL" in text for text in texts)
    assert any('COLLATE "C"' in text for text in texts)


def test_heads_are_in_order_of_name_whenever_they_were_written(home: Home) -> None:
    with home.hold("test"):
        for name, number in [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("d", 0), *(("b", k) for k in range(1, 11))]:
            home.commit(approved(f"{name}{number}"), key=f"approved/{name}/{number}")
        home.commit(approved("other"), key="approved-/z/0")
    said = [entry.record.subject for entry in home.ledger.heads(Approved, "approved/", 3)]
    assert said == ["b10", "c0", "d0"]
    assert [entry.record.subject for entry in home.ledger.heads(Approved, "approved/", 9, below="c/")] == ["a1", "b10"]
    assert home.ledger.heads(Turned, "approved/", 3) == []
