"""From a score to an act: the declared policy, made exact on the validation part, and applied.

What depends on data (the best threshold, a quantile's offset, the mean of an outcome that is not known when deciding) is chosen once
by ``choose`` and travels with the model as a ``Decision``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.measure.value import Floats, StandIns, columns_read, expected, known_labels, value
from noria.system import System

if TYPE_CHECKING:
    from noria.store.engine import Engine

Kind = Literal["expected", "threshold", "largest", "score", "quantile", "human"]
POLICIES = (
    '"act when expected value > 0", "act when score > 0.3", "act when score > best", "largest expected value", '
    '"score", "quantile 0.8" or "human"'
)
NEVER, ALWAYS = 1.0, -1.0
_NUMBER = r"(-?\d+(?:\.\d+)?(?:[eE]-?\d+)?)"


class Policy(msgspec.Struct, frozen=True):
    """A policy's text, parsed. ``bound`` is what has to be exceeded; ``None`` in a threshold is ``best``."""

    kind: Kind
    bound: float | None = None
    quantile: float | None = None


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a policy became: enough to act on a score without any other data.

    ``threshold`` is what the score (kind ``threshold``) or the gain in expected value (``expected``) has to exceed. ``offset`` is
    added to a regression's score to make it the declared quantile. ``classes`` names the columns of a multiclass score. ``outcomes``
    stands in for outcomes that the value reads and that are not known when deciding: for each its mean given the label (``true`` and
    ``false``, or the classes), or one mean (of a regression, and of bundles that were made before means were taken by label).
    """

    kind: Kind
    threshold: float | None = None
    quantile: float | None = None
    offset: float = 0.0
    classes: tuple[str, ...] = ()
    outcomes: dict[str, float | dict[str, float]] = {}


def parse_policy(text: str) -> Policy:
    """Reads ``Decide.policy``; raises ``ValueError`` that lists what is allowed.

    >>> parse_policy("act when score > 0.3")
    Policy(kind='threshold', bound=0.3, quantile=None)
    """
    said = " ".join(text.split())
    if match := re.fullmatch(rf"act when expected value > {_NUMBER}", said):
        return Policy("expected", float(match[1]))
    if match := re.fullmatch(rf"act when score > (?:{_NUMBER}|best)", said):
        return Policy("threshold", None if match[1] is None else float(match[1]))
    if match := re.fullmatch(rf"quantile {_NUMBER}", said):
        if 0 < float(match[1]) < 1:
            return Policy("quantile", quantile=float(match[1]))
        raise ValueError(f"the policy {text!r} names a quantile outside 0..1")
    if said == "largest expected value":
        return Policy("largest")
    if said == "score":
        return Policy("score")
    if said == "human":
        return Policy("human")
    raise ValueError(f"the policy {text!r} is not known: write {POLICIES}")


def choose(
    engine: Engine,
    system: System,
    score: NDArray[Any],
    label: NDArray[Any],
    frame: pl.DataFrame,
    *,
    classes: tuple[str, ...] = (),
    weights: Floats | None = None,
) -> Decision:
    """What the policy becomes on the validation part.

    Parameters
    ----------
    score, label, frame:
        Of the validation part; rows without a label do not count. ``classes`` names the columns of a multiclass score.
    weights:
        One a row (``measure.usable``); default 1.

    ``best`` takes, of at most 200 thresholds at the scores' quantiles, the one whose acts were worth most; equally good ones give the
    highest, so that acting has to earn something. A quantile becomes the score plus that quantile of the residuals (split
    conformal: Lei et al. 2018, JASA 113).
    """
    policy = parse_policy(system.decide.policy)
    score = np.asarray(score, float)
    keep = known_labels(system, label)
    means = outcome_means(system, frame, label, classes=classes, weights=weights)
    if policy.kind == "threshold" and policy.bound is None:
        bound = _best(engine, system, score, label, frame, keep=keep, weights=weights)
        return Decision("threshold", bound, classes=classes, outcomes=means)
    if policy.kind == "quantile" and policy.quantile is not None:
        residuals = np.sort((np.asarray(label, float) - score)[keep])
        place = min(len(residuals) - 1, int(np.ceil((len(residuals) + 1) * policy.quantile)) - 1)
        offset = float(residuals[place]) if len(residuals) else 0.0
        return Decision("quantile", quantile=policy.quantile, offset=offset, outcomes=means)
    return Decision(policy.kind, policy.bound, classes=classes, outcomes=means)


def outcome_means(
    system: System,
    frame: pl.DataFrame,
    label: NDArray[Any],
    *,
    classes: tuple[str, ...] = (),
    weights: Floats | None = None,
) -> dict[str, float | dict[str, float]]:
    """What stands in for each outcome that the value reads while it is not known: its mean over these rows, given the label.

    The price that a click pays is the mean over the clicks: over all rows it would be that times the click rate, and deciding by
    it would count the click rate twice. A label that no row has gets the mean over all rows with a label. Regression has one mean.
    """
    known = known_labels(system, label)
    weight = np.ones(frame.height) if weights is None else np.asarray(weights, float)
    sides: dict[str, NDArray[np.bool_]] = {}
    if system.task == "binary":
        number = np.asarray(label, float)
        sides = {"false": known & (number <= 0.5), "true": known & (number > 0.5)}
    elif system.task == "multiclass":
        names = np.asarray(label, object)
        sides = {name: known & (names == name) for name in classes or sorted(set(names[known].tolist()))}
    found: dict[str, float | dict[str, float]] = {}
    for name in columns_read(system.objective.value.sql):
        if name not in system.outcomes or name not in frame.columns or not frame[name].dtype.is_numeric():
            continue
        values = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        overall = _mean(values, weight, known)
        overall = 0.0 if overall is None else overall
        by_label = {side: _mean(values, weight, rows) for side, rows in sides.items()}
        found[name] = {side: overall if mean is None else mean for side, mean in by_label.items()} if sides else overall
    return found


def _mean(values: Floats, weight: Floats, rows: NDArray[np.bool_]) -> float | None:
    rows = rows & np.isfinite(values) & (weight > 0)
    return float(values[rows] @ weight[rows] / weight[rows].sum()) if rows.any() else None


def _best(
    engine: Engine,
    system: System,
    score: Floats,
    label: NDArray[Any],
    frame: pl.DataFrame,
    *,
    keep: NDArray[np.bool_],
    weights: Floats | None,
) -> float:
    if score.ndim != 1:
        raise ValueError('a threshold needs one score a row; for several classes use "largest expected value"')
    nothing, acting = (value(engine, system, frame, np.full(len(score), a), label, score) for a in (0.0, 1.0))
    gain = (acting - nothing) * (1.0 if weights is None else weights)
    usable = keep & np.isfinite(gain) & np.isfinite(score)
    score, gain = score[usable], gain[usable]
    if len(score) == 0:
        return NEVER
    order = np.argsort(-score, kind="stable")
    ranked, total = score[order], np.concatenate([[0.0], np.cumsum(gain[order])])
    cuts = np.unique(np.quantile(score, np.linspace(0, 1, 201), method="lower"))[::-1]
    acting_rows = np.searchsorted(-ranked, -cuts, side="left")  # rows with a score above each cut
    best = int(np.argmax(np.round(total[acting_rows], 9)))
    always = len(score)
    if total[always] > total[acting_rows[best]] + 1e-9:
        return ALWAYS if score.min() > ALWAYS else float(score.min()) - 1
    if acting_rows[best] == 0:
        return NEVER if score.max() <= NEVER else float(score.max())
    return float(cuts[best])


def act(engine: Engine, system: System, decision: Decision, scores: NDArray[Any], frame: pl.DataFrame) -> Floats:
    """The policy's act on each row, without exploration.

    Indices into ``Decide.acts`` (0/1 for the default), amounts for ``score`` and ``quantile``, NaN for ``human`` and where there is no score.
    Outcomes that the value reads are taken at their means on the validation part, also where the rows have them already: they are not
    known when deciding.
    """
    scores = np.asarray(scores, float)
    if decision.kind == "human":
        return np.full(len(scores), np.nan)
    known = np.isfinite(scores).all(axis=1) if scores.ndim == 2 else np.isfinite(scores)
    if decision.kind in ("score", "quantile"):
        return np.where(known, scores + decision.offset, np.nan)
    bound = decision.threshold or 0.0
    if decision.kind == "threshold":
        return np.where(known, (scores > bound).astype(float), np.nan)
    worth = worth_of_acts(engine, system, decision, scores, frame)
    if decision.kind == "largest":
        best = np.argmax(np.where(np.isnan(worth), -np.inf, worth), axis=1).astype(float)
    else:
        best = (worth[:, 1] - worth[:, 0] > bound).astype(float)
    return np.where(known, best, np.nan)


def worth_of_acts(engine: Engine, system: System, decision: Decision, scores: NDArray[Any], frame: pl.DataFrame) -> Floats:
    """What each act is expected to be worth, (n, number of acts), with the decision's means for outcomes that are not known yet."""
    asked = frame.drop(system.outcomes, strict=False)
    means: StandIns = decision.outcomes
    return expected(engine, system, asked, scores, classes=decision.classes, outcomes=means)
