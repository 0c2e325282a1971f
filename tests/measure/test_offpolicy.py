"""Another policy's value on closed rows: by pairing, by propensity, and when the log does not say."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from noria.core import NotEnoughData, Verdict
from noria.measure import Decision, other_policy, worth_of_acts

N = 4000
START, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)


def logged(rng, act_of, *, explore=0.2, label_of=None, hide=False):
    """Rows over 20 days whose acts are those of ``act_of(score)``, but for exploration; ``label_of(score, act)`` is the chance of the label."""
    score = rng.random(N)
    policy = act_of(score).astype(float)
    act = np.where(rng.random(N) < explore, rng.integers(0, 2, N), policy).astype(float)
    chance = np.where(act == policy, 1 - explore / 2, explore / 2)
    truth = score if label_of is None else label_of(score, act)
    label = (rng.random(N) < truth).astype(float)
    if hide:
        label = np.where(act == 1, label, np.nan)
    times = [START + k * timedelta(days=20) / N + timedelta(minutes=1) for k in range(N)]
    frame = pl.DataFrame(
        {
            "_id": [f"r{k}" for k in range(N)],
            "_time": times,
            "_score": score,
            "_act": act,
            "_act_propensity": chance,
            "_label": label,
        },
    )
    return frame.with_columns(pl.col("_label").fill_nan(None), pl.col("_time").dt.cast_time_unit("us"))


def inside(estimate, truth):
    return estimate.low <= truth <= estimate.high


def test_pairing_is_exact_and_the_propensities_agree(engine, declare):
    system = declare("case when act and label then 3 when act then -1 else 0 end")
    frame = logged(np.random.default_rng(0), lambda s: s > 0.5)
    other = (frame["_score"].to_numpy() > 0.25).astype(float)
    label, act = frame["_label"].to_numpy(), frame["_act"].to_numpy()
    worth = worth_of_acts(engine, system, Decision("expected", 0.0), frame["_score"].to_numpy(), frame)
    made = other_policy(engine, system, frame, other, worth=worth)
    by_hand = other * (4 * label - 1)
    assert made.paired.value == pytest.approx(by_hand.mean())
    assert made.on_policy.value == pytest.approx((act * (4 * label - 1)).mean())
    assert made.paired_gain.value == pytest.approx(made.paired.value - made.on_policy.value)
    assert (made.n, made.left_out, made.differs) == (N, 0, (act != other).mean())
    weight = (act == other) / frame["_act_propensity"].to_numpy()
    assert made.log.ips.value == pytest.approx((weight * act * (4 * label - 1)).mean())
    assert made.log.verdict is Verdict.PASS
    assert all(inside(one, made.paired.value) for one in (made.log.ips, made.log.snips, made.log.dr))
    width = [one.high - one.low for one in (made.log.dr, made.log.ips)]
    assert width[0] < 0.95 * width[1], "the model takes some of the noise away"


def test_where_acting_changes_the_label_only_the_propensities_say_it(engine, declare):
    """A call saves a customer who would leave; the true value of calling above 0.3 is an integral: that of (-0.4 s) to 0.3 and of (-0.2 - 0.1 s) from there."""
    system = declare("case when label then -0.4 else 0 end + case when act then -0.2 else 0 end", affected_by_action=True)
    frame = logged(np.random.default_rng(1), lambda s: s > 0.6, label_of=lambda s, a: np.where(a == 1, s / 4, s))
    other = (frame["_score"].to_numpy() > 0.3).astype(float)
    truth = -0.4 * 0.3**2 / 2 - 0.2 * 0.7 - 0.1 * (1 - 0.3**2) / 2
    made = other_policy(engine, system, frame, other)
    assert made.paired is made.paired_gain is None
    assert inside(made.log.ips, truth)
    assert inside(made.log.snips, truth)
    assert made.log.dr is None, "there was no model"
    wrong = worth_of_acts(engine, system, Decision("expected", 0.0), frame["_score"].to_numpy(), frame)
    assert inside(other_policy(engine, system, frame, other, worth=wrong).log.dr, truth)


def test_what_was_not_shown_has_no_label_and_is_worth_nothing(engine, declare):
    system = declare("case when act and label then 1 when act then -0.5 else 0 end", observed_when="act")
    seen = logged(np.random.default_rng(2), lambda s: s > 0.5)
    hidden = logged(np.random.default_rng(2), lambda s: s > 0.5, hide=True)
    assert hidden["_label"].null_count() > N / 4
    other = (seen["_score"].to_numpy() > 0.3).astype(float)
    made, whole = (other_policy(engine, system, frame, other) for frame in (hidden, seen))
    assert made.paired is None
    assert made.on_policy == whole.on_policy
    assert made.log == whole.log
    assert made.log.unknown == 0


def test_without_exploration_another_policy_cannot_be_told_from_the_log(engine, declare):
    frame = logged(np.random.default_rng(3), lambda s: s > 0.5, explore=0.0)
    score = frame["_score"].to_numpy()
    made = other_policy(engine, declare(), frame, (score > 0.4).astype(float))
    assert made.log.verdict is Verdict.NOT_ENOUGH_DATA
    assert made.log.ips.value is None
    assert made.log.checks[0].estimate.value == pytest.approx(((score > 0.4) & (score <= 0.5)).mean())
    assert made.paired.known, "pairing needs no chance"
    same = other_policy(engine, declare(), frame, (score > 0.5).astype(float))
    assert same.log.verdict is Verdict.PASS
    assert same.log.ips == same.on_policy == same.paired


def test_several_acts_and_amounts(engine, declare):
    frame = logged(np.random.default_rng(4), lambda s: s > 0.5, explore=0.0).with_columns(
        _class=pl.lit("lost"), _scores=pl.lit(None, dtype=pl.List(pl.Float64))
    )
    several = declare(
        "case when act = 'call' then 1 else 0 end", "largest expected value", "multiclass", ("none", "mail", "call")
    )
    made = other_policy(engine, several, frame, np.full(N, 2.0))
    assert made.log.verdict is Verdict.NOT_ENOUGH_DATA
    assert made.paired.value == 1.0
    amounts = declare("-abs(act - label)", "score", "regression")
    made = other_policy(engine, amounts, frame, frame["_label"].to_numpy())
    assert made.log is None
    assert made.paired.value == 0


def test_rows_that_nobody_or_a_person_decided_are_left_out(engine, declare):
    frame = logged(np.random.default_rng(5), lambda s: s > 0.5)
    part = frame.with_columns(_act=pl.when(pl.col("_time") > START + 10 * DAY).then("_act"))
    made = other_policy(engine, declare(), part, np.ones(N))
    assert made.left_out == part["_act"].null_count() > 0
    assert made.n == N - made.left_out
    with pytest.raises(NotEnoughData, match="no closed prediction has an act"):
        other_policy(engine, declare(), frame.with_columns(_act=pl.lit(None, dtype=pl.Float64)), np.ones(N))
