"""Everything comes in once, in the order in which it became known, or is put aside with its reason."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import noria as nr
from noria import data
from noria.core import DataFault, Window
from noria.data.accept import content_sql
from noria.data.sql import Reader
from noria.records import Blocked, Ingested, SchemaFrozen, Scored

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TIME = pl.Datetime("us", "UTC")


def rows(hours: list[float | None], **columns: list[Any]) -> pl.DataFrame:
    at = pl.Series("at", [None if h is None else START + h * HOUR for h in hours], dtype=TIME)
    return pl.DataFrame([at, *(pl.Series(name, values) for name, values in columns.items())])


def system(world: Any, came: Any, **source: Any) -> nr.System:
    made = nr.Source("came", came, **({"key": "id", "time": "at", "owner": "us"} | source))
    found: nr.System = world.declared(came=made)
    object.__setattr__(found, "folder", world.folder)
    return found


def lake(world: Any, name: str = "source.came") -> pl.DataFrame:
    return world.home.lake.read(name)


def ingested(world: Any) -> list[Ingested]:
    return [entry.record for entry in world.home.ledger.read(Ingested)]


def test_takes_what_became_known_and_nothing_of_the_future(world: Any) -> None:
    frame = rows([1, 23, 25, 47, 49], id=["a", "b", "c", "d", "e"], x=[1, 2, 3, 4, 5])
    made = system(world, frame, known="2h")
    first = data.ingest(world.home, made, world.at(START + DAY))
    assert [e.record.received for e in first] == [1]
    second = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert second[0].record.accepted == 2
    assert lake(world)["id"].to_list() == ["a", "b", "c"]
    assert lake(world)["_known"].to_list() == [START + h * HOUR for h in (3, 25, 27)]
    assert data.ingest(world.home, made, world.at(START + 2 * DAY)) == []
    assert second[0].key == f"ingest/came/{(START + 2 * DAY).isoformat()}"
    for hour in (48.5, 48.6, 48.99):
        assert data.ingest(world.home, made, world.at(START + hour * HOUR)) == []
    assert [e.record.accepted for e in data.ingest(world.home, made, world.at(START + 49 * HOUR))] == [1]
    assert [e.record.accepted for e in data.ingest(world.home, made, world.at(START + 80 * HOUR))] == [1]


def test_every_reason_is_counted_and_nothing_is_lost(world: Any) -> None:
    frame = rows(
        [1, 2, None, 4, 5, 1, 7, 24 * 365 * 60],
        id=["a", None, "c", "d", "e", "a", "g", "h"],
        x=[1.0, 1.0, 1.0, math.nan, math.inf, 1.0, 2.0, 1.0],
    )
    [entry] = data.ingest(world.home, system(world, frame), world.at(START + DAY))
    record = entry.record
    assert record.reasons == {"duplicate": 1, "impossible time": 1, "no key": 1, "no time": 1, "not a finite number": 2}
    assert (record.received, record.accepted, record.quarantined) == (8, 2, 6)
    aside = lake(world, "quarantine")
    assert aside.height == 6
    assert aside.filter(pl.col("reason") == "not a finite number")["row"].str.contains('"id":"[de]"').all()
    assert data.ingest(world.home, system(world, frame), world.at(START + 2 * DAY)) == []


def test_a_file_that_did_not_change_is_not_read_again(world: Any) -> None:
    path = world.folder / "came.parquet"
    rows([1, 2], id=["a", "b"], x=[1, 2]).write_parquet(path)
    made = system(world, "came.parquet")
    data.ingest(world.home, made, world.at(START + DAY))
    stamp = path.stat()
    path.write_bytes(b"x" * stamp.st_size)  # nobody may look: the size and the time of change are the same
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert data.ingest(world.home, made, world.at(START + DAY + timedelta(minutes=30))) == []
    path.write_bytes(b"x" * stamp.st_size)
    with pytest.raises(DataFault, match=r"came\.parquet cannot be read"):
        data.ingest(world.home, made, world.at(START + DAY + HOUR))


def test_late_rows_count_as_known_from_now(world: Any) -> None:
    path = world.folder / "came.parquet"
    early = rows([1, 30], id=["a", "b"], x=[1, 2])
    early.write_parquet(path)
    made = system(world, "came.parquet")
    data.ingest(world.home, made, world.at(START + DAY))
    pl.concat([early, rows([2, 31], id=["late", "c"], x=[5, 6])]).write_parquet(path)
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert (entry.record.received, entry.record.late, entry.record.restated) == (3, 1, 0)
    late = lake(world).filter(pl.col("id") == "late")
    assert late["_known"].to_list() == [START + 2 * DAY]
    assert late["_time"].to_list() == [START + 2 * HOUR]


def test_a_row_is_late_when_another_source_was_looked_at_before_it_came(world: Any) -> None:
    """A quiet source writes no record of its own; the turn still looked, so what comes later was not there."""
    asked = nr.Source("asked", rows([1, 25, 49], id=["a", "b", "c"], n=[1, 2, 3]), key="id", time="at", owner="us")
    path = world.folder / "came.parquet"
    first = rows([1], id=["a"], x=[1])
    first.write_parquet(path)
    came = nr.Source("came", str(path), key="id", time="at", owner="us")
    made = world.declared(asked=asked, came=came)
    for day in (1, 2):
        data.ingest(world.home, made, world.at(START + day * DAY))
    pl.concat([first, rows([26, 50], id=["b", "c"], x=[2, 3])]).write_parquet(path)
    data.ingest(world.home, made, world.at(START + 3 * DAY))
    assert lake(world)["_known"].to_list() == [START + HOUR, START + 50 * HOUR, START + 3 * DAY]


def test_a_request_sealed_after_the_turn_had_looked_hides_no_row(world: Any) -> None:
    """On a live clock a request may be asked, and sealed, seconds after the turn looked at the sources."""
    asks = nr.Request({"id": "VARCHAR", "n": "BIGINT"}, key="id")
    came = nr.Source("came", rows([1, 24.001], id=["a", "b"], x=[1, 2]), key="id", time="at", owner="us")
    made = world.declared(came=came, predict=asks, features=[nr.Source("asks", key="id").columns("n")])
    assert data.ingest(world.home, made, world.at(START + DAY))[0].record.accepted == 1
    later = world.at(START + DAY + timedelta(seconds=9))
    asked = Scored(window=Window(START, later), n=0, rows="", variants={}, acts={})
    world.home.commit(asked, key="score/requests/1")
    [entry] = data.ingest(world.home, made, world.at(START + DAY + HOUR))
    assert (entry.record.accepted, entry.record.late) == (1, 0)


def test_a_restated_row_is_kept_beside_the_first(world: Any) -> None:
    path = world.folder / "came.parquet"
    rows([1, 2], id=["a", "b"], x=[1, 2]).write_parquet(path)
    made = system(world, "came.parquet")
    data.ingest(world.home, made, world.at(START + DAY))
    rows([1, 2], id=["a", "b"], x=[1, 7]).write_parquet(path)
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert (entry.record.received, entry.record.restated, entry.record.late) == (1, 1, 1)
    assert lake(world).filter(pl.col("id") == "b")["x"].to_list() == [2, 7]
    assert data.ingest(world.home, made, world.at(START + 3 * DAY)) == []


def test_a_growing_set_of_files_and_its_duplicates(world: Any) -> None:
    made = system(world, "in/*.csv")
    assert data.ingest(world.home, made, world.at(START + HOUR)) == []
    folder = world.folder / "in"
    folder.mkdir()
    (folder / "1.csv").write_text("id,at,x\na,2024-01-01T02:00:00Z,1\nb,2024-01-01T03:00:00+01:00,2\n")
    [one] = data.ingest(world.home, made, world.at(START + DAY))
    assert lake(world)["_time"].to_list() == [START + 2 * HOUR, START + 2 * HOUR]
    assert [file.name for file in one.record.files] == ["in/1.csv"]
    (folder / "2.csv").write_text("id,at,x\na,2024-01-01T02:00:00Z,1\nc,2024-01-02T03:00:00Z,3\n")
    [two] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert (two.record.received, two.record.accepted, two.record.reasons) == (2, 1, {"duplicate": 1})
    assert [file.name for file in two.record.files] == ["in/2.csv"]


def test_what_is_beside_the_ledger_may_be_lost_or_stale(world: Any) -> None:
    """Killed between the commit and the note of it, or with the staging folder gone: nothing comes twice."""
    path = world.folder / "came.csv"
    path.write_text("id,at,x\na,2024-01-01T02:00:00Z,1\n,2024-01-01T02:00:00Z,1\n")
    made = system(world, "came.csv")
    data.ingest(world.home, made, world.at(START + DAY))
    shelf = world.home.path / "staging" / "came.json"
    noted = shelf.read_bytes()
    path.write_text(path.read_text() + "b,2024-01-02T02:00:00Z,1\n")
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert entry.record.received == 1
    shelf.write_bytes(noted)
    assert data.ingest(world.home, made, world.at(START + 3 * DAY)) == []
    for file in (world.home.path / "staging").rglob("*"):
        if file.is_file():
            file.unlink()
    assert data.ingest(world.home, made, world.at(START + 4 * DAY)) == []
    assert lake(world)["id"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (rows([30], id=["b"]), "has no column 'x' any more"),
        (rows([30], id=["b"], x=["two"]), "has column 'x' as VARCHAR; it was BIGINT"),
    ],
)
def test_a_missing_or_retyped_column_stops_the_turn_once(world: Any, second: pl.DataFrame, says: str) -> None:
    path = world.folder / "came.parquet"
    rows([1], id=["a"], x=[1]).write_parquet(path)
    other = nr.Source("asked", rows([1, 30], id=["a", "b"], n=[1, 2]), key="id", time="at", owner="us")
    made = world.declared(asked=other, came=nr.Source("came", str(path), key="id", time="at", owner="us"))
    data.ingest(world.home, made, world.at(START + DAY))
    heads = world.home.lake.heads()
    second.write_parquet(path)
    for hours in (48, 49):
        with pytest.raises(DataFault, match=says) as fault:
            data.ingest(world.home, made, world.at(START + hours * HOUR))
        assert fault.value.hint
    [blocked] = world.home.ledger.read(Blocked)
    assert (blocked.record.source, blocked.record.where) == ("came", "came.parquet")
    assert world.home.lake.heads() == heads, "something of another source was taken in"
    rows([1, 30], id=["a", "b"], x=[1, 2]).write_parquet(path)
    assert {e.record.source for e in data.ingest(world.home, made, world.at(START + 50 * HOUR))} == {"asked", "came"}


def test_a_new_column_is_a_new_version_of_the_schema(world: Any) -> None:
    path = world.folder / "came.parquet"
    rows([1], id=["a"], x=[1]).write_parquet(path)
    made = system(world, "came.parquet")
    data.ingest(world.home, made, world.at(START + DAY))
    rows([1, 30], id=["a", "b"], x=[1, 2], y=[None, 0.5]).write_parquet(path)
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert entry.record.received == 1, "a null in a new column is not another content"
    versions = [e.record for e in world.home.ledger.read(SchemaFrozen)]
    assert [(v.version, v.changes) for v in versions] == [(1, ()), (2, ("column 'y' (DOUBLE) appeared",))]
    assert lake(world)["y"].to_list() == [None, 0.5]


def test_damaged_files_are_named(world: Any) -> None:
    path = world.folder / "came.parquet"
    frame = rows([h / 100 for h in range(5000)], id=[f"k{n}" for n in range(5000)], x=list(range(5000)))
    frame.write_parquet(path)
    whole = path.read_bytes()
    made = system(world, "came.parquet")
    for damaged in (
        whole[: len(whole) // 2],
        b"",
        b"PAR1" + b"\0" * 100 + b"PAR1",
        whole[:-3000] + b"\xff" * 2000 + whole[-1000:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataFault, match=r"came\.parquet"):
            data.ingest(world.home, made, world.at(world.clock.now() + HOUR))
    path.write_bytes(whole)
    [entry] = data.ingest(world.home, made, world.at(START + 10 * DAY))
    assert entry.record.accepted == 5000
    path.unlink()
    with pytest.raises(DataFault, match="there is no file"):
        data.ingest(world.home, made, world.at(START + 11 * DAY))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,at,x\na,2024-01-01 02:00:00,1\n", "the times in column 'at' have no time zone"),
        ("id,at,x\na,yesterday,1\n", "column 'at' is VARCHAR, not a time"),
        ("id,at,x\na,2024-01-01T02:00:00Z,1\nb,2024-01-01T02:00:00Z\n", "cannot be read as CSV"),
        ("id,at,x\na,2024-01-01T02:00:00Z,1,9\n", "cannot be read as CSV"),
        ("id,at,at\na,2024-01-01T02:00:00Z,1\n", "two columns have one name"),
        ("id,at,_x\na,2024-01-01T02:00:00Z,1\n", "'_x' is reserved"),
        ("id,when,x\na,2024-01-01T02:00:00Z,1\n", "there is no column 'at'"),
        ("id,at,x\n\xff,2024-01-01T02:00:00Z,1\n", "cannot be read as CSV"),
        ("", "cannot be read as CSV"),
    ],
)
def test_unusable_csv_says_why(world: Any, text: str, says: str) -> None:
    (world.folder / "came.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataFault, match=says) as fault:
        data.ingest(world.home, system(world, "came.csv"), world.at(START + DAY))
    assert fault.value.hint
    assert not world.home.lake.tables()


def test_csv_types_are_read_off_all_values(world: Any) -> None:
    (world.folder / "came.csv").write_text(
        "id,at,zip,n,f,b,word,day\n"
        '"a,1",2024-01-01T02:00:00.5Z,007,1,1,true,NA,2024-01-01\n'
        "b,2024-01-01 03:00+02:00,123,NA,2.5,false,x,\n"
        "c,2024-01-01T04:00:00Z,,-3,,,y,2024-01-03\n"
    )
    data.ingest(world.home, system(world, "came.csv"), world.at(START + DAY))
    frame = lake(world).sort("id")
    assert frame["zip"].to_list() == ["007", "123", None]
    assert frame["n"].to_list() == [1, None, -3]
    assert frame["f"].to_list() == [1.0, 2.5, None]
    assert frame["b"].to_list() == [True, False, None]
    assert frame["word"].to_list() == ["NA", "x", "y"]
    assert frame.schema["day"] == pl.Date
    assert frame["_time"][0] == START + 2 * HOUR + timedelta(milliseconds=500)


def test_a_csv_value_that_stopped_being_a_number_is_put_aside(world: Any) -> None:
    path = world.folder / "came.csv"
    path.write_text("id,at,x\na,2024-01-01T02:00:00Z,1\n")
    made = system(world, "came.csv")
    data.ingest(world.home, made, world.at(START + DAY))
    more = "b,2024-01-02T02:00:00Z,2\nc,2024-01-02T03:00:00Z,many\nd,2024-01-02T04:00:00Z,4\n"
    path.write_text(path.read_text() + more)
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert entry.record.reasons == {"unreadable value": 1}
    assert "x=many" in lake(world, "quarantine")["row"][0]
    path.write_text("id,at,x\na,2024-01-01T02:00:00Z,one\nb,2024-01-01T02:00:00Z,two\n")
    with pytest.raises(DataFault, match="column 'x' was BIGINT"):
        data.ingest(world.home, made, world.at(START + 3 * DAY))


def test_frames_of_every_kind_give_the_same_table(worlds: Callable[[], Any], tmp_path: Path) -> None:
    frame = rows([1, 2, 3], id=["a", "b", "c"], x=[1.5, None, 3.0], n=[1, 2, 3])
    database = tmp_path / "rows.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table t (id text, at text, x real, n integer)")
        stamps = [at.strftime("%Y-%m-%dT%H:%M:%SZ") for at in frame["at"]]
        connection.executemany(
            "insert into t values (?, ?, ?, ?)", list(zip(frame["id"], stamps, frame["x"], frame["n"], strict=True))
        )
    connection.close()
    pandas = pd.DataFrame({"id": ["a", "b", "c"], "x": [1.5, None, 3.0], "n": [1, 2, 3]})
    pandas.insert(1, "at", pd.to_datetime(["2024-01-01T01:00Z", "2024-01-01T02:00Z", "2024-01-01T03:00Z"]))
    frame.write_parquet(tmp_path / "a.parquet")
    frame.with_columns(pl.col("at").dt.to_string("%Y-%m-%dT%H:%M:%SZ")).write_csv(tmp_path / "a.csv.gz", compression="gzip")
    forms: list[Any] = [
        frame,
        frame.lazy(),
        pandas,
        frame.to_arrow(),
        pa.Table.from_pandas(pandas),
        nr.Query(f"sqlite:///{database}", "select * from t"),
        str(tmp_path / "a.parquet"),
        str(tmp_path / "a.csv.gz"),
    ]
    found = []
    for form in forms:
        world = worlds()
        [entry] = data.ingest(world.home, system(world, form), world.at(START + DAY))
        found.append((entry.record.rows, lake(world).select("_time", "_known", "_row", "id", "x", "n").rows()))
    assert all(one == found[0] for one in found), found


def test_a_query_that_fails_does_not_show_its_address(world: Any) -> None:
    with pytest.raises(DataFault) as fault:
        data.ingest(world.home, system(world, nr.Query("postgresql://u:secret@nowhere/x", "select 1")), world.at(START + DAY))
    assert "secret" not in str(fault.value) + fault.value.hint
    [blocked] = world.home.ledger.read(Blocked)
    assert "secret" not in str(blocked.record)


def test_sources_without_data_bring_nothing(world: Any) -> None:
    assert data.ingest(world.home, system(world, None), world.at(START + DAY)) == []
    assert world.home.ledger.count() == 0


def test_known_by_a_column(world: Any) -> None:
    frame = rows(
        [10, 20, 90], id=["a", "b", "c"], booked=pl.Series([START + 30 * HOUR, None, START + 2 * HOUR], dtype=TIME).to_list()
    )
    frame = frame.with_columns(pl.col("booked").cast(TIME))
    made = system(world, frame, known="booked")
    [entry] = data.ingest(world.home, made, world.at(START + DAY))
    assert (entry.record.accepted, entry.record.reasons) == (1, {"no known time": 1})
    [entry] = data.ingest(world.home, made, world.at(START + 2 * DAY))
    assert lake(world)["id"].to_list() == ["c", "a"]


events = st.lists(
    st.tuples(st.integers(0, 71), st.sampled_from(["a", "b", None]), st.sampled_from([0.0, 1.0, math.nan])),
    min_size=1,
    max_size=25,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events, st.lists(st.integers(1, 71), max_size=5))
def test_many_batches_are_one_batch(
    worlds: Callable[[], Any], found: list[tuple[int, str | None, float]], stops: list[int]
) -> None:
    """However the same rows are cut into turns, the same rows are accepted and put aside, and each is counted once."""
    frame = rows([e[0] for e in found], id=[e[1] for e in found], x=[e[2] for e in found]).with_columns(
        pl.col("id").cast(pl.String)
    )
    tables = []
    for ends in ([72], [*sorted(set(stops)), 72]):
        world = worlds()
        made = system(world, frame)
        for hour in ends:
            data.ingest(world.home, made, world.at(START + hour * HOUR))
        records = ingested(world)
        assert sum(r.received for r in records) == frame.height
        assert all(r.received == r.accepted + r.quarantined == r.accepted + sum(r.reasons.values()) for r in records)
        accepted = lake(world).drop("_row").rows() if "source.came" in world.home.lake.tables() else []
        aside = (
            sorted(lake(world, "quarantine").select("reason", "row").rows()) if "quarantine" in world.home.lake.tables() else []
        )
        tables.append((accepted, aside))
        assert data.ingest(world.home, made, world.at(START + 80 * HOUR)) == []
    assert tables[0] == tables[1]


def test_no_content_can_pose_as_another() -> None:
    """Texts that would run together the same way have different hashes; a null is not an empty text."""
    run, sql = Reader(), content_sql({"a": "VARCHAR", "b": "VARCHAR"})
    pairs = [("x|b=1:y", "z"), ("x", "y|b=1:z"), ("x", None), ("x", ""), (None, "x"), ("", "x"), ("xb=1:y", "")]
    shown = ", ".join(f"({', '.join('null' if v is None else repr(v) for v in pair)})" for pair in pairs)
    hashes = run(f"select {sql} as h from (values {shown}) t(a, b)")["h"].to_list()
    assert len(set(hashes)) == len(pairs)
