"""Value by part, rollouts as experiments, the hold-out and the return: each number against one made by hand, or a planted truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

import noria as nr
from noria import business, measure
from noria.business.books import books
from noria.business.experiments import arms_difference
from noria.business.net import counted
from noria.cli.app import run
from noria.core import Estimate, Verdict, Window
from noria.records import Declared, RolloutMoved, Trained, TrainingSet
from noria.stats import block_mean, partial_slope, scaled


def paid(act: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The story's value, a second time."""
    return np.where((act == 1) & (label == 1), 4.0, np.where(act == 1, -1.0, 0.0))


def days_of(frame: pl.DataFrame) -> np.ndarray:
    return frame["_time"].dt.date().rank("dense").to_numpy().astype(np.int64)


def test_before_the_first_release_slices_are_of_all_rows(begin: Any, told: Any) -> None:
    story = begin(told.declaration())
    story.tell(told.World(rows=200), 6)
    business.account(story.home, story.system, story.now)
    made = business.worth(story.home, story.system, by=("kind",))
    counts = story.frame()["kind"].value_counts()
    assert made.whole is None
    assert {(p.kind, p.name): p.n for p in made.parts} == {("slice kind", k): n for k, n in counts.iter_rows() if n >= 200}
    assert made.parts


def test_every_part_is_the_block_mean_of_its_own_rows(begin: Any, told: Any) -> None:
    story = begin(
        told.declaration(
            objective=nr.Objective(
                "tests",
                nr.Value("case when act and label then 4 when act then -1 else 0 end", "USD"),
                "log_loss",
                slices=["kind"],
            )
        )
    )
    story.tell(told.World(rows=200), 4)
    story.release(told.World())
    story.tell(told.World(rows=200), 30)
    business.account(story.home, story.system, story.now)
    made = business.worth(story.home, story.system)
    rows = story.frame()
    value = paid(rows["_act"].fill_null(0).to_numpy(), rows["_label"].to_numpy())
    days, acted = days_of(rows), (rows["_release"] != "").to_numpy()
    assert made.whole is not None
    assert made.whole.per_prediction.low == pytest.approx(block_mean(value[acted], days[acted]).low)
    by = {(part.kind, part.name): part for part in made.parts}
    assert by["version", ""].total == 0
    assert by["version", story.bundle].total == pytest.approx(value[acted].sum())
    months = rows["_time"].dt.strftime("%Y-%m").to_numpy()
    for month in ("2013-01", "2013-02"):
        part, chosen = by["month", month], months == month
        assert (part.n, part.total) == (chosen.sum(), pytest.approx(value[chosen].sum()))
    for kind in "abc":
        chosen = acted & (rows["kind"] == kind).to_numpy()
        always = paid(np.ones(chosen.sum()), rows["_label"].to_numpy()[chosen])
        part = by["slice kind", kind]
        expected = block_mean(value[chosen] - always, days[chosen])
        assert part.versus["always act"].value == pytest.approx(expected.value)
        assert part.versus["always act"].high == pytest.approx(expected.high)
    only = business.worth(story.home, story.system, Window(told.START, told.START + 10 * told.DAY), by=("kind",))
    assert {part.kind for part in only.parts} == {"slice kind"}
    assert only.window is not None
    assert only.window.end == told.START + 10 * told.DAY


def test_the_best_fixed_policy_is_found_by_trying_them_all(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 3)
    story.release(told.World())
    story.tell(told.World(base=-2.0), 20)
    made = books(story.home, story.system, None)
    rows = story.frame().filter(pl.col("_release") != "")
    score, label = rows["_score"].to_numpy(), rows["_label"].to_numpy()
    tried = [paid((score >= bound).astype(float), label).sum() for bound in np.append(np.unique(score), 2.0)]
    assert np.nansum(made.policies["best fixed"]) == pytest.approx(max(tried))


# -------------------------------------------------------------------------------------------------------- experiments


def experiment(story: Any, told: Any, gain: float, *, spoiled: bool = False) -> None:
    """A canary of 30 days at a share of 0.3, whose challenger acts on ``gain`` more of the rows with a true label."""
    story.tell(told.World(), 1)
    story.release(told.World())
    said: dict[str, Any] = {
        "rollout": 1,
        "challenger": "new",
        "champion": story.bundle,
        "verdict": Verdict.PASS,
        "checks": (),
        "reason": "tests",
    }
    story.home.commit(RolloutMoved(stage="canary", share=0.3, step=0, **said), key="rollout/1/1")
    own = story._rows

    def rows(world: Any, random: np.random.Generator, begun: Any, n: int) -> pl.DataFrame:
        frame = own(world, random, begun, n)
        mine = random.random(n) < (0.42 if spoiled else 0.3)
        better = mine & (frame["_label"].to_numpy() == 1) & (random.random(n) < gain)
        return frame.with_columns(
            _unit=pl.Series([f"{begun:%Y%m%d}-{i}" for i in range(n)]),
            _act=pl.Series(np.where(better, 1.0, frame["_act"].to_numpy())),
            _variant=pl.Series(np.where(mine, "challenger", "champion")),
            _variant_propensity=pl.Series(np.where(mine, 0.3, 0.7)),
            _release=pl.Series(np.where(mine, "new", story.bundle)),
        )

    story._rows = rows
    story.tell(told.World(rows=200, threshold=0.6), 30)
    story.home.commit(RolloutMoved(stage="full", share=1.0, step=1, **said), key="rollout/1/2")


def test_a_rollout_is_read_as_an_experiment(begin: Any, told: Any) -> None:
    story = begin()
    experiment(story, told, 1.0)
    (found,) = [one for one in business.worth(story.home, story.system).experiments if one.how == "arms"]
    begun = story.home.ledger.read(RolloutMoved)[0].at
    rows = story.frame().filter((pl.col("_time") > begun) & (pl.col("_variant_propensity") < 1))
    value, mine = (
        paid(rows["_act"].to_numpy(), rows["_label"].to_numpy()),
        (rows["_variant"] == "challenger").to_numpy().astype(float),
    )
    days = np.eye(days_of(rows).max())[days_of(rows) - 1]
    fitted = sm.OLS(value, np.column_stack([mine, days])).fit()
    assert found.difference.value == pytest.approx(fitted.params[0])  # a level for each day, one difference
    assert found.difference.above(0.0)
    assert found.difference.low < fitted.conf_int()[0][0]  # type: ignore[operator]  # always valid is wider
    assert found.units == (int(mine.sum()), int((1 - mine).sum()))
    assert found.sample_ratio is not None
    assert found.sample_ratio.verdict is Verdict.PASS
    assert found.novelty.n == 30
    assert not found.novelty.above(0.0)
    assert not found.novelty.below(0.0)


def test_equal_arms_and_a_spoiled_draw(begin: Any, told: Any) -> None:
    story = begin()
    experiment(story, told, 0.0, spoiled=True)
    (found,) = [one for one in business.worth(story.home, story.system).experiments if one.how == "arms"]
    assert not found.difference.above(0.0)
    assert not found.difference.below(0.0)
    assert found.sample_ratio is not None
    assert found.sample_ratio.verdict is Verdict.FAIL


def test_arms_that_are_read_daily_seldom_miss() -> None:
    """Units that come back on many days: over 40 runs of daily reading, at most a few intervals ever exclude the truth (0.05 is declared)."""
    missed = 0
    for seed in range(40):
        random = np.random.default_rng([seed, 1])
        effect = random.normal(size=300)
        unit = random.integers(0, 300, (30, 40))
        mine = (random.random(300) < 0.3)[unit]
        value = effect[unit] + random.normal(size=unit.shape)
        wrong = False
        for day in range(12, 30, 2):
            blocks = np.repeat(np.arange(day), 40)
            found = arms_difference(value[:day].ravel(), mine[:day].ravel(), unit[:day].ravel().astype(str), blocks, days=blocks)
            wrong |= found.above(0.0) or found.below(0.0)
        missed += wrong
    assert missed <= 3


# ------------------------------------------------------------------------------------------------------------ hold-out


def test_the_hold_out_finds_what_the_system_is_worth(begin: Any, told: Any) -> None:
    """Acting prevents half of the bad ends: worth 2 a true label prevented, known only against the units that are never acted on."""
    asked = told.declaration()
    system = told.declaration(
        decide=nr.Decide("act when score > 0.2", holdout=0.2),
        label=nr.Label(asked.label.source, "bad", within="6h", otherwise=False, task="binary", affected_by_action=True),
        objective=nr.Objective("tests", nr.Value("case when label then -4 else 0 end", "USD"), "log_loss"),
    )
    story = begin(system)
    story.home.commit(Declared(system=system.name, declaration=system.id, spec=system.spec(), previous=None), key="declared/0000")
    story.tell(told.World(), 1)
    story.release(told.World())
    own = story._rows
    truth = []

    def rows(world: Any, random: np.random.Generator, begun: Any, n: int) -> pl.DataFrame:
        frame = own(world, random, begun, n)
        units = [f"{begun:%Y%m%d}-{i}" for i in range(n)]
        held = measure.held_out(system.name, units, 0.2)
        act = np.where(held, 0.0, frame["_act"].to_numpy())
        label = frame["_label"].to_numpy()
        saved = (random.random(n) < 0.5) & (label == 1)
        truth.append(4.0 * (saved & (frame["_act"].to_numpy() == 1)).mean())
        return frame.with_columns(
            _unit=pl.Series(units),
            _act=pl.Series(act),
            _act_propensity=pl.Series(np.where(act == 1, 0.8, np.where(frame["_act"].to_numpy() == 1, 0.2, 1.0))),
            _label=pl.Series(np.where(saved & (act == 1), 0.0, label)),
        )

    story._rows = rows
    story.tell(told.World(rows=400), 40)
    business.account(story.home, story.system, story.now)
    found = business.worth(story.home, story.system).hold_out
    assert found is not None
    assert found.share == 0.2
    assert found.acted == 0
    assert found.held == pytest.approx(0.2 * 400 * 40, rel=0.1)
    assert found.per_prediction.low < np.mean(truth) < found.per_prediction.high  # type: ignore[operator]
    assert found.per_prediction.above(0.0)
    assert found.total.value == pytest.approx((found.per_prediction.value or 0.0) * found.n)
    plain = business.worth(story.home, told.declaration())
    assert plain.hold_out is None or plain.hold_out.share > 0


# --------------------------------------------------------------------------------------------------------------- costs


def costed(told: Any, begin: Callable[..., Any], costs: nr.Costs) -> Any:
    story = begin(told.declaration(costs=costs))
    story.tell(told.World(), 2)
    story.release(told.World())
    story.tell(told.World(act=None), 20)
    business.account(story.home, story.system, story.now)
    return story


def test_costs_are_counted_and_taken_off(begin: Any, told: Any) -> None:
    story = costed(told, begin, nr.Costs(prediction=0.01, label=0.02, training=30.0, day=2.0))
    left = business.summary(story.home, story.system)["net"]
    rows = story.frame().filter(pl.col("_release") != "")
    assert left.counts["days"] == 20
    assert left.counts["labels"] == rows["_label"].is_not_null().sum()
    act, label = rows["_act"].to_numpy(), rows["_label"].to_numpy()
    made, always = paid(act, label), paid(np.ones(len(act)), label)
    best = max(0.0, always.sum())
    assert left.against == ("always act" if best > 0 else "do nothing")
    assert left.gain.value == pytest.approx(made.sum() - best)
    assert left.costs["labels"] == pytest.approx(0.02 * left.counts["labels"])
    assert left.net.value == pytest.approx(left.gain.value - left.cost)
    assert left.returned.value == pytest.approx(left.net.value / left.cost)
    assert left.net.high - left.net.low == pytest.approx(left.gain.high - left.gain.low)


def test_what_costs_more_than_it_brings_is_to_be_stopped(begin: Any, told: Any) -> None:
    """The decisions gain on doing nothing, clearly; a day of running them costs more than that."""
    story = costed(told, begin, nr.Costs(day=500.0))
    found = business.summary(story.home, story.system)
    assert found["releases"][1]["versus"]["do nothing"].above(0.0)
    assert found["advice"] == "stop: costs more than it brings"
    free = business.summary(story.home, told.declaration())
    assert free["net"].returned is None
    assert free["advice"].startswith("continue")


def test_trainings_are_those_that_taught_a_model(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 15)
    story.release(told.World())
    whole = Window(told.START - told.DAY, story.now + told.DAY)
    assert counted(story.home, whole)["trainings"] == 1
    assert story.home.ledger.count(TrainingSet) == story.home.ledger.count(Trained) == 1
    assert counted(story.home, Window(told.START - told.DAY, told.START))["trainings"] == 0


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_command_shows_it_all(begin: Any, told: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = begin()
    experiment(story, told, 1.0)
    business.account(story.home, story.system, story.now)
    story.home.commit(
        Declared(system="story", declaration=story.system.id, spec=story.system.spec(), previous=None), key="declared/0000"
    )
    file = tmp_path / "system.py"
    source = (Path(__file__).parents[1] / "monitoring" / "story.py").as_posix()
    file.write_text(
        f"import importlib.util, sys\nspec = importlib.util.spec_from_file_location('told_here', {source!r})\nmodule = importlib.util.module_from_spec(spec)\nsys.modules['told_here'] = module\nspec.loader.exec_module(module)\nsystem = module.declaration()\n"
    )
    words = ["value", str(file), "--home", str(story.home.path)]
    assert run(words) == 0
    text = capsys.readouterr().out
    for word in (
        "since the first release",
        "Rollouts as experiments",
        "sample ratio: pass",
        "Metric link",
        "no costs are declared",
    ):
        assert word in text, text
    assert run([*words, "--by", "kind", "--to", "2013-01-15", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {part["kind"] for part in data["parts"]} == {"slice kind"}
    assert data["window"]["end"] == "2013-01-15T00:00:00Z"
    assert run([*words, "--by", "colour"]) != 0
    assert "no column 'colour'" in capsys.readouterr().err
    assert run([*words, "--from", "2020-01-01"]) != 0


# -------------------------------------------------------------------------------------------------------------- slopes


def test_the_partial_slope_is_that_of_the_regression_with_its_robust_error() -> None:
    """statsmodels' HC3, where nothing is autocorrelated."""
    random = np.random.default_rng(2)
    controls = random.normal(size=(120, 3))
    x = controls @ [1.0, 0.5, 0.0] + random.normal(size=120)
    y = 0.4 * x + controls @ [2.0, 0.0, 1.0] + random.normal(size=120) * (1 + np.abs(x))
    found = partial_slope(x, y, controls).estimate
    fitted = sm.OLS(y, sm.add_constant(np.column_stack([x, controls]))).fit(cov_type="HC3")
    assert found.value == pytest.approx(fitted.params[1])
    low, high = fitted.conf_int()[1]
    assert (found.high - found.low) == pytest.approx(high - low, rel=0.15)  # type: ignore[operator]


def test_a_control_that_repeats_another_adds_nothing() -> None:
    random = np.random.default_rng(3)
    control, x = random.normal(size=50), random.normal(size=50)
    y = x + control + random.normal(size=50)
    one = partial_slope(x, y, control[:, None]).estimate
    twice = partial_slope(x, y, np.column_stack([control, 2 * control, np.ones(50)])).estimate
    assert twice.value == pytest.approx(one.value)
    assert twice.n == one.n


def test_an_estimate_in_other_units() -> None:
    assert scaled(Estimate(2.0, None, None, 3), 0.5) == Estimate(1.0, None, None, 3)
