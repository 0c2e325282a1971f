"""What an alert costs, on which part of the rows it is worst, how soon somebody has to look, and where it is written what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import measure, stats
from noria.core import Estimate, Window, duration
from noria.monitoring.grouping import LABELS, RANKS, SOURCE
from noria.monitoring.outcomes import CHAMPION, NOTHING
from noria.monitoring.standard import evaluated_of
from noria.monitoring.windows import value_of
from noria.records import Monitored
from noria.store import Home
from noria.system import System

Severity = Literal["page", "ticket", "note"]
RUNBOOKS = "docs/runbooks.md#"
SPAN = 14
BEFORE = 28
LEAST_ROWS = 30
EVIDENCE = 3.0
PART = 0.3
SURE = 7
TO_MEND = (*LABELS, "expected performance", "concept change", "slice", "metric link")
Floats = NDArray[np.float64]


def cost(home: Home, outcomes: Sequence[Monitored], since: datetime) -> Estimate | None:
    """The value lost in a window since ``since``, in the value's currency: against what the release's gate promised, or doing nothing.

    ``None`` before any window of that time is closed, and without a value. The windows are the observations of the interval.
    """
    own = [(w, v, n) for w in outcomes if w.window.start >= since and (v := _value(w)) is not None and (n := _rows(w))]
    if not own:
        return None
    release = own[-1][0].release
    promised = evaluated_of(home, release) if release is not None else None
    gate = promised.value.value if promised is not None and promised.value is not None else None
    lost = []
    for window, value, rows in own:
        against = gate if gate is not None else value_of(window, "value", NOTHING)
        if against is not None:
            lost.append((against - value) * rows)
    if not lost:
        return None
    if len(lost) < 2:
        return Estimate(_round(lost[0]), n=1)
    made = stats.block_mean(np.array(lost), np.arange(len(lost)), least=2)
    return Estimate(_round(made.value), _round(made.low), _round(made.high), len(lost))


def severity(system: System, name: str, *, harm: bool, lost: Estimate | None) -> Severity:
    """How soon somebody has to look: ``page`` (at once), ``ticket`` (by day) or ``note`` (when there is time).

    Harm pages, unless ``system.alerts.severe`` is declared and less than that is lost in a window. A fact is a ticket when money is being
    lost by all that is known, or when something is broken that somebody has to mend; otherwise a note.
    """
    severe = system.alerts.severe
    losing = lost is not None and lost.value is not None and lost.n >= SURE and (lost.low or 0.0) > 0
    if harm:
        small = severe is not None and lost is not None and lost.value is not None and lost.value < severe
        return "ticket" if small else "page"
    if losing and severe is not None and lost is not None and (lost.value or 0.0) >= severe:
        return "page"
    return "ticket" if losing or RANKS.get(name) == SOURCE or name in TO_MEND or name == "missing values" else "note"


def runbook(system: System, name: str) -> str:
    """What to do about an alert: as declared, or the section of Noria's own page."""
    return system.alerts.runbooks.get(name) or RUNBOOKS + anchor(name)


def anchor(name: str) -> str:
    """The anchor of a heading as web pages make it.

    >>> anchor("worse than baseline")
    'worse-than-baseline'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def worst_slice(home: Home, system: System, since: datetime, until: datetime) -> str:
    """The part of the rows (``column=value``) on which the loss has grown most since ``since``; empty when it grew everywhere alike.

    Of the declared slices, that part with the largest growth of the summed loss beyond the growth of all rows, when it is beyond chance
    (over all parts that were looked at) and makes 30 % of the whole growth at least. What was before is judged by up to 28 windows before.
    A combined score, which is no probability, has no loss.
    """
    columns = [name for name in system.objective.slices if name in (home.lake.schema("predictions") or {})]
    if not columns or system.task == "multiclass" or system.combine is not None:
        return ""
    every = duration(system.every)
    now = _losses(home, system, columns, Window(max(since, until - SPAN * every), until))
    then = _losses(home, system, columns, Window(since - BEFORE * every, since))
    if len(now) < LEAST_ROWS or len(then) < LEAST_ROWS:
        return ""
    both = pl.concat([then.with_columns(pl.lit(False).alias("_now")), now.with_columns(pl.lit(True).alias("_now"))])
    loss, late = both["_loss"].to_numpy(), both["_now"].to_numpy()
    growth = float(loss[late].mean() - loss[~late].mean())
    if growth <= 0:
        return ""
    parts = []
    for column, value, rows in measure.by_slice(both, columns, 2 * LEAST_ROWS):
        here, there = loss[rows & late], loss[rows & ~late]
        if min(len(here), len(there)) < LEAST_ROWS or rows.all():
            continue
        rest, before = loss[~rows & late], loss[~rows & ~late]
        if min(len(rest), len(before)) < 2:
            continue
        excess = (here.mean() - there.mean()) - (rest.mean() - before.mean())
        error = np.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in (here, there, rest, before)))
        share = len(here) / late.sum() * (here.mean() - there.mean()) / growth
        parts.append((float(excess / error) if error > 0 else 0.0, float(share), f"{column}={value}"))
    strong = [part for part in parts if part[0] >= EVIDENCE + np.log10(max(1, len(parts))) / 2 and part[1] >= PART]
    return max(strong)[2] if strong else ""


def _losses(home: Home, system: System, columns: Sequence[str], span: Window) -> pl.DataFrame:
    """The slices and the loss (``_loss``) of the closed rows that were answered in ``span``."""
    rows = measure.usable(system, measure.closed(home, system, span, columns=["_score", "_act", "_act_propensity", *columns]))
    rows = rows.filter(pl.col("_score").is_finite().fill_null(False))
    label, score = (rows[name].cast(pl.Float64).to_numpy() for name in ("_label", "_score"))
    loss = stats.row_loss("log_loss" if system.task == "binary" else "mae", label, score)
    made = np.empty(0) if loss is None else loss
    return rows.select(*columns).with_columns(pl.Series("_loss", made, dtype=pl.Float64))


def _value(window: Monitored) -> float | None:
    return value_of(window, "value", CHAMPION)


def _rows(window: Monitored) -> float:
    return value_of(window, "rows", CHAMPION) or 0.0


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.9g}")
