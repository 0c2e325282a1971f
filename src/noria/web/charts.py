"""The report's charts: Altair specifications made into SVG text that stands in the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from noria.web.facts import Event, Maturity, Span
from noria.web.series import Point

WIDTH = 820
INK, GRID = "#66727d", "#8fa1ad40"
COLOURS = {
    "this system": "#1b84a3",
    "model": "#1b84a3",
    "do nothing": "#8a939c",
    "base rate": "#8a939c",
    "always act": "#c5803a",
    "last label": "#c5803a",
}
TONES = {"good": "#2f8a62", "bad": "#c0473e", "unsure": "#c5903a", "waiting": "#8a939c"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


DATES = "utcFormat(datum.value, utcdate(datum.value) == 1 ? '%b %Y' : '%-d %b')"


def _rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [
        {"at": point.at.isoformat(), "series": point.series, "value": point.value, "low": point.low, "high": point.high}
        for point in points
    ]


def _x(scale: alt.Scale | None = None) -> alt.X:
    return alt.X(
        "at:T",
        title=None,
        scale=scale or alt.Scale(type="utc"),
        axis=alt.Axis(labelExpr=DATES, tickCount=8, grid=False, labelOverlap=True, labelSeparation=14),
    )


def _drawn(chart: Any, name: str, describe: str) -> Markup:
    """SVG text of a chart, its ids made unique by ``name``, its size left to the page."""
    configured = (
        chart.configure(font=FONT, background="transparent", padding={"left": 14, "right": 14, "top": 4, "bottom": 4})
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            gridColor=GRID,
            domainColor=GRID,
            tickColor=GRID,
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
        )
        .configure_legend(orient="top", title=None, labelColor=INK, labelFontSize=12, symbolStrokeWidth=3)
        .configure_text(color=INK)
    )
    svg = vl_convert.vegalite_to_svg(configured.to_dict(), vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2]))
    ids = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))  # the renderer numbers them over the life of the process
    for place, old in enumerate(ids):
        svg = re.sub(rf'(\bid="|url\(#|href="#){re.escape(old)}(?=["\)])', rf"\g<1>{name}-{place}", svg)
    svg = re.sub(r'<svg([^>]*?) width="[\d.]+" height="[\d.]+"', r"<svg\1", svg, count=1)
    return Markup('<figure class="chart" role="img" aria-label="{}">{}</figure>').format(describe, Markup(svg))


def money(points: Sequence[Point], currency: str) -> Markup:
    """Cumulative money of this system and of the trivial policies."""
    chart = (
        alt.Chart(alt.Data(values=_rows(points)))
        .mark_line(strokeWidth=2)
        .encode(
            _x(),
            alt.Y("value:Q", title=f"{currency} so far".strip(), axis=alt.Axis(format="~s", tickCount=6)),
            alt.Color("series:N", scale=_scale(points)),
        )
        .properties(width=WIDTH, height=230)
    )
    return _drawn(chart, "money", "Money so far, against doing nothing and always acting")


def banded(points: Sequence[Point], title: str, name: str, describe: str) -> Markup:
    """Lines over time; the first series has its interval as a band, cut where it would dwarf the lines."""
    first = next((each for each in COLOURS if any(point.series == each for point in points)), "")
    values = [point.value for point in points]
    room = 0.4 * (max(values) - min(values)) or 1.0
    scale = alt.Scale(domain=[min(values) - room, max(values) + room], zero=False, nice=True)
    rows = [row for row in _rows(points) if row["low"] is not None and row["series"] == first]
    band = (
        alt.Chart(alt.Data(values=rows))
        .mark_area(opacity=0.18, color=COLOURS.get(first, INK), clip=True)
        .encode(_x(), alt.Y("low:Q", title=title, scale=scale), alt.Y2("high:Q"))
    )
    y = alt.Y("value:Q", title=title, axis=alt.Axis(tickCount=6), scale=scale)
    lines = (
        alt.Chart(alt.Data(values=_rows(points)))
        .mark_line(strokeWidth=2)
        .encode(_x(), y, alt.Color("series:N", scale=_scale(points)))
    )
    return _drawn(alt.layer(band, lines).properties(width=WIDTH, height=200), name, describe)


def _scale(points: Sequence[Point]) -> alt.Scale:
    names = [name for name in COLOURS if any(point.series == name for point in points)]
    return alt.Scale(domain=names, range=[COLOURS[name] for name in names])


CEILING = 3.0
"""Drift beyond this many bounds is drawn here, or one wild day would flatten the year."""


def drift(points: Sequence[Point]) -> Markup:
    """The largest drift of each window in units of its bound, its mean over two weeks, and the bound itself (dashed)."""
    rows = [row | {"value": min(row["value"], CEILING)} for row in _rows(points)]
    base = alt.Chart(alt.Data(values=rows))
    dots = base.mark_circle(size=9, opacity=0.35, color=COLOURS["model"]).encode(
        _x(), alt.Y("value:Q", title="largest drift / its bound")
    )
    line = (
        base.transform_window(mean="mean(value)", frame=[-13, 0], sort=[alt.SortField("at")])
        .mark_line(strokeWidth=2, color=COLOURS["model"])
        .encode(_x(), alt.Y("mean:Q"))
    )
    bound = alt.Chart(alt.Data(values=[{"bound": 1.0}])).mark_rule(strokeDash=[4, 4], strokeWidth=1.2, color=TONES["bad"])
    layers = alt.layer(dots, line, bound.encode(alt.Y("bound:Q")))
    return _drawn(layers.properties(width=WIDTH, height=170), "drift", "The largest drift over time")


LANES = ("release", "rollout", "gate", "training", "diagnosis")


def timeline(events: Sequence[Event], spans: Sequence[Span], start: datetime, end: datetime) -> Markup:
    """What happened when: a lane each for releases, rollouts, gates, trainings and diagnoses, and alerts as bars."""
    rows = [{"at": e.at.isoformat(), "lane": e.lane, "tone": e.tone, "title": e.title} for e in events if e.lane in LANES]
    bars = [
        {
            "at": s.start.isoformat(),
            "end": (s.end or end).isoformat(),
            "lane": "harm alert" if s.harm else "alert",
            "tone": "bad" if s.harm else "unsure",
        }
        for s in spans
    ]
    order = [*LANES, "harm alert", "alert"]
    present = [lane for lane in order if any(row["lane"] == lane for row in [*rows, *bars])]
    y = alt.Y(
        "lane:N",
        sort=present,
        title=None,
        scale=alt.Scale(domain=present),
        axis=alt.Axis(ticks=False, domain=False, labelFontSize=12, grid=True),
    )
    tone = alt.Color("tone:N", legend=None, scale=alt.Scale(domain=list(TONES), range=list(TONES.values())))
    span = alt.Scale(type="utc", domain=[start.isoformat(), end.isoformat()])
    marks = alt.Chart(alt.Data(values=rows)).mark_point(size=80, filled=True, opacity=0.85).encode(_x(span), y, tone)
    alerts = (
        alt.Chart(alt.Data(values=bars))
        .mark_bar(height=9, opacity=0.45, cornerRadius=3)
        .encode(_x(span), alt.X2("end:T"), y, tone)
    )
    return _drawn(
        alt.layer(alerts, marks).properties(width=WIDTH - 40, height=30 * max(1, len(present))), "timeline", "What happened when"
    )


def calibration(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Mean label against mean score, one point a bin; on the diagonal it is calibrated."""
    rows = [{"score": score, "label": label, "n": n} for score, label, n in bins]
    top = max([score for score, _, _ in bins] + [label for _, label, _ in bins] + [0.1])
    axis = alt.Scale(domain=[0, min(1.0, top * 1.05)])
    line = alt.Chart(alt.Data(values=[{"a": 0, "b": 0}, {"a": axis.domain[1], "b": axis.domain[1]}])).mark_line(
        strokeDash=[4, 4], color=INK, strokeWidth=1
    )
    diagonal = line.encode(alt.X("a:Q"), alt.Y("b:Q"))
    dots = (
        alt.Chart(alt.Data(values=rows))
        .mark_circle(color=COLOURS["this system"], opacity=0.85)
        .encode(
            alt.X("score:Q", title="mean score", scale=axis),
            alt.Y("label:Q", title="share that came true", scale=axis),
            alt.Size("n:Q", legend=None, scale=alt.Scale(range=[30, 260])),
        )
    )
    return _drawn(alt.layer(diagonal, dots).properties(width=300, height=260), "calibration", "Calibration of the scores")


def labels(rows: Sequence[Maturity]) -> Markup:
    """Labels by month: came, by silence, missing, still open."""
    kinds = ("came", "by silence", "missing", "open")
    data = [
        {"at": f"{row.start:%Y-%m}", "kind": kind, "place": place, "n": n}
        for row in rows
        for place, (kind, n) in enumerate(
            zip(kinds, (row.labelled - row.silent, row.silent, row.closed - row.labelled, row.asked - row.closed), strict=True)
        )
    ]
    scale = alt.Scale(domain=list(kinds), range=[COLOURS["this system"], "#7fb4c4", TONES["bad"], "#c9d0d6"])
    chart = (
        alt.Chart(alt.Data(values=data))
        .mark_bar()
        .encode(
            alt.X("at:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            alt.Y("n:Q", title="predictions asked", axis=alt.Axis(format="~s", tickCount=5)),
            alt.Color("kind:N", scale=scale),
            alt.Order("place:Q"),
        )
        .properties(width=WIDTH, height=170)
    )
    return _drawn(chart, "labels", "How many labels came, by month")


def around(points: Sequence[Point], title: str, bound: float | None, start: datetime, name: str) -> Markup:
    """A number by window around a fault: its bound (dashed), and where the fault began (an upright line)."""
    base = alt.Chart(alt.Data(values=_rows(points)))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    x = alt.X(
        "at:T",
        title=None,
        scale=alt.Scale(type="utc"),
        axis=alt.Axis(format="%-d %b", tickCount=7, grid=False, labelOverlap=True),
    )
    colour = COLOURS["model"]
    layers = [base.mark_line(strokeWidth=2, color=colour).encode(x, y), base.mark_circle(size=14, color=colour).encode(x, y)]
    begun = alt.Chart(alt.Data(values=[{"at": start.isoformat()}])).mark_rule(color=TONES["bad"], strokeWidth=1.5)
    layers.append(begun.encode(alt.X("at:T")))
    if bound is not None:
        line = alt.Chart(alt.Data(values=[{"bound": bound}])).mark_rule(strokeDash=[4, 4], strokeWidth=1.2, color=TONES["bad"])
        layers.append(line.encode(alt.Y("bound:Q")))
    return _drawn(alt.layer(*layers).properties(width=380, height=130), name, f"{title} around the fault")


def before_after(bars: Sequence[tuple[str, str, float, int]], column: str, name: str) -> Markup:
    """The shares of a column's values before the fault and since."""
    rows = [{"time": time, "value": value, "share": share, "place": place} for time, value, share, place in bars]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            alt.X("value:N", title=column, sort=alt.SortField("place"), axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            alt.Y("share:Q", title="share of the rows", axis=alt.Axis(format="%", tickCount=4)),
            alt.XOffset("time:N"),
            alt.Color("time:N", scale=alt.Scale(domain=["before", "since"], range=["#8a939c", TONES["bad"]])),
        )
        .properties(width=380, height=130)
    )
    return _drawn(chart, name, f"{column} before the fault and since")
