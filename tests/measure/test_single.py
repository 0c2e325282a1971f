"""One row without the engine: the same act as ``measure.act`` gives for a frame of that row, bit for bit, and fast."""

import timeit

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.measure import Decision, act, single_act, worth_of_acts

MANY = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
SCORES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, float("nan"), 0.25, 1 / 3]))
ENGINE = duckdb.connect(":memory:")
CLASSES = ("lost", "kept", "new")


def of_frame(engine, system, decision, score, row):
    frame = pl.DataFrame({name: [one] for name, one in row.items()}) if row else pl.DataFrame({"_id": ["a"]})
    return act(engine, system, decision, np.array([score]), frame)[0]


def same(a, b):
    assert np.float64(a).tobytes() == np.float64(b).tobytes() or (np.isnan(a) and np.isnan(b)), (a, b)


def compiler(expression, types):
    """A compiler that is exact because it asks the engine: what is tested here is what becomes of its answers."""
    columns = ", ".join(f'?::{kind} as "{name}"' for name, kind in types.items())

    def made(row):
        given = [row.get(name) for name in types]
        return ENGINE.execute(f"select {expression} from (select {columns})", given).fetchone()[0]

    return made


@MANY
@given(score=SCORES, values=st.lists(NUMBERS, min_size=7, max_size=7))
def test_expected_value_of_act_label_and_outcomes(engine, declare, score, values):
    a, b, c, d, bound, *price = values
    sql = f"case when act and label then {a} + price when act then {b} when label then {c} - price else {d} end"
    system = declare(sql, outcomes=["price"])
    given = {"true": price[0], "false": price[1]}
    for decision in (Decision("expected", bound, outcomes={"price": given}), Decision("largest", outcomes={"price": price[0]})):
        same(single_act(system, decision)(score, {}), of_frame(engine, system, decision, score, {}))


@MANY
@given(
    score=st.lists(SCORES, min_size=3, max_size=3),
    values=st.lists(NUMBERS, min_size=4, max_size=4),
    kind=st.sampled_from(["largest", "expected"]),
)
def test_several_classes_and_acts(engine, declare, score, values, kind):
    a, b, c, d = values
    sql = f"case when act = 'visit' and label = 'lost' then {a} when act = 'call' and label <> 'new' then {b} when act = 'visit' then {c} when label = 'new' then {d} end"
    system = declare(sql, "largest expected value", "multiclass", ("none", "call", "visit"))
    decision = Decision(kind, 0.0, classes=CLASSES)
    same(single_act(system, decision)(score, {}), of_frame(engine, system, decision, score, {}))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@MANY
@given(score=SCORES, numbers=st.tuples(st.one_of(st.none(), NUMBERS), NUMBERS))
def test_columns_and_score_through_a_compiler(engine, declare, task, score, numbers):
    x, a = numbers
    hit = {"binary": "label", "multiclass": "label = 'kept'", "regression": "label > 0.5"}[task]
    policy = "largest expected value" if task == "multiclass" else None
    system = declare(f"case when act and {hit} then {a} * x when act then score - x else 0.1 end", policy, task)
    scores = [score, 0.5, 0.25] if task == "multiclass" else score
    decision = Decision("largest" if task == "multiclass" else "expected", 0.1, classes=CLASSES if task == "multiclass" else ())
    row = {"x": x}
    decide = single_act(system, decision, compile=compiler, types={"x": "DOUBLE"})
    frame = pl.DataFrame({"x": [x]}, schema={"x": pl.Float64})
    same(decide(scores, row), act(engine, system, decision, np.array([scores]), frame)[0])
    assert row == {"x": x}, "the caller's row is left as it was"


@MANY
@given(score=st.one_of(SCORES, st.floats()), number=NUMBERS)
def test_amounts_thresholds_and_people(engine, declare, score, number):
    regression = declare("-abs(act - label)", "score", "regression")
    for system, decision in (
        (regression, Decision("score")),
        (regression, Decision("quantile", quantile=0.8, offset=number)),
        (declare(), Decision("threshold", number / 1e3)),
        (declare(policy="human"), Decision("human")),
    ):
        same(single_act(system, decision)(score, {}), of_frame(engine, system, decision, score, {}))


def test_the_last_bit_decides_alike(engine, declare):
    """Scores next to the break-even, where the order of the additions shows: twenty tables, sixty-one neighbouring numbers each."""
    rng = np.random.default_rng(0)
    otherwise = 0
    for _ in range(20):
        a, b, c, d = np.round(rng.uniform(0.1, 9, 4), 2)
        sql = f"case when act and label then {a} when act then -{b} when label then -{c} else {d} end"
        middle = (b + d) / (a + b + c + d)
        scores = middle + np.arange(-30, 31) * np.spacing(middle)
        system = declare(sql)
        decide = single_act(system, Decision("expected", 0.0))
        alone = [decide(float(score), {}) for score in scores]
        assert alone == act(engine, system, Decision("expected", 0.0), scores, pl.DataFrame({"x": scores})).tolist()
        otherwise += int((((1 - scores) * (-b - d) + scores * (a + c) > 0) != alone).sum())
    assert otherwise, "rounding shows on these scores: a sum in another order acts otherwise on some"


def test_what_cannot_be_exact_is_left_to_the_engine(declare):
    reads_column = declare("case when act then x else 0 end")
    decision = Decision("expected", 0.0)
    assert single_act(reads_column, decision) is None
    assert single_act(reads_column, decision, compile=lambda expression, types: None) is None
    assert single_act(declare("case when act then score else 0 end"), decision) is None
    unknown = declare("case when act then price else 0 end", outcomes=["price"])
    assert single_act(unknown, decision, compile=compiler, types={"price": "DOUBLE"}) is None, "an outcome nobody stands in for"
    assert single_act(declare(task="multiclass"), Decision("threshold", 0.5)) is None


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_a_row_is_worth_the_same_however_many_are_asked(engine, declare, n):
    system = declare("case when act and label then 0.37 when act then -0.123 when label then 1e-3 else 0.7 end")
    score = np.random.default_rng(n).random(n)
    together = worth_of_acts(engine, system, Decision("expected", 0.0), score, pl.DataFrame({"x": score}))
    alone = [
        worth_of_acts(engine, system, Decision("expected", 0.0), score[i : i + 1], pl.DataFrame({"x": [0]}))[0] for i in range(n)
    ]
    assert together.tobytes() == np.array(alone).tobytes()


def test_it_costs_next_to_nothing(declare):
    """Well under two microseconds where it was written; ten times that here, because a busy machine is no news about the code."""
    decide = single_act(declare(), Decision("expected", 0.0))
    taken = min(timeit.repeat(lambda: decide(0.3, {}), number=2000, repeat=5)) / 2000
    assert taken < 20e-6
