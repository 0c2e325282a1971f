"""Off-policy estimates: exact in a world that is written out in full, their intervals' coverage, their checks, and somebody else's code."""

from __future__ import annotations

import numpy as np
import pytest

from noria.core import Verdict
from noria.stats import effective_size, off_policy, support

CONTEXTS = np.array([0.4, 0.35, 0.25])
LOGGED = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
OTHER = np.array([[0.1, 0.1, 0.8], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
CLICK = np.array([[0.2, 0.5, 0.7], [0.1, 0.3, 0.9], [0.6, 0.4, 0.2]])
PAYS = np.array([[1.0, 2.0, -1.0], [3.0, 1.0, 1.0], [2.0, 2.0, 5.0]])
TRUE = float((CONTEXTS[:, None] * OTHER * CLICK * PAYS).sum())
WRONG = CLICK * PAYS * 0.5 + np.array([[0.3, -0.2, 0.5], [0.0, 0.4, -0.3], [0.1, 0.1, 0.1]])


def written_out():
    """Every (context, act, click) as often as its probability says, out of 200,000: the log is the distribution itself."""
    rows = []
    for x in range(3):
        for a in range(3):
            for click in (0, 1):
                chance = CONTEXTS[x] * LOGGED[x, a] * (CLICK[x, a] if click else 1 - CLICK[x, a])
                times = chance * 200_000
                assert abs(times - round(times)) < 1e-6
                rows += [(x, a, click)] * round(times)
    x, a, click = np.array(rows).T
    return x, a, click * PAYS[x, a]


def drawn(rng, n):
    x = rng.choice(3, n, p=CONTEXTS)
    a = (rng.random(n)[:, None] > LOGGED.cumsum(axis=1)[x]).sum(axis=1)
    return x, a, (rng.random(n) < CLICK[x, a]) * PAYS[x, a]


def estimated(x, a, r, blocks, *, guess=WRONG, logged=LOGGED, **more):
    return off_policy(
        r, OTHER[x, a], logged[x, a], blocks, predicted=guess[x, a], predicted_target=(OTHER * guess).sum(axis=1)[x], **more
    )


def test_on_the_whole_distribution_every_estimator_is_exact():
    x, a, r = written_out()
    made = estimated(x, a, r, np.arange(len(x)) % 50)
    assert made.ips.value == pytest.approx(TRUE, abs=1e-9)
    assert made.snips.value == pytest.approx(TRUE, abs=1e-9)
    assert made.dr.value == pytest.approx(TRUE, abs=1e-9), "a wrong model does no harm while the propensities are right"
    assert made.on_policy.value == pytest.approx((CONTEXTS[:, None] * LOGGED * CLICK * PAYS).sum())
    assert made.gain.value == pytest.approx(TRUE - made.on_policy.value)
    assert made.weight.value == pytest.approx(1)
    assert made.largest == 8.0
    second = (CONTEXTS[:, None] * OTHER**2 / LOGGED).sum()
    assert made.effective == pytest.approx(len(x) / second), "Kish's number, in closed form"


def test_a_right_model_mends_wrong_propensities():
    x, a, r = written_out()
    wrong = np.full((3, 3), 1 / 3)
    made = estimated(x, a, r, np.arange(len(x)) % 50, guess=CLICK * PAYS, logged=wrong)
    assert made.dr.value == pytest.approx(TRUE, abs=1e-9)
    assert abs(made.ips.value - TRUE) > 0.1
    assert abs(made.snips.value - TRUE) > 0.1


def test_the_error_of_inverse_propensity_in_closed_form():
    """The mean interval over many logs against the exact variance of w·r."""
    rng = np.random.default_rng(1)
    second = (CONTEXTS[:, None] * OTHER**2 / LOGGED * CLICK * PAYS**2).sum()
    error = np.sqrt((second - TRUE**2) / 3000)
    halves = []
    for _ in range(60):
        made = estimated(*drawn(rng, 3000), np.arange(3000) // 50).ips
        halves.append((made.high - made.low) / 2)
    assert np.mean(halves) == pytest.approx(2.0 * error, rel=0.08)


def test_intervals_cover_the_true_value():
    rng = np.random.default_rng(2)
    runs, hit = 500, {"ips": 0, "snips": 0, "dr": 0}
    values = {name: [] for name in hit}
    for _ in range(runs):
        made = estimated(*drawn(rng, 600), np.arange(600) // 30)
        for name in hit:
            one = getattr(made, name)
            hit[name] += one.low <= TRUE <= one.high
            values[name].append(one.value)
    assert all(0.925 <= count / runs <= 0.985 for count in hit.values()), hit
    assert np.mean(values["ips"]) == pytest.approx(TRUE, abs=4 * np.std(values["ips"]) / np.sqrt(runs))
    assert np.mean(values["dr"]) == pytest.approx(TRUE, abs=4 * np.std(values["dr"]) / np.sqrt(runs))


def test_a_good_model_makes_the_interval_narrower():
    log = drawn(np.random.default_rng(3), 3000)
    blocks = np.arange(3000) // 60
    good, bad = estimated(*log, blocks, guess=CLICK * PAYS), estimated(*log, blocks)
    width = {one: one.high - one.low for one in (good.dr, bad.dr, bad.ips)}
    assert width[good.dr] < 0.95 * min(width[bad.dr], width[bad.ips])


def test_the_logs_own_policy_is_worth_what_it_made():
    x, a, r = drawn(np.random.default_rng(4), 1000)
    made = off_policy(r, LOGGED[x, a], LOGGED[x, a], np.arange(1000) // 50)
    assert made.ips == made.snips == made.on_policy
    assert made.dr is None
    assert made.gain.value == 0
    assert made.effective == 1000
    assert made.verdict is Verdict.PASS


def test_clipping_is_counted_and_lowers_the_weights_only():
    x, a, r = drawn(np.random.default_rng(5), 2000)
    raw = OTHER[x, a] / LOGGED[x, a]
    made = estimated(x, a, r, np.arange(2000) // 50, clip=1.5)
    assert made.clipped == (raw > 1.5).mean() > 0
    assert made.ips.value == pytest.approx((np.minimum(raw, 1.5) * r).mean())
    assert made.largest == raw.max()
    assert made.weight.value == pytest.approx(raw.mean()), "the check looks at the weights as they were"
    assert made.effective == effective_size(np.minimum(raw, 1.5)) > effective_size(raw)


def test_rewards_that_cannot_be_known_do_no_harm_where_the_other_policy_never_goes():
    x, a, r = drawn(np.random.default_rng(6), 2000)
    hidden = np.where(OTHER[x, a] == 0, np.nan, r)
    blocks = np.arange(2000) // 50
    whole, part = estimated(x, a, r, blocks), estimated(x, a, hidden, blocks)
    assert (part.ips, part.snips, part.dr, part.n, part.unknown) == (whole.ips, whole.snips, whole.dr, 2000, 0)
    lost = hidden.copy()
    lost[np.flatnonzero(OTHER[x, a] > 0)[:7]] = np.nan
    assert estimated(x, a, lost, blocks).unknown == 7


def test_acts_without_a_chance_withdraw_the_estimate():
    x, a, r = drawn(np.random.default_rng(7), 500)
    logged = LOGGED.copy()
    logged[0] = [0.7, 0.3, 0.0]
    keep = ~((x == 0) & (a == 2))
    x, a, r = x[keep], a[keep], r[keep]
    check = support(OTHER[x], logged[x] > 0)
    made = off_policy(r, OTHER[x, a], logged[x, a], np.arange(len(x)) // 20, supported=check)
    assert check.estimate.value == pytest.approx(0.8 * (x == 0).mean())
    assert "[2]" in check.detail
    assert made.verdict is Verdict.NOT_ENOUGH_DATA
    assert made.ips.value is made.snips.value is made.gain.value is None
    assert made.on_policy.known, "what was done is known all the same"
    assert support(LOGGED[x], np.ones(3, bool)).verdict is Verdict.PASS
    assert support(np.empty((0, 3)), np.ones(3, bool)).verdict is Verdict.NOT_ENOUGH_DATA


def test_propensities_that_are_not_those_of_the_log_are_found():
    x, a, r = drawn(np.random.default_rng(8), 5000)
    told = np.array([[0.2, 0.3, 0.5], [0.4, 0.3, 0.3], [0.4, 0.4, 0.2]])
    made = off_policy(r, OTHER[x, a], told[x, a], np.arange(5000) // 100)
    assert made.verdict is Verdict.FAIL
    assert [check.name for check in made.checks if check.verdict is Verdict.FAIL] == ["mean weight"]


def test_a_few_heavy_rows_give_no_interval():
    target, propensity = np.zeros(1000), np.full(1000, 0.5)
    target[[3, 400, 800]] = 1.0
    made = off_policy(np.ones(1000), target, propensity, np.arange(1000) // 50)
    assert made.effective == pytest.approx(3)
    assert made.ips.value == pytest.approx(0.006)
    assert (made.ips.low, made.snips.low, made.verdict) == (None, None, Verdict.NOT_ENOUGH_DATA)


@pytest.mark.parametrize("chance", [0.0, -0.1, float("nan")])
def test_a_chance_of_nothing_is_refused(chance):
    with pytest.raises(ValueError, match="chance above 0"):
        off_policy(np.ones(2), np.ones(2), np.array([0.5, chance]), np.arange(2))


def test_no_rows():
    nothing = np.empty(0)
    made = off_policy(nothing, nothing, nothing, np.empty(0, np.int64))
    assert made.ips.value is made.snips.value is made.on_policy.value is None
    assert made.verdict is Verdict.NOT_ENOUGH_DATA
