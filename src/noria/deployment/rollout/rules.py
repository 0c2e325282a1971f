"""When a rollout moves: pure rules over the evidence of closed cohorts.

Where acting does not change the label, the *paired* difference decides: both models' decisions valued on the same rows, whoever
answered. It is a confidence sequence over days with the declared ``error``, so looking after every cohort is free; each side
of it errs with half of that. The canary can then only veto, by software, sample ratio and gross harm (between the arms, or on the
step's own days), and waits while its own days look worse.

Where acting changes the label, a decision that was not taken has no outcome. Shadow then tests software only, and the
randomised arms of the canary decide: compared within each day and ramp step, pooled over both.

The styles differ in how the share grows. ``canary`` goes from share to share; ``blue-green`` from shadow to everything; ``bandit`` gives the
challenger the share that the evidence gives it a chance of being better, between the first and the last canary share, and
ends by the same always-valid evidence as the others, never by that chance.

Unknown is never a pass: too few rows pause a rollout, and patience ends it without promotion. A declared guardrail that is clearly
broken ends it; one of which nothing is known yet pauses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from noria.core import Check, Estimate, Verdict, duration, overall
from noria.deployment.live import Rollout
from noria.records import Stage
from noria.system import Rollout as Rules

UNKNOWN = Estimate(None)
LATER = 0.25
"""The part of the declared error that each veto may add: arms that do not decide, guardrails, a step's own days, the guard, refused rows."""


@dataclass(frozen=True)
class Evidence:
    """What is known about a rollout.

    ``waited`` is the closed time since the rollout came to its share, ``staged`` that since it came into its stage. ``paired`` and ``arms`` are the challenger's value per
    prediction less the champion's (or doing nothing's): on the same rows, and between randomised units; ``lately`` is ``paired``
    over this canary step alone. ``margin`` is how much worse still counts as not inferior, in the same units. ``software`` are the
    checks of the machinery: scores, refusals, sample ratios; ``guardrails`` those of declared bounds on the challenger's own rows. ``units``
    counts the challenger's closed units in the canary (stretches of time, with a switchback). ``better`` is the chance that
    the challenger is worth more. ``notes`` are shown and decide nothing; ``said`` goes with every value.
    """

    waited: timedelta
    margin: float
    paired: Estimate = UNKNOWN
    lately: Estimate = UNKNOWN
    arms: Estimate = UNKNOWN
    software: tuple[Check, ...] = ()
    units: int = 0
    staged: timedelta | None = None
    guardrails: tuple[Check, ...] = ()
    better: float | None = None
    notes: tuple[Check, ...] = ()
    said: str = ""

    @property
    def sound(self) -> bool:
        """Whether nothing stands in the way of going on: software was tested and holds, and no guardrail is broken or unknown."""
        return overall(self.software) is Verdict.PASS and overall((*self.software, *self.guardrails)) is Verdict.PASS


@dataclass(frozen=True)
class Terms:
    """What a rollout has to show. ``superior``: better than the champion, not only not inferior (a costlier recipe, or no champion).

    ``randomised``: only randomised arms count. ``least`` units of the challenger's before a canary step says anything.
    """

    rules: Rules
    superior: bool
    randomised: bool
    least: int = 30

    @property
    def shares(self) -> tuple[float, ...]:
        """The canary's shares: none for ``blue-green``."""
        return () if self.rules.style == "blue-green" else tuple(self.rules.canary)


@dataclass(frozen=True)
class Move:
    """Where a rollout goes, and why."""

    stage: Stage
    share: float
    step: int
    verdict: Verdict
    checks: tuple[Check, ...]
    reason: str


def next_move(terms: Terms, at: Rollout, seen: Evidence) -> Move | None:
    """The move that the evidence asks for, or ``None`` to stay."""
    checks = (*seen.software, *seen.guardrails, *_value_checks(terms, at, seen), *seen.notes)
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    if failed:
        names = ", ".join(sorted({check.name for check in failed}))
        gone: Stage = "withdrawn" if at.stage == "shadow" else "rolled back"
        return Move(gone, 0.0, at.step, Verdict.FAIL, checks, f"failed: {names}")
    if at.stage == "full":
        return None
    forward = _shadow(terms, seen, checks) if at.stage == "shadow" else _canary(terms, at, seen, checks)
    bandit = terms.rules.style == "bandit"
    spent = seen.staged if bandit and seen.staged is not None else seen.waited
    if spent >= duration(terms.rules.patience) and (forward is None or (bandit and forward.stage == at.stage)):
        said = f"no decision within {terms.rules.patience} of closed cohorts"
        return Move("withdrawn", 0.0, at.step, Verdict.NOT_ENOUGH_DATA, checks, said)
    return forward


def _shadow(terms: Terms, seen: Evidence, checks: tuple[Check, ...]) -> Move | None:
    if seen.waited < duration(terms.rules.shadow) or not seen.sound:
        return None
    if terms.randomised or terms.rules.style == "bandit":
        if not terms.shares:
            return None
        who = "randomised arms decide from here" if terms.randomised else "the share follows the evidence from here"
        return _ahead(terms, 0, checks, f"the software holds; {who}")
    if not seen.paired.above(_bound(terms, seen)):
        return None
    return _ahead(terms, 0, checks, f"the paired value difference {seen.paired} is {_wanted(terms, seen)}")


def _canary(terms: Terms, at: Rollout, seen: Evidence, checks: tuple[Check, ...]) -> Move | None:
    if not seen.sound or seen.units < terms.least:
        return None
    if terms.rules.style == "bandit":
        return _bandit(terms, at, seen, checks)
    if seen.waited < duration(terms.rules.step):
        return None
    if not terms.randomised and (seen.lately.value is None or seen.lately.value < -seen.margin):
        return None  # this step's own days speak against it, if not clearly: more of them will tell
    if at.step + 1 < len(terms.shares):
        return _ahead(terms, at.step + 1, checks, f"held at {at.share:.0%} without a veto")
    if not terms.randomised:
        # the paired sequence was above its bound once, which is all that it has to be: from then on there are vetoes
        return Move("full", 1.0, at.step + 1, Verdict.PASS, checks, f"held at {at.share:.0%} without a veto")
    return _full(terms, at, seen, checks)


def _full(terms: Terms, at: Rollout, seen: Evidence, checks: tuple[Check, ...]) -> Move | None:
    """Everything, when the evidence that decides is there."""
    found, name = (seen.arms, "arms'") if terms.randomised else (seen.paired, "paired")
    if not found.above(_bound(terms, seen)):
        return None
    return Move("full", 1.0, at.step + 1, Verdict.PASS, checks, f"the {name} value difference {found} is {_wanted(terms, seen)}")


def _bandit(terms: Terms, at: Rollout, seen: Evidence, checks: tuple[Check, ...]) -> Move | None:
    """Everything once the evidence is in; until then, at most once a ``step``, the share that goes with the chance of being better."""
    done = _full(terms, at, seen, checks)
    if done is not None:
        return done
    if seen.waited < duration(terms.rules.step) or seen.better is None:
        return None
    share = round(min(max(seen.better, terms.shares[0]), terms.shares[-1]), 2)
    share = min(max(share, terms.shares[0]), terms.shares[-1])  # rounding may have left the range
    if share == at.share:
        return None
    said = f"better than the champion with a chance of {seen.better:.2f}"
    return Move("canary", share, at.step + 1, Verdict.PASS, checks, said)


def _ahead(terms: Terms, step: int, checks: tuple[Check, ...], reason: str) -> Move:
    """The canary share ``step``, or everything when there is none left."""
    if step < len(terms.shares):
        return Move("canary", float(terms.shares[step]), step, Verdict.PASS, checks, reason)
    return Move("full", 1.0, step, Verdict.PASS, checks, reason)


def _bound(terms: Terms, seen: Evidence) -> float:
    return 0.0 if terms.superior else -seen.margin


def _wanted(terms: Terms, seen: Evidence) -> str:
    return "above 0" if terms.superior else f"not below -{seen.margin:.4g}"


def _value_checks(terms: Terms, at: Rollout, seen: Evidence) -> tuple[Check, ...]:
    """The value differences as checks: FAIL is clear harm, PASS is what a promotion needs."""
    found = []
    if not terms.randomised:
        found.append(_value_check("paired value", terms, seen, seen.paired))
    if at.stage == "canary":
        if not terms.randomised:
            found.append(_value_check("paired value of this step", terms, seen, seen.lately))
        found.append(_value_check("value between the arms", terms, seen, seen.arms))
    return tuple(found)


def _value_check(name: str, terms: Terms, seen: Evidence, estimate: Estimate) -> Check:
    if estimate.below(-seen.margin):
        verdict, bound = Verdict.FAIL, -seen.margin
    elif estimate.above(_bound(terms, seen)):
        verdict, bound = Verdict.PASS, _bound(terms, seen)
    else:
        verdict, bound = Verdict.NOT_ENOUGH_DATA, _bound(terms, seen)
    return Check(name, verdict, estimate=estimate, bound=bound, detail=seen.said)
