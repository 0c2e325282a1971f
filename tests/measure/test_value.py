"""Values of decisions: the constant table, the engine and a Python definition agree; policies and bounds by brute force."""

import itertools

import numpy as np
import polars as pl
import pytest

from noria.core import NoriaError
from noria.measure import bounds, columns_read, expected, policies, seen, value, without_label
from noria.system import Value

RANDOM = np.random.default_rng(0)
N = 200
SCORE, LABEL = RANDOM.random(N), (RANDOM.random(N) < 0.4).astype(float)
ACT = (RANDOM.random(N) < 0.5).astype(float)
FRAME = pl.DataFrame({"price": RANDOM.random(N) * 10, "kind": RANDOM.choice(["a", "b"], N)})
CONSTANT = "case when act and label then 60 when act then -15 when label then -20 else 0 end"


def by_hand(act, label):
    return 60 if act and label else -15 if act else -20 if label else 0


def test_constants_through_the_table_and_through_the_engine(engine, declare):
    wanted = [by_hand(a, y) for a, y in zip(ACT, LABEL, strict=True)]
    assert value(engine, declare(CONSTANT), FRAME, ACT, LABEL).tolist() == wanted
    in_engine = declare(CONSTANT + " + 0 * price")
    assert value(engine, in_engine, FRAME, ACT, LABEL) == pytest.approx(wanted)


def test_columns_score_and_act_by_row(engine, declare):
    system = declare("case when act then (case when label then price else -score end) when kind = 'a' then -1 else 0 end")
    made = value(engine, system, FRAME, ACT, LABEL, SCORE)
    rows = zip(ACT, LABEL, FRAME["price"], SCORE, FRAME["kind"], strict=True)
    wanted = [(p if y else -s) if a else (-1 if k == "a" else 0) for a, y, p, s, k in rows]
    assert made == pytest.approx(wanted)
    assert columns_read(system.objective.value.sql) == ("kind", "price")


@pytest.mark.parametrize("sql", [CONSTANT, CONSTANT + " + 0 * price"])
def test_a_missing_act_or_label_has_no_value(engine, declare, sql):
    act, label = ACT.copy(), LABEL.copy()
    act[:3], label[2:5] = np.nan, np.nan
    made = value(engine, declare(sql), FRAME, act, label)
    assert np.isnan(made[:5]).all()
    assert np.isfinite(made[5:]).all()


def test_a_column_that_is_not_there_is_named(engine, declare):
    with pytest.raises(NoriaError, match="paid"):
        value(engine, declare("case when act then paid else 0 end"), FRAME, ACT, LABEL)


def test_several_classes_and_acts(engine, declare):
    classes, acts = ("cat", "dog", "emu"), ("keep", "sell", "wait")
    sql = "case when act = 'sell' and label = 'dog' then 5 when act = 'sell' then -2 when act = 'wait' then 0.5 else 0 end"
    worth = {("sell", "dog"): 5, ("sell", "cat"): -2, ("sell", "emu"): -2}
    system = declare(sql, "largest expected value", "multiclass", acts)
    names = RANDOM.choice(classes, N).astype(object)
    names[0] = None
    act = RANDOM.integers(0, 3, N).astype(float)
    made = value(engine, system, FRAME, act, names)
    wanted = [worth.get((acts[int(a)], y), 0.5 if acts[int(a)] == "wait" else 0) for a, y in zip(act, names, strict=True)]
    assert np.isnan(made[0])
    assert made[1:] == pytest.approx(wanted[1:])
    chances = RANDOM.dirichlet(np.ones(3), N)
    hoped = expected(engine, system, FRAME, chances, classes=classes)
    assert hoped[:, 1] == pytest.approx(chances[:, 1] * 5 - 2 * (chances[:, 0] + chances[:, 2]))
    assert (hoped[:, 0] == 0).all()
    assert hoped[:, 2] == pytest.approx(np.full(N, 0.5))
    by_row = declare(sql + " + 0 * price", "largest expected value", "multiclass", acts)
    assert expected(engine, by_row, FRAME, chances, classes=classes) == pytest.approx(hoped)
    with pytest.raises(ValueError, match="classes="):
        expected(engine, system, FRAME, chances)


def test_expected_value_is_the_mean_over_drawn_labels(engine, declare):
    system = declare("case when act and label then price when act then -2 when label then -1 else 0 end")
    hoped = expected(engine, system, FRAME, SCORE)
    draws = [(np.random.default_rng(k).random(N) < SCORE).astype(float) for k in range(100)]
    for act in (0, 1):
        mean = np.mean([value(engine, system, FRAME, np.full(N, float(act)), y) for y in draws], axis=0)
        assert mean == pytest.approx(hoped[:, act], abs=2.5)
        assert abs((mean - hoped[:, act]).mean()) < 0.1


def test_amounts_are_numbers(engine, declare):
    system = declare("least(act, label) * 2 - act", "quantile 0.8", "regression")
    amounts, demand = RANDOM.random(N) * 5, RANDOM.random(N) * 5
    assert value(engine, system, FRAME, amounts, demand) == pytest.approx(np.minimum(amounts, demand) * 2 - amounts)
    made = policies(engine, system, FRAME, demand)
    assert made["perfect"] == pytest.approx(demand)
    assert (made["do nothing"] == 0).all()
    quantile = np.quantile(demand, 0.8)
    assert made["always act"] == pytest.approx(np.minimum(quantile, demand) * 2 - quantile)


def test_policies_bound_every_policy(engine, declare):
    system = declare(CONSTANT)
    made = policies(engine, system, FRAME, LABEL)
    assert made["do nothing"].tolist() == [by_hand(0, y) for y in LABEL]
    assert made["always act"].tolist() == [by_hand(1, y) for y in LABEL]
    assert (made["perfect"] >= value(engine, system, FRAME, ACT, LABEL)).all()
    assert made["perfect"].tolist() == [max(by_hand(0, y), by_hand(1, y)) for y in LABEL]


def test_an_empty_frame(engine, declare):
    none = np.array([])
    assert len(value(engine, declare(CONSTANT), FRAME.head(0), none, none)) == 0
    assert len(value(engine, declare("case when act then price else 0 end"), FRAME.head(0), none, none)) == 0
    assert expected(engine, declare("case when act then price else 0 end"), FRAME.head(0), none).shape == (0, 2)


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        (CONSTANT, (-20, 60)),
        ("case when act then 3 end", (3, 3)),
        ("if(act, 5, -(2 + 3))", (-5, 5)),
        ("case when act then 2 * (case when label then 10 else -1 end) - 1 else 0.5 end", (-3, 19)),
        ("case when label then 1 else -4 end / 2", (-2, 0.5)),
        ("coalesce(case when act then 7 end, -7)", (-7, 7)),
        ("case when act then price else 0 end", (None, None)),
        ("least(price, 10)", (None, 10)),
        ("least(greatest(price, -2), 10)", (-2, 10)),
        ("price", (None, None)),
        ("act::int * 5", (None, None)),
        ("1 / case when act then 1 else -1 end", (None, None)),
    ],
)
def test_bounds(sql, wanted):
    assert bounds(Value(sql)) == wanted


def test_bounds_hold_and_are_reached():
    """Every combination of act and label lies within the derived bounds, and both ends occur."""
    seen = [by_hand(a, y) for a, y in itertools.product((0, 1), repeat=2)]
    assert bounds(Value(CONSTANT)) == (min(seen), max(seen))
    assert bounds(Value("price", low=0, high=3)) == (0, 3)


# ------------------------------------------------------------------------------------------------------ labels not to be seen


def test_a_value_that_no_label_changes_is_known_without_one(engine, declare):
    nothing = np.array([0.0, 1.0, np.nan, 0.0])
    frame = pl.DataFrame({"price": [1.0, 2.0, 3.0, None]})
    made = without_label(
        engine, declare("case when act and label then price when act then -1 else 0.5 * price end"), frame, nothing
    )
    assert made[0] == 0.5
    assert np.isnan(made[1:]).all()  # acting depends on the label, no act has no value, no price neither
    harm = without_label(engine, declare("case when label then 3 when act then -1 else 0 end"), frame, nothing)
    assert np.isnan(harm).all()  # a NULL in place of the label would have said 0


@pytest.mark.parametrize(
    ("sql", "task", "known"),
    [
        ("case when act = 'sell' and label = 'dog' then 5 when act = 'wait' then 2 else 0 end", "multiclass", [0.0, np.nan, 2.0]),
        ("case when act then least(label, 3) else 1 end", "regression", [1.0, np.nan, np.nan]),
    ],
)
def test_the_same_for_classes_and_numbers(engine, declare, sql, task, known):
    acts = ("keep", "sell", "wait") if task == "multiclass" else (False, True)
    act = np.array([0.0, 1.0, 2.0]) if task == "multiclass" else np.array([0.0, 1.0, 1.0])
    system = declare(sql, "largest expected value" if task == "multiclass" else "act when score > 1", task, acts)
    frame = pl.DataFrame({"_class": ["dog", "cat", None]})
    assert without_label(engine, system, frame, act) == pytest.approx(np.array(known), nan_ok=True)


def test_what_is_seen_is_as_declared(engine, declare):
    from dataclasses import replace

    system = declare(CONSTANT)
    act = np.array([0.0, 1.0, np.nan])
    frame = pl.DataFrame({"slot": ["top", "side", "top"]})
    assert seen(engine, system, frame, act).all()
    shown = replace(system, label=replace(system.label, observed_when="act and slot = 'top'"))
    assert seen(engine, shown, frame, np.array([1.0, 1.0, np.nan])).tolist() == [True, False, False]
    assert seen(engine, replace(system, label=replace(system.label, observed_when="act")), frame, act).tolist() == [
        False,
        True,
        False,
    ]
