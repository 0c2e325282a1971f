"""The world has changed: its inputs, its labels, or what follows from what.

The three are told apart on the same closed rows of the same release, before the fault and since. With x the features and y the label: a
*covariate shift* changes p(x) and keeps p(y | x), a *label shift* changes p(y) and keeps p(x | y) (Schölkopf et al. 2012, "On causal and
anticausal learning"; Lipton et al. 2018, "Detecting and correcting for label shift"), a *concept change* changes p(y | x).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import stats
from noria.core import Estimate, Verdict
from noria.diagnosis.case import Case, Floats, Sample
from noria.diagnosis.tested import Tested, check

MATTERS = 0.3
DIFFERENT = 0.6
LEAST_GAIN = 0.01
MOST_CATEGORIES = 60


def covariate_shift(case: Case) -> Tested:
    """The inputs moved, and the release does worse for just that reason: weighted like today's inputs, yesterday was as bad."""
    act = "train on the newest data; where rows of the new kind are few, collect more of them"
    recent, before = case.recent, case.before
    name = "moved inputs explain the loss"
    if recent is None or before is None:
        return Tested("covariate shift", "development", act, (check(name, None),))
    chance, auc = _told_apart(before, recent)
    told = f"a classifier tells the rows before the fault from those since with AUC {auc}"
    rise = loss_rise(before, recent)
    if auc.value is None or auc.value <= DIFFERENT:
        made = check(name, False, size=auc, bound=DIFFERENT, detail=f"{told}: the inputs are the same")
        return Tested("covariate shift", "development", act, (made,))
    if not rise.known or not rise.above(0.0):
        made = check(
            name,
            False if rise.known else None,
            size=rise,
            bound=0.0,
            detail=f"{told}, but the loss rose by {rise}: a fact, not harm",
        )
        return Tested("covariate shift", "development", act, (made,))
    losses = before.loss()
    weighted = float(np.average(losses, weights=np.clip(chance / (1 - chance), 0.02, 50.0)))
    share = (weighted - float(losses.mean())) / (rise.value or 1.0)
    said = (
        f"{told}; weighted like today's inputs, the rows before already have {share:.0%} of the loss's rise of {rise.value:.3g}"
    )
    made = check(name, share >= MATTERS, size=Estimate(share, n=before.block_count), bound=MATTERS, detail=said)
    return Tested("covariate shift", "development", act, (made,), 0.8 * min(1.0, share) if share >= MATTERS else 0.0)


def label_shift(case: Case) -> Tested:
    """The labels' mean moved, and the scores moved as they do when only the mix of labels changes."""
    act = "train on the newest data, or correct the scores for the new base rate; ask whether what is asked for has changed"
    recent, before = case.recent, case.before
    name = "only the mix of labels changed"
    if recent is None or before is None or not _binary(recent, before):
        return Tested("label shift", "development", act, (check(name, None),))
    moved = _difference(before.label, before.blocks, recent.label, recent.blocks)
    if not (moved.above(0.0) or moved.below(0.0)):
        made = check(name, False if moved.known else None, size=moved, bound=0.0, detail=f"the label's mean moved by {moved}")
        return Tested("label shift", "development", act, (made,))
    apart = float(before.score[before.label == 1].mean() - before.score[before.label == 0].mean())
    wanted = (moved.value or 0.0) * apart
    observed = _difference(before.score, before.blocks, recent.score, recent.blocks)
    fits = observed.low is not None and observed.high is not None and observed.low <= wanted <= observed.high
    # inputs that stay (a concept change) keep the scores; inputs that move on their own carry labels and scores along alike
    between = (observed.above(0.0) or observed.below(0.0)) and abs(observed.value or 0.0) < 0.85 * abs(moved.value or 0.0)
    said = f"the label's mean moved by {moved}, the score's by {observed}; a new mix of labels alone would move the score by {wanted:.3g}"
    made = check(name, bool(fits and between), size=observed, bound=wanted, detail=said)
    return Tested("label shift", "development", act, (made,), 0.7 if fits and between else 0.0)


def concept_change(case: Case) -> Tested:
    """What follows from the same inputs has changed: a model fitted on the first half since the fault beats the release on the second
    half, by more than such a refit gained before the fault; and it beats a model fitted on the rows before, which know nothing of
    the change. A changed mix of labels is corrected for first.
    """
    act = "train on data from after the change; if it keeps changing, train more often and on less history"
    recent, before = case.recent, case.before
    name = "a refit beats the release"
    if recent is None or recent.block_count < 10 or not _binary(recent):
        return Tested("concept change", "development", act, (check(name, None),))
    if before is not None and label_shift(case).verdict is Verdict.FAIL:
        recent, before = _corrected(before, recent), None
    first, second = halves(recent)
    gain = refit_gain(first, second)
    past = Estimate(None)
    if before is not None and before.block_count >= 10 and _binary(before):
        past = refit_gain(*halves(before))
    usual = max(past.value or 0.0, 0.0) + LEAST_GAIN * float(recent.loss().mean())
    found = gain.above(usual)
    said = f"refitted on the first half since the fault, the loss on the second is lower by {gain}"
    said += f"; before the fault by {past}" if past.value is not None else ""
    made = [check(name, found if gain.known else None, size=gain, bound=usual, detail=said)]
    if found and before is not None and _binary(before):
        newer = stats.paired("log_loss", second.label, refitted(before, second), refitted(first, second), second.blocks, least=5)
        said = f"fitted on the rows since the fault instead of those before it, the loss is lower by {newer}"
        found = newer.above(0.0)
        made = [check("new rows teach what old rows do not", found, size=newer, bound=0.0, detail=f"{made[0].detail}; {said}")]
    rise = loss_rise(before, recent) if before is not None else Estimate(None)
    share = (gain.value or 0.0) / rise.value if found and rise.value and rise.value > 0 else 0.6
    return Tested("concept change", "development", act, tuple(made), min(0.9, max(0.4, share)) if found else 0.0)


# ------------------------------------------------------------------------------------------------------------ arithmetic


def loss_rise(before: Sample, recent: Sample) -> Estimate:
    """How much higher the mean loss is since the fault, with an interval over blocks."""
    return _difference(before.loss(), before.blocks, recent.loss(), recent.blocks)


def _difference(a: Floats, a_blocks: NDArray[np.int64], b: Floats, b_blocks: NDArray[np.int64]) -> Estimate:
    """mean(b) - mean(a) of independent samples."""
    first, second = stats.block_mean(a, a_blocks, least=5), stats.block_mean(b, b_blocks, least=5)
    if first.value is None or second.value is None:
        return Estimate(None)
    value = second.value - first.value
    if first.low is None or second.low is None:
        return Estimate(value, n=min(first.n, second.n))
    half = float(np.hypot(first.value - first.low, second.value - second.low))
    return Estimate(value, value - half, value + half, min(first.n, second.n))


def halves(sample: Sample) -> tuple[Sample, Sample]:
    """The sample in two, at the middle of its blocks."""
    blocks = np.unique(sample.blocks)
    later = sample.blocks >= blocks[len(blocks) // 2]
    return sample.take(~later), sample.take(later)


def refit_gain(first: Sample, second: Sample) -> Estimate:
    """How much lower the loss of a model fitted on ``first`` (features and the release's own score) is on ``second``."""
    if not _binary(first):
        return Estimate(None)
    return stats.paired("log_loss", second.label, second.score, refitted(first, second), second.blocks, least=5)


def refitted(first: Sample, second: Sample) -> Floats:
    """The scores of ``second`` by a small model of the features and the release's score, fitted on ``first``."""
    matrix = _matrix(pl.concat([first.frame, second.frame], how="vertical_relaxed"))
    matrix = np.column_stack([matrix, _logit(np.concatenate([first.score, second.score]))])
    return _boosted(matrix[: first.n], first.label, matrix[first.n :])


def _boosted(matrix: NDArray[np.float64], label: Floats, asked: NDArray[np.float64]) -> Floats:
    """The chances of a few small trees. One thread: short work is slower on several, and stalls on a busy machine."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

    model = HistGradientBoostingClassifier(
        max_iter=50, learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=40, early_stopping=False, random_state=0
    )
    with threadpool_limits(1):
        model.fit(matrix, label)
        return np.asarray(model.predict_proba(asked)[:, 1])


def _told_apart(before: Sample, recent: Sample) -> tuple[Floats, Estimate]:
    """For each row before: the chance that a classifier of time takes it for a recent one; and the classifier's AUC, out of sample.

    Whole blocks are kept together in two folds, so that a day is not recognised by its own rows.
    """
    names = before.frame.columns
    both = pl.concat([before.frame.select(names), recent.frame.select(names)], how="vertical_relaxed")
    matrix = _matrix(both)
    side = np.concatenate([np.zeros(before.n), np.ones(recent.n)])
    blocks = np.concatenate([before.blocks, recent.blocks])
    chance = np.full(len(side), recent.n / len(side))
    for fold in (0, 1):
        inside = blocks % 2 == fold
        if len(np.unique(side[~inside])) < 2 or not inside.any():
            continue
        chance[inside] = _boosted(matrix[~inside], side[~inside], matrix[inside])
    return np.clip(chance[: before.n], 0.01, 0.99), stats.estimate("auc", side, chance, blocks, least=5)


def _matrix(frame: pl.DataFrame) -> NDArray[np.float64]:
    """Features as numbers: categories by their rank among the most frequent ones."""
    made = []
    for name in frame.columns:
        series = frame[name]
        if series.dtype.is_numeric() or series.dtype == pl.Boolean:
            made.append(series.cast(pl.Float64).fill_null(float("nan")).to_numpy())
        elif series.dtype.is_temporal():
            made.append(series.to_physical().cast(pl.Float64).fill_null(float("nan")).to_numpy())
        else:
            texts = series.cast(pl.String).fill_null("")
            top = (
                texts.value_counts(name="_n")
                .sort(["_n", texts.name], descending=[True, False])[texts.name]
                .to_list()[:MOST_CATEGORIES]
            )
            codes = {text: float(place) for place, text in enumerate(sorted(top))}
            made.append(texts.replace_strict(codes, default=float(len(codes)), return_dtype=pl.Float64).to_numpy())
    return np.column_stack(made) if made else np.zeros((frame.height, 1))


def _logit(score: Floats) -> Floats:
    inside = np.clip(score, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


def _binary(*samples: Sample) -> bool:
    return all(set(np.unique(sample.label)) == {0.0, 1.0} for sample in samples)


def _corrected(before: Sample, recent: Sample) -> Sample:
    """The recent sample with its scores moved to the new base rate (Saerens et al. 2002, Neural Computation 14)."""
    odds = [float(sample.label.mean() / (1 - sample.label.mean())) for sample in (before, recent)]
    moved = 1 / (1 + np.exp(-(_logit(recent.score) + np.log(odds[1] / odds[0]))))
    return Sample(recent.frame, recent.label, np.asarray(moved), recent.blocks)
