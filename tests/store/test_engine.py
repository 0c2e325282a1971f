"""The SQL engine: typed, in UTC, confined to the home, and larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import NoriaError, Refused, Unavailable
from noria.store import Engine, Home, Scan
from noria.store.content import type_of
from noria.store.engine import sql_type

from .conftest import T0, day, put

TYPES = [
    "string",
    "long",
    "integer",
    "short",
    "byte",
    "double",
    "float",
    "boolean",
    "binary",
    "date",
    "timestamp",
    "timestamp_ntz",
    "decimal(9,2)",
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def test_times_are_in_utc(engine: Engine) -> None:
    found = engine.sql("select timestamptz '2013-01-01 00:00+02' as t, date_trunc('day', timestamptz '2013-03-10 23:30-05') as d")
    assert found["t"].to_list() == [datetime(2012, 12, 31, 22, tzinfo=UTC)]
    assert found["d"].to_list() == [datetime(2013, 3, 11, tzinfo=UTC)]


def test_frames_are_tables_by_their_names(engine: Engine) -> None:
    a, b = pl.DataFrame({"k": [1, 2], "x": ["a", None]}), pl.DataFrame({"k": [2, 3], "select": [0.5, 1.5]})
    query = 'select a.k, a.x, b."select" from a left join b using (k) order by k'
    assert engine.sql(query, a=a, b=b).rows() == [(1, "a", None), (2, None, 0.5)]
    assert (
        engine.sql(
            'select count(*) as n from "source.a" join "source.a" using (k)'.replace("join", "s join"), **{"source.a": a}
        ).item()
        == 2
    )
    with pytest.raises(
        NoriaError, match="Table with name a does not exist"
    ):  # gone after the query; never taken from Python's variables
        engine.sql("select * from a")


@pytest.mark.parametrize(
    "query",
    [
        "with b as (select k + 1 as k from a) select sum(k) from b",
        "-- a remark; with words\n  WITH b as (select k + 1 as k from a) select sum(k) from b",
        "/* with */ with recursive b as (select 3 as k union all select k - 1 from b where k > 2) select sum(b.k) from b, a where a.k = 1",
        "select sum(k) from (with b as (select k + 1 as k from a) select * from b)",
    ],
)
def test_queries_may_have_tables_of_their_own(engine: Engine, query: str) -> None:
    assert engine.sql(query, a=pl.DataFrame({"k": [1, 2]})).item() == 5


def test_whole_sums_are_whole_numbers(engine: Engine) -> None:
    found = engine.sql(
        "select sum(k) as s, sum(k)::hugeint * 1000 as big, avg(k) as m from a", a=pl.DataFrame({"k": [2**62, 2**61]})
    )
    assert found.schema == {"s": pl.Int64, "big": pl.Decimal(38, 0), "m": pl.Float64}
    assert found.row(0)[:2] == (2**62 + 2**61, Decimal((2**62 + 2**61) * 1000))


@given(names=st.lists(st.sampled_from(TYPES), min_size=1, max_size=5), wrap=st.booleans())
@settings(max_examples=30, deadline=None)
def test_scans_without_files_are_typed_and_empty(engine: Engine, names: list[str], wrap: bool) -> None:
    schema = {f"c{i} \"'": pl.List(type_of(name)) if wrap else type_of(name) for i, name in enumerate(names)}
    found = engine.sql("select * from t", t=Scan((), schema))
    assert found.height == 0
    assert found.schema == schema
    assert engine.sql("select count(*) from t", t=Scan((), {})).item() == 0


def test_types_have_names_in_sql() -> None:
    assert sql_type(pl.Struct({"a": pl.Int64(), "b": pl.List(pl.String())})) == 'struct("a" bigint, "b" varchar[])'


def test_mistakes_are_told_in_the_engines_words(engine: Engine) -> None:
    with pytest.raises(NoriaError, match=r'column "nope" not found[\s\S]*in the query:\nselect nope') as caught:
        engine.sql("select nope from t", t=pl.DataFrame({"x": [1]}))
    assert caught.value.hint == "mend the SQL"
    with pytest.raises(NoriaError, match="syntax error"):
        engine.sql("selec 1")
    with pytest.raises(NoriaError, match="a type that frames cannot hold"):
        engine.sql("select interval 1 day as i")
    with pytest.raises(NoriaError, match="Conversion Error"):
        engine.sql("select cast(x as integer) as i from t", t=pl.DataFrame({"x": ["a"]}))
    assert engine.sql("select 1 as one").item() == 1  # a mistake leaves it whole


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('{outside}')",
        "copy (select 1) to '{outside}'",
        "attach '{outside}' as other",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set TimeZone = 'America/New_York'",
        "select * from read_parquet('https://127.0.0.1:9/a.parquet')",
    ],
)
def test_nothing_outside_the_lake_can_be_reached(home: Home, tmp_path: Path, query: str) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    with pytest.raises(NoriaError) as caught:
        home.engine.sql(query.format(outside=outside))
    assert "secret" not in str(caught.value)
    if "read_" in query or "copy" in query or "attach" in query:
        assert isinstance(caught.value, Refused)
    assert outside.read_text() == "secret"


def test_larger_than_memory_spills_to_the_home(tmp_path: Path) -> None:
    engine = Engine(tmp_path, threads=1, memory="30MB")
    query = "select {} from (select hash(i) as h, repeat('x', 50) as text, i from range(600_000) t(i) order by h, i)"
    found = engine.sql(query.format("count(*) as n, sum(i) as s, max(h) as top, last(h) as newest"))
    assert found.row(0)[:2] == (600_000, 600_000 * 599_999 // 2)
    assert found["top"].to_list() == found["newest"].to_list()  # it was sorted: some 45 MB of rows in 30 MB
    engine.close()


def test_without_room_to_spill_it_is_a_clear_error() -> None:
    engine = Engine(memory="20MB")
    with pytest.raises(Unavailable, match="ran out of room") as caught:
        engine.sql("select i, repeat('x', 100) as t from range(400_000) t(i) order by hash(i)")
    assert "NORIA_MEMORY" in caught.value.hint
    assert engine.sql("select 1 as one").item() == 1
    engine.close()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(NoriaError, match="did not start") as caught:
        Engine(memory="a lot")
    assert "NORIA_MEMORY" in caught.value.hint


def test_scans_and_frames_join(open_home: Callable[..., Home]) -> None:
    home = open_home()
    with home.hold("test"):
        put(home, 0)
        put(home, 1)
    wanted = day(1).head(3).select("_id")
    found = home.engine.sql(
        "select p._id, p.x from predictions p semi join wanted using (_id) order by _id",
        predictions=home.lake.scan("predictions", _time=(T0, None)),
        wanted=wanted,
    )
    assert found.rows() == day(1).head(3).select("_id", "x").rows()
