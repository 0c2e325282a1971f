"""The rows before the fault beside those since: how far the inputs moved, and how much of the loss's rise comes from that.

The rise of the mean loss from before (P) to since (Q) is cut in two at the inputs that both have, S(x) ∝ p(x) q(x) / (p(x) + q(x)): with the
same inputs, what changed is the label given the inputs; the rest is the inputs (Cai, Namkoong and Yadlowsky 2023, "Diagnosing model
performance under distribution shift"). The ratio comes from a classifier that tells the rows apart, which never judges a day that it
has seen; every number has the interval of ``stats.moved``, so that two days can be enough when the change is gross.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import stats
from noria.core import Estimate
from noria.diagnosis.case import Floats, Sample
from noria.diagnosis.learned import boosted, contrasts, logit, matrix, sigmoid, timeless
from noria.stats import moved

FAMILY = 0.02
FEW, MOST_DAYS = 5, 0.7
SHARED = 0.05


@dataclass(frozen=True)
class Largest:
    """Of many contrasts the one that moved most, in half widths of an interval that holds for all of them together: above 1 it moved."""

    name: str
    ratio: float
    size: Estimate

    @property
    def found(self) -> bool:
        return self.ratio > 1.0


@dataclass(frozen=True)
class Compared:
    """Two samples of answered, closed rows, before and since."""

    before: Sample
    recent: Sample

    # -------------------------------------------------------------------------------------------------------- the loss

    @cached_property
    def losses(self) -> tuple[Floats, Floats]:
        return self.before.loss(), self.recent.loss()

    @cached_property
    def rise(self) -> Estimate:
        """How much higher the mean loss is since."""
        return self.difference(*self.losses)

    def difference(
        self, before: Floats, recent: Floats, weights: tuple[Floats, Floats] | None = None, confidence: float = 0.98
    ) -> Estimate:
        """mean(recent) - mean(before) of one number a row."""
        a, b = weights if weights is not None else (None, None)
        return moved(
            before, self.before.blocks, recent, self.recent.blocks,
            before_weights=a, recent_weights=b, confidence=confidence,
        )  # fmt: skip

    def largest(
        self,
        names: list[str],
        before: Floats,
        recent: Floats,
        weights: tuple[Floats, Floats] | None = None,
    ) -> Largest:
        """Of the columns of two matrices the one whose mean moved most, with an allowance for looking at all of them (Bonferroni)."""
        best = Largest("", 0.0, Estimate(None))
        confidence = 1 - FAMILY / max(len(names), 1)
        for place, name in enumerate(names):
            if _still(before[:, place], self.before.blocks):
                continue
            made = self.difference(before[:, place], recent[:, place], weights, confidence)
            if not made.known or made.value is None or made.high is None:
                continue
            half = made.high - made.value
            ratio = abs(made.value) / half if half > 0 else (np.inf if made.value else 0.0)
            if abs(made.value) < 1e-3:
                continue
            if ratio > best.ratio:
                best = Largest(name, float(ratio), made)
        return best

    # ------------------------------------------------------------------------------------------------------ the inputs

    @cached_property
    def names(self) -> list[str]:
        """The features that do not simply count time."""
        return timeless(self.before.frame, self.before.blocks)

    @cached_property
    def matrices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        both = matrix(pl.concat([s.frame.select(self.names) for s in (self.before, self.recent)], how="vertical_relaxed"))
        return both[: self.before.n], both[self.before.n :]

    @cached_property
    def contrasts(self) -> tuple[list[str], Floats, Floats]:
        return contrasts(self.before.frame.select(self.names), self.recent.frame.select(self.names))

    @cached_property
    def column(self) -> Largest:
        """The column that moved most by itself."""
        return self.largest(*self.contrasts)

    @cached_property
    def chances(self) -> tuple[Floats, Floats]:
        """For each row, before and since: the chance that a classifier takes it for one of those since, were both equally many."""
        a, b = self.matrices
        chance = np.full(len(a), 0.5), np.full(len(b), 0.5)
        part = folds(self.before), folds(self.recent)
        for fold in (0, 1):
            seen = [one != fold for one in part]
            if not seen[0].any() or not seen[1].any() or not (~seen[0]).any():
                continue
            side = np.r_[np.zeros(seen[0].sum()), np.ones(seen[1].sum())]
            weights = np.where(side == 1, len(side) / (2 * seen[1].sum()), len(side) / (2 * seen[0].sum()))
            asked = a[~seen[0]], b[~seen[1]]
            made = boosted(np.concatenate([a[seen[0]], b[seen[1]]]), side, *asked, weights=weights)
            chance[0][~seen[0]], chance[1][~seen[1]] = made
        return np.clip(chance[0], 0.01, 0.99), np.clip(chance[1], 0.01, 0.99)

    @cached_property
    def auc(self) -> float:
        """How well the rows before and since are told apart, on days that the classifier has not seen: 0.5 is not at all."""
        side = np.r_[np.zeros(self.before.n), np.ones(self.recent.n)]
        return float(stats.compute("auc", side, np.concatenate(self.chances)))

    @property
    def auc_over_days(self) -> Estimate:
        """The same with an interval over blocks."""
        side = np.r_[np.zeros(self.before.n), np.ones(self.recent.n)]
        blocks = np.r_[self.before.blocks, self.recent.blocks]
        return stats.estimate("auc", side, np.concatenate(self.chances), blocks, least=5)

    @cached_property
    def apart(self) -> Estimate:
        """How much higher that chance is since, against the days before among each other: weather tells days apart without a shift."""
        return self.difference(*self.chances)

    @property
    def inputs_moved(self) -> bool:
        """Whether the inputs moved beyond what they do from day to day."""
        return self.column.found or (self.recent.block_count > 1 and self.apart.above(0.0) and self.auc > 0.55)

    @cached_property
    def common(self) -> tuple[Floats, Floats]:
        """Weights that give both samples the inputs that they share."""
        a, b = self.chances
        return a, 1 - b

    @cached_property
    def shared(self) -> float:
        """The share of the rows since that count after weighting, as Kish's effective number: little overlap compares little."""
        weights = self.common[1]
        return float(weights.sum() ** 2 / (weights**2).sum() / len(weights)) * float(2 * weights.mean()) if len(weights) else 0.0

    @property
    def comparable(self) -> bool:
        """Whether both times have enough inputs in common to compare what follows from them."""
        return self.shared >= SHARED

    @cached_property
    def given_inputs(self) -> Estimate:
        """The part of the rise at the inputs that both have: the label given the inputs."""
        return self.difference(*self.losses, self.common)

    def share(self, part: float | None) -> float:
        """A part of the rise as a share of it, 0 to 1; 0 when the loss did not rise."""
        if part is None or self.rise.value is None or self.rise.value <= 0:
            return 0.0
        return float(min(max(part / self.rise.value, 0.0), 1.0))

    @property
    def inputs_share(self) -> float:
        """The share of the rise that comes from where the inputs went."""
        rise, given = self.rise.value, self.given_inputs.value
        return self.share(rise - given) if rise is not None and given is not None else 0.0

    # --------------------------------------------------------------------------------------------- the label given them

    @cached_property
    def scores_of_inputs(self) -> Largest:
        """Whether the release gives other scores to the same inputs than before: then the model moved, not the world."""
        outputs = [logit(s.score) if self.binary else s.score for s in (self.before, self.recent)]
        asked = self.crossed(outputs[0])
        scale = float(np.std(outputs[0])) or 1.0
        rest = [(o - e) / scale for o, e in zip(outputs, asked, strict=True)]
        names = ["mean", "slope"]
        made = [np.column_stack([r, r * (e - outputs[0].mean()) / scale]) for r, e in zip(rest, asked, strict=True)]
        return self.largest(names, made[0], made[1], self.common)

    @property
    def binary(self) -> bool:
        return self.before.binary and bool(np.isin(self.recent.label, (0.0, 1.0)).all())

    def crossed(self, target: Floats, extra: tuple[Floats, Floats] | None = None) -> tuple[Floats, Floats]:
        """What a model of the inputs (and ``extra``) fitted on the rows before expects, before (of days it has not seen) and since."""
        a, b = self.matrices
        if extra is not None:
            a, b = np.column_stack([a, extra[0]]), np.column_stack([b, extra[1]])
        part = folds(self.before)
        made, new = np.zeros(len(a)), np.zeros((2, len(b)))
        for fold in (0, 1):
            seen = part != fold
            made[~seen], new[fold] = boosted(a[seen], target[seen], a[~seen], b)
        return made, new.mean(axis=0)

    @cached_property
    def old(self) -> tuple[Floats, Floats]:
        """The label that the rows before teach to expect of each row; the score helps, while it means the same of the same inputs."""
        moved_score = self.scores_of_inputs
        helps = not (moved_score.found and abs(moved_score.size.value or 0.0) > 0.3)
        outputs = tuple(logit(s.score) if self.binary else s.score for s in (self.before, self.recent))
        return self.crossed(self.before.label, outputs if helps else None)  # type: ignore[arg-type]  # two of them

    @cached_property
    def reading(self) -> tuple[float, float]:
        """Intercept and slope that read the labels since off what the rows before expect, in log-odds: (0, 1) when nothing changed."""
        beta = stats.logistic_fit(np.column_stack([np.ones(self.recent.n), logit(self.old[1])]), self.recent.label)
        return (float(beta[0]), float(beta[1])) if np.isfinite(beta).all() else (0.0, 1.0)

    def lines(self, offset: float = 0.0, *, again: bool = False) -> tuple[list[str], Floats, Floats]:
        """What of the label the old rows do not teach, a row: as such, along the expectation, and along each column; (names, before, since).

        All but the first are within the day: what moves a whole day up or down (a storm) has no part in them. ``offset`` moves the
        expectation since by so much in log-odds (a new base rate); ``again`` reads it anew, by one line in the logit that the labels since
        are fitted by: what is then left is more than noise or another definition.
        """
        past, new = self.old
        if offset:
            new = sigmoid(logit(new) + offset)
        if again and self.binary:
            base, slope = self.reading
            new = sigmoid(base + slope * logit(new))
        middle, scale = float(past.mean()), float(past.std()) or 1.0
        names, a, b = self.contrasts
        made = []
        for sample, expected, z, weights in zip((self.before, self.recent), (past, new), (a, b), self.common, strict=True):
            rest = sample.label - expected
            inside = rest - by_block(sample.blocks, rest, weights)
            made.append(np.column_stack([rest, inside * (expected - middle) / scale, inside[:, None] * z]))
        return ["level", "slope", *names], made[0], made[1]

    def residuals(self, offset: float = 0.0, *, again: bool = False) -> Largest:
        """Of ``lines`` the one that moved most, at the inputs that both have; ``again``: after a new reading of what is expected."""
        names, before, recent = self.lines(offset, again=again)
        return self.largest(names, before, recent, self.common)

    def daily(self, name: str) -> tuple[Floats, int]:
        """One of ``lines`` as a mean a day, over both times, in the direction of its change; and how many days are before."""
        names, before, recent = self.lines()
        place = names.index(name)
        days = [
            _means(s.blocks, m[:, place], w)
            for s, m, w in zip((self.before, self.recent), (before, recent), self.common, strict=True)
        ]
        sign = np.sign(float(np.mean(days[1])) - float(np.mean(days[0]))) or 1.0
        return sign * np.concatenate(days), len(days[0])

    @cached_property
    def disorder(self) -> tuple[Floats, Floats, int]:
        """How much worse the scores order each day's rows than the rows before teach to expect: (by day, relative variances, days before).

        The expected AUC within the day less the one found, over both times, for days with five of either label; what is expected of each row comes from
        its inputs (``old``), so that a day of other rows, easier or harder to order, is none of disorder. The variance of an AUC goes about as 1/true +
        1/false. Empty unless most days of both times count.
        """
        if not self.binary:
            return np.empty(0), np.empty(0), 0
        kept: list[tuple[int, float, float]] = []
        for time, (sample, expected) in enumerate(zip((self.before, self.recent), self.old, strict=True)):
            placed = placements(sample)
            for block in np.unique(sample.blocks):
                day = sample.blocks == block
                true = int(sample.label[day].sum())
                false = int(day.sum()) - true
                if min(true, false) >= FEW:
                    apart = expected_auc(sample.score[day], expected[day]) - float(np.nanmean(placed[day]))
                    kept.append((time, apart, 1 / true + 1 / false))
        past = sum(time == 0 for time, *_ in kept)
        if past < MOST_DAYS * self.before.block_count or len(kept) - past < MOST_DAYS * self.recent.block_count:
            return np.empty(0), np.empty(0), 0
        return np.array([value for _, value, _ in kept]), np.array([variance for *_, variance in kept]), past

    @cached_property
    def advantage(self) -> tuple[Floats, Floats]:
        """For each row how much lower the loss is by a model that has learned from the rows since than by one that has not.

        Each half of the days since is judged by what the other half taught; a single day by its rows taken in turn.
        """
        past, new = self.old
        a, b = self.matrices
        base = (logit(past), logit(new)) if self.binary else (past, new)
        a, b = np.column_stack([a, base[0]]), np.column_stack([b, base[1]])
        part = folds(self.recent)
        old_gain, new_gain = np.zeros((2, len(a))), np.zeros(len(b))
        for fold in (0, 1):
            seen = part != fold
            if not seen.any() or seen.all():
                return np.full(len(a), np.nan), np.full(len(b), np.nan)
            there, here = boosted(b[seen], self.recent.label[seen], a, b[~seen])
            old_gain[fold] = _loss(self.before.label, past) - _loss(self.before.label, there)
            new_gain[~seen] = _loss(self.recent.label[~seen], new[~seen]) - _loss(self.recent.label[~seen], here)
        return old_gain.mean(axis=0), new_gain


def by_block(blocks: NDArray[np.int64], values: Floats, weights: Floats) -> Floats:
    """Each row's block's weighted mean."""
    places = np.unique(blocks, return_inverse=True)[1]
    return np.asarray(_means(blocks, values, weights)[places])


def _means(blocks: NDArray[np.int64], values: Floats, weights: Floats) -> Floats:
    sums, sizes = stats.longrun.block_sums(blocks, values * weights, weights)
    return sums / np.maximum(sizes, 1e-9)


def _still(values: Floats, blocks: NDArray[np.int64]) -> bool:
    """Whether a number was nought on nearly every day before: how much it varies from day to day cannot be told from that."""
    moving = np.unique(blocks[np.abs(values) > 1e-12])
    return len(moving) < max(5, 0.2 * len(np.unique(blocks)))


def placements(sample: Sample, only: NDArray[np.bool_] | None = None) -> Floats:
    """For each row (of ``only``) with a true label the share of its day's rows with a false one that score lower (half of those alike); NaN for the others.

    The mean is an AUC within the day (placements: DeLong et al. 1988, Biometrics 44), which a storm that lifts all of a day's scores leaves alone.
    """
    made = np.full(sample.n, np.nan)
    for block in np.unique(sample.blocks):
        here = (sample.blocks == block) & (only if only is not None else True)
        false = np.sort(sample.score[here & (sample.label == 0)])
        true = here & (sample.label == 1)
        if len(false) and true.any():
            lower, most = (np.searchsorted(false, sample.score[true], side=side) for side in ("left", "right"))
            made[true] = (lower + most) / (2 * len(false))
    return made


def expected_auc(score: Floats, chance: Floats) -> float:
    """The AUC to be expected of scores when each row's label is true with its ``chance``.

    >>> expected_auc(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 1.0])), expected_auc(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.5, 0.5]))
    (1.0, 0.5)
    """
    values, places = np.unique(score, return_inverse=True)
    true, false = (np.bincount(places, weights=part, minlength=len(values)) for part in (chance, 1 - chance))
    pairs = float(true.sum() * false.sum())
    return float(true @ (np.cumsum(false) - false / 2)) / pairs if pairs > 0 else 0.5


def folds(sample: Sample) -> NDArray[np.int64]:
    """Which of two folds each row is in: whole days in turn; a single day's rows in turn."""
    days, places = np.unique(sample.blocks, return_inverse=True)
    if len(days) == 1:
        return np.arange(sample.n) % 2
    return np.asarray(places % 2)


def _loss(label: Floats, score: Floats) -> Floats:
    binary = bool(np.isin(label, (0.0, 1.0)).all()) and bool(((score >= 0) & (score <= 1)).all())
    made = stats.row_loss("log_loss" if binary else "mae", label, score)
    return made if made is not None else np.empty(0)


def halves(sample: Sample) -> tuple[Sample, Sample]:
    """The sample in two, at the middle of its blocks."""
    blocks = np.unique(sample.blocks)
    later = sample.blocks >= blocks[len(blocks) // 2]
    return sample.take(~later), sample.take(later)


def refitted(first: Sample, second: Sample) -> Floats:
    """The scores of ``second`` by a small model of the features and the release's score, fitted on ``first``."""
    made = matrix(pl.concat([first.frame, second.frame], how="vertical_relaxed"))
    made = np.column_stack([made, logit(np.concatenate([first.score, second.score]))])
    return boosted(made[: first.n], first.label, made[first.n :])[0]
