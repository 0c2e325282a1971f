"""Policies: parsed, chosen on the validation part, applied; the best threshold against trying every one."""

import importlib.util
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from noria.measure import Decision, act, choose, outcome_means, parse_policy, value, worth_of_acts

ROOT = Path(__file__).resolve().parents[2]

RANDOM = np.random.default_rng(0)
N = 500
SCORE = RANDOM.random(N)
LABEL = (RANDOM.random(N) < SCORE).astype(float)
FRAME = pl.DataFrame({"price": RANDOM.random(N) * 4})


@pytest.mark.parametrize(
    ("text", "kind", "bound", "quantile"),
    [
        ("act when expected value > 0", "expected", 0, None),
        ("act  when expected value > -2.5", "expected", -2.5, None),
        ("act when score > 0.3", "threshold", 0.3, None),
        ("act when score > best", "threshold", None, None),
        ("largest expected value", "largest", None, None),
        ("score", "score", None, None),
        ("quantile 0.8", "quantile", None, 0.8),
        ("human", "human", None, None),
    ],
)
def test_every_policy_of_the_declaration_is_read(text, kind, bound, quantile):
    policy = parse_policy(text)
    assert (policy.kind, policy.bound, policy.quantile) == (kind, bound, quantile)


@pytest.mark.parametrize(
    "text", ["", "act", "act when score > high", "quantile 1.5", "quantile", "expected value > 0", "act when score >"]
)
def test_anything_else_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match="polic"):
        parse_policy(text)


def test_expected_value_acts_exactly_where_it_pays(engine, declare):
    system = declare("case when act and label then 3 when act then -1 else 0 end")
    decision = choose(engine, system, SCORE, LABEL, FRAME)
    assert act(engine, system, decision, SCORE, FRAME).tolist() == (SCORE * 3 - (1 - SCORE) > 0).astype(float).tolist()


def test_a_price_known_only_later_is_taken_at_its_mean_given_the_label(engine, declare):
    system = declare("case when act and label then 3 when act then -price else 0 end", outcomes=["price"])
    decision = choose(engine, system, SCORE, LABEL, FRAME)
    price = FRAME["price"].to_numpy()
    given = {"true": price[LABEL == 1].mean(), "false": price[LABEL == 0].mean()}
    assert decision.outcomes == {"price": pytest.approx(given)}
    made = act(engine, system, decision, SCORE, FRAME.select(other=pl.col("price") * 0))
    assert made.tolist() == (SCORE * 3 - (1 - SCORE) * given["false"] > 0).astype(float).tolist()


def test_clicks_pay_the_price_of_a_click_and_not_the_mean_over_all_that_was_shown(engine):
    """By hand: of ten shown, two were clicked and paid 0.02 and 0.04. Showing is worth p · 0.03 - (1 - p) · 0.002, above 0 from p = 1/16 on."""
    spec = importlib.util.spec_from_file_location("clicks", ROOT / "tests" / "declarations" / "clicks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    system = module.system
    label = np.array([1.0, 1.0] + [0.0] * 8 + [np.nan] * 2)  # the last two were not shown: no label, and they do not count
    frame = pl.DataFrame({"price": [0.02, 0.04] + [0.0] * 10})
    decision = choose(engine, system, np.full(12, 0.2), label, frame)
    assert decision.outcomes == {"price": {"false": 0.0, "true": pytest.approx(0.03)}}
    score = np.array([0.0624, 0.0626, 0.2, np.nan])
    worth = worth_of_acts(engine, system, decision, score, pl.DataFrame({"other": score}))
    assert worth[:3, 1] == pytest.approx(score[:3] * 0.03 - (1 - score[:3]) * 0.002)
    assert act(engine, system, decision, score, pl.DataFrame({"other": score})).tolist()[:3] == [0, 1, 1]
    one_mean = Decision(
        "expected", 0.0, outcomes={"price": 0.005}
    )  # what a mean over all shown made of it: never worth showing below 2/7
    assert act(engine, system, one_mean, score, pl.DataFrame({"other": score})).tolist()[:3] == [0, 0, 0]


def test_a_label_without_rows_gets_the_mean_over_all(engine, declare):
    system = declare("case when act and label then price when act then -1 else 0 end", outcomes=["price"])
    frame = pl.DataFrame({"price": [1.0, 2.0, None, 6.0]})
    assert outcome_means(system, frame, np.zeros(4)) == {"price": {"false": 3.0, "true": 3.0}}
    assert outcome_means(system, frame, np.full(4, np.nan)) == {"price": {"false": 0.0, "true": 0.0}}
    weighted = outcome_means(system, frame, np.zeros(4), weights=np.array([1.0, 0.0, 1.0, 4.0]))
    assert weighted["price"]["false"] == pytest.approx((1 + 4 * 6) / 5)


def test_outcomes_by_class_and_one_mean_for_a_regression(engine, declare):
    sql = "case when act = 'call' and label = 'lost' then price when act = 'call' then -1 else 0 end"
    system = declare(sql, "largest expected value", "multiclass", ("none", "call"), outcomes=["price"])
    frame = pl.DataFrame({"price": [1, 3, 5, 7]})
    names = np.array(["lost", "lost", "kept", None], dtype=object)
    made = outcome_means(system, frame, names, classes=("kept", "lost", "new"))
    assert made == {"price": {"kept": 5.0, "lost": 2.0, "new": 3.0}}
    decision = choose(engine, system, np.full((4, 2), 0.5), names, frame, classes=("kept", "lost"))
    chances = np.array([[0.66, 0.34], [0.67, 0.33], [0.6, 0.4]])
    assert act(engine, system, decision, chances, frame[:3]).tolist() == [1, 0, 1]  # 2 p > 1 - p from p = 1/3 on
    number = declare("price * least(act, label)", "score", "regression", outcomes=["price"])
    assert outcome_means(number, frame, np.arange(4.0)) == {"price": 4.0}


def test_a_bundle_with_one_number_for_an_outcome_is_still_read(engine, declare):
    system = declare("case when act and label then 3 when act then -price else 0 end", outcomes=["price"])
    old = msgspec.convert({"kind": "expected", "threshold": 0.0, "outcomes": {"price": 1.5}}, Decision)
    assert act(engine, system, old, SCORE, FRAME).tolist() == (SCORE * 3 - (1 - SCORE) * 1.5 > 0).astype(float).tolist()


def test_what_an_outcome_turned_out_to_be_does_not_decide(engine, declare):
    system = declare("case when act and label then 3 when act then -price else 0 end", outcomes=["price"])
    decision = choose(engine, system, SCORE, LABEL, FRAME)
    closed = FRAME.with_columns(price=pl.col("price") * 100)
    asked = FRAME.select(other="price")
    assert act(engine, system, decision, SCORE, closed).tolist() == act(engine, system, decision, SCORE, asked).tolist()


def test_the_best_threshold_against_trying_every_one(engine, declare):
    system = declare("case when act and label then 3 when act then -2 else 0 end", "act when score > best")
    for few in (np.round(SCORE, 1), SCORE[:150]):
        label, frame = LABEL[: len(few)], FRAME[: len(few)]
        decision = choose(engine, system, few, label, frame)

        def total(cut, few=few, label=label, frame=frame):
            return value(engine, system, frame, (few > cut).astype(float), label).sum()

        best = max(total(cut) for cut in [-1.0, *few.tolist(), 1.0])
        assert total(decision.threshold) == pytest.approx(best)
        assert act(engine, system, decision, few, frame).tolist() == (few > decision.threshold).astype(float).tolist()


def test_the_best_threshold_may_be_always_or_never(engine, declare):
    gains = declare("case when act then 1 else 0 end", "act when score > best")
    loses = declare("case when act then -1 else 0 end", "act when score > best")
    always, never = (choose(engine, system, SCORE, LABEL, FRAME) for system in (gains, loses))
    assert act(engine, gains, always, np.array([0.0, 1.0]), FRAME[:2]).tolist() == [1, 1]
    assert act(engine, loses, never, np.array([0.0, 1.0]), FRAME[:2]).tolist() == [0, 0]
    empty = choose(engine, gains, SCORE[:0], LABEL[:0], FRAME[:0])
    assert act(engine, gains, empty, np.array([0.5]), FRAME[:1]).tolist() == [0]


def test_rows_without_a_label_do_not_choose_the_threshold(engine, declare):
    system = declare("case when act and label then 3 when act then -2 else 0 end", "act when score > best")
    label = LABEL.copy()
    label[::2] = np.nan
    kept = choose(engine, system, SCORE[1::2], LABEL[1::2], FRAME[1::2])
    assert choose(engine, system, SCORE, label, FRAME).threshold == kept.threshold


def test_a_quantile_is_exceeded_as_often_as_it_says(engine, declare):
    system = declare("least(act, label) * 2 - act", "quantile 0.8", "regression")
    truth = RANDOM.standard_normal(4000) * 2 + 10
    guess = np.full(4000, 10.0)
    frame = pl.DataFrame({"x": guess})
    decision = choose(engine, system, guess[:2000], truth[:2000], frame[:2000])
    ordered = act(engine, system, decision, guess[2000:], frame[2000:])
    assert (truth[2000:] <= ordered).mean() == pytest.approx(0.8, abs=0.03)


def test_score_and_human(engine, declare):
    number = declare("-abs(act - label)", "score", "regression")
    assert act(engine, number, choose(engine, number, SCORE, LABEL, FRAME), SCORE, FRAME).tolist() == SCORE.tolist()
    person = declare(policy="human")
    assert np.isnan(act(engine, person, choose(engine, person, SCORE, LABEL, FRAME), SCORE, FRAME)).all()


def test_no_score_no_act(engine, declare):
    scores = np.array([0.9, np.nan])
    for policy in ("act when expected value > 0", "act when score > 0.5"):
        system = declare(policy=policy)
        made = act(engine, system, choose(engine, system, SCORE, LABEL, FRAME), scores, FRAME[:2])
        assert made[0] == 1
        assert np.isnan(made[1])


def test_largest_expected_value_picks_the_best_act(engine, declare):
    acts, classes = ("none", "call", "visit"), ("lost", "kept")
    sql = "case when act = 'visit' and label = 'lost' then 10 when act = 'call' and label = 'lost' then 6 when act = 'visit' then -5 when act = 'call' then -1 else 0 end"
    system = declare(sql, "largest expected value", "multiclass", acts)
    p = RANDOM.random(300)
    chances = np.column_stack([p, 1 - p])
    names = np.where(RANDOM.random(300) < p, "lost", "kept").astype(object)
    decision = choose(engine, system, chances, names, FRAME[:300], classes=classes)
    wanted = np.argmax(np.column_stack([np.zeros(300), 6 * p - (1 - p), 10 * p - 5 * (1 - p)]), axis=1)
    assert act(engine, system, decision, chances, FRAME[:300]).tolist() == wanted.tolist()


def test_a_decision_survives_json():
    given = {"price": 2.0, "cost": {"true": 1.0, "false": 0.1}}
    decision = Decision("quantile", quantile=0.8, offset=1.25, outcomes=given)
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision
    assert msgspec.convert(msgspec.to_builtins(decision), Decision) == decision
