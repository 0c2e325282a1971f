"""Performance before labels of numbers and of several classes: the loss that the same x had at the reference, under a shift of x."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import special

import noria as nr
from noria import stats
from noria.monitoring import expected, labelled
from noria.monitoring.inputs import inputs_of
from noria.monitoring.sample import Sample

DAYS, ROWS = 30, 150


def sample_of(system: Any, frame: pl.DataFrame, label: np.ndarray, score: np.ndarray) -> Sample:
    inputs = inputs_of(frame, ["x"])
    blocks = np.repeat(np.arange(DAYS), ROWS)
    loss, _ = labelled._loss(system, label, score, inputs.points(frame), blocks, np.ones(len(label)))
    known = labelled.Labelled(len(label), DAYS, loss, None, None, (), 0.0)
    return Sample(0, 1, inputs, b"", (), 0.0, None, None, known)


def shown(score: np.ndarray, x: np.ndarray) -> pl.DataFrame:
    several = score.ndim == 2
    return pl.DataFrame({
        "x": x,
        "_score": score.max(axis=1) if several else score,
        "_scores": pl.Series(score.tolist() if several else [None] * len(x), dtype=pl.List(pl.Float64)),
        "_act": np.zeros(len(x)),
    })  # fmt: skip


@pytest.fixture
def numbers(told: Any) -> Any:
    done = nr.Source("done", None, key="id", time="at", owner="us")
    return told.declaration(
        label=nr.Label(done, "amount", within="6h", task="regression"),
        decide=nr.Decide("score"),
        objective=nr.Objective(problem="tests", value=nr.Value("-abs(act - label)"), metric="mae"),
        candidates=[nr.Prior()],
    )


def test_a_shift_to_where_errors_are_larger_is_foreseen(numbers: Any) -> None:
    def day(random: np.random.Generator, shift: float, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = random.normal(shift, 1, n)
        return x, 2 * x + random.normal(0, 0.5 + np.abs(x), n) + random.normal(0, 0.05), 2 * x

    inside, values = 0, []
    for seed in range(30):
        random = np.random.default_rng(seed)
        x, label, score = (np.concatenate(some) for some in zip(*(day(random, 0, ROWS) for _ in range(DAYS)), strict=True))
        sample = sample_of(numbers, pl.DataFrame({"x": x}), label, score)
        x, label, score = day(random, 1.0, 300)
        made, _ = expected._estimates(numbers, sample.labelled, sample, shown(score, x), ["mae"])  # type: ignore[arg-type]
        came = np.abs(label - score).mean()
        inside += made["mae"].low <= came <= made["mae"].high  # type: ignore[operator]
        values.append((made["mae"].value, came, sample.labelled.loss.mean))  # type: ignore[union-attr]
    said, came, before = np.mean(np.array(values, float), axis=0)
    assert inside >= 26
    assert abs(said - came) < 0.25 * (came - before)


def test_several_classes(told: Any) -> None:
    done = nr.Source("done", None, key="id", time="at", owner="us")
    system = told.declaration(
        label=nr.Label(done, "kind_of", within="6h", task="multiclass"),
        decide=nr.Decide("largest expected value", acts=("a", "b", "c")),
        objective=nr.Objective(problem="tests", value=nr.Value("case when act = label then 1 else 0 end"), metric="log_loss"),
        candidates=[nr.Prior()],
    )

    def rows(random: np.random.Generator, shift: float, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = random.normal(shift, 1, n)
        score = special.softmax(np.column_stack([x, np.zeros(n), -x]) * 1.5, axis=1)
        return x, (random.random((n, 1)) > score.cumsum(axis=1)[:, :2]).sum(axis=1).astype(float), score

    inside = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        x, label, score = rows(random, 0, DAYS * ROWS)
        sample = sample_of(system, pl.DataFrame({"x": x}), label, score)
        x, label, score = rows(random, 1.0, 300)
        made, _ = expected._estimates(system, sample.labelled, sample, shown(score, x), ["log_loss", "accuracy"])  # type: ignore[arg-type]
        assert list(made) == ["log_loss"]
        inside += made["log_loss"].low <= stats.compute("log_loss", label, score) <= made["log_loss"].high  # type: ignore[operator]
    assert inside >= 17
