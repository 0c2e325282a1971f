"""Expressions over single rows against the engine itself: random expressions, random rows, the same values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from noria.core import DataFault, from_micros
from noria.features import rowwise
from noria.features.rowwise import Rowwise, compiled
from noria.features.translate import Untranslatable
from noria.features.values import Inexact

TYPES = {
    "i": "INTEGER",
    "b": "BIGINT",
    "x": "DOUBLE",
    "y": "DOUBLE",
    "s": "VARCHAR",
    "u": "VARCHAR",
    "p": "BOOLEAN",
    "seen": "TIMESTAMP WITH TIME ZONE",
    "Til": "TIMESTAMP",
}


def sometimes_null(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.none())


times = st.integers(-(10**15), 2 * 10**15)
rows = st.fixed_dictionaries(
    {
        "i": sometimes_null(st.one_of(st.integers(-5, 5), st.integers(-(2**31), 2**31 - 1))),
        "b": sometimes_null(st.one_of(st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1))),
        "x": sometimes_null(st.one_of(st.sampled_from([0.0, 1.0, -1.5, 2.5]), st.floats(allow_nan=False))),
        "y": sometimes_null(st.floats(-1e6, 1e6)),
        "s": sometimes_null(st.one_of(st.sampled_from(["", "a", "B", "ß"]), st.text(max_size=4).filter(lambda t: "\0" not in t))),
        "u": sometimes_null(st.sampled_from(["a", "b", "A", "true"])),
        "p": sometimes_null(st.booleans()),
        "seen": sometimes_null(times),
        "Til": sometimes_null(times),
    }
)

# ------------------------------------------------------------------------------------------------- random expressions


def joined(left: st.SearchStrategy[str], operators: list[str], right: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Two expressions with an operator between them, sometimes without the parentheses that would say how they bind."""
    return st.builds(
        lambda a, o, b, p: f"({a} {o} {b})" if p else f"{a} {o} {b}", left, st.sampled_from(operators), right, st.booleans()
    )


def call(name: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda given: f"{name}({', '.join(given)})")


def expressions() -> dict[str, st.SearchStrategy[str]]:
    """Expressions by what they give."""
    whole, real, text, truth, time = (st.deferred(lambda kind=kind: made[kind]) for kind in ("i", "x", "s", "p", "seen"))
    numeric = st.one_of(whole, real, st.sampled_from(["0.5", "2.25", "-1.5"]))
    unit = st.sampled_from(["'hour'", "'day'", "'minute'", "'second'"])
    part = st.sampled_from(["hour", "minute", "second", "dayofweek", "isodow", "day", "month", "year", "dayofyear"])
    case = "case when {} then {} when {} then {} else {} end"
    cases = {
        kind: st.tuples(truth, some, truth, some, some).map(lambda given: case.format(*given))
        for kind, some in (("i", whole), ("x", numeric), ("s", text), ("p", truth))
    }
    compared = ["=", "<>", "<", "<=", ">", ">=", "!="]
    made = {
        "i": st.one_of(
            st.sampled_from(["i", "b", "i", "0", "1", "-2", "7", "60", "3000000000"]),
            joined(whole, ["+", "-", "*", "%", "//"], whole),
            call("abs", whole),
            call("coalesce", whole, whole),
            call("greatest", whole, whole),
            call("length", text),
            st.builds(lambda p, a: f"{p}({a})", part, time),
            st.builds(lambda p, a: f"date_part('{p}', {a})", part, time),
            st.builds(lambda u, a, b: f"date_diff({u}, {a}, {b})", unit, time, time),
            st.builds(lambda a, k: f"({a})::{k}", real, st.sampled_from(["bigint", "integer", "smallint"])),
            truth.map(lambda a: f"cast({a} as integer)"),
            cases["i"],
        ),
        "x": st.one_of(
            st.sampled_from(["x", "y", "x", "y", "1e3", "x * 0.1"]),
            joined(numeric, ["/"], numeric),
            joined(real, ["+", "-", "*"], numeric),
            *(call(name, real) for name in ("abs", "round", "floor", "ceil", "sqrt", "exp", "ln", "sin", "cos")),
            call("pow", real, numeric),
            call("least", real, numeric, numeric),
            call("coalesce", real, numeric),
            call("nullif", real, real),
            whole.map(lambda a: f"({a})::double"),
            time.map(lambda a: f"epoch({a})"),
            st.builds(lambda a, b: f"epoch({a} - {b})", st.just("seen"), st.just("seen - seen") | st.just("seen")),
            cases["x"],
        ),
        "s": st.one_of(
            st.sampled_from(["s", "u", "u", "'a'", "'it''s'", "''"]),
            joined(text, ["||"], text),
            call("lower", text),
            call("upper", text),
            call("coalesce", text, text),
            call("nullif", text, text),
            whole.map(lambda a: f"({a})::varchar"),
            truth.map(lambda a: f"cast(({a}) as text)"),
            cases["s"],
        ),
        "p": st.one_of(
            st.sampled_from(["p", "true", "p", "null::boolean"]),
            joined(numeric, compared, numeric),
            joined(text, compared, text),
            joined(time, compared, time),
            joined(truth, ["and", "or"], truth),
            truth.map(lambda a: f"not {a}"),
            st.one_of(numeric, text, truth, time).map(lambda a: f"{a} is null"),
            st.one_of(numeric, text).map(lambda a: f"({a}) is not null"),
            st.builds(lambda a, b, c: f"{a} between {b} and {c}", numeric, numeric, numeric),
            st.builds(lambda a, b, c: f"{a} in ({b}, {c}, null)", whole, whole, whole),
            st.builds(lambda a, b, c: f"{a} not in ({b}, {c})", text, text, text),
            cases["p"],
        ),
        "seen": st.one_of(
            st.sampled_from(["seen", "til", "seen", "timestamptz '2013-01-01 06:00:00+00'"]), call("coalesce", time, time)
        ),
    }
    return made


EXPRESSIONS = st.one_of(*expressions().values())


def oracle(connection: duckdb.DuckDBPyConnection, expression: str, some: list[Mapping[str, Any]]) -> list[Any]:
    """The engine's own answers, each row by itself; the error for those that have none."""
    columns = ", ".join(f'CAST(? AS {kind}) AS "{name}"' for name, kind in TYPES.items())
    nothing = [None] * len(TYPES)
    kind = str(connection.execute(f"SELECT typeof({expression}) FROM (SELECT {columns})", nothing).fetchall()[0][0])
    value = f"epoch_us({expression})" if kind.startswith("TIMESTAMP") else f"({expression})"
    value = f"cast({value} as double)" if kind.startswith("DECIMAL") else value
    found: list[Any] = []
    for row in some:
        given = [from_micros(row[n]) if n in ("seen", "Til") and row[n] is not None else row[n] for n in TYPES]
        given[-1] = None if given[-1] is None else given[-1].replace(tzinfo=None)
        try:
            found.append(connection.execute(f"SELECT {value} FROM (SELECT {columns})", given).fetchall()[0][0])
        except duckdb.Error as error:
            found.append(error)
    return found


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """An engine apart from those that are tested."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one == other or (one != one and other != other))  # noqa: PLR0124  # NaN


def test_translated_expressions_are_the_engines(engine: duckdb.DuckDBPyConnection) -> None:
    told = {"translated": 0, "left": 0, "values": 0, "refused": 0}

    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(EXPRESSIONS, st.lists(rows, min_size=8, max_size=8))
    def check(expression: str, some: list[Mapping[str, Any]]) -> None:
        try:
            run = compiled(expression, TYPES)
        except Untranslatable:
            raise AssertionError(expression) from None
        if run is None:
            told["left"] += 1
            return
        told["translated"] += 1
        for row, want in zip(some, oracle(engine, expression, some), strict=True):
            try:
                got = run(row)
            except Inexact:
                told["refused"] += 1
                continue
            told["values"] += got is not None
            assert same(got, want), f"{expression} over {row}: {got!r}, and the engine says {want!r}"

    check()
    assert told["translated"] > 60, told
    assert told["values"] > 3 * told["translated"], told


@pytest.mark.parametrize(
    "expression",
    [
        "x * 60 + y / 3",
        "case when p and x > 15 then 60 when p then -15 else 0 end",
        "hour(seen) * 60 + minute(seen)",
        "upper(s) || '-' || coalesce(u, 'none')",
        "epoch(seen - timestamptz '2013-01-01 00:00:00+00') / 86400",
        "isodow(seen) in (6, 7)",
        "date_diff('day', til, seen)",
        "greatest(x, 0.0) > least(y, 1)",
        "sin(2 * x) + cos(x / 7)",
        "b is not null and not p",
    ],
)
def test_what_people_write_is_translated(expression: str) -> None:
    assert compiled(expression, TYPES) is not None


@pytest.mark.parametrize(
    "expression",
    ["regexp_replace(s, 'a', '')", "i * 0.1", "strftime(seen, '%Y')", "x::varchar", "[i]", "cast(s as double)", "t.i"],
)
def test_what_python_cannot_say_exactly_is_left_to_the_engine(expression: str) -> None:
    assert compiled(expression, TYPES) is None


def test_a_value_out_of_range_is_left_to_the_engine() -> None:
    run = compiled("i + i", TYPES)
    assert run is not None
    assert run({"i": 2**30 - 1}) == 2**31 - 2
    with pytest.raises(Inexact):
        run({"i": 2**30})
    ask = Rowwise([("twice", "i + i"), ("cased", "lower(s)")], TYPES)
    assert ask.slow == ()
    with pytest.raises(DataFault, match="expression failed"):
        ask({"i": 2**30, "s": "A"})
    assert ask({"i": 1, "s": "ÄB"}) == (2, "äb")
    assert ask.many([{"i": 1, "s": "ÄB"}, {"i": 4, "s": None}]) == [(2, "äb"), (8, None)]


@pytest.fixture
def mixed() -> Iterator[Rowwise]:
    pairs = [("fast", "x + 1"), ("slow", "strftime(seen, '%H')"), ("dec", "i * 0.1"), ("when", "seen"), ("case", '"Til" < seen')]
    ask = Rowwise(pairs, TYPES)
    yield ask
    ask.close()


def test_the_rest_is_asked_of_the_engine_for_one_row_and_for_many(mixed: Rowwise) -> None:
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    row = {"x": 1, "seen": "2013-01-01T12:00:00Z", "i": 3, "Til": noon}
    want = (2.0, "12", pytest.approx(0.3), 1_357_041_600_000_000, False)
    assert mixed.slow == ("slow", "dec")
    assert mixed(row) == want
    others = [{"x": None}, {**row, "seen": noon, "x": math.inf}, row]
    assert mixed.many(others) == [(None,) * 5, (math.inf, *want[1:]), want]
    assert mixed.many([]) == []
    with pytest.raises(DataFault, match="times"):
        mixed({"seen": "noon"})


def test_expressions_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(DataFault, match="wrong: nothing"):
        Rowwise([("wrong", "nothing + 1")], TYPES)
    with pytest.raises(DataFault, match="type"):
        Rowwise([("wrong", "a")], {"a": "NO SUCH TYPE"})


def test_the_engine_reaches_nothing_outside() -> None:
    with pytest.raises(DataFault):
        Rowwise([("read", "(select count(*) from read_csv('/etc/hostname'))")], TYPES)


def test_a_translation_that_differs_on_its_probes_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    rowwise._compiled.cache_clear()
    monkeypatch.setattr(rowwise.Translator, "node", lambda self, tree: rowwise_node())
    assert compiled("x + y", TYPES) is None
    rowwise._compiled.cache_clear()


def rowwise_node() -> Any:
    from noria.features.translate import Node

    return Node("number", lambda row: 1.0)
