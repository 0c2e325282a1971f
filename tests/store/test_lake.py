"""The lake: rows come back as they were, once, to us and to other readers."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from noria.core import Conflict, LeaseLost, NoriaError, Refused, SimulatedClock
from noria.records import Approved
from noria.settings import Settings
from noria.store import Home
from noria.store.content import rows_hash
from noria.store.manifest import next_head

from .conftest import T0, day

TIME = pl.Datetime("us", "UTC")


def put(home: Home, table: str, frame: pl.DataFrame, key: str) -> None:
    """Writes and publishes rows with a record of the same key."""
    commit = home.lake.write(table, frame, key=key)
    home.commit(Approved(subject=key, by="test", note=commit.rows), key=f"{table}/{key}", tables=[commit])


EVERYTHING = pl.DataFrame(
    {
        "text": ["a", None, "ü\U0001f600", ""],
        "whole": [1, None, -(2**62), 3],
        "small": pl.Series([1, None, -128, 127], dtype=pl.Int8),
        "real": [0.1, None, float("nan"), float("-inf")],
        "single": pl.Series([0.5, None, 2.0, 3.0], dtype=pl.Float32),
        "yes": [True, None, False, True],
        "on": [date(2013, 1, 1), None, date(1969, 12, 31), date(2100, 1, 1)],
        "at": pl.Series([T0, None, T0 + timedelta(microseconds=1), T0], dtype=TIME),
        "local": pl.Series([datetime(2013, 1, 1), None, datetime(1960, 1, 1), datetime(2013, 1, 1)], dtype=pl.Datetime("us")),
        "money": pl.Series([Decimal("1.25"), None, Decimal("-3.10"), Decimal(0)], dtype=pl.Decimal(20, 2)),
        "bytes": [b"\x00\xff", None, b"", b"x"],
        "scores": pl.Series([[0.5, 0.5], None, [], [None]], dtype=pl.List(pl.Float64)),
        "both": pl.Series([{"a": 1, "b": "x"}, {"a": None, "b": None}, {"a": 2, "b": ""}, {"a": 3, "b": "y"}]),
    }
)


def test_every_type_comes_back(home: Home) -> None:
    with home.hold("test"):
        put(home, "quarantine_like", EVERYTHING, "1")
    assert home.lake.schema("quarantine_like") == EVERYTHING.schema
    assert_frame_equal(home.lake.read("quarantine_like"), EVERYTHING)
    assert_frame_equal(home.engine.sql("select * from t", t=home.lake.scan("quarantine_like")), EVERYTHING)


def test_types_that_tables_lack_become_the_nearest_that_hold_them(home: Home) -> None:
    frame = pl.DataFrame(
        {
            "u8": pl.Series([255], dtype=pl.UInt8),
            "u32": pl.Series([2**32 - 1], dtype=pl.UInt32),
            "u64": pl.Series([7], dtype=pl.UInt64),
            "kind": pl.Series(["a"], dtype=pl.Categorical),
            "at": pl.Series([datetime(2013, 1, 1)], dtype=pl.Datetime("ms", "America/New_York")),
        }
    )
    with home.hold("test"):
        put(home, "t", frame, "1")
        with pytest.raises(Conflict, match=r"'span' has the type Duration.*cannot hold"):
            home.lake.write("t", pl.DataFrame({"span": [timedelta(1)]}), key="2")
        with pytest.raises(Conflict, match="'empty' has only nulls and no type"):
            home.lake.write("t", pl.DataFrame({"empty": [None]}), key="2")
    back = home.lake.read("t")
    assert back.schema == {"u8": pl.Int16, "u32": pl.Int64, "u64": pl.Int64, "kind": pl.String, "at": TIME}
    assert back["at"].to_list() == frame["at"].dt.convert_time_zone("UTC").to_list()


def test_rows_are_seen_only_once_they_are_published(home: Home) -> None:
    with home.hold("test"):
        commit = home.lake.write("predictions", day(0), key="d0")
        assert home.lake.schema("predictions") is None
        assert home.lake.scan("predictions").files == ()
        assert home.lake.heads() == {}
        home.commit(Approved(subject="a", by="b"), key="a", tables=[commit])
        assert_frame_equal(home.lake.read("predictions"), day(0))
    assert home.lake.heads() == {"predictions": next_head("", "d0", rows_hash(day(0)))}


def test_a_batch_is_published_once(home: Home) -> None:
    with home.hold("test"):
        put(home, "predictions", day(0), "d0")
        heads = home.lake.heads()
        put(home, "predictions", day(0), "d0")  # the record is there: its pending rows are given up
        again = home.lake.write("predictions", day(0), key="d0")  # the batch is there: another record does not publish it again
        home.commit(Approved(subject="other", by="b"), key="other", tables=[again])
        twice = [home.lake.write("predictions", day(1), key="d1") for _ in range(2)]
        home.commit(Approved(subject="twice", by="b"), key="twice", tables=twice)
        with pytest.raises(Conflict, match="other rows under the key 'd0'"):
            home.lake.write("predictions", day(5), key="d0")
    assert home.lake.read("predictions").height == 2 * day(0).height
    assert home.lake.heads() != heads


def test_writing_needs_the_lease_and_a_safe_name(home: Home) -> None:
    with pytest.raises(LeaseLost, match="holds no lease"):
        home.lake.write("predictions", day(0), key="d0")
    with home.hold("test"):
        for name in ("../escape", "a/b", "", "A", "..", "a..b"):
            with pytest.raises(Refused, match="is not allowed"):
                home.lake.write(name, day(0), key="d0")


def test_columns_may_be_added_and_never_retyped(home: Home) -> None:
    with home.hold("test"):
        put(home, "predictions", day(0), "d0")
        put(home, "predictions", day(1, place="north"), "d1")
        put(home, "predictions", day(2), "d2")  # lacks the new column
        put(home, "predictions", day(3, place=None), "d3")  # a column of nulls has the table's type
        with pytest.raises(Conflict, match="'x' was Float64 and now comes as String"):
            home.lake.write("predictions", day(4).with_columns(pl.col("x").cast(pl.String)), key="d4")
    wanted = pl.concat([day(0), day(1, place="north"), day(2), day(3)], how="diagonal")
    assert_frame_equal(home.lake.read("predictions"), wanted)
    old = home.lake.scan("predictions", _time=(None, T0 + timedelta(hours=2)))
    assert len(old.files) == 1  # only the file that lacks the column
    assert home.engine.sql("select distinct place, typeof(place) as type from t", t=old).to_dicts() == [
        {"place": None, "type": "VARCHAR"}
    ]
    assert_frame_equal(pl.scan_delta(str(home.lake.folder / "predictions")).sort("_time", "_id").collect(), wanted)


def test_two_new_columns_in_one_commit(home: Home) -> None:
    with home.hold("test"):
        both = [home.lake.write("predictions", day(0, a=1), key="d0"), home.lake.write("predictions", day(1, b="x"), key="d1")]
        home.commit(Approved(subject="a", by="b"), key="a", tables=both)
    wanted = pl.concat([day(0, a=1), day(1, b="x")], how="diagonal").select("_id", "_time", "x", "a", "b")
    assert_frame_equal(home.lake.read("predictions"), wanted, check_dtypes=False)


def test_frames_without_rows(home: Home) -> None:
    with home.hold("test"):
        put(home, "predictions", day(0).clear(), "none")
        assert home.lake.schema("predictions") == day(0).schema
        heads = home.lake.heads()
        put(home, "predictions", day(0).clear(), "none again")
        assert home.lake.heads() == heads
        assert_frame_equal(home.lake.read("predictions"), day(0).clear())
        put(home, "predictions", day(0), "d0")
    assert_frame_equal(home.lake.read("predictions"), day(0))


def test_a_table_without_any_commit_has_its_declared_columns(home: Home) -> None:
    empty = home.engine.sql("select * from outcomes", outcomes=home.lake.scan("outcomes"))
    assert empty.height == 0
    assert empty.schema["_label"] == pl.Float64
    assert empty.schema["_cohort"] == TIME
    assert home.lake.read("source.schedule").schema == {"_time": TIME, "_known": TIME, "_row": pl.String}


def test_reading_filters_and_leaves_out_files(home: Home) -> None:
    with home.hold("test"):
        for number in range(6):
            put(home, "predictions", day(number), f"d{number}")
    whole = pl.concat([day(number) for number in range(6)])
    edges = [None, *(T0 + timedelta(days=d, minutes=m) for d in range(6) for m in (0, 3, 30))]
    for low in edges:
        for high in edges:
            wanted = whole
            if low is not None:
                wanted = wanted.filter(pl.col("_time") > low)
            if high is not None:
                wanted = wanted.filter(pl.col("_time") <= high)
            if (low, high) == (None, None) or wanted.height % 7 == 0:
                assert_frame_equal(home.lake.read("predictions", _time=(low, high)), wanted)
            scan = home.lake.scan("predictions", _time=(low, high))
            holding = {row[0][:3] for row in wanted.iter_rows()}
            assert len(holding) <= len(scan.files) <= len(holding) + 2
    assert home.lake.read("predictions", columns=["x"], _time=(None, T0)).columns == ["x"]
    with pytest.raises(NoriaError, match="no column 'y'") as caught:
        home.lake.read("predictions", columns=["y"])
    assert "_id, _time, x" in caught.value.hint


def compact(home: Home, days: int) -> None:
    with home.hold("test"):
        for number in range(days):
            put(home, "predictions", day(number, **({"late": number} if number > 2 else {})), f"d{number}")
            home.lake.upkeep()


def test_joining_files_changes_nothing_but_files(open_home: Callable[..., Home]) -> None:
    plain, joined = open_home("plain", compact_after=1000), open_home("joined", compact_after=4)
    for home in (plain, joined):
        compact(home, 19)
    assert joined.lake.heads() == plain.lake.heads()
    assert_frame_equal(joined.lake.read("predictions"), plain.lake.read("predictions"))
    assert len(plain.lake.scan("predictions").files) == 19
    assert len(joined.lake.scan("predictions").files) == 4  # 16 in one, and three of the last days
    on_disk = len(list((joined.lake.folder / "predictions").glob("*.parquet")))
    assert on_disk <= 4 + 8  # what was joined last stays for a while
    assert_frame_equal(read_delta(joined.lake.folder / "predictions"), plain.lake.read("predictions"))
    assert list((joined.lake.folder / "predictions" / "_delta_log").glob("*.checkpoint*.parquet"))
    assert joined.lake.check() == []
    with joined.hold("test"):
        for table in (joined, plain):
            before = table.lake.heads()
        joined.lake.upkeep()
        assert joined.lake.heads() == before


def read_delta(folder: Path) -> pl.DataFrame:
    return pl.scan_delta(str(folder)).collect().sort("_time", "_id")


def test_other_readers_see_the_same(home: Home) -> None:
    with home.hold("test"):
        put(home, "t", EVERYTHING, "1")
        put(home, "t", EVERYTHING.with_columns(more=pl.lit(1)), "2")
        put(home, "predictions", day(0), "d0")
        put(home, "predictions", day(1), "d1")
    ours = home.lake.read("t")
    folder = str(home.lake.folder / "t")
    assert_frame_equal(pl.scan_delta(folder).collect().sort("more", nulls_last=False), ours.sort("more", nulls_last=False))
    table = DeltaTable(folder)
    assert table.version() == 1
    types = {field.name: str(field.type) for field in table.schema().fields}
    assert 'PrimitiveType("string")' in types["text"]
    assert 'PrimitiveType("timestamp")' in types["at"]
    files = DeltaTable(home.lake.folder / "predictions").file_uris()
    with duckdb.connect() as connection:
        seen = connection.sql(
            "select typeof(_id), typeof(_time), count(*) from read_parquet(?) group by all", params=[files]
        ).fetchall()
    assert seen == [("VARCHAR", "TIMESTAMP WITH TIME ZONE", 40)]
    late = pl.scan_delta(str(home.lake.folder / "predictions")).filter(pl.col("_time") > T0 + timedelta(hours=2))
    assert_frame_equal(late.collect(), day(1))


def test_another_process_of_readers_sees_new_commits(open_home: Callable[..., Home]) -> None:
    writer, reader = open_home(), None
    with writer.hold("test"):
        put(writer, "predictions", day(0), "d0")
        reader = open_home(write=False)
        assert_frame_equal(reader.lake.read("predictions"), day(0))
        put(writer, "predictions", day(1), "d1")
        assert_frame_equal(reader.lake.read("predictions"), pl.concat([day(0), day(1)]))
        assert reader.lake.heads() == writer.lake.heads()


values = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(max_size=3),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "real": st.none() | st.floats(),
        "at": st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC)),
        "list": st.none() | st.lists(st.none() | st.floats(allow_nan=False), max_size=2),
    }
)
SCHEMA = {"text": pl.String, "whole": pl.Int64, "real": pl.Float64, "at": TIME, "list": pl.List(pl.Float64)}


def plainly(rows: list[dict[str, object]]) -> list[tuple[str, ...]]:
    """Rows as plain text: equal exactly when the content is (every not-a-number is alike, zeros differ by sign)."""
    return [tuple("nan" if isinstance(v, float) and math.isnan(v) else repr(v) for v in map(row.get, SCHEMA)) for row in rows]


@settings(max_examples=100, deadline=None)
@given(left=st.lists(values, max_size=4), right=st.lists(values, max_size=4), cut=st.integers(0, 4))
def test_equal_rows_have_equal_hashes_and_others_have_not(
    left: list[dict[str, object]], right: list[dict[str, object]], cut: int
) -> None:
    a, b = pl.DataFrame(left, schema=SCHEMA), pl.DataFrame(right, schema=SCHEMA)
    assert (rows_hash(a) == rows_hash(b)) == (plainly(left) == plainly(right))
    assert rows_hash(pl.concat([a[:cut], a[cut:]], rechunk=False)) == rows_hash(a)
    assert rows_hash(a.select(reversed(a.columns))) == rows_hash(a)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.tuples(st.integers(0, 4), st.lists(values, max_size=3), st.booleans()), max_size=8),
    compact_after=st.integers(2, 4),
)
def test_tables_hold_what_was_published_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[int, list[dict[str, object]], bool]], compact_after: int
) -> None:
    """A list of (key, rows, reopen first): each key is published once, a restart or a join changes nothing."""
    path, clock = tmp_path_factory.mktemp("home"), SimulatedClock(T0)
    model: dict[str, list[dict[str, object]]] = {}
    home = Home.open(path, Settings(durable=False, compact_after=compact_after), clock)
    for number, rows, reopen in batches:
        if reopen:
            home.close()
            home = Home.open(path, Settings(durable=False, compact_after=compact_after), clock)
        key = f"k{number}"
        with home.hold("test"):
            if key in model and plainly(model[key]) != plainly(rows) and (rows or model[key]):
                continue
            put(home, "t", pl.DataFrame(rows, schema=SCHEMA), key)
            model.setdefault(key, rows)
            home.lake.upkeep()
    if model:
        read = home.lake.read("t").to_dicts()
        assert sorted(plainly(read)) == sorted(
            plainly(pl.DataFrame([row for rows in model.values() for row in rows], schema=SCHEMA).to_dicts())
        )
        assert home.lake.check() == []
    home.close()
