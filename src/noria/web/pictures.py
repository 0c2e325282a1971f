"""A diagnosis in pictures: the watched number around the fault, the column before and since, and the value."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from markupsafe import Markup

from noria import measure
from noria.core import Verdict, Window
from noria.records import Alerted, Cause, Diagnosed, Entry, Monitored
from noria.store import Home
from noria.system import System
from noria.web import charts, series
from noria.web.series import Point

BEFORE = timedelta(days=28)
AFTER = timedelta(days=14)
BARS = 12
SHIFTS = ("js", "psi", "missing", "unseen")


def pictures(home: Home, system: System, entry: Entry[Diagnosed]) -> list[Markup]:
    """At most three charts about the first cause that was found; none when none was."""
    found = entry.record
    first = found.causes[0] if found.causes and found.causes[0].verdict is Verdict.FAIL else None
    if first is None:
        return []
    name = f"d{entry.id[:8]}"
    start, end = found.window.start, max(found.window.end, entry.at)
    span = Window(start - BEFORE, end + AFTER)
    column = _column(system, first)
    made = []
    watched = _watched(home, system, found, column, span)
    if watched is not None:
        title, points, bound = watched
        made.append(charts.around(points, title, bound, start, f"{name}-signal"))
    if column is not None:
        bars = _histogram(home, column, Window(start - BEFORE, start), Window(start, found.window.end))
        if bars:
            made.append(charts.before_after(bars, column, f"{name}-column"))
    money = [
        Point(account.end, "this system", account.made["this system"] / account.n)
        for account in series.accounts(home)
        if account.n and "this system" in account.made and span.start < account.end <= span.end
    ]
    if len(money) > 2:
        currency = system.objective.value.currency
        made.append(charts.around(money, f"{currency} a prediction".strip(), None, start, f"{name}-value"))
    return made


def _column(system: System, cause: Cause) -> str | None:
    """The feature that the checks which speak for the cause are about."""
    names = {feature.name for feature in system.flat_features}
    for check in cause.evidence:
        if check.verdict is Verdict.FAIL:
            for text in (check.subject, check.subject.split(" = ")[0], check.subject.split("=")[0], check.subject.split(" ")[0]):
                if text in names:
                    return text
    return None


def _watched(
    home: Home, system: System, found: Diagnosed, column: str | None, span: Window
) -> tuple[str, list[Point], float | None] | None:
    """(what it is, the number by window, its bound): of the column, when the windows watch it; else of what the first alert is about."""
    alerts = [e.record for key in found.symptoms if (e := home.ledger.find(key)) is not None and isinstance(e.record, Alerted)]
    metric = system.objective.metric
    wanted: list[tuple[str, str, str]] = []
    if column is not None:
        wanted += [("traffic", shift, column) for shift in SHIFTS]
    for alert in alerts:
        if alert.name == "value":
            wanted.append(("outcomes", "value", "champion"))
        if alert.name in ("guardrail", "slice"):
            wanted.append(("outcomes", alert.name, alert.subject))
        if alert.name == "miscalibrated":
            wanted.append(("outcomes", "offset", "score"))
    wanted += [("outcomes", "lead", "champion"), ("outcomes", metric, "champion")]
    windows: dict[str, dict[datetime, Monitored]] = {}
    for entry in home.ledger.read(Monitored, since=span.start):
        if entry.record.window.end <= span.end and entry.record.window.start >= span.start:
            windows.setdefault(entry.record.about, {})[entry.record.window.end] = entry.record
    for about, name, subject in wanted:
        points, bound = [], None
        for end, seen in sorted(windows.get(about, {}).items()):
            for one in seen.signals:
                if (one.name, one.subject) == (name, subject) and one.value is not None:
                    points.append(Point(end, "model", one.value, one.low, one.high))
                    bound = one.bound
        if len(points) > 2:
            return f"{name.replace('_', ' ')} of {subject}", points, bound
    return None


def _histogram(home: Home, column: str, before: Window, since: Window) -> list[tuple[str, str, float, int]]:
    """(time, bin, share of the rows, place) of a column before the fault and since."""
    known = home.lake.schema("predictions")
    if known is None or column not in known:
        return []
    parts = [home.lake.read("predictions", columns=[column], _time=(w.start, w.end))[column] for w in (before, since)]
    if any(part.is_empty() for part in parts):
        return []
    if parts[0].dtype.is_numeric():
        numbers = [measure.numbers_of(part) for part in parts]
        whole = np.concatenate(numbers)
        whole = whole[np.isfinite(whole)]
        if not len(whole):
            return []
        low, high = (float(q) for q in np.quantile(whole, [0.005, 0.995]))
        edges = np.linspace(low, high, BARS + 1)
        if low == high:
            return []
        made = []
        for time, values in zip(("before", "since"), numbers, strict=True):
            counts = np.histogram(np.clip(values[np.isfinite(values)], edges[0], edges[-1]), edges)[0]
            made += [(time, f"{edges[k]:.3g}", float(n / len(values)), k) for k, n in enumerate(counts)]
            made.append((time, "missing", float((~np.isfinite(values)).mean()), BARS))
        return made
    texts = [part.cast(pl.String).fill_null("missing") for part in parts]
    counted = pl.concat(texts).value_counts(name="n").sort(["n", texts[0].name], descending=[True, False])
    names = counted[texts[0].name].to_list()[:BARS]
    return [
        (time, name, float((values == name).mean() or 0.0), place)
        for time, values in zip(("before", "since"), texts, strict=True)
        for place, name in enumerate(names)
    ]
