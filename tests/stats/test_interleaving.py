"""Team-draft interleaving: the list's promises for any rankings, fairness between equals, and how much sooner than A/B it sees the better one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import Verdict
from noria.stats import credit, interleave, preference

FIXED = settings(deadline=None, derandomize=True)
RANKING = st.lists(st.integers(0, 12), max_size=12)


@FIXED
@given(a=RANKING, b=RANKING, seed=st.text(max_size=8), k=st.integers(0, 15))
def test_what_holds_for_every_list(a, b, seed, k):
    made = interleave(a, b, seed, k)
    items = [item for item, _ in made]
    assert made == interleave(a, b, seed, k)
    assert len(items) == len(set(items)) == min(k, len({*a, *b})), "each item once, and as many as there are"
    for length in range(len(made) + 1):
        teams = Counter(team for _, team in made[:length])
        assert abs(teams["a"] - teams["b"]) <= 1
    shown = set()
    for item, team in made:
        if team:
            mine = a if team == "a" else b
            assert item == next(one for one in mine if one not in shown), "a team adds its best that is left"
        shown.add(item)
    free = [team for _, team in made]
    assert "" not in free or set(free[free.index("") :]) == {""}, "what nobody gets credit for comes last"
    if made and k == 1:
        assert made[0][0] in (a[:1] + b[:1])


@FIXED
@given(a=RANKING, b=RANKING, seed=st.text(max_size=8), k=st.integers(0, 15), more=st.integers(0, 5))
def test_a_longer_list_begins_with_the_shorter(a, b, seed, k, more):
    assert interleave(a, b, seed, k + more)[:k] == interleave(a, b, seed, k)


def test_equal_rankings_give_that_ranking():
    assert [item for item, _ in interleave([3, 1, 2], [3, 1, 2], "s", 3)] == [3, 1, 2]


def test_short_lists_duplicates_and_none():
    assert interleave([], [], "s", 5) == []
    assert interleave(["x", "x"], [], "s", 5) == [("x", "a")] or interleave(["x", "x"], [], "s", 5) == [("x", "")]
    assert [team for _, team in interleave(list(range(600)), list(range(600, 1200)), "s", 1200)].count("a") == 600


def test_the_coin_is_fair_and_tossed_anew_each_round():
    """Over 4,000 seeds the four orders of two rounds come equally often (chi-squared with 3 degrees of freedom)."""
    seen = Counter()
    for n in range(4000):
        made = interleave([0, 1, 2, 3], [4, 5, 6, 7], f"request-{n}", 4)
        seen[made[0][1], made[2][1]] += 1
    assert len(seen) == 4
    assert sum((count - 1000) ** 2 / 1000 for count in seen.values()) < 16.3  # p = 0.001


def test_every_coin_of_a_long_list_is_fair():
    heads = np.zeros(600)
    for n in range(300):
        made = interleave(list(range(600)), list(range(600, 1200)), f"long-{n}", 1200)
        heads += [team == "a" for _, team in made[::2]]
    assert np.abs(heads - 150).max() < 150 * 0.31  # 600 binomials of 300: 5.3 standard deviations
    assert heads.mean() == pytest.approx(150, abs=1)


def test_credit_goes_to_whose_item_was_clicked():
    shown = [("x", "a"), ("y", "b"), ("z", "b"), ("rest", "")]
    assert credit(shown, []) == (0, 0)
    assert credit(shown, ["y", "z", "y", "rest", "not shown"]) == (0, 2)


# ------------------------------------------------------------------------------------------------------ simulated readers

DOCUMENTS = 10
RELEVANCE = np.array([0.5, 0.4, 0.35, 0.25, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
SEEN = 1 / (1 + np.arange(5))
BETTER, WORSE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 0, 4, 2, 6, 3, 5, 7, 9, 8]


def clicks(rng, items, taste):
    """A reader looks at place i with chance 1/i and clicks by relevance and by own taste."""
    chance = SEEN[: len(items)] * np.minimum(RELEVANCE[list(items)] * taste, 1)
    return [item for item, one in zip(items, rng.random(len(items)) < chance, strict=True) if one]


def credits_of(rng, a, b, n, name):
    made = []
    for request in range(n):
        shown = interleave(a, b, f"{name}-{request}", 5)
        made.append(credit(shown, clicks(rng, [item for item, _ in shown], rng.lognormal(-0.5, 1))))
    return made


def test_equal_rankers_are_not_preferred():
    """At one fixed look about one run in twenty; looked at after every fifty readers, the always-valid check next to never."""
    rng, runs, once, ever = np.random.default_rng(0), 100, 0, 0
    for run in range(runs):
        made = credits_of(rng, BETTER, BETTER, 300, f"equal-{run}")
        once += preference(made).p < 0.05
        ever += any(preference(made[:n]).better for n in range(50, 301, 50))
    assert once <= 12
    assert ever <= 5


def test_the_better_ranker_is_seen_sooner_than_by_showing_each_to_half():
    rng, runs, n = np.random.default_rng(1), 60, 800
    mixed = halves = 0
    for run in range(runs):
        made = preference(credits_of(rng, BETTER, WORSE, n, f"better-{run}"))
        mixed += made.p < 0.05 and made.a > made.b
        counts = [len(clicks(rng, (BETTER, WORSE)[i % 2][:5], rng.lognormal(-0.5, 1))) for i in range(n)]
        mine, other = np.array(counts[::2], float), np.array(counts[1::2], float)
        z = (mine.mean() - other.mean()) / np.sqrt(mine.var(ddof=1) / len(mine) + other.var(ddof=1) / len(other))
        halves += z > 1.96
    assert mixed >= 0.7 * runs, (mixed, halves)
    assert mixed >= 2 * halves, (mixed, halves)


def test_the_always_valid_check_names_the_better_one():
    made = preference(credits_of(np.random.default_rng(2), WORSE, BETTER, 4000, "always"))
    assert made.check.verdict is Verdict.FAIL
    assert made.better == "b"
    assert made.share.above(0.5)


def test_ties_and_units():
    nothing = preference([(0, 0), (2, 2)])
    assert (nothing.ties, nothing.p, nothing.share.value, nothing.better) == (2, 1.0, None, "")
    assert nothing.check.verdict is Verdict.NOT_ENOUGH_DATA
    assert preference([]).check.verdict is Verdict.NOT_ENOUGH_DATA
    loud = [(0, 1)] * 200 + [(1, 0)] * 2
    assert preference(loud).better == "b"
    by_reader = preference(loud, units=["loud"] * 200 + ["one", "two"])
    assert (by_reader.a, by_reader.b, by_reader.better) == (2, 1, ""), "one reader is one observation, however often it comes"
    summed = preference([(3, 0), (0, 1), (0, 1)], units=["u", "u", "u"])
    assert (summed.a, summed.b, summed.ties) == (1, 0, 0), "the credits of one reader are added up"
    with pytest.raises(ValueError, match="one a request"):
        preference(loud, units=["x"])


def test_the_sign_test_against_the_binomial_written_out():
    from math import comb

    made = preference([(0, 1)] * 9 + [(1, 0)] * 2)
    assert made.p == pytest.approx(2 * sum(comb(11, i) for i in range(3)) / 2**11)
