"""The state of one key in one group of windows: a run of elements in order of when they became known, with running sums.

An element is a row, or a closed tile whose rows were merged and which stands at the tile's end. A window begins on the grid, so the
rows after its edge are exactly the elements after it, merged or not. Counts and sums are kept as running totals (whole numbers, so a
difference is exact), least values as the minima over everything that follows: a window costs a binary search however many tiles it
has.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

SCALE = 1_000_000
LARGEST_FIXED = 10**18
LARGEST_SUM = 10**38
_WORD = 2**64

Item = tuple[int, int, int, float, float]
"""What one element adds: count, sum and sum of squares in millionths, least value, least negated value (infinite: there is none)."""


class Least:
    """The least value between two places of a run: ``values`` by place, and the places whose value is below all that follow."""

    __slots__ = ("at", "low", "values")

    def __init__(self) -> None:
        self.values = array("d")
        self.at = array("q")
        self.low = array("d")

    def take(self, at: int, value: float) -> None:
        """Lets a value at ``at`` take its place among those that are below all that follow."""
        place = bisect_right(self.at, at)
        if value == math.inf or (place < len(self.at) and self.low[place] <= value):
            return
        if place and self.at[place - 1] == at and self.low[place - 1] <= value:
            return
        first = place
        while first and self.low[first - 1] >= value:
            first -= 1
        self.at[first:place] = array("q", (at,))
        self.low[first:place] = array("d", (value,))

    def between(self, edge: int, first: int, end: int) -> float:
        """The least value of the elements ``first`` to ``end``, those after ``edge``; infinite without any."""
        if end == len(self.values):
            place = bisect_right(self.at, edge)
            return self.low[place] if place < len(self.at) else math.inf
        return min(self.values[first:end], default=math.inf)

    def forget(self, edge: int) -> None:
        """Drops what lies at or before ``edge``."""
        gone = bisect_right(self.at, edge)
        del self.at[:gone], self.low[:gone]


class State:
    """What a run keeps for one expression: the running count and, where they are asked for, sums, squares and least values.

    Element ``i`` adds the difference between the places ``i`` and ``i + 1`` of a running total.
    """

    __slots__ = ("counts", "highs", "lows", "squares", "sums")

    def __init__(self, sums: bool, squares: bool, low: bool, high: bool) -> None:
        self.counts = array("q", (0,))
        self.sums = [0] if sums else None
        self.squares = [0] if squares else None
        self.lows = Least() if low else None
        self.highs = Least() if high else None

    def append(self, at: int, item: Item) -> None:
        """Adds an element at the end."""
        self.counts.append(self.counts[-1] + item[0])
        if self.sums is not None:
            self.sums.append(self.sums[-1] + item[1])
        if self.squares is not None:
            self.squares.append(self.squares[-1] + item[2])
        for least, value in ((self.lows, item[3]), (self.highs, item[4])):
            if least is not None:
                least.values.append(value)
                least.take(at, value)

    def insert(self, place: int, at: int, item: Item, *, merge: bool) -> None:
        """Adds to the element at ``place``, or puts a new one before it."""
        if not merge:
            self.counts.insert(place + 1, self.counts[place])
        if item[0]:
            self.counts[place + 1 :] = array("q", [count + item[0] for count in self.counts[place + 1 :]])
        for totals, add in ((self.sums, item[1]), (self.squares, item[2])):
            if totals is not None:
                if not merge:
                    totals.insert(place + 1, totals[place])
                totals[place + 1 :] = [total + add for total in totals[place + 1 :]]
        for least, value in ((self.lows, item[3]), (self.highs, item[4])):
            if least is not None:
                if merge:
                    least.values[place] = min(least.values[place], value)
                else:
                    least.values.insert(place, value)
                least.take(at, value)

    def merge(self, ends: Sequence[int], upto: int) -> None:
        """Makes the elements before ``upto`` into ``len(ends)``: each ends before the place in ``ends``, where the next begins."""
        first = self.counts[:1]
        self.counts = first + array("q", [self.counts[end] for end in ends]) + self.counts[upto + 1 :]
        if self.sums is not None:
            self.sums = [self.sums[0], *(self.sums[end] for end in ends), *self.sums[upto + 1 :]]
        if self.squares is not None:
            self.squares = [self.squares[0], *(self.squares[end] for end in ends), *self.squares[upto + 1 :]]
        for least in (self.lows, self.highs):
            if least is not None:
                starts = [0, *ends[:-1]]
                made = [min(least.values[start:end]) for start, end in zip(starts, ends, strict=True)]
                least.values = array("d", made) + least.values[upto:]

    def drop(self, gone: int, edge: int) -> None:
        """Drops the first ``gone`` elements, those at or before ``edge``."""
        del self.counts[:gone]
        for totals in (self.sums, self.squares):
            if totals is not None:
                del totals[:gone]
        for least in (self.lows, self.highs):
            if least is not None:
                del least.values[:gone]
                least.forget(edge)


class Run:
    """The elements of one key: ``at`` says when each became known (a merged tile: its end), ``states`` what each expression keeps."""

    __slots__ = ("at", "states", "tidied")

    def __init__(self, states: Iterable[tuple[bool, bool, bool, bool]]) -> None:
        self.at = array("q")
        self.states = tuple(State(*wanted) for wanted in states)
        self.tidied = 0

    def add(self, at: int, items: Sequence[Item]) -> None:
        """Adds an element; elements at one moment are one."""
        if not self.at or at > self.at[-1]:
            self.at.append(at)
            for state, item in zip(self.states, items, strict=True):
                state.append(at, item)
            return
        place = bisect_left(self.at, at)
        merge = self.at[place] == at
        if not merge:
            self.at.insert(place, at)
        for state, item in zip(self.states, items, strict=True):
            state.insert(place, at, item, merge=merge)

    def tidy(self, tile: int, floor: int, edge: int) -> None:
        """Drops elements at or before ``edge`` and merges those of each tile that ended by ``floor`` (both lie on the grid)."""
        gone = bisect_right(self.at, edge)
        if gone:
            del self.at[:gone]
            for state in self.states:
                state.drop(gone, edge)
        upto = bisect_right(self.at, floor)
        tiles = [(at - 1) // tile for at in self.at[:upto]]
        ends = [n for n in range(1, upto + 1) if n == upto or tiles[n] != tiles[n - 1]]
        if len(ends) < upto:
            for state in self.states:
                state.merge(ends, upto)
        self.at = array("q", [(tiles[end - 1] + 1) * tile for end in ends]) + self.at[upto:]
        self.tidied = len(self.at)


def fixed(value: float) -> int:
    """A number in whole millionths, as SQL rounds: the product as a double, halves away from zero.

    >>> fixed(0.1234565), fixed(-2.5)
    (123457, -2500000)
    """
    scaled = abs(value * SCALE)
    whole = math.floor(scaled)
    whole += scaled - whole >= 0.5
    return whole if value >= 0 else -whole


def item_of(value: float | None, sums: bool, squares: bool) -> Item:
    """What a row's value adds; a value that is not there adds nothing. Raises ``OverflowError`` beyond the range of exact sums."""
    if value is None:
        return (0, 0, 0, math.inf, math.inf)
    if not sums:
        return (1, 0, 0, value, -value)
    if not -1e13 < value < 1e13 or abs(number := fixed(value)) >= LARGEST_FIXED:
        raise OverflowError(value)
    return (1, number, number * number if squares else 0, value, -value)


def as_double(number: int) -> float:
    """A whole number as SQL casts a ``DECIMAL(38, 0)`` to ``DOUBLE``: in two halves of 64 bits.

    >>> as_double(-3), as_double(2**53 + 1)
    (-3.0, 9007199254740992.0)
    """
    if 0 <= number < _WORD:
        return float(number)
    if -_WORD <= number < 0:
        return -float(-number - 1) - 1.0
    upper, lower = divmod(number, _WORD)
    return float(lower) + float(upper) * float(_WORD)


def spread(count: int, total: int, squares: int) -> float | None:
    """The population's standard deviation from exact sums, step by step as the query has it; ``OverflowError`` beyond their range."""
    if count == 0:
        return None
    mean = as_double(total) / float(count)
    centre = math.floor(abs(mean))
    centre += abs(mean) - centre >= 0.5
    centre = centre if mean >= 0 else -centre
    shift = count * centre
    inner = centre * (shift - 2 * total)
    if max(squares, abs(inner), abs(squares + inner)) >= LARGEST_SUM:
        raise OverflowError(squares)
    around = as_double(squares + inner) / float(count)
    beside = as_double(total - shift) / float(count)
    return math.sqrt(max(around - beside * beside, 0.0)) / SCALE
