"""The report: everything of one system on one self-contained page, every number with the record it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import noria
from noria import deployment
from noria.core import Estimate
from noria.records import (
    Blocked,
    Charter,
    Declared,
    Diagnosed,
    Entry,
    Evaluated,
    Gated,
    Ingested,
    Linked,
    Record,
    Released,
    SchemaFrozen,
    Trained,
    TrainingSet,
    Verified,
    kind_of,
)
from noria.store import Home
from noria.system import System
from noria.web import drawing, facts, pictures, series

PICTURED = 4
"""So many of the newest diagnoses are drawn."""


class Cited:
    """The records that the page cites: each gets a short link to its line in the last table."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._found: dict[str, Entry[Record]] = {}

    def __call__(self, what: Entry[Any] | str | None) -> Markup:
        if not what:
            return Markup("")
        entry: Entry[Record] = self._home.ledger.get(what) if isinstance(what, str) else what
        self._found[entry.id] = entry
        return Markup('<a class="record" href="#r-{0}" title="{1}">{0}</a>').format(entry.id[:8], entry.kind)

    def listed(self) -> list[Entry[Record]]:
        """What was cited, by logical time."""
        return sorted(self._found.values(), key=lambda entry: entry.seq)


class SourceState(msgspec.Struct, frozen=True):
    """What one source brought."""

    name: str
    owner: str
    received: int
    accepted: int
    quarantined: int
    reasons: dict[str, int]
    late: int
    restated: int
    until: datetime
    schema: Entry[SchemaFrozen] | None
    verified: Entry[Verified] | None
    last: Entry[Ingested]


class Card(msgspec.Struct, frozen=True):
    """The champion, with what it rests on."""

    trained: Entry[Trained]
    released: Entry[Released]
    gate: Entry[Gated] | None
    training: Entry[TrainingSet] | None
    evaluated: Entry[Evaluated] | None


def report(home: Home, system: System) -> str:
    """The report as one HTML document.

    It asks for nothing over the network (its policy forbids it), needs no script, and is the same for the same ledger.
    """
    cite = Cited(home)
    environment = Environment(
        loader=PackageLoader("noria.web", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "day": _day,
        "minute": _minute,
        "count": _count,
        "estimate": facts.interval,
        "share": _share,
        "number": _number,
        "text": _text,
    }
    environment.globals |= {"cite": cite, "amount": facts.amount, "kind_of": kind_of}
    page = environment.get_template("report.html")
    return page.render(**_contents(home, system), cited=cite.listed)


def _contents(home: Home, system: System) -> dict[str, Any]:
    state = facts.wheel(home, system)
    money = facts.totals(home, system)
    alerts = facts.open_alerts(home)
    return {
        "version": noria.__version__,
        "system": system,
        "wheel": state,
        "drawing": drawing.wheel(state),
        "money": money,
        "acting": facts.totals(home, system, released=True),
        "bars": _bars(money),
        "linked": home.ledger.latest(Linked),
        "events": facts.events(home),
        "alerts": alerts,
        "signed": {alert.id: facts.signed(home, alert) for alert in alerts},
        "diagnoses": home.ledger.read(Diagnosed),
        "pictures": {e.id: pictures.pictures(home, system, e) for e in home.ledger.read(Diagnosed, newest=PICTURED)},
        "sources": sources(home, system),
        "blocked": home.ledger.read(Blocked),
        "months": facts.maturity(home),
        "closed_until": facts.closed_until(home),
        "charter": home.ledger.latest(Charter),
        "card": card(home),
        **_charts(home, system, state),
    }


def _charts(home: Home, system: System, state: facts.Wheel) -> dict[str, Any]:
    from noria.web import charts

    confidence, currency, metric = system.gate.confidence, system.objective.value.currency, system.objective.metric
    so_far = series.cumulative(home)
    value = series.weekly_value(home, confidence=confidence)
    performance = series.weekly_performance(home, metric, confidence=confidence)
    drift = series.drift(home)
    began = min([state.at, *(entry.at for entry in home.ledger.read(Declared))]) if state.at else None
    events, spans, months = facts.events(home), facts.alert_spans(home), facts.maturity(home)
    champion = card(home)
    bins = champion.evaluated.record.calibration if champion and champion.evaluated else ()
    title = metric.replace("_", " ")
    return {
        "money_chart": charts.money(so_far, currency) if so_far else "",
        "value_chart": charts.banded(value, f"{currency} a prediction".strip(), "value", "Value a prediction over time")
        if value
        else "",
        "performance_chart": charts.banded(performance, title, "performance", f"{title} over time") if performance else "",
        "drift_chart": charts.drift(drift) if drift else "",
        "timeline_chart": charts.timeline(events, spans, began, state.at) if began and state.at and events else "",
        "labels_chart": charts.labels(months) if months else "",
        "calibration_chart": charts.calibration(bins) if bins else "",
    }


def sources(home: Home, system: System) -> list[SourceState]:
    """Every source with what came from it, what was refused and why."""
    taken: dict[str, list[Entry[Ingested]]] = {}
    for entry in home.ledger.read(Ingested):
        taken.setdefault(entry.record.source, []).append(entry)
    schemas = {entry.record.source: entry for entry in home.ledger.read(SchemaFrozen)}
    checks = {entry.record.source: entry for entry in home.ledger.read(Verified)}
    found = []
    for name, entries in sorted(taken.items()):
        reasons: dict[str, int] = {}
        for entry in entries:
            for reason, n in entry.record.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + n
        sums = {
            what: sum(getattr(entry.record, what) for entry in entries)
            for what in ("received", "accepted", "quarantined", "late", "restated")
        }
        owner = system.sources[name].owner if name in system.sources else ""
        last = entries[-1]
        found.append(
            SourceState(
                name=name,
                owner=owner,
                reasons=reasons,
                until=last.record.upto,
                schema=schemas.get(name),
                verified=checks.get(name),
                last=last,
                **sums,
            )
        )
    return found


def card(home: Home) -> Card | None:
    """The champion's card; ``None`` while nothing acts."""
    champion = deployment.state(home).champion
    if champion is None:
        return None
    made = facts.trained(home, champion)
    released = [entry for entry in home.ledger.read(Released) if entry.record.bundle == champion]
    if made is None or not released:
        return None
    gates = [entry for entry in home.ledger.read(Gated) if entry.record.bundle == champion]
    parents = home.ledger.parents(made.id)
    training = next((entry for entry in parents if isinstance(entry.record, TrainingSet)), None)
    tests = [entry for entry in home.ledger.children(made.id) if isinstance(entry.record, Evaluated)]
    tested = next((entry for entry in tests if entry.record.part == "test"), tests[0] if tests else None)  # type: ignore[attr-defined]  # looked at above
    return Card(made, released[-1], gates[-1] if gates else None, training, tested)  # type: ignore[arg-type]  # looked at above


def _bars(money: facts.Money | None) -> list[tuple[str, float, float, float]]:
    """(name, money, left, width) of each policy's bar, in per cent of the row; all share one scale and zero."""
    if money is None:
        return []
    order = [("this system", money.total)] + [
        (name, money.policies[name]) for name in ("do nothing", "always act", "perfect") if name in money.policies
    ]
    low, high = min(0.0, *(value for _, value in order)), max(0.0, *(value for _, value in order))
    span = (high - low) or 1.0
    return [(name, value, (min(value, 0.0) - low) / span * 100, abs(value) / span * 100) for name, value in order]


def _day(moment: datetime | None) -> str:
    return f"{moment:%-d %b %Y}" if moment else ""


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _share(number: float | None, digits: int = 1) -> str:
    return "" if number is None else f"{number:.{digits}%}"


def _text(value: Any) -> str:
    """A plain value in a few characters."""
    if isinstance(value, Estimate):
        return facts.interval(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(_text(item) for item in value)
    return str(value)
