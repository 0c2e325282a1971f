"""How often each way to decide a rollout is wrong, and how fast it is right.

Whole rollouts are played from shadow to their end by ``noria``'s own rule (``rules.next_move``), looked at after every day, on streams of
synthetic evidence: daily differences that are autocorrelated and heavy-tailed, between two equal models (A/A) and with a true gain
of 0.4 standard deviations of a day. Three ways to compare:

- ``paired``: both models valued on the same rows, one difference a day; shadow, canary 5 % and 25 %, full, guard;
- ``arms``: a hundred units a day fall to two randomised arms (25 %, then 50 %); a unit has its own noise, a day a disturbance of the difference;
- ``bandit``: the same units, the share following the chance of being better.

Beside them, on the same streams, what people do: a t-test looked at once, on day 56; the same t-test looked at daily; and
"better over the last 7 days". They promote or roll back as soon as they are sure.

Run ``python benchmarks/rollout_rule.py [runs]`` (1,000 runs take about four minutes on one core; ``--markdown`` adds the tables of the docs, ``--bare``
what the intervals alone do).
Everything runs over all runs at once, but for ``next_move``; a test holds the vectorised evidence against ``noria``'s own functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy import special

import noria as nr
from noria.core import Check, Estimate, Verdict
from noria.deployment.live import Rollout
from noria.deployment.rollout import arms
from noria.deployment.rollout.evidence import ARMS
from noria.deployment.rollout.randomised import looks
from noria.deployment.rollout.rules import LATER, Evidence, Terms, next_move
from noria.stats.sequential import PRIOR

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST, LAST = 14, 120
ERROR, LEAST, UNITS_A_DAY, GUARD = 0.05, 10, 100, 14
KINDS = ("normal", "t3", "lognormal difference", "lognormal")
SOUND = (Check("sample ratio", Verdict.PASS),)
START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

# ------------------------------------------------------------------------------------------------------------- streams


def innovations(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> Floats:
    """Draws with mean 0 and standard deviation 1."""
    if kind == "normal":
        return random.standard_normal(shape)
    if kind == "t3":
        return random.standard_t(3, shape) / np.sqrt(3)
    spread = np.sqrt((np.e - 1) * np.e)
    if kind == "lognormal difference":
        return (np.exp(random.standard_normal(shape)) - np.exp(random.standard_normal(shape))) / (spread * np.sqrt(2))
    return (np.exp(random.standard_normal(shape)) - np.sqrt(np.e)) / spread  # "lognormal": one-sided


def days(random: np.random.Generator, runs: int, kind: str, r: float, *, effect: float = 0.0, length: int = LAST) -> Floats:
    """(runs, length) daily differences: AR(1) with coefficient ``r``, standard deviation 1, mean ``effect``."""
    burn = 50
    noise = innovations(random, (runs, length + burn), kind) * np.sqrt(1 - r * r)
    for day in range(1, length + burn):
        noise[:, day] += r * noise[:, day - 1]
    return noise[:, burn:] + effect


# ---------------------------------------------------------------------------- evidence, over all runs and one day at a time


def half_widths(blocks: Floats, error: float, prior: float) -> Floats:
    """``noria.stats.half_width`` of many lengths at once."""
    spread = 1 + blocks * prior
    with np.errstate(all="ignore"):
        ratio = (np.sqrt(spread) / error) ** (2 / blocks)
        made = np.sqrt((blocks - 1) * (ratio - 1) / (1 - ratio / spread) / blocks)
    return np.where((blocks <= 1) | (ratio >= spread), np.inf, made)


class Sequence:
    """``noria.stats.mean_sequence`` of many growing series, by running sums."""

    def __init__(self, runs: int) -> None:
        self.sums = np.zeros((9, runs))
        self.last = np.zeros((2, runs))
        self.n = np.zeros(runs)

    def add(self, x: Floats, w: Floats | None = None, where: NDArray[np.bool_] | None = None) -> None:
        """One more block with weights ``w``; runs with no weight, or not in ``where``, are left as they are."""
        w = np.ones(len(x)) if w is None else w
        there = (w > 0) if where is None else (w > 0) & where
        x, w = np.where(there, x, 0.0), np.where(there, w, 0.0)
        before, v = self.last
        link = np.where((self.n > 0) & there, w * v, 0.0)
        self.sums += np.stack([w, w * x, w * w, w * w * x, w * w * x * x, link, link * (x + before), link * x * before, there])
        self.last = np.where(there, np.stack([x, w]), self.last)
        self.n = self.sums[8]

    def clear(self, run: int) -> None:
        """Begins again for one run."""
        self.sums[:, run] = 0.0
        self.last[:, run] = 0.0
        self.n = self.sums[8]

    def moments(self) -> tuple[Floats, Floats, Floats]:
        """Mean, sum of squared deviations and inflation by autocorrelation."""
        w, wx, w2, w2x, w2xx, l0, l1, l2, n = self.sums
        safe = np.where(w > 0, w, 1.0)
        m, scale = wx / safe, (np.maximum(n, 1) / safe) ** 2
        squares = np.maximum(w2xx - 2 * m * w2x + m * m * w2, 0.0) * scale
        cross = (l2 - m * l1 + m * m * l0) * scale
        raw = cross / np.maximum(squares, 1e-300)
        r = np.clip(raw + (1 + 4 * raw) / np.maximum(n, 1), 0.0, 0.9)
        k = np.where((n < 3) | (squares <= 0), 1.0, np.minimum((1 + r) / (1 - r), n / 2))
        return m, squares, k

    def interval(self, error: float, prior: float = arms.PRIOR, least: int = LEAST) -> tuple[Floats, Floats]:
        """Mean and half width, infinite where there is no interval."""
        m, squares, k = self.moments()
        n = np.maximum(self.n, 1)
        with np.errstate(all="ignore"):
            half = half_widths(n / k, error, prior) * np.sqrt(squares / (n - k))
        return m, np.where((self.n < max(least, 3)) | ~np.isfinite(half), np.inf, half)

    def error(self) -> Floats:
        """The standard error of the mean, as ``noria.stats.mean_error`` has it."""
        _, squares, k = self.moments()
        n = np.maximum(self.n, 1)
        return np.sqrt(squares / np.maximum(n - k, 0.3 * n) * k / n)


class Arms:
    """``arms.between``, ``arms.daily`` and ``arms.better_arm`` of many runs whose units come once each, by running sums."""

    def __init__(self, runs: int) -> None:
        self.sums = np.zeros((8, runs))
        self.daily = Sequence(runs)

    def add(self, value: Floats, mine: NDArray[np.bool_]) -> None:
        """One day: (runs, units) values, and which are the challenger's."""
        n1 = mine.sum(axis=1).astype(float)
        n0 = mine.shape[1] - n1
        sum1, total = (value * mine).sum(axis=1), value.sum(axis=1)
        safe1, safe0 = np.maximum(n1, 1), np.maximum(n0, 1)
        difference, weight = sum1 / safe1 - (total - sum1) / safe0, n1 * n0 / (n1 + n0)
        squares = (value - (total / mine.shape[1])[:, None]) ** 2
        squares1 = (squares * mine).sum(axis=1)
        influence = weight**2 * (squares1 / safe1**2 + (squares.sum(axis=1) - squares1) / safe0**2)
        row = [
            weight,
            weight * difference,
            influence,
            n1,
            n0,
            total,
            (value**2).sum(axis=1),
            np.full(len(n1), float(mine.shape[1])),
        ]
        self.sums += np.stack(row)
        self.daily.add(difference, weight)

    def contrast(self) -> tuple[Floats, Floats, Floats]:
        """Difference, standard error, and the units of the smaller arm."""
        w, wd, q, n1, n0, *_ = self.sums
        few, safe = np.minimum(n1, n0), np.where(w > 0, w, 1.0)
        return wd / safe, np.sqrt(q * few / np.maximum(few - 1, 1)) / safe, few

    def between(self, error: float, most: int) -> tuple[Floats, Floats]:
        """Difference and half width."""
        difference, spread, few = self.contrast()
        t = special.stdtrit(np.maximum(few - 1, 1), 1 - error / most / 2)
        return difference, np.where(few < 2, np.inf, t * spread)

    def widest(self, error: float, most: int) -> tuple[Floats, Floats, Floats]:
        """Difference, low and high of the interval that covers both."""
        difference, half = self.between(error, most)
        mean, other = self.daily.interval(error)
        return difference, np.minimum(difference - half, mean - other), np.maximum(difference + half, mean + other)

    def better(self) -> Floats:
        """The chance that the challenger is worth more."""
        *_, total, squares, rows = self.sums
        difference, spread, _ = self.contrast()
        spread = np.where(self.daily.n >= LEAST, np.maximum(spread, self.daily.error()), spread)
        rows = np.maximum(rows, 1)
        prior = arms.EXPECTED * np.sqrt(np.maximum(squares / rows - (total / rows) ** 2, 0))
        return special.ndtr(difference / np.maximum(spread, 1e-300) * prior / np.hypot(prior, spread))


# ------------------------------------------------------------------------------------------------------------- the rule


@dataclass
class Ends:
    """For each run what came of it: +1 full and stayed so, -1 withdrawn or rolled back for harm, 0 undecided; and on which day."""

    side: Ints
    day: Ints
    share: Floats
    """The challenger's mean share of the units over the first 56 days of the canary."""


def _at(stage: str, share: float, step: int) -> Rollout:
    return Rollout(1, stage, share, step, "B", "A", START, START, 1, "id", START)  # type: ignore[arg-type]  # a stage


def _estimate(value: float, low: float, high: float, n: int) -> Estimate:
    if not (np.isfinite(low) and np.isfinite(high)):
        return Estimate(float(value), n=n)
    return Estimate(float(value), float(low), float(high), n)


def play(
    rules: nr.Rollout,
    runs: int,
    today: Callable[[int, Floats], None],
    look: Callable[[int, str], Evidence],
    *,
    randomised: bool,
    restart: Callable[[int], None] = lambda _: None,
) -> Ends:
    """Plays ``runs`` rollouts for ``LAST`` days. ``today`` adds a day's data at each run's share; ``look`` is one run's evidence.

    A rollout that became full is watched for as many days as it was in shadow at least, and counts as rolled back when that says so.
    """
    terms, guard = Terms(rules, True, randomised), int(rules.shadow[:-1])
    here = [_at("shadow", 0.0, 0)] * runs
    moved, staged = np.zeros(runs, int), np.zeros(runs, int)
    side, when, open_ = np.zeros(runs, np.int64), np.full(runs, LAST), np.ones(runs, bool)
    shares, exposed = np.zeros(runs), np.zeros((2, runs))
    for day in range(1, LAST + guard + 1):
        today(day, shares)
        exposed += np.where((shares > 0) & (shares < 1) & (day - staged <= 56), np.stack([shares, np.ones(runs)]), 0.0)
        for run in np.flatnonzero(open_):
            at = here[run]
            if at.stage == "full" and day - staged[run] > guard:
                open_[run] = False
                continue
            seen = look(run, at.stage)
            seen = Evidence(**{**vars(seen), "waited": int(day - moved[run]) * DAY, "staged": int(day - staged[run]) * DAY})
            move = next_move(terms, at, seen)
            if move is None:
                continue
            if move.stage != at.stage:
                staged[run] = day
            moved[run], shares[run] = day, move.share
            here[run] = _at(move.stage, move.share, move.step)
            if move.stage == "full":
                side[run], when[run] = 1, min(day, LAST)
            elif move.stage in ("withdrawn", "rolled back"):
                open_[run] = False
                side[run] = -1 if move.verdict is Verdict.FAIL else 0
                when[run] = min(day, LAST)
            restart(run)
    return Ends(side, when, exposed[0] / np.maximum(exposed[1], 1))


PAIRED = nr.Rollout(shadow="14d", canary=(0.05, 0.25), step="3d", patience="120d", error=ERROR)
RANDOMISED = nr.Rollout(shadow="2d", canary=(0.25, 0.5), step="3d", patience="120d", error=ERROR)
BANDIT = nr.Rollout(shadow="2d", canary=(0.1, 0.5), step="1d", patience="120d", error=ERROR, style="bandit")


def paired(differences: Floats) -> Ends:
    """Rollouts where both models are valued on the same rows. ``differences`` has ``LAST`` days and those of the guard."""
    runs = len(differences)
    whole, own, found = Sequence(runs), Sequence(runs), {}

    def today(day: int, shares: Floats) -> None:
        whole.add(differences[:, day - 1])
        own.add(differences[:, day - 1], where=shares > 0)
        for name, some, error in (("paired", whole, ERROR), ("lately", own, ERROR * LATER)):
            mean, half = some.interval(error)
            found[name] = (mean, mean - half, mean + half, some.n.astype(int))

    def look(run: int, stage: str) -> Evidence:
        def of(name: str) -> Estimate:
            mean, low, high, n = found[name]
            return _estimate(mean[run], low[run], high[run], int(n[run])) if n[run] else Estimate(None)

        kept = (
            "lately" if stage == "full" else "paired"
        )  # the guard of a release looks at its own days, with its part of the error
        return Evidence(0 * DAY, 0.0, paired=of(kept), lately=of("lately"), software=SOUND, units=500)

    return play(PAIRED, runs, today, look, randomised=False, restart=own.clear)


def randomised(random: np.random.Generator, runs: int, kind: str, r: float, *, gain: float, rules: nr.Rollout) -> Ends:
    """Rollouts decided by arms. ``gain`` is in standard deviations of a day's difference at half and half."""
    unit = np.sqrt(4 / UNITS_A_DAY)  # that of a day's difference, from the units' own noise
    disturbance = days(random, runs, kind, r, length=LAST + GUARD) * unit
    effect = gain * unit * np.sqrt(2)  # the disturbance is as large again
    seen, found = Arms(runs), {}
    most = looks(rules, "1d")

    def today(day: int, shares: Floats) -> None:
        running = (shares > 0) & (shares < 1)
        value = innovations(random, (runs, UNITS_A_DAY), kind)
        mine = (random.uniform(size=(runs, UNITS_A_DAY)) < shares[:, None]) & running[:, None]
        seen.add(value + mine * (effect + disturbance[:, day - 1])[:, None], mine)
        found["arms"], found["better"], found["few"] = seen.widest(ERROR * ARMS, most), seen.better(), seen.sums[3]

    def look(run: int, stage: str) -> Evidence:  # noqa: ARG001  the arms say the same in every stage
        mean, low, high = (some[run] for some in found["arms"])
        units = int(found["few"][run])
        arm = _estimate(mean, low, high, units) if units else Estimate(None)
        better = float(found["better"][run]) if units > 1 else None
        return Evidence(0 * DAY, 0.0, arms=arm, software=SOUND, units=units, better=better)

    return play(rules, runs, today, look, randomised=True)


# ----------------------------------------------------------------------------------------------- what people do instead

Rule = Callable[[Floats], Ints]


def _prefixes(x: Floats, of: Callable[[Sequence], tuple[Floats, Floats]]) -> Ints:
    """(runs, days) sides after each day: whether the interval around the mean excludes 0."""
    some, sides = Sequence(len(x)), np.zeros(x.shape, np.int64)
    for day in range(x.shape[1]):
        some.add(x[:, day])
        mean, half = of(some)
        sides[:, day] = np.where(np.abs(mean) > half, np.sign(mean), 0)
    return sides


def by_sequence(x: Floats) -> Ints:
    """``mean_sequence`` as it is by default."""
    return _prefixes(x, lambda some: some.interval(ERROR, PRIOR))


def by_careful_sequence(x: Floats) -> Ints:
    """``mean_sequence`` with the rollout's own prior."""
    return _prefixes(x, lambda some: some.interval(ERROR))


def _t(some: Sequence) -> tuple[Floats, Floats]:
    mean, squares, _ = some.moments()
    n = np.maximum(some.n, 2)
    return mean, special.stdtrit(n - 1, 1 - ERROR / 2) * np.sqrt(squares / (n - 1) / n)


def by_t(x: Floats) -> Ints:
    """A 95 % t-interval, looked at daily."""
    return _prefixes(x, _t)


def by_t_once(x: Floats) -> Ints:
    """A 95 % t-interval, looked at on day 56 and not again."""
    sides = by_t(x)
    sides[:, : 56 - 1] = 0
    sides[:, 56:] = 0
    return sides


def by_hac(x: Floats) -> Ints:
    """The 95 % interval that allows for autocorrelation (``block_mean``), looked at daily."""

    def of(some: Sequence) -> tuple[Floats, Floats]:
        mean, _, k = some.moments()
        degrees = np.maximum(some.n / k - 1, 2.0)
        return mean, np.where(some.n < LEAST, np.inf, special.stdtrit(degrees, 1 - ERROR / 2) * some.error())

    return _prefixes(x, of)


def by_last_week(x: Floats) -> Ints:
    """The mean of the last seven days is more than a quarter of a standard deviation away from 0."""
    total = np.cumsum(np.pad(x, ((0, 0), (1, 0))), axis=1)
    sides = np.zeros(x.shape, np.int64)
    week = (total[:, 7:] - total[:, :-7]) / 7
    sides[:, 6:] = np.where(np.abs(week) > 0.25, np.sign(week), 0)
    return sides


RULES: dict[str, Rule] = {"t-test once, day 56": by_t_once, "t-test, daily": by_t, "last 7 days": by_last_week}
BARE: dict[str, Rule] = {"sequence, default": by_sequence, "sequence, careful": by_careful_sequence, "t, HAC, daily": by_hac}


def decisions(rule: Rule, differences: Floats) -> tuple[Ints, Ints]:
    """For each run what was decided first (+1, -1, 0 never) and on which day (``LAST`` when never)."""
    sides = rule(differences[:, :LAST])
    sides[:, : FIRST - 1] = 0
    any_, first = (sides != 0).any(axis=1), (sides != 0).argmax(axis=1)
    return np.where(any_, sides[np.arange(len(sides)), first], 0), np.where(any_, first + 1, LAST)


# --------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Line:
    """One row of the table. A/A: the shares promoted and rolled back; with a gain: right by day 56, right and wrong in the end, median day."""

    kind: str
    r: float
    rule: str
    promoted: float
    rolled_back: float
    by56: float
    right: float
    wrong: float
    median: float


def line(kind: str, r: float, rule: str, same: tuple[Ints, Ints], better: tuple[Ints, Ints]) -> Line:
    side, when = better
    hits = when[side == 1]
    return Line(
        kind, r, rule, float((same[0] == 1).mean()), float((same[0] == -1).mean()), float(((side == 1) & (when <= 56)).mean()),
        float((side == 1).mean()), float((side == -1).mean()), float(np.median(hits)) if len(hits) else float("nan"),
    )  # fmt: skip


def lines(kind: str, r: float, runs: int, gain: float = 0.4, *, bare: bool = False) -> list[Line]:
    """Every rule on the streams of one kind."""
    seed = [KINDS.index(kind), int(10 * r)]
    random = np.random.default_rng(seed)
    streams = [days(random, runs, kind, r, effect=effect, length=LAST + GUARD) for effect in (0.0, gain)]
    played = [paired(stream) for stream in streams]
    made = [line(kind, r, "noria, paired", *((end.side, end.day) for end in played))]
    for name, rules in (("noria, arms", RANDOMISED), ("noria, bandit", BANDIT)):
        ends = [
            randomised(np.random.default_rng([*seed, place]), runs, kind, r, gain=effect, rules=rules)
            for place, effect in enumerate((0.0, gain))
        ]
        made.append(line(kind, r, name, *((end.side, end.day) for end in ends)))
    for name, rule in {**RULES, **(BARE if bare else {})}.items():
        made.append(line(kind, r, name, decisions(rule, streams[0]), decisions(rule, streams[1])))
    return made


def text(one: Line) -> str:
    """A row for the terminal."""
    return (
        f"{one.kind:22s}{one.r:5.1f}  {one.rule:20s}{one.promoted:9.1%}{one.rolled_back:9.1%}"
        f"{one.by56:11.1%}{one.right:9.1%}{one.wrong:9.1%}{one.median:9.0f}"
    )


def markdown(found: list[Line]) -> str:
    """The tables of the docs: a row for each kind of days, a column for each rule."""
    rules = list(dict.fromkeys(one.rule for one in found))
    rows: dict[tuple[str, float], dict[str, Line]] = {}
    for one in found:
        rows.setdefault((one.kind, one.r), {})[one.rule] = one
    cells: dict[str, Callable[[Line], str]] = {
        "A/A: promoted + rolled back, %": lambda one: f"{one.promoted:.1%} + {one.rolled_back:.1%}".replace("%", ""),
        "gain: right by day 56, by day 120, %; median day": lambda one: (
            f"{one.by56:.0%}, {one.right:.0%}; {one.median:.0f}".replace("%", "")
        ),
        "gain: rolled back all the same, %": lambda one: f"{one.wrong:.1%}".replace("%", ""),
    }
    made = []
    for title, cell in cells.items():
        made += [f"| {title} | r | {' | '.join(rules)} |", f"|---|---|{'---|' * len(rules)}"]
        made += [f"| {kind} | {r:g} | {' | '.join(cell(row[rule]) for rule in rules)} |" for (kind, r), row in rows.items()]
        made.append("")
    return "\n".join(made)


def power(r: float, gain: float, runs: int) -> dict[str, str]:
    """For a gain in standard deviations of a day, on normal days: right by day 56, by day 120, and the median day, by rule."""
    random = np.random.default_rng([99, int(10 * r), int(10 * gain)])
    stream = days(random, runs, "normal", r, effect=gain, length=LAST + GUARD)
    played = {"noria, paired": paired(stream)}
    for name, rules in (("noria, arms", RANDOMISED), ("noria, bandit", BANDIT)):
        played[name] = randomised(random, runs, "normal", r, gain=gain, rules=rules)
    ends = {name: (end.side, end.day) for name, end in played.items()} | {"t-test once, day 56": decisions(by_t_once, stream)}
    found = {}
    for name, (side, when) in ends.items():
        hits = when[side == 1]
        median = f"{np.median(hits):.0f}" if len(hits) else "-"
        found[name] = f"{np.mean((side == 1) & (when <= 56)):.0%}, {np.mean(side == 1):.0%}; {median}".replace("%", "")
    return found


def powers(runs: int) -> str:
    """That as a table: a row for each gain and each autocorrelation."""
    made = []
    for gain in (0.2, 0.4, 0.8, 1.2):
        for r in (0.0, 0.3, 0.5):
            cells = power(r, gain, runs)
            if not made:
                made += [
                    f"| gain, sd of a day: right by day 56, by day 120, %; median day | r | {' | '.join(cells)} |",
                    f"|---|---|{'---|' * len(cells)}",
                ]
            made.append(f"| {gain:g} | {r:g} | {' | '.join(cells.values())} |")
    return "\n".join(made)


def main(runs: int, *, docs: bool, bare: bool) -> None:
    found: list[Line] = []
    print(f"{'':29s}{'':20s}{'A/A: +':>9s}{'-':>9s}{'by 56':>11s}{'by 120':>9s}{'wrong':>9s}{'median':>9s}")
    for kind in KINDS:
        for r in (0.0, 0.3, 0.5):
            found += lines(kind, r, runs, bare=bare)
            print("\n".join(text(one) for one in found if (one.kind, one.r) == (kind, r)), flush=True)
    if docs:
        print(markdown(found))
    print(powers(runs))


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    main(int(words[0]) if words else 1000, docs="--markdown" in sys.argv, bare="--bare" in sys.argv)
