"""The long-term hold-out: what the whole system is worth, against the units that are never acted on."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl

from noria import measure, stats
from noria.business.books import Books, Flags, Floats
from noria.business.experiments import arms_difference
from noria.core import Estimate
from noria.records import Declared
from noria.store import Home
from noria.system import System


class HoldOut(msgspec.Struct, frozen=True):
    """``per_prediction`` is the value of a prediction of the units that the system acts on, less that of a unit held out; its interval holds at every
    look, with units and with windows as the observations. ``total`` is that over all their predictions. ``acted`` counts
    predictions of held-out units on which an act was taken all the same: there should be none.
    """

    share: float
    units: int
    held: int
    n: int
    per_prediction: Estimate
    total: Estimate
    acted: int = 0


def hold_out(home: Home, system: System, books: Books, *, error: float = 0.05) -> HoldOut | None:
    """The comparison over the rows that a release answered; ``None`` without a hold-out, or where acts are amounts.

    The draw is by the unit's name, so it is told again from the log; where the declared share changed, the units held out under every
    declaration in force count as held, and those never held out as the others.
    """
    shares = _shares(home, system, books)
    if not shares or max(shares) <= 0 or measure.numeric_act(system):
        return None
    rows = books.released & np.isfinite(books.value)
    frame = books.frame.filter(pl.Series(rows))
    names = frame["_unit"].cast(pl.String).fill_null("").to_list()
    always, ever = measure.held_out(system.name, names, min(shares)), measure.held_out(system.name, names, max(shares))
    clear: Flags = always | ~ever
    units, held = np.array(names)[clear], always[clear]
    value, blocks = books.value[rows][clear], books.blocks[rows][clear]
    found = arms_difference(value, ~held, units, blocks, days=blocks, error=error)
    n = int((~held).sum())
    taken: Floats = frame["_act"].cast(pl.Float64).fill_null(0.0).fill_nan(0.0).to_numpy()[clear]
    return HoldOut(
        share=min(shares),
        units=len(np.unique(units[~held])),
        held=len(np.unique(units[held])),
        n=n,
        per_prediction=found,
        total=stats.scaled(found, float(n)),
        acted=int((taken[held] > 0).sum()),
    )


def _shares(home: Home, system: System, books: Books) -> list[float]:
    """The shares that were in force while these rows were asked."""
    if books.frame.is_empty():
        return []
    first, last = books.frame["_time"][0], books.frame["_time"][-1]
    declared = home.ledger.read(Declared)
    found = []
    for place, entry in enumerate(declared):
        until = declared[place + 1].at if place + 1 < len(declared) else None
        if entry.at < last and (until is None or until > first):
            found.append(float(entry.record.spec.get("decide", {}).get("holdout", 0.0)))
    return found or [system.decide.holdout]
