"""Single pieces of evidence, each on its own: what was seen at the first look, clocks that went back, baselines, prices, order within the day, labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import river as rivers
from sklearn.metrics import roc_auc_score

from noria import stats
from noria.core import Check, Verdict, Window
from noria.diagnosis import streams
from noria.diagnosis.case import Case, Sample
from noria.diagnosis.causes import clocks, labels, payoffs, purpose, shift
from noria.diagnosis.compared import Compared, expected_auc
from noria.diagnosis.diagnose import OVER, diagnosed
from noria.diagnosis.symptoms import first_look
from noria.records import Cause, CohortClosed, Diagnosed, Monitored, Signal, Verified

HOUR, DAY = rivers.HOUR, rivers.DAY


# ------------------------------------------------------------------------------------------------------ the first look


def diagnosis(story: Any, name: str, weight: float, subject: str = "weather", symptom: str = "alert/planted/open") -> Diagnosed:
    evidence = (Check("freshness", Verdict.FAIL, subject, None, None, "nothing came for two days"),)
    cause = Cause(name, Verdict.FAIL, weight, "data", "ask its owner", evidence)
    window = Window(story.now - DAY, story.now)
    return Diagnosed(symptoms=(symptom,), window=window, causes=(cause,), back_to="data", account="")


def carried(story: Any, earlier: Diagnosed) -> Cause | None:
    record = diagnosed(story.case(), earlier)
    return next((one for one in record.causes if one.name == earlier.causes[0].name and one.verdict is Verdict.FAIL), None)


def test_a_fault_of_data_that_was_seen_stays_seen_and_holds_nothing_back(river: Any) -> None:
    story = river()
    seen = carried(story, diagnosis(story, "source late", 0.9))
    assert seen is not None
    assert seen.evidence[0].detail == f"{OVER}nothing came for two days"
    assert not diagnosed(story.case(), diagnosis(story, "source late", 0.9)).blocks_retraining


@pytest.mark.parametrize(("name", "weight"), [("source late", 0.3), ("sudden concept change", 0.9)])
def test_what_was_unsure_or_inferred_is_not_carried_on(river: Any, name: str, weight: float) -> None:
    story = river()
    assert carried(story, diagnosis(story, name, weight)) is None


def test_the_first_look_is_the_oldest_diagnosis_of_the_same_first_symptom(river: Any) -> None:
    story = river()
    told = [
        diagnosis(story, name, 0.9, symptom=symptom) for name, symptom in (("bad data", "a"), ("leak", "b"), ("duplicates", "a"))
    ]
    entries = [story.home.commit(record, key=f"diagnosis/{k}") for k, record in enumerate(told)]
    assert first_look(story.home, entries[2]).causes[0].name == "bad data"
    assert first_look(story.home, entries[1]).causes[0].name == "leak"


# ------------------------------------------------------------------------------------------------------ clocks that went back


@pytest.mark.parametrize("told_again", [True, False])
def test_hours_that_are_told_twice_are_a_clock_that_went_back(river: Any, told_again: bool) -> None:
    """A source that is three hours late is as much older, and tells nothing twice."""

    def batch(day: int, rows: pl.DataFrame) -> dict[str, Any]:
        first, last = rows["_time"].min(), rows["_time"].max()
        again = 3 * len(rivers.STATIONS) if told_again and day == 44 else 0
        return {"first": first, "last": last, "restated": again}

    def back(rows: pl.DataFrame, day: int, random: np.random.Generator) -> pl.DataFrame:
        return rows.with_columns(pl.col("hour") - 3 * HOUR, _known=pl.col("hour") + HOUR)

    case = river(faults={"weather": back}, ingested={"weather": batch}).case()
    made = clocks._gone_back(case, streams.streams(case)["weather"])
    assert (made is not None and made.verdict is Verdict.FAIL) is told_again
    if made is not None:
        assert made.estimate is not None
        assert made.estimate.value == -3.0


# ------------------------------------------------------------------------------------------------------ baselines


def windows(lead: float, since: float, rise: float = 0.0) -> Any:
    """Twenty windows in which the release's log loss is lower by ``lead`` than the last label's, and six in which it is so by ``since``."""
    random, start, made = np.random.default_rng(4), rivers.START, []
    for k in range(26):
        late = k >= 20
        other = 0.6 - (rise if late else 0.0) + random.normal(0, 0.01)
        own = other - (since if late else lead) + random.normal(0, 0.01)
        signals = tuple(
            Signal("log_loss", who, "outcome", float(value)) for who, value in (("champion", own), ("last label", other))
        )
        made.append(
            Monitored(
                window=Window(start + k * DAY, start + (k + 1) * DAY), about="outcomes", release="r", n=500, signals=signals
            )
        )
    objective = SimpleNamespace(metric="log_loss")
    return SimpleNamespace(
        outcomes=made, window=Window(start + 20 * DAY, start + 26 * DAY), system=SimpleNamespace(objective=objective)
    )


def test_a_release_that_was_ahead_fell_unless_the_baseline_rose() -> None:
    assert purpose._was_ahead(windows(0.1, -0.1), "last label")
    assert not purpose._was_ahead(windows(-0.1, -0.1), "last label")
    assert not purpose._was_ahead(windows(0.1, -0.1, rise=0.2), "last label")


# ------------------------------------------------------------------------------------------------------ prices


def priced(past: tuple[float, float], new: tuple[float, float]) -> Any:
    """A column of which a day's least and greatest were ``past`` for ten days, and ``new`` for four."""
    spans = [past] * 10 + [new] * 4
    days = [
        (SimpleNamespace(day=rivers.START + k * DAY), SimpleNamespace(mean=(low + high) / 2, low=low, high=high))
        for k, (low, high) in enumerate(spans)
    ]
    at = SimpleNamespace(at=rivers.START + 9 * DAY, days=4)
    moved = SimpleNamespace(stream=SimpleNamespace(name="money", of=lambda column: days), column="gain", at=at)
    return SimpleNamespace(notes={"priced columns": [moved]})


def test_a_price_that_turned_its_sign_is_told_from_one_of_another_size() -> None:
    turned, larger, same = (
        priced((10.0, 30.0), (-30.0, -10.0)),
        priced((10.0, 30.0), (50.0, 90.0)),
        priced((10.0, 30.0), (10.0, 30.4)),
    )
    assert [one.subject for one in payoffs.jumped(turned, turned=True)] == ["money.gain"]
    assert payoffs.jumped(turned, turned=False) == []
    assert payoffs.jumped(larger, turned=True) == []
    assert payoffs.jumped(larger, turned=False)[0].estimate.value == pytest.approx(50.0)  # type: ignore[union-attr]
    assert payoffs.jumped(same, turned=False) == payoffs.jumped(same, turned=True) == []


# ------------------------------------------------------------------------------------------------------ order within the day


def world(
    random: np.random.Generator, days: range, rows: int, *, spread: float = 1.0, slope: float = 1.5, base: float = 0.0
) -> Sample:
    """Rows whose label follows x by ``slope``; the scores believe in the ordinary one."""
    n = len(days) * rows
    x = spread * random.standard_normal(n)
    label = (random.random(n) < 1 / (1 + np.exp(-base - slope * x))).astype(float)
    score = 1 / (1 + np.exp(-base - 1.5 * x))
    return Sample(pl.DataFrame({"x": x}), label, score, np.repeat(np.asarray(days), rows))


def joined(parts: list[Sample]) -> Sample:
    return Sample(
        pl.concat([one.frame for one in parts]), *(np.concatenate([getattr(one, name) for one in parts]) for name in ("label", "score", "blocks"))
    )  # fmt: skip


def turns(rows: int = 120, since: int | None = None, base: float = 0.0, **odd: float) -> int:
    """The episodes found when three days of every six are ``odd``."""
    random = np.random.default_rng(7)
    before = world(random, range(40), rows, base=base)
    later = [world(random, range(d, d + 1), since or rows, base=base, **(odd if (d - 40) % 6 < 3 else {})) for d in range(40, 58)]
    order, variances, past = Compared(before, joined(later)).disorder
    return stats.episodes(order, before=past, variances=variances)[0]


def test_an_order_that_falls_and_comes_back_is_counted() -> None:
    assert turns(slope=-1.5) == 3


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"slope": 1.5}, "nothing happens"),
        ({"spread": 0.35}, "rows of the middle alone are harder to order, and the inputs say so"),
        ({"slope": 3.0}, "the order gets better"),
        ({"rows": 160, "since": 25}, "fewer rows make the order noisier"),
        ({"rows": 100, "base": -5.0, "slope": -1.5}, "most days have too few true labels to say"),
    ],
)
def test_what_is_no_order_that_falls_and_comes_back(given: dict[str, Any], why: str) -> None:
    assert turns(**given) == 0, why


def test_expected_auc_is_that_of_labels_drawn() -> None:
    random = np.random.default_rng(2)
    score = np.round(random.random(60), 1)
    chance = random.random(60)
    drawn = []
    for _ in range(3000):
        label = random.random(60) < chance
        drawn.append(roc_auc_score(label, score))
    assert expected_auc(score, chance) == pytest.approx(np.mean(drawn), abs=0.005)


# ------------------------------------------------------------------------------------------------------ labels that are missing


def lost(kinds: list[str], asked: list[str]) -> Any:
    """Forty days, and seven on which rows of ``kinds`` have no label and rows of the kinds ``asked`` alone are asked, as a case of labels that are missing."""
    random = np.random.default_rng(5)

    def sample(days: range, names: list[str]) -> Sample:
        n = 90 * len(days)
        kind, x = random.choice(names, n), random.standard_normal(n)
        return Sample(pl.DataFrame({"x": x, "kind": kind}), np.full(n, np.nan), np.full(n, 0.5), np.repeat(np.asarray(days), 90))

    samples = [sample(range(40), ["a", "b", "c"]), sample(range(40, 47), asked)]
    start = rivers.START
    cohorts = [
        CohortClosed(window=Window(start + d * DAY, start + (d + 1) * DAY), revision=0, n=90, silent=0, mean=0.5, rows="r",
                     labelled=88 if d < 40 else 88 - 29 * len(kinds), delay={"p50": 2.0, "p90": 3.0})
        for d in range(47)
    ]  # fmt: skip
    label = SimpleNamespace(within="8h", source=SimpleNamespace(name="results"))
    return SimpleNamespace(
        cohorts=cohorts, past=Window(start, start + 40 * DAY), window=Window(start + 40 * DAY, start + 47 * DAY), system=SimpleNamespace(label=label), every=DAY,
        notes={"streams": {}}, rows=lambda window, **_: samples[window.start >= start + 40 * DAY],
    )  # fmt: skip


@pytest.mark.parametrize(("asked", "strength"), [(["a", "b", "c"], 0.92), (["a", "c"], 0.5)])
def test_labels_missing_of_one_kind_are_missing_and_those_of_other_rows_may_be_the_world(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], strength: float
) -> None:
    monkeypatch.setattr(streams, "streams", lambda case: {})
    made = labels.labels_missing(lost(["b"], asked))
    assert made.verdict is Verdict.FAIL
    assert made.strength == strength


# ------------------------------------------------------------------------------------------------------ what echoes what was asked


def verified(story: Any, source: str, name: str, days_ago: int) -> Any:
    failed = Check(name, Verdict.FAIL, "", None, None, "a third of a day's rows come in hours that never were empty and are now")
    upto = story.now - days_ago * DAY
    record = Verified(source=source, upto=upto, checks=(failed,), tested=9, verdict=Verdict.FAIL)
    return story.home.commit(record, key=f"verify/{source}/{upto.isoformat()}")


@pytest.mark.parametrize(
    ("asked", "echo", "found"),
    [("hours", "hours", True), ("hours", "range", False), ("range", "hours", False), ("", "hours", False)],
)
def test_labels_that_fail_as_what_was_asked_does_say_that_inputs_moved(river: Any, asked: str, echo: str, found: bool) -> None:
    story = river()
    if asked:
        verified(story, "orders", asked, 1)
    case = Case(story.home, story.system, story.now, (verified(story, "results", echo, 0),))
    moved = [one for one in shift.covariate_shift(case).evidence if one.name == "inputs moved" and one.verdict is Verdict.FAIL]
    assert [one.subject for one in moved] == (["orders"] if found else [])
