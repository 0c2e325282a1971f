"""Two rankers compared inside one list: team-draft interleaving, who gets the credit, and when a preference is there.

Every reader sees both rankers at once, so what differs between readers cancels, and far fewer of them are needed than when half see one
ranker and half the other. In a simulation with readers of different tastes (the one of ``tests/stats/test_interleaving.py``, 100 runs each)
the better ranker was found in this share of the runs:

=========================================================  ====  ====  ====  ====
readers                                                     200   400   800  1600
=========================================================  ====  ====  ====  ====
interleaved, sign test at one look                          .40   .74   .95  1.00
interleaved, the check that may be looked at any time       .11   .28   .56   .91
half and half, a z-test of clicks per reader at one look    .08   .13   .13   .41
=========================================================  ====  ====  ====  ====
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Sequence
from typing import Literal, TypeVar

import msgspec
import numpy as np
from scipy import stats as distributions

from noria.core import Check, Estimate, Verdict
from noria.stats.intervals import proportion
from noria.stats.sequential import sample_ratio

Item = TypeVar("Item", bound=Hashable)
Team = Literal["a", "b", ""]
_COINS = 256


class Preference(msgspec.Struct, frozen=True):
    """Which of two rankers is preferred. ``share`` is the share of the units with a preference that prefer ``b`` (Wilson's interval).

    ``p`` is the sign test's, two-sided, for one look at a number of units that was fixed beforehand. ``check`` may be looked at after
    every unit: it fails when the rankers are not equal, and then ``better`` names one.
    """

    a: int
    b: int
    ties: int
    share: Estimate
    p: float
    check: Check
    better: Team = ""


def interleave(a: Sequence[Item], b: Sequence[Item], seed: str, k: int) -> list[tuple[Item, Team]]:
    """At most ``k`` items of two rankings in one list, each with the team that it counts for.

    Parameters
    ----------
    a, b:
        The rankings, best first. An item that comes twice in one counts at its first place.
    seed:
        What tells this list from others: the request's id and the experiment's name. The same seed gives the same list.

    In every round a fair coin says which team picks first; each adds its highest item that is not in the list yet (Radlinski, Kurup and
    Joachims 2008, CIKM). When a team has nothing left to add, the other's rest follows for nobody's credit (``""``), so that at
    every length the teams differ by at most one.

    >>> interleave(["x", "y", "z"], ["y", "x", "w"], "request-7", 3)
    [('y', 'b'), ('x', 'a'), ('z', 'a')]
    """
    queues: dict[Team, list[Item]] = {"a": list(dict.fromkeys(a)), "b": list(dict.fromkeys(b))}
    places: dict[Team, int] = {"a": 0, "b": 0}
    shown: set[Item] = set()
    made: list[tuple[Item, Team]] = []
    bits, tossed = 0, 0
    order: tuple[Team, Team] = ("a", "b")
    while len(made) < k:
        if len(made) % 2 == 0:
            if tossed % _COINS == 0:
                bits = int.from_bytes(hashlib.sha256(f"interleave\x1f{seed}\x1f{tossed}".encode()).digest(), "big")
            order = ("a", "b") if bits >> (tossed % _COINS) & 1 else ("b", "a")
            tossed += 1
        team = order[len(made) % 2]
        queue, place = queues[team], _next(queues[team], places[team], shown)
        places[team] = place
        if place == len(queue):
            rest = [item for item in queues["a" if team == "b" else "b"] if item not in shown]
            return made + [(item, "") for item in rest[: k - len(made)]]
        shown.add(queue[place])
        made.append((queue[place], team))
    return made


def _next(queue: Sequence[Item], place: int, shown: Collection[Item]) -> int:
    while place < len(queue) and queue[place] in shown:
        place += 1
    return place


def credit(shown: Sequence[tuple[Item, Team]], clicked: Collection[Item]) -> tuple[int, int]:
    """How many clicked items each team had put into the list: (a, b). An item that was not shown counts for nobody.

    >>> credit([("y", "b"), ("x", "a"), ("w", "b")], {"x", "w", "elsewhere"})
    (1, 1)
    """
    chosen = set(clicked)
    teams = [team for item, team in shown if item in chosen]
    return teams.count("a"), teams.count("b")


def preference(
    credits: Sequence[tuple[float, float]],
    *,
    units: Sequence[Hashable] | None = None,
    error: float = 0.05,
    confidence: float = 0.95,
) -> Preference:
    """Whether the units prefer one ranker.

    Parameters
    ----------
    credits:
        (a, b) of each request, as ``credit`` counts it; any worth will do in place of a count.
    units:
        Whose request each was: the credits of one unit are added up and give one preference. Default: each request for itself.
    error:
        The chance that ``check`` ever names a better ranker while they are equal, however often it is looked at.

    A unit prefers whom it gave more credit; ties say nothing and are left out. The check is ``sample_ratio`` with equal shares: a sign
    test that stays valid when it is looked at after every unit, and so needs more units than ``p`` for the same difference.

    >>> made = preference([(0, 1)] * 40 + [(1, 0)] * 10 + [(1, 1)] * 50)
    >>> made.better, made.ties, round(made.share.value, 2)
    ('b', 50, 0.8)
    """
    if units is not None and len(units) != len(credits):
        raise ValueError(f"{len(units)} units for {len(credits)} credits: one a request")
    sums: dict[Hashable, float] = {}
    for unit, (a, b) in zip(units if units is not None else range(len(credits)), credits, strict=True):
        sums[unit] = sums.get(unit, 0.0) + (b - a)
    signs = np.sign(np.array(list(sums.values()), float))
    won, lost = int((signs > 0).sum()), int((signs < 0).sum())
    share = proportion(won, won + lost, confidence)
    p = float(distributions.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    found = sample_ratio([lost, won], [0.5, 0.5], error=error)
    detail = f"{lost} units prefer a, {won} prefer b, {len(signs) - lost - won} neither"
    check = Check("no preference", found.verdict, estimate=found.estimate, bound=found.bound, detail=detail)
    better: Team = "" if check.verdict is not Verdict.FAIL else "b" if won > lost else "a"
    return Preference(lost, won, len(signs) - lost - won, share, p, check, better)
