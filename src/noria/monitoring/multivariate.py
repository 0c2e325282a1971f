"""Monitors of all columns together: can a classifier tell the window from the reference, and does it have rows where the reference has none?

Both look at a part of the window's rows, evenly spaced, as points (``inputs.py``). What is ordinary is seen from the reference's own
windows, each held against the others: days differ by weekday and weather, so an AUC above 0.5 is ordinary.
"""

from __future__ import annotations

import polars as pl

from noria.core import Verdict, Window
from noria.monitoring.sample import LEAST_ROWS, WINDOW, Sample, auc, outside, some
from noria.monitoring.windows import judged, number
from noria.records import Signal

DOMAIN = ("domain", "inputs")
REGIONS = ("regions", "inputs")
FEWEST = 2.5


def inputs_together(sample: Sample, window: Window, frame: pl.DataFrame) -> list[Signal]:
    """The AUC of the domain classifier, and the share of rows in regions that the reference did not have.

    A share counts from three rows on. A season that the reference has not seen gives no verdict.
    """
    if frame.height < LEAST_ROWS:
        note = f"{frame.height} rows; {LEAST_ROWS} are needed"
        return [Signal(*name, "feature", None, None, Verdict.NOT_ENOUGH_DATA, note=note) for name in (DOMAIN, REGIONS)]
    rows = frame.sort("_time")[some(frame.height, WINDOW)]
    points, own = sample.rows(), sample.inputs.points(rows)
    apart = auc(points, sample.blocks(), own)
    share = outside(points, own, sample.radius)
    least = None if sample.regions is None else max(sample.regions, FEWEST / len(own))
    return [
        _signal(sample, window, DOMAIN, apart, sample.domain),
        _signal(sample, window, REGIONS, share, least),
    ]


def _signal(sample: Sample, window: Window, name: tuple[str, str], value: float, bound: float | None) -> Signal:
    seen, value_ = sample.seen(window), number(value)
    verdict = judged(value_, high=bound) if seen else Verdict.NOT_ENOUGH_DATA
    note = "" if seen else "the reference has no window from this time of the year"
    if bound is None:
        note = "the reference has fewer than 30 windows"
    return Signal(*name, "feature", value_, bound, verdict, note=note)
