"""What in the ledger shows that a test of the ML Test Score is passed by machine. One function a test: the records that show it, or what lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from noria.core import Check, Verdict, duration
from noria.records import (
    Alerted,
    Approved,
    Declared,
    Diagnosed,
    Drilled,
    Entry,
    Evaluated,
    Gated,
    Ingested,
    Linked,
    Monitored,
    Record,
    Released,
    Reproduced,
    Retraining,
    RolloutMoved,
    SchemaFrozen,
    Scored,
    Signal,
    Trained,
    TrainingSet,
    Tuned,
    Turned,
)
from noria.store import Home
from noria.system import Boosting, Linear, System

R = TypeVar("R", bound=Record)
RECENT = 7
DRILL = timedelta(days=180)
SKEW, PARITY = "training-serving skew", "score parity"


@dataclass(frozen=True)
class Shown:
    """Whether the records show it, what they say in a sentence, and their keys."""

    shown: bool
    says: str
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """The ledger as it stands at ``now``, with what several tests ask for."""

    home: Home
    system: System
    now: datetime

    def last(self, kind: type[R], prefix: str = "") -> Entry[R] | None:
        return self.home.ledger.latest(kind, prefix=prefix)

    @cached_property
    def release(self) -> Entry[Released] | None:
        last = self.last(Released)
        return last if last is not None and last.record.bundle else None

    @cached_property
    def gated(self) -> Entry[Gated] | None:
        """The gate of the release in force."""
        if self.release is None:
            return None
        bundle = self.release.record.bundle
        return next((e for e in reversed(self.home.ledger.read(Gated)) if e.record.bundle == bundle), None)

    @cached_property
    def trained(self) -> Entry[Trained] | None:
        if self.release is None:
            return None
        return next((e for e in reversed(self.home.ledger.read(Trained)) if e.record.bundle == self.release.record.bundle), None)

    def checks(self, *names: str) -> list[Check]:
        """The checks of these names behind the release's gate."""
        return [c for c in (self.gated.record.checks if self.gated is not None else ()) if c.name in names]

    def windows(self, about: str) -> list[Entry[Monitored]]:
        """The last seven windows, if they are of the last days: what was watched long ago shows nothing of today."""
        found = self.home.ledger.read(Monitored, prefix=f"monitored/{about}/", newest=RECENT)
        ripe = duration(self.system.label.within) + duration(self.system.label.lateness) + duration(self.system.label.horizon)
        return [e for e in found if self.now - e.record.window.end <= ripe + (RECENT + 2) * duration(self.system.every)]

    def signals(self, about: str, *names: str) -> list[tuple[Entry[Monitored], Signal]]:
        return [(e, s) for e in self.windows(about) for s in e.record.signals if s.name in names]

    def harm(self, level: str, *names: str) -> Entry[Alerted] | None:
        """The oldest alert of harm at a level (of these names, if any are given) that is not resolved."""
        state = {e.record.alert: e for e in self.home.ledger.read(Alerted)}
        standing = [e for e in state.values() if e.record.state != "resolved" and e.record.harm and e.record.level == level]
        return next((e for e in standing if not names or e.record.name in names), None)


NO_RELEASE = Shown(False, "there is no release")


def _of_checks(look: Look, names: tuple[str, ...], lacks: str) -> Shown:
    """Shown when the release's gate has such checks, and all of them passed."""
    if look.gated is None:
        return NO_RELEASE
    found = look.checks(*names)
    if not found:
        return Shown(False, lacks)
    failed = [c for c in found if c.verdict is not Verdict.PASS]
    if failed:
        return Shown(False, f"{failed[0].name} {failed[0].subject}: {failed[0].verdict}")
    return Shown(True, f"{len(found)} checks at the release's gate passed", (look.gated.key,))


# ------------------------------------------------------------------------------------------------------------- data


def schema(look: Look) -> Shown:
    frozen = {e.record.source: e for e in look.home.ledger.read(SchemaFrozen)}
    lacking = sorted(set(look.system.sources) - set(frozen))
    if lacking:
        return Shown(False, f"no schema yet for {', '.join(lacking)}")
    return Shown(
        True,
        f"{len(frozen)} sources have a frozen schema, and every day of them is verified against it",
        tuple(e.key for e in frozen.values()),
    )


def beneficial(look: Look) -> Shown:  # noqa: ARG001  no record can show it
    return Shown(False, "no ablation of single features is on record")


def cost(look: Look) -> Shown:
    lacking = sorted(name for name, source in look.system.sources.items() if not source.cost)
    return Shown(
        False,
        f"the cards of {', '.join(lacking)} say nothing of cost"
        if lacking
        else "cards say what sources cost; whether it is worth it is for a person to say",
    )


def meta(look: Look) -> Shown:
    declared = look.last(Declared)
    if not look.system.objective.sensitive:
        rules = sorted(name for name, source in look.system.sources.items() if source.regulation)
        of_rules = f"the cards of {', '.join(rules)} name rules, which a person has to look after; " if rules else ""
        return Shown(False, f"{of_rules}no sensitive columns are declared")
    if declared is None:
        return Shown(False, "nothing is declared")
    return Shown(True, "sensitive columns are declared, cannot be features, and are watched as slices", (declared.key,))


def privacy(look: Look) -> Shown:  # noqa: ARG001  no record can show it
    return Shown(False, "who may read what is not on record")


def quick(look: Look) -> Shown:
    """Features were changed by a declaration, and a training set had them within a week."""
    declared = look.home.ledger.read(Declared)
    for before, after in pairwise(declared):
        if before.record.spec.get("features") != after.record.spec.get("features"):
            made = [e for e in look.home.ledger.read(TrainingSet, after=after.seq) if e.at - after.at <= timedelta(days=7)]
            if made:
                return Shown(
                    True,
                    f"features declared on {after.at:%Y-%m-%d} were in a training set on {made[0].at:%Y-%m-%d}",
                    (after.key, made[0].key),
                )
    return Shown(False, "features have never been changed in this home")


def feature_code(look: Look) -> Shown:
    return _of_checks(look, ("no leak", "columns are served"), "the gate looked at no feature")


# ------------------------------------------------------------------------------------------------------------ model


def reviewed(look: Look) -> Shown:
    if look.gated is None:
        return NO_RELEASE
    signed = look.last(Approved, prefix=f"approved/{look.gated.key}")
    if signed is None or not signed.record.granted:
        return Shown(False, "nobody signed for the release (Gate(approval=True) asks for it)")
    return Shown(True, f"signed by {signed.record.by}", (signed.key,))


def correlates(look: Look) -> Shown:
    linked = look.last(Linked)
    if linked is None:
        return Shown(False, "the link from the metric to the business has not been estimated yet")
    if linked.record.verdict is not Verdict.PASS:
        return Shown(False, f"the link from the metric to the business: {linked.record.verdict}")
    return Shown(True, f"a better metric brings a better business: {linked.record.slope}", (linked.key,))


def tuned(look: Look) -> Shown:
    wanted = sum(isinstance(recipe, Linear | Boosting) for recipe in look.system.recipes)
    found = {e.record.recipe: e for e in look.home.ledger.read(Tuned) if e.record.declaration == look.system.id}
    if len(found) < wanted or not wanted:
        return Shown(False, f"{len(found)} of {wanted} recipes were searched")
    return Shown(
        True,
        f"{len(found)} recipes, {sum(e.record.trials for e in found.values())} settings tried",
        tuple(e.key for e in found.values()),
    )


def staleness(look: Look) -> Shown:
    """A release was held against newer ones on the same later days: what its age costs is known."""
    against = [
        e
        for e in look.home.ledger.read(Gated)
        if e.record.against and any(c.subject == "champion" and c.estimate and c.estimate.known for c in e.record.checks)
    ]
    if not against:
        return Shown(False, "no release was held against a younger one yet")
    return Shown(
        True, f"{len(against)} younger candidates were held against the release in force", tuple(e.key for e in against[-3:])
    )


def simpler(look: Look) -> Shown:
    return _of_checks(look, ("superior to baseline",), "no baseline was trained")


def slices(look: Look) -> Shown:
    return _of_checks(look, ("slice not worse",), "no slices are declared, or none is large enough")


def inclusion(look: Look) -> Shown:
    sensitive = set(look.system.objective.sensitive)
    if not sensitive:
        return Shown(False, "no sensitive columns are declared")
    parents = look.home.ledger.parents(look.gated.id) if look.gated is not None else []
    found = {s.column for e in parents if isinstance(e.record, Evaluated) for s in e.record.slices} & sensitive
    if found != sensitive:
        return Shown(False, f"not evaluated by {', '.join(sorted(sensitive - found))}")
    return Shown(True, f"evaluated by {', '.join(sorted(found))}", (look.gated.key,) if look.gated else ())


# --------------------------------------------------------------------------------------------------- infrastructure


def reproducible(look: Look) -> Shown:
    """The release was trained again from its training set, and is the same byte by byte."""
    if look.trained is None:
        return NO_RELEASE
    again = look.last(Reproduced, prefix=f"reproduced/{look.trained.record.bundle}/")
    if again is None:
        return Shown(False, "the release was not trained again yet")
    return Shown(again.record.verdict is Verdict.PASS, f"trained again on {again.at:%Y-%m-%d}: {again.record.says}", (again.key,))


def unit_tested(look: Look) -> Shown:
    return _of_checks(look, ("loads in a clean process",), "the bundle was not tried in a clean process")


def integration(look: Look) -> Shown:
    wanted = {"data", "development", "deployment", "monitoring"}
    did = [e for e in look.home.ledger.read(Turned) if not e.record.stopped]
    steps = {step for e in did for step in e.record.did}
    if not wanted <= steps or look.release is None:
        return Shown(False, f"the wheel has not gone round yet: {', '.join(sorted(wanted - steps)) or 'no release'}")
    return Shown(True, f"{len(did)} turns, from the sources to a release", (did[-1].key, look.release.key))


def validated(look: Look) -> Shown:
    if look.gated is None:
        return NO_RELEASE
    return Shown(
        look.gated.record.verdict is Verdict.PASS, f"the gate of the release: {look.gated.record.verdict}", (look.gated.key,)
    )


def debuggable(look: Look) -> Shown:
    """From the release every step back to the raw files is on record."""
    if look.trained is None:
        return NO_RELEASE
    training = next((e for e in look.home.ledger.parents(look.trained.id) if isinstance(e.record, TrainingSet)), None)
    if training is None or not any(e.record.files for e in look.home.ledger.read(Ingested, newest=64)):
        return Shown(False, "the release's training set or its raw files are not on record")
    return Shown(
        True,
        "noria trace goes from any prediction to features as served, model, training set and raw files",
        (look.trained.key, training.key),
    )


def canaried(look: Look) -> Shown:
    if look.release is None:
        return NO_RELEASE
    moved = [e for e in look.home.ledger.read(RolloutMoved) if e.record.challenger == look.release.record.bundle]
    stages = {e.record.stage for e in moved}
    if not {"shadow", "canary"} <= stages:
        return Shown(False, f"the release went through {', '.join(sorted(stages)) or 'no roll-out'}")
    return Shown(True, f"{' → '.join(f'{e.record.stage} {e.record.share:.0%}' for e in moved)}", tuple(e.key for e in moved))


def rolled_back(look: Look) -> Shown:
    drilled = look.last(Drilled)
    if drilled is None or drilled.record.verdict is not Verdict.PASS or look.now - drilled.at > DRILL:
        return Shown(False, "no rehearsal of a rollback in the last 180 days held (noria drill)")
    return Shown(True, f"rehearsed on {drilled.at:%Y-%m-%d} under load", (drilled.key,))


# ------------------------------------------------------------------------------------------------------- monitoring


def dependencies(look: Look) -> Shown:
    recent = look.home.ledger.read(Ingested, since=look.now - timedelta(days=RECENT))
    lacking = sorted(set(look.system.sources) - {e.record.source for e in recent})
    if lacking or not look.windows("traffic"):
        return Shown(False, f"not looked at in the last {RECENT} days: {', '.join(lacking) or 'the traffic'}")
    return Shown(
        True,
        "schema, volume, freshness and contents of every source are verified at each turn, and what changed is an alert",
        (recent[-1].key,),
    )


def invariants(look: Look) -> Shown:
    found = look.signals("traffic", "missing", "unseen", "js")
    if not any(s.bound is not None for _, s in found):
        return Shown(False, "no window of the last days was compared with a reference")
    columns = {s.subject for _, s in found if s.bound is not None}
    return Shown(True, f"{len(columns)} columns have thresholds from ordinary windows", (found[-1][0].key,))


def skew(look: Look) -> Shown:
    """What was served under the release in force was computed anew, in a diagnosis or in its roll-out, and is the same."""
    if look.release is None:
        return NO_RELEASE
    told = [
        (e, cause)
        for e in look.home.ledger.read(Diagnosed, since=look.release.at)
        for cause in e.record.causes
        if cause.name == SKEW and cause.verdict in (Verdict.PASS, Verdict.FAIL)
    ]
    if told and told[-1][1].verdict is Verdict.FAIL:
        found = told[-1][0]
        return Shown(False, f"the diagnosis of {found.at:%Y-%m-%d} found {SKEW}", (found.key,))
    bundle = look.release.record.bundle
    moved = [
        e
        for e in look.home.ledger.read(RolloutMoved)
        if e.record.challenger == bundle and any(c.name == PARITY and c.verdict is Verdict.PASS for c in e.record.checks)
    ]
    if moved:
        return Shown(True, "scores as served were computed anew in the roll-out, and are the same", (moved[-1].key,))
    if told:
        found = told[-1][0]
        return Shown(True, f"features as served were computed anew on {found.at:%Y-%m-%d}, and are the same", (found.key,))
    return Shown(False, "what the release serves was not compared with what is computed yet")


def fresh(look: Look) -> Shown:
    if look.trained is None:
        return NO_RELEASE
    every = look.system.retrain.every
    asked = look.last(Retraining)
    age = (look.now - look.trained.record.trained_until) / timedelta(days=1)
    if every is None and not look.system.retrain.on:
        return Shown(False, "no retraining policy is declared")
    limit = 4 * duration(every) / timedelta(days=1) if every is not None else 365.0
    if age > limit:
        return Shown(False, f"the release knows nothing of the last {age:.0f} days")
    keys = (look.trained.key, *((asked.key,) if asked is not None else ()))
    return Shown(True, f"the release learned until {age:.0f} days ago; the policy looks at each turn", keys)


def stable(look: Look) -> Shown:
    recent = look.home.ledger.read(Scored, since=look.now - RECENT * duration(look.system.every))
    n = sum(e.record.n for e in recent)
    if not n or look.release is None:
        return Shown(False, "nothing was scored in the last windows")
    refused = sum(e.record.refused for e in recent)
    return Shown(refused <= 0.01 * n, f"{refused} of {n} rows had no finite score", (recent[-1].key,))


def performance(look: Look) -> Shown:
    found = [(e, s) for e, s in look.signals("traffic", "latency p99 ms") if s.value is not None]
    if not found:
        return Shown(False, "the latency of a live service was not measured in the last windows")
    entry, signal = found[-1]
    said = f"99 % of the answers within {signal.value:.3g} ms"
    opened = look.harm("operation", "latency", "errors")
    if signal.verdict is not Verdict.PASS or opened is not None:
        why = f"the alert {opened.record.name} is open" if opened is not None else f"held against its bound: {signal.verdict}"
        return Shown(False, f"{said}, and {why}", (entry.key,))
    return Shown(True, said, (entry.key,))


def quality(look: Look) -> Shown:
    found = [(e, s) for e, s in look.signals("outcomes", "lead", "level") if s.value is not None and s.bound is not None]
    if not found:
        return Shown(
            False, "no closed window of the last days has outcomes of the release that were held against the gate's standard"
        )
    opened = look.harm("outcome")
    if opened is not None:
        return Shown(False, f"the alert {opened.record.name} is open since {opened.record.since:%Y-%m-%d}", (opened.key,))
    return Shown(True, f"{len(found)} of the last windows were held against the gate's standard", (found[-1][0].key,))


Ask = Callable[[Look], Shown]
