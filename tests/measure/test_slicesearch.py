"""Slices: a planted one is found and named, none is claimed where there is none, and few rows claim nothing."""

from __future__ import annotations

import numpy as np
import polars as pl

from noria import measure


def rows(random: np.random.Generator, n: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "kind": random.choice(["a", "b", "c", "d"], n),
            "place": random.choice(["north", "south"], n),
            "x": random.normal(0, 1, n),
            "y": random.normal(0, 1, n),
        }
    )


def test_a_planted_slice_of_two_columns_is_found() -> None:
    random = np.random.default_rng(0)
    frame, blocks = rows(random, 4000), np.arange(4000) // 100
    inside = ((frame["kind"] == "b") & (frame["place"] == "south")).to_numpy()
    excess = random.normal(0, 1, 4000) + 0.8 * inside
    found = measure.slice_search(frame, excess, blocks)
    assert set(found[0].where) == {("kind", "b"), ("place", "south")}
    assert np.array_equal(found[0].rows, inside)
    assert found[0].excess.above(0.3)


def test_a_range_of_a_number_is_found_and_the_second_slice_is_of_the_rest() -> None:
    random = np.random.default_rng(1)
    frame, blocks = rows(random, 6000), np.arange(6000) // 150
    excess = random.normal(0, 1, 6000) + 1.0 * (frame["x"].to_numpy() > 0.7) + 0.8 * (frame["kind"] == "d").to_numpy()
    found = measure.slice_search(frame, excess, blocks)
    columns = {column for one in found for column, _ in one.where}
    assert {"x", "kind"} <= columns
    assert not (found[0].rows & found[1].rows).any()


def test_nothing_is_claimed_where_there_is_nothing() -> None:
    claimed = 0
    for run in range(60):
        random = np.random.default_rng([run, 5])
        excess = random.exponential(1, 1500)
        claimed += bool(measure.slice_search(rows(random, 1500), excess, np.arange(1500) // 50))
    assert claimed <= 7  # 5 % of 60, and two standard errors


def test_few_rows_claim_nothing() -> None:
    random = np.random.default_rng(2)
    frame = rows(random, 150)
    excess = 5.0 * (frame["kind"] == "b").to_numpy()
    assert measure.slice_search(frame, excess, np.arange(150) // 10) == []
    rare = frame.with_columns(pl.Series("kind", ["rare"] * 20 + ["a"] * 130))
    assert measure.slice_search(rare, 5.0 * (rare["kind"] == "rare").to_numpy(), np.arange(150) // 10) == []
