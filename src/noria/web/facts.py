"""What the doors show, read from the ledger: the wheel's state, the money, the time line. Both the command line and the report use it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args

import msgspec

from noria import business, deployment, monitoring
from noria.core import Estimate, Verdict, Window, duration
from noria.monitoring import profiles
from noria.records import (
    Alerted,
    Approved,
    Blocked,
    Charter,
    CohortClosed,
    Diagnosed,
    Entry,
    Gated,
    Ingested,
    Linked,
    Record,
    Released,
    Retraining,
    RolloutMoved,
    Scored,
    Step,
    Trained,
    Valued,
    Verified,
)
from noria.store import Home
from noria.system import System

State = Literal["good", "bad", "unsure", "waiting"]
FURTHEST = 3
STEPS: tuple[Step, ...] = get_args(Step)


class Spoke(msgspec.Struct, frozen=True):
    """One step of the wheel: its state, since when, what a person should know, and the record behind it."""

    step: Step
    state: State
    since: datetime | None
    says: str
    record: str = ""


class Back(msgspec.Struct, frozen=True):
    """The arrow back: where a standing diagnosis says to return to, and why."""

    to: Step
    since: datetime
    cause: str
    act: str
    record: str


class Wheel(msgspec.Struct, frozen=True):
    """The whole wheel at ``at``, the logical time of the newest record."""

    system: str
    at: datetime | None
    spokes: tuple[Spoke, ...]
    back: Back | None


def wheel(home: Home, system: System) -> Wheel:
    """The state of each step, from the newest records of its kinds."""
    newest = home.ledger.read(newest=1)
    spokes = (
        _scoping(home),
        _data(home),
        _development(home, system),
        _deployment(home, system),
        _monitoring(home),
        _business(home, system),
    )
    return Wheel(system.name, newest[-1].at if newest else None, spokes, standing(home))


def _scoping(home: Home) -> Spoke:
    entries = home.ledger.read(Charter)
    if not entries:
        return Spoke("scoping", "waiting", None, "no charter yet: too few closed labels")
    last = entries[-1]
    state: State = {"go": "good", "no-go": "bad", "partial": "unsure"}[last.record.decision]  # type: ignore[assignment]  # values of State
    reason = last.record.reasons[0] if last.record.reasons else ""
    since = _since(entries, lambda e: e.record.decision)
    return Spoke("scoping", state, since, f"{last.record.decision}: {reason}" if reason else last.record.decision, last.id)


def _data(home: Home) -> Spoke:
    taken, blocked = home.ledger.latest(Ingested), home.ledger.latest(Blocked)
    if blocked is not None and (taken is None or blocked.seq > taken.seq):
        return Spoke("data", "bad", blocked.at, f"{blocked.record.source}: {blocked.record.reason}", blocked.id)
    if taken is None:
        return Spoke("data", "waiting", None, "nothing came in yet")
    checks = home.ledger.read(Verified)
    last: dict[str, Entry[Verified]] = {entry.record.source: entry for entry in checks}
    failing = [entry for entry in last.values() if entry.record.verdict is Verdict.FAIL]
    until = closed_until(home)
    closed = f"labels closed until {_minute(until)}" if until else "no labels closed yet"
    if failing:
        names = ", ".join(
            sorted(
                f"{check.subject or entry.record.source}: {check.name}" for entry in failing for check in entry.record.checks[:1]
            )
        )
        return Spoke("data", "unsure", min(entry.at for entry in failing), f"{names}; {closed}", failing[-1].id)
    return Spoke("data", "good", taken.at, closed, taken.id)


def _development(home: Home, system: System) -> Spoke:
    entries = home.ledger.read(Gated)
    if not entries:
        there, needed = (span / timedelta(days=1) for span in (monitoring.span_closed(home), monitoring.span_needed(system)))
        waits = f"; {there:.0f} of the {math.ceil(needed)} days of closed labels that a training takes" if there < needed else ""
        return Spoke("development", "waiting", None, f"nothing was gated yet{waits}")
    last = entries[-1]
    state = _state(last.record.verdict)
    made = trained(home, last.record.bundle)
    failed = [check for check in last.record.checks if check.verdict is Verdict.FAIL]
    why = f": {failed[0].name} {failed[0].subject}".rstrip() if failed else ""
    name = f"{made.record.recipe} " if made else ""
    return Spoke(
        "development", state, _since(entries, lambda e: e.record.verdict), f"gate: {name}{last.record.verdict}{why}", last.id
    )


def _deployment(home: Home, system: System) -> Spoke:
    live, release, scored = deployment.state(home), home.ledger.latest(Released), home.ledger.latest(Scored)
    serves = f"release {live.number} serves" if live.champion else "nothing acts yet"
    if live.rollout is not None:
        share = f" at {live.rollout.share:.0%}" if live.rollout.stage == "canary" else ""
        return Spoke(
            "deployment",
            "good",
            live.rollout.moved,
            f"{serves}; rollout {live.rollout.number} in {live.rollout.stage}{share}",
            live.rollout.entry,
        )
    if release is None or live.champion is None:
        text = "predictions are logged, nothing acts" if scored else "nothing was scored yet"
        return Spoke("deployment", "waiting", release.at if release else None, text, release.id if release else "")
    late = scored is not None and scored.record.late > 0 and scored.record.window.length <= 2 * duration(system.every)
    made = trained(home, live.champion)
    name = f" ({made.record.recipe})" if made else ""
    return Spoke("deployment", "unsure" if late else "good", release.at, f"release {live.number}{name} serves", release.id)


def _monitoring(home: Home) -> Spoke:
    alerts = open_alerts(home)
    if not alerts:
        any_yet = home.ledger.latest(Alerted) is not None or home.ledger.latest(Released) is not None
        return Spoke("monitoring", "good" if any_yet else "waiting", None, "no open alerts")
    harm = [alert for alert in alerts if alert.record.harm]
    first = (harm or alerts)[0]
    more = f" and {len(alerts) - 1} more" if len(alerts) > 1 else ""
    return Spoke("monitoring", "bad" if harm else "unsure", first.record.since, f"{first.record.message}{more}", first.id)


def moved(home: Home) -> dict[str, float]:
    """The columns (and the score) that lie furthest from the release's reference, over all that it has answered so far: Jensen-Shannon distances."""
    found = profiles.since_release(home, home.clock.now())
    far = sorted(((by["js"], name) for name, by in found.items() if math.isfinite(by["js"])), key=lambda one: (-one[0], one[1]))
    return {name: float(f"{distance:.4g}") for distance, name in far[:FURTHEST]}


def _business(home: Home, system: System) -> Spoke:
    money = totals(home, system)
    if money is None:
        return Spoke("business", "waiting", None, "nothing is closed yet")
    gain = money.gain("do nothing")
    against = "" if gain.value is None else f", {amount(gain.value, money.currency, sign=True)} against doing nothing"
    word = money.advice.split(":")[0]
    state: State = "good" if word == "continue" else "bad" if word == "stop" else "unsure"
    linked = home.ledger.latest(Linked)
    link = business.state(linked.record) if linked is not None else ""
    says = f"{amount(money.total, money.currency)}{against}; {money.advice}"
    if link in ("broken", "no link"):
        state = "bad" if link == "broken" else "unsure" if state == "good" else state
        says += (
            f"; the link from {system.objective.metric} to value is {link}"
            if link == "broken"
            else f"; {system.objective.metric} has no link to value"
        )
    return Spoke("business", state, money.window.start, says)


def standing(home: Home) -> Back | None:
    """The newest diagnosis of which a symptom still stands."""
    for entry in reversed(home.ledger.read(Diagnosed, newest=8)):
        found = entry.record
        if any(_stands(home, key, entry) for key in found.symptoms):
            first = found.causes[0] if found.causes and found.causes[0].verdict is Verdict.FAIL else None
            if first is None and found.back_to == "monitoring":
                continue  # a fact that does no harm: there is nothing to go back for
            cause, act = (first.name, first.act) if first else ("no cause was found at work", found.account)
            return Back(found.back_to, entry.at, cause, act, entry.id)
    return None


def _stands(home: Home, key: str, diagnosis: Entry[Diagnosed]) -> bool:
    entry = home.ledger.find(key)
    if entry is None:
        return any(key in (alert.record.alert, alert.key) for alert in open_alerts(home))
    if isinstance(entry.record, Alerted):
        return any(alert.record.alert == entry.record.alert for alert in open_alerts(home))
    newer: Entry[Record] | None
    if isinstance(entry.record, Blocked):
        source = entry.record.source
        newer = next((e for e in reversed(home.ledger.read(Ingested, after=entry.seq)) if e.record.source == source), None)
        return newer is None
    newest = home.ledger.latest(type(entry.record))
    return newest is None or newest.seq <= max(entry.seq, diagnosis.seq)


def open_alerts(home: Home) -> list[Entry[Alerted]]:
    """The newest entry of each alert that was opened and not resolved, oldest first; acknowledged ones count as open."""
    return monitoring.open_alerts(home)


def signed(home: Home, alert: Entry[Alerted]) -> str:
    """Who has acknowledged or muted an open alert, and why; empty when nobody has, or when it was told again since.

    A signature counts at once, before a turn has noted it.
    """
    last = home.ledger.latest(Approved, prefix=f"approved/{alert.record.alert}/")
    noted = last is not None and last.seq < alert.seq
    if last is None or not last.record.granted or (noted and alert.record.state == "open"):
        return ""
    until = alert.record.muted_until if noted else last.record.until
    what = f"muted until {until:%Y-%m-%d %H:%M}" if until is not None else "acknowledged"
    return f"{what} by {last.record.by}" + (f": {last.record.note}" if last.record.note else "")


def trained(home: Home, bundle: str) -> Entry[Trained] | None:
    """Who made a bundle: the newest ``Trained`` with this archive."""
    return next((entry for entry in reversed(home.ledger.read(Trained)) if entry.record.bundle == bundle), None)


def closed_until(home: Home) -> datetime | None:
    """The end of the newest closed cohort."""
    last = home.ledger.latest(CohortClosed)
    return last.record.window.end if last else None


# ------------------------------------------------------------------------------------------------------------ the money


class Money(msgspec.Struct, frozen=True):
    """What all closed decisions were worth together, and what the trivial policies would have made of the same predictions.

    ``versus`` is the difference per prediction to each policy, with its interval: positive means that the decisions were better.
    ``released`` is the same since the first release. ``releases`` has the money made under each bundle (``""``: before the first).
    """

    window: Window
    currency: str
    n: int
    total: float
    policies: dict[str, float]
    versus: dict[str, Estimate]
    releases: dict[str, float]
    advice: str
    net: business.Net | None = None

    def gain(self, policy: str) -> Estimate:
        """Money made beyond a policy over the whole time, with its interval."""
        one = self.versus.get(policy, Estimate(None))
        value, low, high = (None if x is None else x * self.n for x in (one.value, one.low, one.high))
        return Estimate(value, low, high, one.n)


def first_release(home: Home) -> datetime | None:
    """From when on something acted."""
    entries = home.ledger.read(Released)
    return entries[0].at if entries else None


def totals(home: Home, system: System, *, released: bool = False) -> Money | None:
    """The sums over all accounts; ``released`` leaves out those before the first release. ``None`` while there is none."""
    window = None
    if released:
        first, newest = first_release(home), home.ledger.latest(Valued)
        if first is None or newest is None:
            return None
        window = Window(first, newest.record.window.end)
    found = business.summary(home, system, window)
    if found["window"] is None or not found["n"]:
        return None
    releases = {one["release"]: one["total"] for one in found["releases"]}
    kept = {name: found[name] for name in ("window", "currency", "n", "total", "policies", "versus", "advice", "net")}
    return Money(releases=releases, **kept)


def amount(value: float, currency: str = "", *, sign: bool = False) -> str:
    """Money for a person.

    >>> amount(-12345.6, "USD")
    '−12,346 USD'
    """
    size = f"{abs(value):,.0f}" if abs(value) >= 100 else f"{abs(value):,.2f}"
    mark = "−" if value < 0 else "+" if sign else ""
    return f"{mark}{size} {currency}".rstrip()


# --------------------------------------------------------------------------------------------------------- the time line


class Event(msgspec.Struct, frozen=True):
    """Something that happened, for a time line. ``tone`` colours it."""

    at: datetime
    lane: Literal["release", "rollout", "gate", "alert", "diagnosis", "training"]
    title: str
    says: str
    tone: State
    record: str


def events(home: Home) -> list[Event]:
    """Releases, rollouts, gates, trainings, alerts and diagnoses, in order."""
    found: list[tuple[int, Event]] = []
    for entry in home.ledger.read(Released):
        made = trained(home, entry.record.bundle)
        name = made.record.recipe if made else entry.record.bundle[:8] or "doing nothing"
        says = f"{name}: {entry.record.reason}"
        found.append((entry.seq, Event(entry.at, "release", f"Release {entry.record.number}", says, "good", entry.id)))
    for move in home.ledger.read(RolloutMoved):
        tone: State = "bad" if move.record.stage == "rolled back" else "waiting" if move.record.stage == "withdrawn" else "good"
        share = f" {move.record.share:.0%}" if move.record.stage == "canary" else ""
        title = f"Rollout {move.record.rollout}: {move.record.stage}{share}"
        found.append((move.seq, Event(move.at, "rollout", title, move.record.reason, tone, move.id)))
    for gate in home.ledger.read(Gated):
        failed = [
            f"{check.name} {check.subject}".strip()
            for check in gate.record.checks
            if check.verdict is not Verdict.PASS and check.verdict is not Verdict.NOT_MEASURED
        ]
        says = "all checks passed" if not failed else ", ".join(failed[:4])
        found.append(
            (gate.seq, Event(gate.at, "gate", f"Gate: {gate.record.verdict}", says, _state(gate.record.verdict), gate.id))
        )
    for ask in home.ledger.read(Retraining):
        title = {"go": "Training", "recalibrate": "Recalibration"}.get(ask.record.decision, "Training blocked")
        says = ", ".join(ask.record.triggers) if ask.record.decision == "go" else ask.record.reason
        tone = "unsure" if ask.record.decision == "blocked" else "good"
        found.append((ask.seq, Event(ask.at, "training", title, says, tone, ask.id)))
    said: set[tuple[str, bool]] = set()
    for alert in home.ledger.read(Alerted):
        if alert.record.state == "open" and (alert.record.alert, alert.record.harm) not in said:
            said.add((alert.record.alert, alert.record.harm))
            tone = "bad" if alert.record.harm else "unsure"
            found.append(
                (
                    alert.seq,
                    Event(
                        alert.at,
                        "alert",
                        f"{alert.record.name} {alert.record.subject}".strip(),
                        alert.record.message,
                        tone,
                        alert.id,
                    ),
                )
            )
    for seen in home.ledger.read(Diagnosed):
        title = f"Back to {seen.record.back_to}"
        found.append((seen.seq, Event(seen.at, "diagnosis", title, seen.record.account, "unsure", seen.id)))
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


class Span(msgspec.Struct, frozen=True):
    """An alert from opening to resolution (``None``: still open)."""

    name: str
    start: datetime
    end: datetime | None
    harm: bool
    says: str
    record: str


def alert_spans(home: Home) -> list[Span]:
    """Every alert with how long it lasted."""
    spans: dict[str, Span] = {}
    for entry in home.ledger.read(Alerted):
        alert = entry.record
        known = spans.get(alert.alert)
        name = f"{alert.name} {alert.subject}".strip()
        if known is None:
            spans[alert.alert] = Span(name, alert.since, None, alert.harm, alert.message, entry.id)
        elif alert.state == "resolved":
            spans[alert.alert] = msgspec.structs.replace(known, end=entry.at)
        elif alert.state == "open":
            spans[alert.alert] = msgspec.structs.replace(known, name=name, harm=alert.harm, says=alert.message, record=entry.id)
    return list(spans.values())


# ---------------------------------------------------------------------------------------------------------------- labels


class Maturity(msgspec.Struct, frozen=True):
    """Labels of one stretch of time: predictions asked, in closed cohorts, labelled among those, by silence; delay in hours."""

    start: datetime
    asked: int
    closed: int
    labelled: int
    silent: int
    mean: float | None
    delay: dict[str, float]


def cohorts(home: Home) -> list[Entry[CohortClosed]]:
    """The newest revision of every closed cohort, in time order."""
    newest: dict[Window, Entry[CohortClosed]] = {}
    for entry in home.ledger.read(CohortClosed):
        known = newest.get(entry.record.window)
        if known is None or entry.record.revision >= known.record.revision:
            newest[entry.record.window] = entry
    return [newest[window] for window in sorted(newest)]


def maturity(home: Home) -> list[Maturity]:
    """Label maturity by month of asking."""
    closed: dict[datetime, list[CohortClosed]] = {}
    for cohort in cohorts(home):
        closed.setdefault(_month(cohort.record.window.end), []).append(cohort.record)
    asked = home.ledger.read(Scored)
    left = sum(entry.record.n for entry in asked) - sum(cohort.n for some in closed.values() for cohort in some)
    still_open: dict[datetime, int] = {}
    for scored in reversed(
        asked
    ):  # cohorts close in order, so what is open was asked last; one turn may have caught up with years
        some_open = max(0, min(left, scored.record.n))
        if some_open:
            still_open[_month(scored.record.window.end)] = still_open.get(_month(scored.record.window.end), 0) + some_open
        left -= some_open
    rows = []
    for month in sorted(still_open.keys() | closed.keys()):
        some = closed.get(month, [])
        n = sum(cohort.n for cohort in some)
        labelled = sum(cohort.labelled for cohort in some)
        total = sum(cohort.mean * cohort.labelled for cohort in some if cohort.mean is not None)
        names = sorted({name for cohort in some for name in cohort.delay})
        delay = {name: _mean([cohort.delay[name] for cohort in some if name in cohort.delay]) for name in names}
        mean = total / labelled if labelled else None
        rows.append(
            Maturity(month, still_open.get(month, 0) + n, n, labelled, sum(cohort.silent for cohort in some), mean, delay)
        )
    return rows


# --------------------------------------------------------------------------------------------------------------- helpers


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _month(moment: datetime) -> datetime:
    """The first of the month that a window ending at ``moment`` lies in."""
    inside = moment - timedelta(microseconds=1)
    return inside.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if (moment.hour, moment.minute) != (0, 0) else f"{moment:%Y-%m-%d}"


def _state(verdict: Verdict) -> State:
    return {Verdict.PASS: "good", Verdict.FAIL: "bad"}.get(verdict, "unsure")  # type: ignore[return-value]  # values of State


def _since(entries: Sequence[Entry[Record]], of: object) -> datetime:
    """When the newest state began: the first of the trailing entries that agree on it."""
    assert callable(of)
    since, state = entries[-1].at, of(entries[-1])
    for entry in reversed(entries):
        if of(entry) != state:
            break
        since = entry.at
    return since


def interval(estimate: Estimate | None, digits: int = 3) -> str:
    """An estimate for a person.

    >>> interval(Estimate(0.5, 0.4, 0.6, 30))
    '0.500 (0.400 to 0.600)'
    """
    if estimate is None or estimate.value is None:
        return "unknown"
    if not estimate.known:
        return f"{estimate.value:.{digits}f} (no interval)".replace("-", "−")
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})".replace("-", "−")
