"""Faults of labels, beside the worlds that look like them: noise, another definition, a changed concept, a new base rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import river as rivers
from scipy import optimize

from noria import diagnosis, measure
from noria.core import Check, Estimate, Verdict
from noria.diagnosis.case import Case
from noria.diagnosis.causes.labelnoise import flip_rates
from noria.records import Declared, Gated, Trained, TrainingSet

BEFORE, SINCE = 32, 24


def story_of(begin: Any, told: Any, since: Any, *, label: Any = None, seed: int = 0) -> Case:
    """A release that was right for 30 windows, and then another world; ``label`` changes a day's labels (frame, random) as a fault of labelling would."""
    story = begin(seed=seed)
    ordinary = told.World(rows=200)
    story.tell(ordinary, 30)
    story.release(ordinary)
    story.tell(ordinary, BEFORE)
    if label is not None:

        class Mislabelled(told.Story):  # type: ignore[misc,name-defined]
            def _rows(self, world: Any, random: Any, start: Any, n: int) -> Any:
                rows = super()._rows(world, random, start, n)
                return rows.with_columns(_label=pl.Series(label(rows, np.random.default_rng([7, start.toordinal()]))))

        story.__class__ = Mislabelled
    story.tell(since, SINCE)
    record = rivers.Alerted(
        alert="alert/decay/planted", name="decay", subject="planted", state="open", since=story.now - SINCE * told.DAY, harm=True,
        size=Estimate(-0.1, -0.2, -0.05, SINCE), bound=0.0, message="the release does worse", level="outcome",
    )  # fmt: skip
    entry = story.home.commit(record, key="alert/planted/open")
    return Case(story.home, story.system, story.now, (entry,))


def flipped(share: float) -> Any:
    def label(rows: pl.DataFrame, random: np.random.Generator) -> np.ndarray:
        given = rows["_label"].to_numpy()
        return np.where(random.random(len(given)) < share, 1 - given, given)

    return label


def told_easier(rows: pl.DataFrame, random: np.random.Generator) -> np.ndarray:
    """A lower bar: a part of what counted as good now counts as bad, by the same order of rows."""
    x = rows["x"].to_numpy()
    return (random.random(len(x)) < 1 / (1 + np.exp(-(0.3 + 1.2 * x)))).astype(float)


def verdicts(case: Case, *names: str) -> dict[str, Verdict]:
    return {name: rivers.look(case, name).verdict for name in names}


THREE = ("label noise", "label definition changed", "sudden concept change")


def test_labels_flipped_at_random(begin: Any, told: Any) -> None:
    case = story_of(begin, told, told.World(rows=200), label=flipped(0.25))
    made = rivers.look(case, "label noise")
    assert made.verdict is Verdict.FAIL, [(c.name, c.verdict, c.detail) for c in made.evidence]
    rates = next(one for one in made.evidence if one.name == "labels flipped at random").estimate
    assert rates is not None
    assert rates.value == pytest.approx(0.25, abs=0.06)
    assert verdicts(case, "label definition changed")["label definition changed"] is not Verdict.FAIL


def test_another_definition(begin: Any, told: Any) -> None:
    case = story_of(begin, told, told.World(rows=200), label=told_easier)
    made = rivers.look(case, "label definition changed")
    assert made.verdict is Verdict.FAIL, [(c.name, c.verdict, c.detail) for c in made.evidence]
    assert made.blocks
    assert rivers.look(case, "label noise").verdict is not Verdict.FAIL


@pytest.mark.parametrize(
    ("world", "name"),
    [({"slope": -1.2}, "sudden concept change"), ({"x_mean": 1.5}, ""), ({}, "")],
    ids=["concept", "inputs", "nothing"],
)
def test_a_world_that_changed_is_no_fault_of_labels(begin: Any, told: Any, world: dict[str, float], name: str) -> None:
    case = story_of(begin, told, told.World(rows=200, **world))
    found = verdicts(case, *THREE)
    assert found["label noise"] is not Verdict.FAIL
    assert found["label definition changed"] is not Verdict.FAIL
    assert (found["sudden concept change"] is Verdict.FAIL) == (name == "sudden concept change")


def test_a_concept_that_depends_on_another_feature(begin: Any, told: Any) -> None:
    """The labels tell less by the score, and are not noise: the features know why."""

    def by_y(rows: pl.DataFrame, random: np.random.Generator) -> np.ndarray:
        z = -1.3 + 1.2 * rows["y"].fill_null(0.0).to_numpy()
        return (random.random(len(z)) < 1 / (1 + np.exp(-z))).astype(float)

    case = story_of(begin, told, told.World(rows=200), label=by_y)
    found = verdicts(case, *THREE)
    assert found["label noise"] is not Verdict.FAIL
    assert found["label definition changed"] is not Verdict.FAIL
    assert found["sudden concept change"] is Verdict.FAIL


def test_flip_rates_are_the_most_likely() -> None:
    """Against a search over the grid, on labels with unequal flips."""
    random = np.random.default_rng(5)
    score = random.beta(1, 2, 8000)
    label = (random.random(8000) < score).astype(float)
    label = np.where(random.random(8000) < np.where(label == 1, 0.3, 0.1), 1 - label, label)

    def loss(rates: Any) -> float:
        p = np.clip(rates[0] + (1 - rates[0] - rates[1]) * score, 1e-9, 1 - 1e-9)
        return float(-(label * np.log(p) + (1 - label) * np.log(1 - p)).mean())

    wanted = optimize.brute(loss, ((0, 0.49), (0, 0.49)), Ns=50)
    assert flip_rates(label, score) == pytest.approx(tuple(wanted), abs=0.01)
    assert flip_rates(label, score) == pytest.approx((0.1, 0.3), abs=0.05)


def test_a_declaration_that_says_otherwise(begin: Any, told: Any) -> None:
    case = story_of(begin, told, told.World(rows=200))
    for number, text in enumerate(("bad", "bad or late")):
        record = Declared(
            system="story", declaration=f"d{number}", spec={"label": {"expression": text, "within": "6h"}}, previous=None
        )
        case.home.commit(record, key=f"declared/{number:04d}")
    fresh = Case(case.home, case.system, case.now, case.symptoms)
    made = rivers.look(fresh, "label definition changed")
    assert made.verdict is Verdict.FAIL
    assert "expression='bad or late'" in made.evidence[0].detail
    assert not made.blocks  # it was meant


def test_waiting_longer_for_the_label_is_no_other_definition(begin: Any, told: Any) -> None:
    case = story_of(begin, told, told.World(rows=200))
    for number, within in enumerate(("6h", "12h")):
        label = {"expression": "bad", "within": within, "lateness": within, "source": {"name": "sensor", "note": within}}
        case.home.commit(
            Declared(system="story", declaration=f"d{number}", spec={"label": label}, previous=None), key=f"declared/{number:04d}"
        )
    fresh = Case(case.home, case.system, case.now, case.symptoms)
    assert rivers.look(fresh, "label definition changed").verdict is not Verdict.FAIL


def test_a_column_that_is_counted_from_another_point(river: Any) -> None:
    later = lambda rows, day, random: rows.with_columns(pl.col("delay") + 60)  # noqa: E731
    made = rivers.look(river(faults={"results": later}).case(), "label definition changed")
    assert made.verdict is Verdict.FAIL
    assert "results.delay is +60" in made.evidence[0].detail
    seconds = lambda rows, day, random: rows.with_columns(pl.col("delay") * 60)  # noqa: E731
    case = river(faults={"results": seconds}).case()
    assert rivers.look(case, "unit changed").verdict is Verdict.FAIL
    assert rivers.look(case, "label definition changed").strength < rivers.look(case, "unit changed").strength


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"label_missing": 0.4}, "labels missing"),
        ({"delay_hours": 5.0}, "label delay changed"),
        ({"delay_hours": 0.5}, "label delay changed"),
    ],
)
def test_labels_that_are_late_or_do_not_come(begin: Any, told: Any, change: dict[str, float], name: str) -> None:
    case = story_of(begin, told, told.World(rows=200, **change))
    found = rivers.found(case)
    assert name in found
    assert rivers.look(case, name).blocks == (change.get("delay_hours") != 0.5)  # labels that come sooner are no fault
    assert {"labels missing", "label delay changed"} & set(found) == {name}


# ---------------------------------------------------------------------------------------------- leak, constant predictor


def test_a_column_that_was_filled_in_later(begin: Any, told: Any) -> None:
    """In training ``y`` told the label; live it is only known afterwards."""

    class Filled(told.Story):  # type: ignore[misc,name-defined]
        live = False

        def _rows(self, world: Any, random: Any, start: Any, n: int) -> Any:
            rows = super()._rows(world, random, start, n)
            return rows if self.live else rows.with_columns(y=pl.col("_label") * 3 + pl.col("y") * 0.3)

    story = begin()
    story.__class__ = Filled
    story.tell(told.World(), 40)
    entry = story.release(told.World())
    trained = story.home.ledger.latest(Trained)
    assert trained.record.bundle == entry.record.bundle
    assert story.home.ledger.latest(TrainingSet).record.columns == ("x", "kind", "y")
    story.live = True
    story.tell(told.World(), 45)
    case = Case(story.home, story.system, story.now, ())
    made = rivers.look(case, "leak")
    assert made.verdict is Verdict.FAIL, [(c.name, c.detail) for c in made.evidence]
    assert [one.subject for one in made.evidence] == ["y"]


def test_a_bond_that_broke_later_is_no_leak(begin: Any, told: Any) -> None:
    """It held for weeks after the release, and broke then: the world, not the column."""
    case = story_of(begin, told, told.World(rows=200, slope=0.0))
    assert rivers.look(case, "leak").verdict is Verdict.PASS


def test_a_constant_predictor_from_the_start(begin: Any, told: Any) -> None:
    story = begin()
    flat = told.World(score=lambda x: np.full(len(x), 0.1))
    story.tell(flat, 30)
    story.release(flat)
    story.tell(flat, 56)
    case = Case(story.home, story.system, story.now, ())
    made = rivers.look(case, "constant predictor")
    assert made.verdict is Verdict.FAIL
    assert made.step == "data"


def test_a_score_that_froze_is_no_constant_predictor(begin: Any, told: Any) -> None:
    case = story_of(begin, told, told.World(rows=200, score=lambda x: np.full(len(x), 0.1)))
    assert rivers.look(case, "constant predictor").verdict is Verdict.PASS
    assert rivers.look(case, "software fault").verdict is Verdict.FAIL


def test_a_gate_that_refused_a_constant_predictor(begin: Any, told: Any) -> None:
    story = begin()
    story.tell(told.World(), 5)
    checks = (Check("not a constant predictor", Verdict.FAIL, detail="it always says no; recall 0"),)
    story.home.commit(Gated(candidate="c", bundle="none", verdict=Verdict.FAIL, checks=checks), key="gated/planted")
    record = diagnosis.diagnose(story.home, story.system, story.now)[0].record
    assert record.causes[0].name == "constant predictor"
    assert record.causes[0].runbook == "docs/diagnosis.md#constant-predictor"
    assert measure.closed_until(story.home) is not None
