"""Features against their definition, computed row by row from nothing but what was known at the time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import duration, micros
from noria.features import compute, plan, schemas, sql
from noria.features.compute import _numbered, _span, _typed
from noria.features.sql import Way, table_name
from noria.store import Engine
from noria.system import Feature
from noria.tables import TIME

T0 = datetime(2013, 1, 1, tzinfo=UTC)
MICRO = timedelta(microseconds=1)
ODD = "we\"ird; -- 'name"

asked = nr.Source("asked", key="id", time="at", owner="o")
events = nr.Source("odd.events-1", key="id", time="at", known="1h", owner="o")
SYSTEM = nr.System(
    name="s",
    predict=asked,
    label=nr.Label(events, "x > 0", within="1h", otherwise=False),
    features=[
        asked.columns("select", ODD),
        asked.sql('"k" * 2 + 1').named("from"),
        events.last("x", "word", "x > 1", by={"select": "group"}, max_age="45m").named("last_x", "last word", "last_big"),
        events.last("y", by={"select": "group", "k": "k"}, max_age="2h").named(ODD + "2"),
        events.last("x", by=(), max_age="20m").named("newest"),
        events.window("30m", every="10m", by={"select": "group"})
        .count()
        .count("word")
        .mean("x")
        .sum("x")
        .min("x")
        .max("x")
        .std("x"),
        events.window("1h", every="10m", by={"select": "group"}).mean("x").std("y").count("y"),
        events.window("1h", every="1h", by={"select": "group", "k": "k"})
        .sum("y")
        .max("x + y")
        .count(f'"{ODD.replace(chr(34), chr(34) * 2)}"'),
        events.window("20m", every="5m", by=())
        .count()
        .std("y")
        .min("case when k = 1 then y end")
        .named("all", "spread", "least"),
    ],
    objective=nr.Objective("p", nr.Value("0"), "log_loss"),
    candidates=[],
)
ASKED = {"select": pl.String, "k": pl.Int64, ODD: pl.Int32, "_id": pl.String, "_time": TIME}
EVENTS = {
    "group": pl.String,
    "k": pl.Int32,
    "x": pl.Float64,
    "y": pl.Float64,
    "word": pl.String,
    ODD: pl.Boolean,
    "_time": TIME,
    "_known": TIME,
    "_row": pl.String,
}
PLAN = plan(SYSTEM, {"asked": {n: t for n, t in ASKED.items() if n[0] != "_"}, "odd.events-1": EVENTS})


# --------------------------------------------------------------------------------------------------------- the definition


def brute_force(feature: Feature, row: dict[str, Any], history: Sequence[dict[str, Any]]) -> Any:
    """One feature of one asked row, by the words of ``noria.features``."""
    if feature.op == "column":
        return row[feature.expr[1:-1]]
    if feature.op == "expression":
        return None if row["k"] is None else row["k"] * 2.0 + 1
    now = row["_time"]
    if any(row[mine] is None for mine, _ in feature.by):
        mine_rows: list[dict[str, Any]] = []
    else:
        mine_rows = [e for e in history if e["_known"] <= now and all(e[theirs] == row[mine] for mine, theirs in feature.by)]
    if feature.op == "last":
        if not mine_rows:
            return None
        newest = max(mine_rows, key=lambda e: (e["_known"], e["_time"], e["_row"]))
        return value_of(feature.expr, newest) if now - newest["_known"] <= duration(feature.max_age or "") else None
    every = duration(feature.every or "")
    edge = now - (now - datetime(1970, 1, 1, tzinfo=UTC)) % every - duration(feature.window or "")
    inside = [e for e in mine_rows if e["_known"] > edge]
    return aggregate(feature, inside)


def aggregate(feature: Feature, rows: Sequence[dict[str, Any]]) -> float | None:
    if feature.expr == "*":
        return float(len(rows))
    values = [value for value in (value_of(feature.expr, e) for e in rows) if value is not None]
    if feature.agg == "count":
        return float(len(values))
    if feature.agg in ("min", "max"):
        return (min if feature.agg == "min" else max)(values, default=None)
    fixed = [millionths(value) for value in values]
    if feature.agg == "sum":
        return float(Fraction(sum(fixed), 10**6))
    if not fixed:
        return None
    mean = Fraction(sum(fixed), len(fixed))
    if feature.agg == "mean":
        return float(mean / 10**6)
    return math.sqrt(sum((value - mean) ** 2 for value in fixed) / len(fixed)) / 1e6


def millionths(value: float) -> int:
    """The value as a whole number of millionths, halves away from zero."""
    scaled = Fraction(value * 1e6)
    return (1 if scaled > 0 else -1) * math.floor(abs(scaled) + Fraction(1, 2))


def value_of(expr: str, e: dict[str, Any]) -> Any:
    """The expressions of ``SYSTEM`` over a row, as SQL has it: null in, null out; NaN and infinities are no values."""
    x, y = e["x"], e["y"]
    if expr == "x + y":
        made = None if x is None or y is None else x + y
    elif expr == "x > 1":  # for SQL, NaN is the largest number
        made = None if x is None else float(x > 1 or math.isnan(x))
    elif expr.startswith("case"):
        made = y if e["k"] == 1 else None
    elif expr.startswith('"'):
        made = None if e[ODD] is None else float(e[ODD])
    else:
        made = e[expr]
    return None if isinstance(made, float) and not math.isfinite(made) else made


# --------------------------------------------------------------------------------------------------------------- histories

moments = st.builds(
    lambda step, shift: T0 + timedelta(minutes=5 * step) + shift * MICRO,
    st.integers(0, 40),
    st.sampled_from([0, 0, 0, -1, 1, 90_000_123]),
)
numbers = st.one_of(
    st.sampled_from([None, None, 0.0, 1.0, 0.1, -2.5, math.nan, math.inf, -math.inf, 1e9 + 0.25, 5e-7, 123456.7890125]),
    st.floats(-1e5, 1e5),
)


@st.composite
def an_event(draw: st.DrawFn) -> dict[str, Any]:
    known = draw(moments)
    return {
        "group": draw(st.sampled_from(["a", "b", "b", None])),
        "k": draw(st.sampled_from([1, 2, None])),
        "x": draw(numbers),
        "y": draw(numbers),
        "word": draw(st.sampled_from([None, "one", "two", "it's"])),
        ODD: draw(st.sampled_from([None, True, False])),
        "_time": known - timedelta(minutes=draw(st.integers(0, 3))),
        "_known": known,
        "_row": draw(st.text("0123456789abcdef", min_size=8, max_size=8)),
    }


@st.composite
def a_question(draw: st.DrawFn) -> dict[str, Any]:
    key = {"select": draw(st.sampled_from(["a", "b", "c", None])), "k": draw(st.sampled_from([1, 2, None]))}
    return key | {ODD: draw(st.integers(0, 5)), "_time": draw(moments)}


histories = st.lists(an_event(), max_size=40, unique_by=lambda e: (e["_known"], e["_time"], e["_row"]))
questions = st.lists(a_question(), min_size=1, max_size=12)


def examples(number: int) -> settings:
    """A query costs tens of milliseconds, so examples are few and each holds many rows."""
    calm = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=number, deadline=None, suppress_health_check=calm, derandomize=True, database=None)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(threads=2)
    yield engine
    engine.close()


def spine_of(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([row | {"_id": f"q{number}"} for number, row in enumerate(rows)], schema=ASKED)


def run(
    engine: Engine, history: Sequence[dict[str, Any]], spine: pl.DataFrame, way: Way, *, bounded: bool = True
) -> pl.DataFrame:
    query = sql(PLAN, way=way, asked=_span(spine) if bounded else None)
    rows = pl.DataFrame(history, schema=EVENTS)
    return _typed(PLAN, engine.sql(query, spine=_numbered(PLAN, spine, {}), **{table_name(PLAN, events.name): rows}))


@pytest.mark.parametrize("way", ["tiles", "pairs"])
def test_every_feature_is_what_the_definition_says(engine: Engine, way: Way) -> None:
    @examples(25)
    @given(histories, questions)
    def check(history: list[dict[str, Any]], asked_rows: list[dict[str, Any]]) -> None:
        spine = spine_of(asked_rows)
        made = run(engine, history, spine, way)
        assert made["_id"].to_list() == spine["_id"].to_list()
        for row, got in zip(spine.to_dicts(), made.to_dicts(), strict=True):
            for feature in SYSTEM.flat_features:
                want, have = brute_force(feature, row, history), got[feature.name]
                same = have == want or (isinstance(want, float) and have == pytest.approx(want, rel=1e-12, abs=1e-12))
                assert same, f"{feature.name} of {row}: {have}, and by definition {want}"

    check()


def test_what_becomes_known_later_changes_nothing(engine: Engine) -> None:
    @examples(8)
    @given(histories, questions, moments)
    def check(history: list[dict[str, Any]], asked_rows: list[dict[str, Any]], now: datetime) -> None:
        spine = spine_of([*asked_rows, {"select": "a", "k": 1, ODD: 0, "_time": now}]).filter(pl.col("_time") <= now)
        then = [e for e in history if e["_known"] <= now]
        assert run(engine, history, spine, "tiles").equals(run(engine, then, spine, "tiles", bounded=False))
        assert run(engine, history, spine, "pairs", bounded=False).equals(run(engine, then, spine, "pairs"))

    check()


def test_neither_the_order_nor_the_company_nor_the_way_changes_a_bit(engine: Engine) -> None:
    @examples(6)
    @given(histories, questions, st.randoms(use_true_random=False), st.integers(0, 12))
    def check(history: list[dict[str, Any]], asked_rows: list[dict[str, Any]], random: Any, cut: int) -> None:
        spine = spine_of(asked_rows)
        whole = run(engine, history, spine, "tiles")
        mixed = random.sample(history, len(history))
        order = random.sample(range(spine.height), spine.height)
        assert run(engine, mixed, spine[order], "pairs").equals(whole[order])
        assert run(engine, mixed, spine[order], "tiles").equals(whole[order])
        pieces = [piece for piece in (spine[:cut], spine[cut:]) if piece.height]
        assert pl.concat([run(engine, mixed, piece, "tiles") for piece in pieces]).equals(whole)
        assert pl.concat([run(engine, mixed, spine[n], "pairs") for n in range(min(spine.height, 3))]).equals(whole[:3])

    check()


def test_the_number_of_threads_changes_no_bit() -> None:
    import numpy as np

    r = np.random.default_rng(7)
    n = 30_000
    at = np.sort(r.integers(0, 86_400_000_000, n)) + micros(T0)
    history = pl.DataFrame(
        {"group": r.choice(["a", "b", "c"], n), "k": r.integers(0, 9, n), "x": r.normal(0, 1e5, n), "y": r.lognormal(0, 3, n)}
    ).with_columns(
        word=pl.lit("w"),
        **{ODD: pl.lit(True)},
        _time=pl.Series(at).cast(TIME),
        _known=pl.Series(at).cast(TIME),
        _row=pl.int_range(n).cast(pl.String),
    )
    spine = pl.DataFrame({"select": r.choice(["a", "b", "c"], 9000), "k": r.integers(0, 9, 9000), ODD: 1}).with_columns(
        _id=pl.int_range(9000).cast(pl.String), _time=pl.Series(r.integers(0, 86_400_000_000, 9000) + micros(T0)).cast(TIME)
    )
    made = []
    for threads in (1, 4):
        engine = Engine(threads=threads)
        rows = history.sample(fraction=1, shuffle=True, seed=threads).cast(EVENTS)
        query = sql(PLAN, asked=_span(spine))
        made.append(engine.sql(query, spine=_numbered(PLAN, spine.cast(ASKED), {}), **{table_name(PLAN, events.name): rows}))
        engine.close()
    assert made[0].equals(made[1])
    assert made[0]["spread"].std() > 0


def event(known: datetime, x: float, *, time: datetime = T0, row: str = "r") -> dict[str, Any]:
    return {"group": "a", "k": 1, "x": x, "y": x, "word": None, ODD: None, "_time": time, "_known": known, "_row": row}


@pytest.mark.parametrize("way", ["tiles", "pairs"])
def test_the_edges_are_where_the_definition_has_them(engine: Engine, way: Way) -> None:
    at = [T0, T0 + MICRO, T0 + timedelta(minutes=45), T0 + timedelta(minutes=45) + MICRO, T0 + timedelta(minutes=29), T0 - MICRO]
    spine = spine_of([{"select": "a", "k": 1, ODD: 0, "_time": moment} for moment in at])
    made = run(engine, [event(T0, 5.0)], spine, way)
    assert made["last_x"].to_list() == [5.0, 5.0, 5.0, None, 5.0, None]  # 45 minutes old counts, a microsecond more does not
    early = spine_of([{"select": "a", "k": 1, ODD: 0, "_time": T0 + timedelta(minutes=3)}])
    soon = run(engine, [event(T0 + timedelta(minutes=5), 5.0)], early, way, bounded=False)  # the same tile, but not known yet
    assert soon.row(0, named=True)["odd.events-1_count_by_select_30m"] == 0.0
    # known at T0: in the tile that ends there, so 30 minutes of it are over at T0 + 30 min (floor(t) - W < known)
    moments = [T0 + timedelta(minutes=30) - MICRO, T0 + timedelta(minutes=30), T0 + timedelta(minutes=20)]
    spine = spine_of([{"select": "a", "k": 1, ODD: 0, "_time": moment} for moment in moments])
    for known, want in ((T0, [1.0, 0.0, 1.0]), (T0 + MICRO, [1.0, 1.0, 1.0]), (T0 - MICRO, [1.0, 0.0, 1.0])):
        assert run(engine, [event(known, 5.0)], spine, way)["odd.events-1_count_by_select_30m"].to_list() == want


@pytest.mark.parametrize("way", ["tiles", "pairs"])
def test_of_rows_known_at_once_the_one_that_happened_last_is_the_newest(engine: Engine, way: Way) -> None:
    spine = spine_of([{"select": "a", "k": 1, ODD: 0, "_time": T0}])
    before = T0 - timedelta(hours=1)
    by_time = [event(T0, 1.0, time=T0, row="a"), event(T0, 2.0, time=before, row="z")]
    by_content = [event(T0, 3.0, row="a"), event(T0, 4.0, row="b"), event(before, 9.0, time=T0, row="z")]
    for history, want in ((by_time, 1.0), (by_content, 4.0)):
        for rows in (history, history[::-1]):
            assert run(engine, rows, spine, way)["last_x"].to_list() == [want]


# ------------------------------------------------------------------------------------------------------------ in the home


def rows_known(*minutes: float, x: float = 1.0, group: str = "a") -> pl.DataFrame:
    made = [
        {"group": group, "k": 1, "x": x + number, "y": 1.0, "word": "w", ODD: True, "_row": f"{minute}{number}"}
        | {"_time": T0 + timedelta(minutes=minute), "_known": T0 + timedelta(minutes=minute)}
        for number, minute in enumerate(minutes)
    ]
    return pl.DataFrame(made, schema=EVENTS)


def question(*minutes: float) -> pl.DataFrame:
    rows = [{"select": "a", "k": 1, ODD: 1, "_time": T0 + timedelta(minutes=minute)} for minute in minutes]
    return spine_of(rows)


def test_a_home_without_rows_gives_typed_nothing(home: Any) -> None:
    made = compute(home, SYSTEM, question(0))
    assert made["all"].to_list() == [0.0]
    assert made["spread"].to_list() == [None]
    assert made.schema["last_x"] == pl.Null()
    assert made.schema["select"] == pl.String()
    assert made["from"].to_list() == [3.0]
    assert made.schema["spread"] == pl.Float64()
    assert compute(home, SYSTEM, question(0).clear()).schema == made.schema


def test_the_home_gives_what_the_query_gives(home: Any, fill: Any, engine: Engine) -> None:
    fill("asked", question(0).drop("_id").with_columns(_known="_time", _row=pl.lit("r")))
    days = [rows_known(*(day * 1440 + minute for minute in range(0, 600, 7)), x=day / 7) for day in range(3)]
    for day in days:
        fill(events.name, day)
    history = pl.concat(days).to_dicts()
    for many, most in ((1, 1), (30, 2), (5000, 4)):
        spine = question(*(1440 + 0.3 * number for number in range(many)))
        made = compute(home, SYSTEM, spine)
        assert made.equals(run(engine, history, spine, "tiles"))
        assert made["all"].max() == most
    assert plan(SYSTEM, schemas(home, SYSTEM)).id == PLAN.id == plan(SYSTEM).id


def test_a_restatement_replaces_in_last_and_is_one_more_row_in_a_window(home: Any, fill: Any) -> None:
    fill(events.name, rows_known(1, x=5.0))
    restated = rows_known(1, x=7.0).with_columns(_known=pl.lit(T0 + timedelta(minutes=9), TIME), _row=pl.lit("new"))
    fill(events.name, restated)
    made = compute(home, SYSTEM, question(8, 9))
    assert made["last_x"].to_list() == [5.0, 7.0]
    assert made["odd.events-1_sum_x_by_select_30m"].to_list() == [5.0, 12.0]


def test_sums_that_would_not_be_exact_are_refused_by_name(home: Any, fill: Any) -> None:
    fill(events.name, rows_known(1, x=3e12))
    with pytest.raises(nr.NoriaError, match=r"too large for exact sums: .*sum_x.* \(largest value 3e\+12\)") as raised:
        compute(home, SYSTEM, question(8))
    assert "1e12" in raised.value.hint


def test_squares_that_would_not_be_exact_are_refused_by_name(home: Any, fill: Any) -> None:
    fill(events.name, rows_known(*([1.0] * 200), x=9e11))
    with pytest.raises(nr.NoriaError, match="std_x"):
        compute(home, SYSTEM, question(8))


def test_a_spine_that_lacks_a_column_or_a_time_is_told_so(home: Any) -> None:
    with pytest.raises(nr.NoriaError, match="no column select"):
        compute(home, SYSTEM, question(1).drop("select"))
    with pytest.raises(nr.NoriaError, match="1 nulls"):
        compute(home, SYSTEM, question(1).with_columns(_time=pl.lit(None, TIME)))


def test_only_files_that_can_matter_are_read(home: Any, fill: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(6):
        fill(events.name, rows_known(day * 1440 + 60))
    seen: list[int] = []
    real = home.engine.sql

    def counting(query: str, **tables: Any) -> pl.DataFrame:
        seen.extend(len(t.files) for t in tables.values() if not isinstance(t, pl.DataFrame))
        return real(query, **tables)

    monkeypatch.setattr(home.engine, "sql", counting)
    assert compute(home, SYSTEM, question(3 * 1440 + 70))["all"].to_list() == [1.0]
    assert seen == [1]
