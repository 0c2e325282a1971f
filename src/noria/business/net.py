"""What the machine learning costs, and what is left: net value, and the return on it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from noria import stats
from noria.core import Estimate, Window
from noria.records import CohortClosed, Retraining, Scored, Trained, TrainingSet
from noria.store import Home
from noria.system import System

TRIVIAL = ("do nothing", "always act")
DAY = 86400.0
ANEW = "recalibrated"
"""What the settings of a candidate name that was only calibrated anew."""


class Net(msgspec.Struct, frozen=True):
    """The ML's account over the windows that closed under a release.

    ``against`` is the best policy that needs no model, chosen in hindsight; ``gain`` the value made beyond it, in all; ``counts`` and ``costs`` are
    what was served, labelled, trained and run, and what that cost as declared; ``net`` is the gain less all costs, ``returned`` the net for one unit of
    cost (``None`` when nothing costs anything).
    """

    against: str
    gain: Estimate
    counts: dict[str, float]
    costs: dict[str, float]
    cost: float
    net: Estimate
    returned: Estimate | None

    @property
    def says(self) -> str:
        """The advice that costs give, empty when they change nothing.

        >>> one = Estimate(-2.0, -3.0, -1.0, 30)
        >>> Net("do nothing", one, {}, {}, 1.0, one, None).says
        'stop: costs more than it brings'
        """
        if self.cost > 0 and self.net.below(0.0):
            return "stop: costs more than it brings"
        return ""


def net(home: Home, system: System, window: Window, figures: dict[str, Any], *, began: datetime | None = None) -> Net | None:
    """The account over ``window``; ``figures`` are the sums of ``summary`` over the windows under a release. ``None`` without such a window.

    Trainings count from ``began`` on, for the first release had to be trained before it could act.
    """
    versus = {name: figures["versus"][name] for name in TRIVIAL if name in figures["versus"]}
    if not figures["n"] or not versus:
        return None
    per = min(versus.items(), key=lambda item: (item[1].value if item[1].value is not None else float("inf"), item[0]))
    gain = stats.scaled(per[1], float(figures["n"]))
    counts = counted(home, window, began=began)
    rates = system.costs
    costs = {
        "predictions": counts["predictions"] * rates.prediction,
        "labels": counts["labels"] * rates.label,
        "trainings": counts["trainings"] * rates.training,
        "days": counts["days"] * rates.day,
    }
    costs = {name: float(f"{one:.12g}") for name, one in costs.items()}
    cost = float(f"{sum(costs.values()):.12g}")
    value, low, high = (None if x is None else x - cost for x in (gain.value, gain.low, gain.high))
    left = Estimate(value, low, high, gain.n)
    returned = stats.scaled(left, 1 / cost) if cost > 0 else None
    return Net(per[0], gain, counts, costs, cost, left, returned)


def counted(home: Home, window: Window, *, began: datetime | None = None) -> dict[str, float]:
    """What cost something within ``window``: predictions served by a release, labels that came (those by silence cost nothing), trainings of
    models, days. A training set that was made only to calibrate anew is counted apart, as ``recalibrations``; its declared cost is none.
    """
    inside = [entry.record for entry in home.ledger.read(Scored) if _within(window, entry.record.window.end)]
    served = sum(n for record in inside for release, n in record.releases.items() if release)
    cohorts: dict[datetime, CohortClosed] = {}
    for entry in home.ledger.read(CohortClosed):
        if _within(window, entry.record.window.end):
            cohorts[entry.record.window.end] = entry.record
    labels = sum(record.labelled - record.silent for record in cohorts.values())
    made = [entry for entry in home.ledger.read(Trained) if not entry.record.baseline and ANEW not in entry.record.settings]
    taught = {parent for entry in made for parent in entry.parents}
    whole = Window(window.start if began is None else min(began, window.start), window.end)
    sets = [entry for entry in home.ledger.read(TrainingSet) if entry.id in taught and _within(whole, entry.at)]
    again = [e for e in home.ledger.read(Retraining) if e.record.decision == "recalibrate" and _within(whole, e.at)]
    return {
        "predictions": float(served),
        "labels": float(labels),
        "trainings": float(len(sets)),
        "recalibrations": float(len(again)),
        "days": float(f"{window.length.total_seconds() / DAY:.12g}"),
    }


def _within(window: Window, moment: datetime) -> bool:
    return window.start < moment <= window.end
