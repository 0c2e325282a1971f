"""A run of tiles against plain lists: any order of rows, merged and dropped at any time."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.features.tiles import Run, item_of, spread

TILE = 10
rows = st.tuples(st.integers(0, 300), st.sampled_from([None, 0.0, 0.25, 0.5, 1.5, -2.25, -2.0, 7.0, 1e6]))


def ask(run: Run, edge: int, at: int) -> tuple[object, ...]:
    first = sum(known <= edge for known in run.at)
    end = sum(known <= at for known in run.at)
    state = run.states[0]
    assert state.sums is not None
    assert state.squares is not None
    assert state.lows is not None
    assert state.highs is not None
    totals = (state.counts, state.sums, state.squares)
    least, most = state.lows.between(edge, first, end), -state.highs.between(edge, first, end)
    return (*(total[end] - total[first] for total in totals), least, most)


def expected(some: list[tuple[int, float | None]], edge: int, at: int) -> tuple[object, ...]:
    inside = [value for known, value in some if edge < known <= at and value is not None]
    whole = [round(value * 1_000_000) for value in inside]
    least, most = min(inside, default=math.inf), max(inside, default=-math.inf)
    return len(inside), sum(whole), sum(value * value for value in whole), least, most


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(rows, max_size=25), min_size=1, max_size=4), st.data())
def test_a_run_is_the_rows_in_it(phases: list[list[tuple[int, float | None]]], data: st.DataObject) -> None:
    run = Run([(True, True, True, True)])
    taken: list[tuple[int, float | None]] = []
    floor = 0
    for phase in phases:
        for known, value in phase:
            end = -(-known // TILE) * TILE
            run.add(end if end <= floor else known, [item_of(value, True, True)])
        taken += phase
        assert list(run.at) == sorted(set(run.at))
        assert all(len(run.at) == len(state.counts) - 1 for state in run.states)
        at = data.draw(st.integers(floor, 320))
        edge = data.draw(st.integers(-1, at // TILE)) * TILE
        assert ask(run, edge, at) == expected(taken, edge, at)
        floor = max(floor, data.draw(st.integers(0, 30)) * TILE)
        oldest = data.draw(st.integers(-1, floor // TILE)) * TILE
        run.tidy(TILE, floor, oldest)
        taken = [row for row in taken if row[0] > oldest]
        assert sum(known <= floor for known in run.at) <= (floor - oldest) // TILE
        at = data.draw(st.integers(floor, 320))
        edge = data.draw(st.integers(oldest // TILE, at // TILE)) * TILE
        assert ask(run, edge, at) == expected(taken, edge, at)


@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=30))
def test_the_spread_is_that_of_exact_sums(values: list[int]) -> None:
    found = spread(len(values), sum(values), sum(value * value for value in values))
    mean = Fraction(sum(values), len(values))
    want = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) / 1e6
    assert found == pytest.approx(want, rel=1e-12, abs=1e-12)
