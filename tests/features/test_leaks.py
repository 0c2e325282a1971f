"""Columns from the future are named; honest ones, however good or rare, are not."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from noria.core import NotFound, Verdict
from noria.features import suspects

T0 = datetime(2013, 1, 1, tzinfo=UTC)
N = 8000


def history(days: int = 40, seed: int = 3) -> pl.DataFrame:
    """Flights: a fifth are late; a tenth of those are cancelled and have no tail number."""
    r = np.random.default_rng(seed)
    signal = r.normal(size=N)
    late = r.random(N) < 1 / (1 + np.exp(1.8 - 1.2 * signal))
    cancelled = late & (r.random(N) < 0.1)
    minutes = np.sort(r.integers(0, days * 1440, N))
    return pl.DataFrame(
        {
            "late": late,
            "signal": signal,
            "noise": r.normal(size=N),
            "tail": [None if c else f"N{number % 500}" for number, c in enumerate(cancelled)],
            "sometimes": np.where(r.random(N) < 0.1, np.nan, r.normal(size=N)),
            "id": [f"flight-{number}" for number in range(N)],
            "status": np.where(cancelled, "cancelled", r.choice(["scheduled", "moved"], N)),
            "rare": np.where(np.arange(N) % 400 == 0, "blue", "red"),
            "carrier": r.choice(list("abcdefgh"), N),
            "kind": np.where(cancelled, "never", np.where(late, "late", "on time")),
            "delay": np.where(late, r.exponential(40, N) + 15, r.normal(0, 5, N)),
        }
    ).with_columns(
        _time=pl.lit(T0) + pl.duration(minutes=pl.Series(minutes)),
        copy=pl.col("late"),
        spoilt=pl.col("late") ^ (pl.Series(r.random(N)) < 0.01),
    )


HONEST = ["signal", "noise", "sometimes", "id", "rare", "carrier"]


def test_a_copy_of_the_label_ranks_first_and_the_rest_is_named_for_what_it_is() -> None:
    found = suspects(history(), "late", [*HONEST, "tail", "status", "spoilt", "delay", "copy"])
    assert {check.verdict for check in found} == {Verdict.FAIL}
    assert found[0].subject == "copy"
    named = {(check.subject, check.name) for check in found}
    assert {("copy", "value alone"), ("spoilt", "value alone"), ("delay", "value alone")} <= named
    assert ("tail", "missing alone") in named
    assert ("status", "category alone") in named
    assert not {subject for subject, _ in named} & set(HONEST)
    tail = next(check for check in found if check.subject == "tail")
    assert "tail is missing" in tail.detail
    assert tail.estimate is not None
    assert tail.estimate.low is not None
    assert tail.estimate.low > 0.9


def test_honest_columns_are_not_accused_whatever_the_draw() -> None:
    for seed in range(12):
        assert suspects(history(seed=seed), "late", HONEST) == []


def test_classes_and_numbers_have_leaks_too() -> None:
    rows = history()
    of_classes = suspects(rows, "kind", [*HONEST, "delay", "tail"])
    assert {check.subject for check in of_classes} == {"delay", "tail"}
    of_numbers = suspects(rows.with_columns(hours=pl.col("delay") / 60), "delay", [*HONEST, "hours", "late"])
    assert [check.subject for check in of_numbers] == ["hours"]


def test_a_column_that_bends_is_found_where_its_order_says_nothing() -> None:
    rows = history().with_columns(late=pl.col("noise").abs() < 0.3)
    assert [check.subject for check in suspects(rows, "late", HONEST)] == ["noise"]


def test_few_days_are_not_enough_to_accuse_and_say_so() -> None:
    found = suspects(history(days=5), "late", ["copy", "tail", "signal"])
    assert {(check.subject, check.verdict) for check in found} == {
        ("copy", Verdict.NOT_ENOUGH_DATA),
        ("tail", Verdict.NOT_ENOUGH_DATA),
    }


def test_rows_without_a_label_and_constant_labels_are_no_evidence() -> None:
    rows = history().with_columns(late=pl.when(pl.col("late")).then(pl.lit(True)))
    assert suspects(rows, "late", ["copy", "signal"]) == []
    assert suspects(rows.clear(), "late", ["copy"]) == []
    with pytest.raises(NotFound, match="tial"):
        suspects(rows, "late", ["tial"])
