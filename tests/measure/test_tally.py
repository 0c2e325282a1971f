"""The two ways of counting agree, adding up is exact in any order, moments against numpy; what is far off; old profiles."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import permutations

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import Conflict
from noria.measure import Profile, against, profile
from noria.measure.tally import grid, moments

COLUMNS = ["x", "k", "kind", "yes", "at"]
START = datetime(2024, 1, 1, tzinfo=UTC)
NUMBERS = st.one_of(
    st.none(),
    st.floats(-50, 50),
    st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 1e12, -1e300, 5e-324]),
)
ROWS = st.lists(
    st.tuples(
        NUMBERS, st.one_of(st.none(), st.integers(-5, 200)), st.sampled_from([None, "a", "b", "c", "", "é"]), st.booleans()
    ),
    max_size=60,
)


def table(rows):
    return pl.DataFrame(
        {
            "x": [row[0] for row in rows],
            "k": [row[1] for row in rows],
            "kind": [row[2] for row in rows],
            "yes": [row[3] for row in rows],
            "at": [START + timedelta(hours=row[1] or 0) for row in rows],
        },
        schema={"x": pl.Float64, "k": pl.Int32, "kind": pl.String, "yes": pl.Boolean, "at": pl.Datetime("us", "UTC")},
    )


def made_of(n, seed=0):
    random = np.random.default_rng(seed)
    return table(
        [
            (float(x), int(k), str(kind), bool(x > 0))
            for x, k, kind in zip(
                random.normal(3, 9, n), random.integers(0, 90, n), random.choice(["a", "b", "z"], n), strict=True
            )
        ]
    )


REFERENCE = profile(made_of(300), COLUMNS)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_polars_and_numpy_count_the_same(rows):
    frame = table(rows)
    assert against(REFERENCE, frame.lazy()) == against(REFERENCE, frame)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_parts_add_up_to_the_whole_in_any_order(parts):
    whole = against(REFERENCE, table([row for part in parts for row in part]))
    made = [against(REFERENCE, table(part)) for part in parts]
    for order in permutations(made):
        assert reduce(Profile.merge, order) == whole
    if len(made) > 2:
        assert made[0].merge(made[1].merge(made[2])) == made[0].merge(made[1]).merge(made[2])


@settings(max_examples=20, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert against(REFERENCE, table(shuffled)).to_json() == against(REFERENCE, table(rows)).to_json()


def test_a_large_table_is_counted_as_its_parts_are_and_its_moments_are_right():
    frame = made_of(70_000, 1)
    whole = against(REFERENCE, frame)
    parts = [against(REFERENCE, frame[a : a + 9000]) for a in range(0, 70_000, 9000)]
    assert reduce(Profile.merge, parts) == whole == against(REFERENCE, frame.lazy())
    for name in ("x", "k"):
        values = frame[name].cast(pl.Float64).to_numpy()
        assert whole.columns[name].mean == pytest.approx(values.mean(), rel=1e-8)
        assert whole.columns[name].std == pytest.approx(values.std(), rel=1e-6)
    assert whole.columns["k"].mean == pytest.approx(frame["k"].to_numpy().mean(), rel=1e-12)


def test_the_moments_of_heavy_tails_and_of_constants():
    random = np.random.default_rng(2)
    heavy = np.exp(3 * random.standard_normal(20_000))
    column = profile(pl.DataFrame({"x": heavy}), ["x"]).columns["x"]
    assert column.mean == pytest.approx(heavy.mean(), rel=1e-4)
    assert column.std == pytest.approx(heavy.std(), rel=1e-4)
    constant = profile(pl.DataFrame({"x": [0.1] * 7}), ["x"]).columns["x"]
    assert (constant.mean, constant.std) == (0.1, 0.0)


def test_what_is_far_off_is_outside_and_cut_in_the_moments_only():
    frame = made_of(100)
    moved = against(REFERENCE, frame.with_columns(x=pl.col("x") * 1000.0)).columns["x"]
    span = REFERENCE.columns["x"].high - REFERENCE.columns["x"].low
    assert moved.high == frame["x"].max() * 1000.0
    assert moved.outside > 90
    assert abs(moved.mean) < 70 * span
    infinite = against(REFERENCE, frame.with_columns(x=pl.lit(float("inf"))).lazy()).columns["x"]
    assert (infinite.nulls, infinite.low, infinite.mean, sum(infinite.counts)) == (100, None, None, 0)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1e300, 1e300), (5e-324, 1e-320), (7.0, 7.0), (0.0, 0.0), (1e15, 1e15 + 2)]
)
def test_every_range_has_a_fixed_point(low, high):
    made = grid(low, high)
    values = np.linspace(low, high, 11) if high - low < 1e299 else np.array([low, 0.0, high])
    counted = profile(pl.DataFrame({"x": values}), ["x"]).columns["x"]
    assert counted.grid == made
    size = max(np.std(values) if high - low < 1e299 else 0, 1e-300)
    near = max(1e-6 * size, 1e-11 * abs(low)) if high - low < 1e299 else 1e293
    assert counted.mean == pytest.approx(float(values.mean()), abs=near)
    assert moments(made, 3, (0, 0)) == (pytest.approx(made.centre), 0.0)


def test_a_profile_of_an_earlier_version_is_read_compared_with_and_merged():
    """It has moments and no sums: a window over it has sums, in the fixed point of its range."""
    kept = msgspec.json.decode(REFERENCE.to_json())
    for column in kept["columns"].values():
        column.pop("grid", None)
        column.pop("sums", None)
    old = Profile.from_json(msgspec.json.encode(kept))
    assert old.columns["x"].sums is None
    window, later = against(old, made_of(200, 3)), against(old, made_of(50, 4))
    assert window.merge(later) == against(old, pl.concat([made_of(200, 3), made_of(50, 4)]))
    both = old.merge(window).columns["x"]
    values = pl.concat([made_of(300), made_of(200, 3)])["x"].to_numpy()
    assert both.mean == pytest.approx(values.mean(), rel=1e-8)
    assert both.std == pytest.approx(values.std(), rel=1e-6)
    with pytest.raises(Conflict):
        old.merge(profile(made_of(20, 9), COLUMNS))


def test_lazy_tables_without_rows_or_columns():
    frame = made_of(10)
    assert against(REFERENCE, frame.head(0).lazy()) == against(REFERENCE, frame.head(0))
    assert against(REFERENCE, frame.select("at").rename({"at": "other"}).lazy()).columns["kind"].nulls == 10
    only = Profile(1, {"kind": REFERENCE.columns["kind"]})
    assert against(only, frame.lazy()) == against(only, frame)
