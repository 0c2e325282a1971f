"""Loss given x, calibration and slices on closed windows: how often they are wrong, and how soon they are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from noria.core import Verdict, Window
from noria.monitoring import calibration, concept, labelled, slices
from noria.monitoring.inputs import inputs_of
from noria.monitoring.windows import found
from noria.records import Monitored, Signal
from noria.stats import calibration_test

ERROR = 1 / 28 / 8
ROWS, DAYS = 120, 28


class Worlds:
    """Windows of a known world, held against a reference of 28 of them; ``kind`` d is where a slice can fail."""

    def __init__(self, told: Any, seed: int, rows: int = ROWS) -> None:
        self.told, self.rows, self.random = told, rows, np.random.default_rng(seed)
        self.system = told.declaration()
        frames = [self.day() for _ in range(DAYS)]
        frame = pl.concat(frames)
        self.inputs = inputs_of(frame, ["x", "kind"])
        label, score, blocks = frame["label"].to_numpy(), frame["score"].to_numpy(), np.repeat(np.arange(DAYS), rows)
        ones = np.ones(len(label))
        loss, residual = labelled._loss(self.system, label, score, self.inputs.points(frame), blocks, ones)
        mapping = labelled._mapping(label, score, blocks, ones)
        parts, critical = labelled._slices(self.system, frame, self.inputs, residual, blocks, ones, ERROR)
        self.reference = labelled.Labelled(len(label), DAYS, loss, mapping, None, parts, critical)
        self.past: list[Monitored] = []

    def day(self, *, shift: float = 0.0, base: float = -1.3, slope: float = 1.2, broken: float = 0.0) -> pl.DataFrame:
        x, kind = self.random.normal(shift, 1, self.rows), self.random.choice(list("abcd"), self.rows)
        z = base + slope * x + self.random.normal(0, 0.3) + broken * (kind == "d")
        label = (self.random.random(self.rows) < self.told.logistic(z)).astype(float)
        return pl.DataFrame({"x": x, "kind": kind, "label": label, "score": self.told.logistic(-1.3 + 1.2 * x)})

    def live(self, days: int, **changes: float) -> list[tuple[Signal, ...]]:
        made = []
        for _ in range(days):
            frame = self.day(**changes)
            label, score, ones = frame["label"].to_numpy(), frame["score"].to_numpy(), np.ones(self.rows)
            residual = concept.residuals(self.system, self.reference.loss, label, score, self.inputs.points(frame))
            signals = (
                *concept.concept(self.system, self.reference.loss, residual, ones, self.past, ERROR),
                *calibration.calibration(self.reference.mapping, label, score, ones, self.past, ERROR),
                *slices.slices(self.system, self.reference, frame, residual, ones, self.past, ERROR),
            )
            start = self.told.START + len(self.past) * self.told.DAY
            window = Window(start, start + self.told.DAY)
            self.past.append(Monitored(window=window, about="outcomes", release="r", n=self.rows, signals=signals))
            made.append(signals)
        return made


def failing(made: list[tuple[Signal, ...]], name: str) -> np.ndarray:
    return np.array([any(s.name == name and s.verdict is Verdict.FAIL for s in signals) for signals in made])


@pytest.mark.parametrize("shift", [0.0, 1.2, -1.2])
def test_a_shift_of_x_alone_raises_nothing(told: Any, shift: float) -> None:
    """At most about the declared share of windows (1 in 224) is called extraordinary, over 8 worlds of 30 windows."""
    alarms: dict[str, list[float]] = {"concept": [], "calibration": [], "slice": []}
    for seed in range(8):
        made = Worlds(told, seed).live(30, shift=shift)
        for name, rates in alarms.items():
            rates.append(float(failing(made, name).mean()))
    print({name: float(np.mean(rates)) for name, rates in alarms.items()})
    assert all(np.mean(rates) <= 0.015 for rates in alarms.values())


@pytest.mark.parametrize(("change", "name", "within"), [
    ({"slope": -1.2}, "concept", 4),
    ({"base": -0.5}, "concept", 14),
    ({"slope": 0.4}, "calibration", 14),
    ({"base": -0.5}, "calibration", 20),
    ({"broken": 2.0}, "slice", 14),
])  # fmt: skip
def test_a_planted_change_is_found_in_time(told: Any, change: dict[str, float], name: str, within: int) -> None:
    firsts = []
    for seed in range(4):
        worlds = Worlds(told, 100 + seed)
        worlds.live(5)
        hits = failing(worlds.live(within, **change), name)
        firsts.append(int(np.argmax(hits)) + 1 if hits.any() else None)
    print(change, name, firsts)
    assert firsts.count(None) <= 1


def test_the_failing_slice_is_named_and_the_others_are_not(told: Any) -> None:
    worlds = Worlds(told, 7)
    made = worlds.live(14, broken=2.0)[-1]
    verdicts = {s.subject: s.verdict for s in made if s.name == "slice"}
    assert verdicts["kind=d"] is Verdict.FAIL
    assert [value for value, verdict in verdicts.items() if verdict is Verdict.FAIL] == ["kind=d"]


def test_calibration_is_the_slope_of_the_regression_on_the_pooled_rows(told: Any) -> None:
    """One step of Newton's method against the whole fit, where the scores are about right."""
    worlds = Worlds(told, 8, rows=400)
    reference = worlds.reference.mapping
    assert reference is not None
    frames = [worlds.day(slope=1.0) for _ in range(20)]
    table = np.array([
        calibration.sums_of(reference.chance(f["score"].to_numpy()), f["label"].to_numpy(), np.ones(400)) for f in frames
    ])  # fmt: skip
    step, errors, _ = calibration.newton(table)
    whole = pl.concat(frames)
    chance = reference.chance(whole["score"].to_numpy())
    fitted = calibration_test(whole["label"].to_numpy(), chance, np.repeat(np.arange(20), 400))["slope"]
    assert fitted.value is not None
    assert 1 + step[1] == pytest.approx(fitted.value, abs=0.05)
    assert errors[1] == pytest.approx((fitted.high - fitted.low) / 2 / 2.1, rel=0.3)  # type: ignore[operator]  # 20 blocks: both there


def test_few_rows_are_not_enough_data(told: Any) -> None:
    worlds = Worlds(told, 9)
    worlds.rows = 20
    made = worlds.live(2, slope=-3.0)[-1]
    for name, subject in (("concept", "loss given x"), ("calibration", "score"), ("slice", "kind=d")):
        signal = found(made, name, subject)
        assert signal is not None
        assert signal.verdict is Verdict.NOT_ENOUGH_DATA
        assert signal.note
