"""Profiles against numpy, merging against profiling at once, distances against scipy; slices against filtering."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from scipy import spatial

from noria.core import Conflict
from noria.measure import Profile, against, by_slice, distance, profile

RANDOM = np.random.default_rng(0)


def table(n=1000, shift=0.0, names=("a", "b", "c")):
    x = RANDOM.standard_normal(n) + shift
    x[:10] = np.nan
    rain = np.where(RANDOM.random(n) < 0.7, 0.0, RANDOM.random(n))
    kind = RANDOM.choice(list(names), n).tolist()
    kind[:5] = [None] * 5
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {"x": x, "rain": rain, "kind": kind, "yes": RANDOM.random(n) < 0.3, "at": [start + timedelta(hours=i) for i in range(n)]}
    )


COLUMNS = ["x", "rain", "kind", "yes", "at"]


def test_every_row_is_counted_once_and_bins_are_where_they_say():
    frame = table()
    made = profile(frame, COLUMNS)
    for name in COLUMNS:
        column = made.columns[name]
        assert sum(column.counts) + column.nulls + column.other == column.n == 1000
    x = frame["x"].to_numpy()
    x = x[np.isfinite(x)]
    column = made.columns["x"]
    assert column.nulls == 10
    edges = [-np.inf, *column.edges, np.inf]
    assert list(column.counts) == [int(((x > a) & (x <= b)).sum()) for a, b in pairwise(edges)]
    assert max(column.counts) - min(column.counts) <= 2
    assert (column.mean, column.std) == (pytest.approx(x.mean()), pytest.approx(x.std()))
    assert made.columns["kind"].values == tuple(
        frame["kind"].drop_nulls().value_counts().sort(["count", "kind"], descending=[True, False])["kind"]
    )
    assert made.columns["yes"].values == ("false", "true")


def test_a_value_that_most_rows_share_has_a_bin_of_its_own():
    frame = table()
    column = profile(frame, ["rain"]).columns["rain"]
    assert column.edges[0] == 0.0
    assert column.counts[0] == int((frame["rain"] == 0).sum())


def test_the_same_table_has_no_distance_and_a_moved_one_has():
    frame = table()
    reference = profile(frame, COLUMNS)
    assert against(reference, frame).columns["kind"] == reference.columns["kind"]
    same = distance(reference, against(reference, frame))
    assert all(v == pytest.approx(0, abs=1e-9) for found in same.values() for v in found.values())
    moved = distance(reference, against(reference, table(shift=1.0, names=("a", "b", "new"))))
    assert moved["x"]["js"] > 0.3
    assert moved["x"]["ks"] > 0.3
    assert moved["kind"]["unseen"] == pytest.approx(1 / 3, abs=0.05)
    assert moved["rain"]["js"] < 0.15


def test_distance_against_scipy():
    a, b = table(), table(shift=0.4)
    reference = profile(a, ["x"])
    window = against(reference, b)
    p, q = (np.array(c.columns["x"].counts) / sum(c.columns["x"].counts) for c in (reference, window))
    assert distance(reference, window)["x"]["js"] == pytest.approx(spatial.distance.jensenshannon(p, q, base=2))
    low, high = a["x"].fill_nan(None).min(), a["x"].fill_nan(None).max()
    outside = b["x"].fill_nan(None).drop_nulls()
    assert distance(reference, window)["x"]["unseen"] == pytest.approx(((outside < low) | (outside > high)).mean())


def test_missing_and_absent_columns():
    frame = table()
    reference = profile(frame, COLUMNS)
    halved = frame.with_columns(x=pl.when(pl.int_range(1000) < 500).then(None).otherwise(pl.col("x")))
    assert distance(reference, against(reference, halved))["x"]["missing"] == pytest.approx(0.49)
    gone = distance(reference, against(reference, frame.drop("x", "kind")))
    assert gone["x"]["missing"] == pytest.approx(0.99)
    assert gone["kind"]["missing"] == pytest.approx(0.995)
    assert np.isnan(gone["x"]["js"])
    empty = distance(reference, against(reference, frame.head(0)))
    assert np.isnan(empty["kind"]["js"])
    text = against(reference, frame.with_columns(x=pl.lit("broken")))
    assert text.columns["x"].nulls == 1000


def test_merging_windows_is_profiling_them_together():
    reference = profile(table(), COLUMNS)
    a, b = table(300), table(500, shift=0.5)
    merged = against(reference, a).merge(against(reference, b))
    at_once = against(reference, pl.concat([a, b]))
    for name in COLUMNS:
        left, right = merged.columns[name], at_once.columns[name]
        assert (left.n, left.nulls, left.counts, left.other, left.outside) == (
            right.n,
            right.nulls,
            right.counts,
            right.other,
            right.outside,
        )
        for moment in ("low", "high", "mean", "std"):
            assert getattr(left, moment) == (None if getattr(right, moment) is None else pytest.approx(getattr(right, moment)))
    with pytest.raises(Conflict):
        reference.merge(profile(table(shift=3), COLUMNS))
    with pytest.raises(Conflict):
        distance(reference, profile(table(shift=3), COLUMNS))


def test_json_round_trip_and_determinism():
    frame = table()
    made = profile(frame, COLUMNS)
    assert Profile.from_json(made.to_json()) == made
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    assert profile(shuffled, COLUMNS).to_json() == made.to_json()


def test_given_edges_are_kept():
    made = profile(pl.DataFrame({"x": [0.0, 1.0, 1.5, 9.0]}), ["x"], edges={"x": [1.0, 2.0]})
    assert made.columns["x"].counts == (2, 1, 1)


def test_slices_are_the_frequent_values():
    frame = table()
    found = list(by_slice(frame, ["kind", "yes", "x"], least_n=100))
    seen = {(column, value) for column, value, _ in found}
    assert {("kind", "a"), ("kind", "b"), ("kind", "c"), ("yes", "true"), ("yes", "false")} <= seen
    assert ("kind", "(missing)") not in seen
    for column, value, mask in found:
        assert mask.sum() >= 100
        if column == "kind":
            assert mask.sum() == (frame["kind"] == value).sum()
    quarters = [mask for column, _, mask in found if column == "x"]
    assert len(quarters) == 4
    assert sum(mask.sum() for mask in quarters) == 990
    assert list(by_slice(frame, ["kind"], least_n=2000)) == []
