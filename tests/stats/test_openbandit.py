"""Off-policy estimates on real logs: what one policy's log says of the other, beside what the other made, and beside the estimators of ``obp``.

Two policies showed the same shop's items in the same week, so the truth is known but for its own noise: at 4 clicks in 1,000 rows and 10,000
rows a policy, about 40 clicks. What was found is written down in ``FOUND``: these intervals contain what the other policy made, and most are
as wide as the click rate itself, so nothing could be decided by them. The chances of Thompson sampling are those of the week's beginning.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from noria.core import Verdict
from noria.stats import off_policy

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "openbandit"
CAMPAIGNS = ("all", "men", "women")


def table(name):
    path = EXAMPLE / "data" / f"{name}.parquet"
    if not path.exists():
        pytest.fail(f"{path.name} is not there: run `make data`")
    return pl.read_parquet(path)


class Log:
    """One policy's rows of a campaign, with the other's chance of every item at every place, and a model of clicks from other days."""

    def __init__(self, campaign, policy):
        rows = table("log").filter(campaign=campaign, policy=policy)
        self.item, self.place = rows["item"].to_numpy(), rows["place"].to_numpy() - 1
        self.click, self.propensity = rows["click"].to_numpy().astype(float), rows["propensity"].to_numpy()
        self.hour = rows["at"].dt.epoch("s").to_numpy() // 3600
        many = table("policy").filter(campaign=campaign).sort("item", "place")
        thompson = many["chance"].to_numpy().reshape(-1, 3)
        self.chances = thompson if policy == "random" else np.full(thompson.shape, 1 / len(thompson))
        self.target = self.chances[self.item, self.place]
        self.guess = self._guess(rows["at"].dt.ordinal_day().to_numpy() % 2)

    def _guess(self, half):
        """(rows, items, places): click rates of the other half of the days, drawn towards their mean as by 200 rows."""
        tables = []
        for other in (half == 1, half == 0):
            shown, clicked = np.zeros(self.chances.shape), np.zeros(self.chances.shape)
            np.add.at(shown, (self.item[other], self.place[other]), 1)
            np.add.at(clicked, (self.item[other], self.place[other]), self.click[other])
            tables.append((clicked + 200 * self.click[other].mean()) / (shown + 200))
        return np.stack(tables)[half]

    def estimate(self, **more):
        rows = np.arange(len(self.item))
        return off_policy(
            self.click,
            self.target,
            self.propensity,
            self.hour,
            predicted=self.guess[rows, self.item, self.place],
            predicted_target=(self.guess * self.chances).sum(axis=1)[rows, self.place],
            **more,
        )


@pytest.fixture(scope="module")
def obp():
    """The estimators of the package itself, out of its wheel. They ask for torch only to tell its tensors from arrays."""
    spec = importlib.util.spec_from_file_location("openbandit_fetch", EXAMPLE / "fetch.py")
    fetch = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(fetch)
    sys.path[:] = path
    before = dict(sys.modules)
    torch = types.ModuleType("torch")
    torch.Tensor = type("Tensor", (), {})
    sys.modules["torch"] = torch
    for name in ("obp", "obp.ope"):
        package = types.ModuleType(name)
        package.__path__ = [f"{fetch.wheel()}/{name.replace('.', '/')}"]
        sys.modules[name] = package
    yield importlib.import_module("obp.ope.estimators")
    for name in set(sys.modules) - set(before):
        if name == "torch" or name.partition(".")[0] == "obp":
            del sys.modules[name]


@pytest.mark.parametrize("campaign", CAMPAIGNS)
@pytest.mark.parametrize("policy", ["random", "bts"])
def test_the_values_are_those_of_obp(obp, campaign, policy):
    log = Log(campaign, policy)
    given = {
        "reward": log.click,
        "action": log.item,
        "position": log.place,
        "pscore": log.propensity,
        "action_dist": np.broadcast_to(log.chances, (len(log.item), *log.chances.shape)),
    }
    made = log.estimate(least=2)  # so that a value is shown whatever carries it
    assert made.ips.value == pytest.approx(obp.InverseProbabilityWeighting().estimate_policy_value(**given), rel=1e-10)
    snips = obp.SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**given)
    assert made.snips.value == pytest.approx(snips, rel=1e-10)
    dr = obp.DoublyRobust().estimate_policy_value(**given, estimated_rewards_by_reg_model=log.guess)
    assert made.dr.value == pytest.approx(dr, rel=1e-10)


def test_the_published_figure():
    """The package's own front page finds the Thompson sampling 1.198126 times as good as the random policy in campaign ``all``, by drawing lists too."""
    log = Log("all", "random")
    assert log.estimate().ips.value / log.click.mean() == pytest.approx(1.198126, rel=0.015)


def apart(estimate, truth):
    """The distance from the other log's own mean, in half widths of both intervals together."""
    halves = [(one.high - one.low) / 2 for one in (estimate, truth)]
    return abs(estimate.value - truth.value) / np.hypot(*halves)


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_from_the_random_log_what_thompson_sampling_made(campaign):
    made, truth = Log(campaign, "random").estimate(), Log(campaign, "bts").estimate().on_policy
    assert made.verdict is Verdict.PASS
    assert all(apart(one, truth) < 1 for one in (made.ips, made.snips, made.dr))
    value, low, high, effective, true = FOUND[campaign, "random"]
    assert (made.dr.value, made.dr.low, made.dr.high) == pytest.approx((value, low, high), abs=1e-4)
    assert made.effective == pytest.approx(effective, rel=0.01)
    assert truth.value == pytest.approx(true)


@pytest.mark.parametrize("campaign", ["all", "men"])
def test_from_the_log_of_thompson_sampling_what_chance_made(campaign):
    made, truth = Log(campaign, "bts").estimate(), Log(campaign, "random").estimate().on_policy
    assert made.verdict is Verdict.PASS
    assert all(apart(one, truth) < 1 for one in (made.ips, made.snips, made.dr))
    value, low, high, effective, true = FOUND[campaign, "bts"]
    assert (made.dr.value, made.dr.low, made.dr.high) == pytest.approx((value, low, high), abs=1e-4)
    assert made.effective == pytest.approx(effective, rel=0.01)
    assert truth.value == pytest.approx(true)


def test_chances_of_one_in_a_million_leave_two_rows_to_go_by():
    """Among women one item was shown at a chance of 0.000001, and stands for 21,739 rows: no interval without clipping, and a wide one with it."""
    log, truth = Log("women", "bts"), Log("women", "random").estimate().on_policy
    made = log.estimate()
    assert made.verdict is Verdict.NOT_ENOUGH_DATA
    assert made.largest > 20_000
    assert made.effective < 3
    assert made.ips.low is made.snips.low is made.dr.low is None
    clipped = log.estimate(clip=20.0)
    assert clipped.clipped == pytest.approx(0.0061)
    assert all(apart(one, truth) < 1 for one in (clipped.ips, clipped.snips, clipped.dr))


FOUND = {
    ("all", "random"): (0.00475, 0.00053, 0.00897, 1644, 0.0042),
    ("men", "random"): (0.00462, 0.00226, 0.00698, 2480, 0.0069),
    ("women", "random"): (0.00683, 0.00329, 0.01036, 1956, 0.0046),
    ("all", "bts"): (0.00238, 0.00060, 0.00415, 340, 0.0038),
    ("men", "bts"): (0.00331, 0.00183, 0.00478, 656, 0.0046),
}
"""(campaign, whose log): the other policy's click rate, doubly robust, with its interval; the effective rows; what the other policy made."""
