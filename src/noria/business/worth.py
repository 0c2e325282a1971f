"""One look at the business: everything that ``noria value`` shows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from noria.business.books import books
from noria.business.breakdown import KINDS, Part, part, parts
from noria.business.experiments import Experiment, experiments
from noria.business.holdout import HoldOut, hold_out
from noria.business.net import Net
from noria.business.summary import summary
from noria.core import Window
from noria.records import Linked
from noria.store import Home
from noria.system import System


class Worth(msgspec.Struct, frozen=True):
    """What the decisions were worth. ``whole`` is everything under a release; ``parts`` split it (and what was before, as version ``""``).

    ``net`` and ``advice`` are those of ``summary``; ``link`` is the newest estimate of the metric link by the end of the window.
    """

    system: str
    currency: str
    metric: str
    window: Window | None
    whole: Part | None
    parts: tuple[Part, ...]
    experiments: tuple[Experiment, ...]
    hold_out: HoldOut | None
    net: Net | None
    link: Linked | None
    advice: str


def worth(home: Home, system: System, window: Window | None = None, by: Sequence[str] = ()) -> Worth:
    """The value of the predictions asked within ``window`` whose label is closed.

    Parameters
    ----------
    by:
        Any of ``version``, ``variant``, ``month`` and ``slice``, or columns of the predictions; default: the first three, and the declared slices.
    """
    kinds = [kind for kind in KINDS if not by or kind in by]
    slices = [name for name in by if name not in (*KINDS, "slice")]
    if not by or "slice" in by:
        slices += [*system.objective.slices, *system.objective.sensitive]
    slices = list(dict.fromkeys(slices))
    made = books(home, system, window, slices)
    found = summary(home, system, window)
    acted = made.released if made.frame.height else np.zeros(0, bool)
    return Worth(
        system=system.name,
        currency=system.objective.value.currency,
        metric=system.objective.metric,
        window=found["window"],
        whole=part(made, "whole", "since the first release", acted) if acted.any() else None,
        parts=tuple(parts(made, kinds, slices)),
        experiments=tuple(experiments(home, system, made, window)),
        hold_out=hold_out(home, system, made),
        net=found["net"],
        link=_linked(home, window),
        advice=found["advice"],
    )


def _linked(home: Home, window: Window | None) -> Linked | None:
    """The newest estimate of the link that was made by the window's end."""
    entries = home.ledger.read(Linked)
    known = [entry.record for entry in entries if window is None or entry.record.window.end <= window.end]
    return known[-1] if known else None
