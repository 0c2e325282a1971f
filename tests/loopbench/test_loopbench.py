"""LoopBench plants what it says, only after its date, always the same; days stay whole; the figures are right; a run works from end to end."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from loopbench.faults import FAULTS, SIZES, Stage
from loopbench.histories import AT, BEGIN, DAY, days_of, declared, drawn, laid, real, seeded, tables
from loopbench.plan import Spec, planned

import noria as nr
from loopbench import harness, histories, hooks, plan, scoring
from noria import features
from noria.deployment import scoring as noria_scoring

MISSING = [p for p in ("flights/data/weather", "elec2/data/moves") if not (histories.EXAMPLES / f"{p}.parquet").exists()]
pytestmark = pytest.mark.skipif(bool(MISSING), reason="the examples' data is not there: run `make data`")
SETS = {"flights": ("2013-02-01", "2013-03-08"), "elec2": ("1997-06-01", "1997-07-06")}
TABLE_FAULTS = sorted(
    name
    for name in FAULTS
    if name
    not in (
        "training-serving skew",
        "stale cache",
        "constant predictor",
        "rows mixed up",
        "refused rows",
        "fallback storm",
        "cost above value",
        "acting changed the outcome",
        "feedback loop",
    )
)


def stage(history: str, fault: str = "", size: str = "large") -> Stage:
    days = drawn(days_of(history, *SETS[history]), 14, BEGIN, seeded("test"))
    made = Stage(laid(history, days, BEGIN), BEGIN + 4 * DAY, seeded(history, fault, size), declared(history, Path("nowhere")))
    if fault:
        FAULTS[fault].plant(made, size)
    return made


def arriving(made: Stage) -> dict[str, pl.DataFrame]:
    """What the tables bring, written day by day as a run does."""
    found: dict[str, list[pl.DataFrame]] = {}
    for k in range(1, 16):
        now = BEGIN + k * DAY
        for name, frame in made.tables_once.items():  # type: ignore[attr-defined]
            rows = frame.filter((pl.col(AT) > now - DAY) & (pl.col(AT) <= now))
            shaped = made.shape(now)(name, rows.drop(AT))
            found.setdefault(name, []).append(shaped.with_columns(pl.all().cast(pl.String), _turn=pl.lit(k)))
    return {name: pl.concat(parts, how="diagonal") for name, parts in found.items()}


def delivered(history: str, fault: str = "", size: str = "large") -> dict[str, pl.DataFrame]:
    made = stage(history, fault, size)
    made.tables_once = made.tables()  # type: ignore[attr-defined]
    return arriving(made)


# ------------------------------------------------------------------------------------------------------------- the days


@pytest.mark.parametrize("history", ["flights", "elec2"])
def test_days_are_permuted_within_their_weekday_and_stay_whole(history: str) -> None:
    days = days_of(history, *SETS[history])
    order = drawn(days, 21, BEGIN, seeded("a"))
    assert len(set(order)) == 21
    assert [day.weekday() for day in order] == [(BEGIN + k * DAY).weekday() for k in range(21)]
    assert order != drawn(days, 21, BEGIN, seeded("b"))
    assert order == drawn(days, 21, BEGIN, seeded("a"))
    still, rows = laid(history, order, BEGIN).rows, real(history).rows
    for k, day in enumerate(order[:5]):
        then = rows.filter(pl.col("asked").dt.truncate("1d") == day).sort("asked", "id")
        now = still.filter(pl.col("asked").dt.truncate("1d") == BEGIN + k * DAY).with_columns(
            pl.col("asked") - (BEGIN + k * DAY - day)
        )
        assert_frame_equal(then, now.select(then.columns))


def test_every_source_of_a_flight_moves_with_its_day() -> None:
    days = days_of("flights", *SETS["flights"])[:7]
    made = tables(laid("flights", days[::-1], BEGIN))
    joined = (
        made["schedule"]
        .join(made["record"], on="flight_id")
        .with_columns(after=(pl.col("departed_at") - pl.col("asked_at")).dt.total_minutes())
    )
    assert (joined["after"] == joined["delay"] + 120).all()
    assert set(made["weather"]["hour"].dt.truncate("1d").unique()) == {BEGIN + k * DAY for k in range(7)}
    assert (made["record"][AT] - made["record"]["departed_at"] == timedelta(days=1)).all()


def test_the_splits_share_no_days_and_no_seeds() -> None:
    for history in ("flights", "elec2"):
        tune, report = (set(days_of(history, *plan.DAYS[split, history])) for split in ("tune", "report"))
        assert len(tune) > histories.PREFIX + 56
        assert len(report) > histories.PREFIX + 56
        assert not tune & report
        assert not set(plan.SEEDS["tune"][history]) & set(plan.SEEDS["report"][history])
    for split in ("tune", "report"):
        specs = planned(split)
        assert len({spec.key for spec in specs}) == len(specs) <= 400
        assert {spec.fault for spec in specs} == {"", *FAULTS}


# ----------------------------------------------------------------------------------------------------------- the faults


@pytest.mark.parametrize("fault", TABLE_FAULTS)
@pytest.mark.parametrize("history", ["flights", "elec2"])
def test_a_fault_changes_what_comes_after_its_date_and_nothing_before(history: str, fault: str) -> None:
    if history not in FAULTS[fault].histories:
        return
    clean, faulted = delivered(history), delivered(history, fault)
    differs = []
    for name, frame in clean.items():
        other = faulted.get(name)
        assert other is not None
        columns = [c for c in frame.columns if c in other.columns]
        upto = 5 if name in ("record", "money") else 4
        before, same = (f.filter(pl.col("_turn") <= upto).select(columns).sort(columns) for f in (frame, other))
        assert_frame_equal(before, same)
        after, then = (f.filter(pl.col("_turn") > upto).select(columns).sort(columns) for f in (frame, other))
        if columns != frame.columns or not after.equals(then):
            differs.append(name)
    assert differs


@pytest.mark.parametrize("fault", ["label noise", "covariate shift", "sudden concept change", "unit changed"])
def test_a_fault_is_the_same_every_time_and_larger_when_it_is_large(fault: str) -> None:
    sizes = []
    clean = delivered("elec2")
    for size in SIZES:
        one, two = delivered("elec2", fault, size), delivered("elec2", fault, size)
        assert all(one[name].equals(two[name]) for name in one)
        keyed = {name: frame.height - frame.join(clean[name], on=frame.columns, how="semi").height for name, frame in one.items()}
        sizes.append(sum(keyed.values()))
    assert sizes == sorted(sizes)
    assert 0 < sizes[0] < sizes[-1]


def rows_after(made: Stage) -> pl.DataFrame:
    return made.world.rows.filter(pl.col("asked") >= made.start)


def test_a_change_of_concept_turns_the_effect_and_keeps_inputs_and_outcomes() -> None:
    clean, turned = rows_after(stage("elec2")), rows_after(stage("elec2", "sudden concept change"))
    assert_frame_equal(clean.drop("outcome"), turned.drop("outcome"))
    assert clean["outcome"].sum() == turned["outcome"].sum()
    before, after = (np.corrcoef(f["nsw_price"], f["outcome"])[0, 1] for f in (clean, turned))
    assert before > 0.1 > -0.1 > after


def test_shifts_move_what_they_say_and_keep_the_volume() -> None:
    clean = rows_after(stage("flights"))
    far, late, airport = (rows_after(stage("flights", name)) for name in ("covariate shift", "label shift", "traffic mix"))
    for moved in (far, late, airport):
        assert moved.height == clean.height
        assert moved["id"].is_unique().all()
    assert far["distance"].mean() > 1.5 * clean["distance"].mean()  # type: ignore[operator]
    share = [f.select((pl.col("outcome").fill_null(99) >= 15).mean()).item() for f in (clean, late)]
    assert share[1] > 2 * share[0]
    assert (airport["origin"] == "LGA").mean() > 2 * (clean["origin"] == "LGA").mean()  # type: ignore[operator]


def test_acting_changes_the_labels_of_what_was_acted_on_only() -> None:
    made = stage("elec2", "feedback loop")
    whole = made.tables()
    acts = pl.DataFrame({"id": made.world.rows["id"], "act": [float(k % 2) for k in range(made.world.rows.height)]})
    assert made.acted is not None
    joined = (
        made.acted(whole, acts)["record"].join(whole["record"], on="half_hour").join(acts, left_on="half_hour", right_on="id")
    )
    assert (joined.filter(pl.col("act") == 0)["up"] == joined.filter(pl.col("act") == 0)["up_right"]).all()
    assert joined.filter(pl.col("act") == 1)["up"].mean() > 0.85  # type: ignore[operator]


def test_the_software_is_changed_within_the_run_only() -> None:
    made, real_compute, real_answer = stage("elec2", "constant predictor"), features.compute, noria_scoring.answer  # type: ignore[attr-defined]
    with hooks.planted(made):
        assert noria_scoring.answer is not real_answer  # type: ignore[attr-defined]
    assert noria_scoring.answer is real_answer  # type: ignore[attr-defined]
    with hooks.planted(stage("elec2", "training-serving skew")):
        assert noria_loop_features() is not features
        assert features.compute is real_compute
    assert noria_loop_features() is features


def noria_loop_features() -> Any:
    from noria import loop

    return loop.features


# ---------------------------------------------------------------------------------------------------------- the figures


def result(fault: str = "unit changed", **changed: Any) -> dict[str, Any]:
    start = "2020-05-01T00:00:00+00:00"
    causes = [
        {"name": "duplicates", "verdict": "fail", "weight": 0.7, "step": "data", "evidence": []},
        {"name": "unit changed", "verdict": "fail", "weight": 0.2, "step": "data", "evidence": []},
        {"name": "label noise", "verdict": "pass", "weight": 0.0, "step": "data", "evidence": []},
    ]
    made = {
        "key": "k",
        "spec": {"split": "tune", "fault": fault, "size": "large", "history": "flights", "seed": 1, "draw": 0},
        "from": "2020-04-28T00:00:00+00:00",
        "start": start,
        "arrives": start,
        "end": "2020-05-11T00:00:00+00:00",
        "alerts": [alert("2020-04-30", "open"), alert("2020-05-04", "open"), alert("2020-05-06", "resolved")],
        "blocked": [],
        "verified": [],
        "diagnosed": [
            {"at": "2020-05-04T00:00:00+00:00", "causes": causes, "back_to": "data", "symptoms": ["verify/x"], "blocks": True}
        ],
        "seconds": 1.0,
    }
    return made | changed


def alert(day: str, state: str) -> dict[str, Any]:
    return {"at": f"{day}T00:00:00+00:00", "name": "drift", "subject": "temp", "state": state, "harm": False, "message": ""}


def test_a_run_is_scored_from_its_start_and_by_its_last_diagnosis() -> None:
    one = scoring.score(result())
    assert (one.detected, one.delay, one.by) == (True, 3.0, "drift temp")
    assert (one.first, one.three, one.step, one.weight) == (False, True, True, 0.7)
    labels = scoring.score(result("label noise"))
    assert labels.delay == 1.0  # its first cohort closes two days later
    assert not labels.three
    unseen = scoring.score(result(alerts=[], diagnosed=[]))
    assert (unseen.detected, unseen.delay, unseen.first, unseen.step) == (False, None, False, False)


def test_what_the_same_days_raise_without_the_fault_does_not_count() -> None:
    clean = result("", alerts=[alert("2020-05-05", "open")], diagnosed=[])
    twin = scoring.twins([clean])[scoring.same(result())]
    one = scoring.score(result(), twin)
    assert not one.detected
    assert one.three  # nothing like its diagnosis was made there
    later = result("", alerts=[alert("2020-05-08", "open")], diagnosed=result()["diagnosed"])
    twin = scoring.twins([later])[scoring.same(result())]
    assert scoring.score(result(), twin).delay == 3.0
    assert scoring.score(result(), twin).named == "no diagnosis"


def test_alarms_before_a_fault_and_in_clean_runs_are_false_and_the_same_day_counts_once() -> None:
    clean = result("", alerts=[alert("2020-04-30", "open"), alert("2020-05-02", "open")])
    windows, false = scoring.clean_windows([result(), clean])
    assert windows == 13
    assert [one[-2:] for one in false] == [(2, "drift temp"), (4, "drift temp")]
    windows, false = scoring.clean_windows([result()])
    assert (windows, len(false)) == (3, 1)


def test_reliability_is_that_of_the_textbook() -> None:
    brier, error = scoring.reliability([(0.9, True), (0.9, False), (0.3, False)])
    assert brier == pytest.approx((0.01 + 0.81 + 0.09) / 3)
    assert error == pytest.approx((abs(1.8 - 1) + 0.3) / 3)


# ------------------------------------------------------------------------------------------------------ one run, whole


def test_a_run_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PREFIX", 26)
    small = {
        "parts": nr.Parts(least="8d", validate="4d", test="6d", fresh="2d"),
        "gate": nr.Gate(approval=True, blocks=4),
        "candidates": [nr.Prior(), nr.Linear(trials=1)],
    }
    monkeypatch.setattr(harness, "declared", lambda history, folder: declared(history, folder, **small))
    spec = Spec("tune", "elec2", plan.DAYS["tune", "elec2"], 1, 1, "schema changed", "large", 1, 2)
    made = harness.run(spec, tmp_path)
    assert scoring.score(made).detected
    assert [one["source"] for one in made["blocked"]] == ["market"]
    assert len(made["stopped"]) == 2
    assert made["tested"]
    assert pl.read_parquet(tmp_path / "windows" / made["windows"]).height > 0
