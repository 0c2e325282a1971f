"""Labels that are wrong at random, told from a definition that changed and from a world that changed.

All three leave the inputs where they were. Let s be the release's score and y the label. *Noise* that flips labels with chances e0 (of negatives)
and e1 (of positives), whatever the row, gives P(y | s) = e0 + (1 - e0 - e1) s: both ends are drawn to the middle and the order of rows becomes
less clear (Angluin and Laird 1988, "Learning from noisy examples"; Natarajan et al. 2013, "Learning with noisy labels"). A *definition* that asks
for more or less moves the odds and keeps the order. A *concept* that changed breaks the order in a way that the features know: a model refitted on
them says more than any new reading of the old scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noria import stats
from noria.core import Check, Estimate, Verdict
from noria.diagnosis import streams
from noria.diagnosis.case import Case, Floats, Sample
from noria.diagnosis.compared import Compared, halves, placements, refitted
from noria.diagnosis.learned import logit
from noria.diagnosis.tested import Tested, check
from noria.records import Analysed, Gated

DIFFERENT = 0.6
KEPT = 0.03
FLIPPED = 0.03
MOST = 0.48
GAIN = 0.01
LEAST_NOISE = 0.01
FEWEST = 3
RANKS = 0.52
NOTHING = Estimate(None)


@dataclass(frozen=True)
class Changed:
    """What the closed rows since say beside those before.

    ``apart`` is the AUC of a classifier of time over the inputs; ``beyond`` how much a refit on all features beats a new reading of the scores
    alone, on rows that neither saw; ``e0`` and ``e1`` the chances of flips that fit best; ``flips_less_odds`` how much worse flips fit than
    moved odds (a line in the logit).
    """

    apart: Estimate
    auc: Estimate
    auc_before: Estimate
    beyond: Estimate
    loss: float
    e0: float
    e1: float
    flips_less_odds: Estimate
    low: Estimate
    high: Estimate
    away: Estimate
    meant: tuple[float, float] = (0.0, 1.0)
    fell: Estimate = NOTHING
    same_x: bool = False

    @property
    def same_inputs(self) -> bool | None:
        if self.apart.value is None:
            return None
        return self.apart.value <= DIFFERENT or not self.apart.above(0.5) or self.same_x

    @property
    def order_kept(self) -> bool | None:
        if not self.fell.known:
            return None
        return not self.fell.below(-KEPT) and (self.fell.value or 0.0) > -2 * KEPT

    @property
    def score_suffices(self) -> bool | None:
        return None if not self.beyond.known else not self.beyond.above(GAIN * self.loss)

    @property
    def drawn(self) -> bool | None:
        """Whether both ends of the scores are off by as much as these flips draw them to the middle, and one of them surely."""
        if not (self.low.known and self.high.known):
            return None
        fits = all(
            _holds(end, self.e0 - (self.e0 + self.e1) * meant)
            for end, meant in zip((self.low, self.high), self.meant, strict=True)
        )
        return fits and (self.low.above(0.0) or self.high.below(0.0))

    @property
    def flips(self) -> bool | None:
        """Whether both kinds of labels are flipped, and flips fit no worse than moved odds."""
        if not self.flips_less_odds.known:
            return None
        return (
            min(self.e0, self.e1) > FLIPPED
            and max(self.e0, self.e1) < MOST
            and (self.auc.value or 0.0) > RANKS
            and not self.flips_less_odds.above(0.0)
        )


def changed(case: Case) -> Changed | None:
    """The comparison, made once a case; ``None`` with too few closed rows on either side, or no binary label."""
    return streams.once(case, "labels since", lambda: _changed(case.before, case.recent))


def _changed(before: Sample | None, recent: Sample | None) -> Changed | None:
    if before is None or recent is None or recent.block_count < FEWEST or before.block_count < 10:
        return None
    if any(set(np.unique(sample.label)) != {0.0, 1.0} for sample in (before, recent)):
        return None
    first, second = halves(recent)
    if len(np.unique(first.label)) < 2 or min(first.n, second.n) == 0:
        return None
    auc, auc_before = (stats.estimate("auc", s.label, s.score, s.blocks, least=5) for s in (recent, before))
    both = Compared(before, recent)
    away = both.difference(before.label - before.score, recent.label - recent.score, confidence=0.95)
    fell = both.difference(placements(before), placements(recent), confidence=0.95)
    if not (away.above(0.0) or away.below(0.0)) and not fell.below(0.0):
        return Changed(
            NOTHING, auc, auc_before, NOTHING, 0.0, 0.0, 0.0, NOTHING, NOTHING, NOTHING, away, fell=fell
        )  # the rest is dear, and settles nothing
    apart = _apart(both)
    beyond = stats.paired("log_loss", second.label, read_again(first, second), refitted(first, second), second.blocks, least=2)
    meant = _odds(before.label, before.score, recent.score)
    e0, e1 = flip_rates(recent.label, meant)
    flips = np.clip(e0 + (1 - e0 - e1) * meant, 1e-6, 1 - 1e-6)
    worse = stats.paired(
        "log_loss", recent.label, flips, _odds(recent.label, recent.score, recent.score), recent.blocks, least=FEWEST
    )
    low, high, ends = _ends(both, meant)
    return Changed(
        apart=apart,
        auc=auc,
        auc_before=auc_before,
        beyond=beyond,
        loss=float(recent.loss().mean()),
        e0=e0,
        e1=e1,
        flips_less_odds=worse,
        low=low,
        high=high,
        meant=ends,
        away=away,
        fell=fell,
        same_x=_at_the_same_inputs(both, away),
    )


def _at_the_same_inputs(both: Compared, away: Estimate) -> bool:
    """Whether labels moved away from what the rows before teach by as much at the inputs that both times have, and the scores did not go with them."""
    score = both.difference(both.before.score, both.recent.score, confidence=0.9)
    if (score.above(0.0) or score.below(0.0)) and (score.value or 0.0) * (away.value or 0.0) > 0:
        return False
    _, past, new = both.lines()
    level = both.difference(past[:, 0], new[:, 0], both.common, 0.95)
    if level.value is None or not (level.above(0.0) or level.below(0.0)):
        return False
    return level.value * (away.value or 0.0) > 0 and abs(level.value) > 0.5 * abs(away.value or 0.0)


def _apart(both: Compared) -> Estimate:
    """How well a classifier tells the rows before from those since, in units of AUC: its interval is that of how far days are apart anyway."""
    moved = both.apart
    if moved.value is None or moved.low is None or moved.high is None:
        return Estimate(both.auc)
    half = (moved.high - moved.low) / 2
    scale = (both.auc - 0.5) / moved.value if moved.value > 0 else 1.0
    return Estimate(both.auc, both.auc - half * scale, both.auc + half * scale, moved.n)


def read_again(first: Sample, second: Sample) -> Floats:
    """The scores of ``second`` in the odds that ``first`` shows: one line in the logit, fitted to its labels."""
    return _odds(first.label, first.score, second.score)


def _odds(label: Floats, score: Floats, asked: Floats) -> Floats:
    beta = stats.logistic_fit(np.column_stack([np.ones(len(score)), logit(score)]), label)
    if not np.isfinite(beta).all():
        return np.full(len(asked), float(label.mean()))
    return np.asarray(1 / (1 + np.exp(-np.clip(beta[0] + beta[1] * logit(asked), -40, 40))))


def flip_rates(label: Floats, score: Floats) -> tuple[float, float]:
    """The chances e0 and e1 with which flips of labels drawn from ``score`` explain ``label`` best (maximum likelihood).

    >>> random = np.random.default_rng(0)
    >>> score = random.random(20_000)
    >>> label = (random.random(20_000) < score).astype(float)
    >>> flipped = np.where(random.random(20_000) < 0.2, 1 - label, label)
    >>> [round(rate, 1) for rate in flip_rates(flipped, score)]
    [0.2, 0.2]
    """
    from scipy.optimize import minimize

    def loss(rates: Floats) -> float:
        p = np.clip(rates[0] + (1 - rates[0] - rates[1]) * score, 1e-6, 1 - 1e-6)
        return float(-(label * np.log(p) + (1 - label) * np.log(1 - p)).mean())

    found = minimize(loss, np.array([0.05, 0.05]), bounds=[(0.0, 0.49), (0.0, 0.49)], method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def _ends(both: Compared, score: Floats) -> tuple[Estimate, Estimate, tuple[float, float]]:
    """Labels less what the scores before meant, on the fifth of the rows with the lowest and with the highest scores, beyond what it was before; and what
    they meant there.
    """
    before, recent = both.before, both.recent
    low, high = np.quantile(before.score, [0.2, 0.8])
    past = before.label - _odds(before.label, before.score, before.score)
    found, meant = [], []
    for there, here in ((before.score <= low, recent.score <= low), (before.score >= high, recent.score >= high)):
        weights = there.astype(float), here.astype(float)
        found.append(both.difference(past, recent.label - score, weights, confidence=0.95))
        meant.append(float(score[here].mean()) if here.any() else 0.5)
    return found[0], found[1], (meant[0], meant[1])


def _holds(found: Estimate, value: float) -> bool:
    """Whether a value lies in an interval, widened by a half: the flips that it follows from are themselves estimated."""
    assert found.low is not None
    assert found.high is not None
    room = (found.high - found.low) / 4
    return found.low - room <= value <= found.high + room


def label_noise(case: Case) -> Tested:
    """Labels are flipped at random: the scores tell less, at both ends alike, while inputs stay and no refit helps."""
    act = "look at rows where label and score disagree most with who labels them; relabel, and train on nothing labelled since"
    seen, shown = changed(case), _shown_before_the_gate(case)
    if shown is not None and shown.verdict is Verdict.FAIL:
        return Tested("label noise", "data", act, (shown,), 0.92, blocks=True)
    if seen is None:
        made = check("labels flipped at random", None, detail="too few closed rows on either side, or no binary label")
        return Tested("label noise", "data", act, (made,), blocks=True)
    fell = seen.fell.below(0.0) if seen.fell.known else None
    said = f"flips of {seen.e0:.1%} of the negatives and {seen.e1:.1%} of the positives fit best, and worse than moved odds by {seen.flips_less_odds}"
    made_ = (
        check(
            "the scores tell less",
            fell,
            size=seen.fell,
            bound=0.0,
            detail=f"the AUC moved by {seen.fell}: {seen.auc} since, {seen.auc_before} before",
        ),
        check(
            "the inputs stayed",
            seen.same_inputs,
            size=seen.apart,
            bound=DIFFERENT,
            detail=f"AUC of a classifier of time {seen.apart}",
        ),
        check(
            "a refit helps no more than a new reading", seen.score_suffices, size=seen.beyond, detail=f"it gains {seen.beyond}"
        ),
        check(
            "both ends drawn to the middle",
            seen.drawn,
            size=seen.low,
            bound=0.0,
            detail=f"labels less scores {seen.low} at the low end, {seen.high} at the high",
        ),
        check(
            "labels flipped at random",
            seen.flips,
            size=Estimate((seen.e0 + seen.e1) / 2, n=seen.auc.n),
            bound=FLIPPED,
            detail=said,
        ),
    )
    needed = {made_[0].name, made_[-1].name}  # what too few days leave open speaks neither for it nor against it
    found = all(one.verdict is Verdict.FAIL or (one.name not in needed and one.verdict is not Verdict.PASS) for one in made_)
    kept = made_ if found else tuple(one for one in made_ if one.verdict is not Verdict.FAIL)
    return Tested("label noise", "data", act, kept, 0.88 if found else 0.0, blocks=True)


def _shown_before_the_gate(case: Case) -> Check | None:
    """What the error analysis of a refused candidate says: labels of one rater or batch that are turned around. ``None`` without a gate."""
    refused = {entry.record.candidate for entry in case.of(Gated)}
    analysed = next((e for e in reversed(case.home.ledger.read(Analysed)) if e.record.candidate in refused), None)
    if analysed is None:
        return None
    noise, groups = analysed.record.noise, analysed.record.groups
    bad = sorted(
        (name for name, made in groups.items() if made.above(0.0)), key=lambda name: (-(groups[name].value or 0.0), name)
    )
    room = next((tag.room for tag in analysed.record.tags[:1] if tag.tag == "wrong labels"), None)
    found = noise.above(LEAST_NOISE) and room is not None
    said = f"{noise} of all labels are turned around: {', '.join(f'{groups[name]} of {name}' for name in bad[:3])}; with them right {room} of the loss would go"
    name = "labels of one source are wrong"
    return check(
        name,
        found,
        subject=bad[0] if bad else "",
        size=noise,
        bound=LEAST_NOISE,
        detail=said if bad else "no group of labels disagrees more than the others",
    )
