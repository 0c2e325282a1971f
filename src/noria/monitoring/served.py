"""Whether what was served is what is known: some rows of a window are computed again, their features by the batch query, their scores by the release.

Both hold by construction, and both are broken by what sits between: a cache, a client's own features, rows that are joined to the wrong
answers. No distribution need move for that, so that no other monitor sees it.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria import features, measure
from noria.core import NoriaError, Window
from noria.model import load
from noria.monitoring.reference import SCORE
from noria.monitoring.windows import judged
from noria.records import Signal
from noria.store import Home
from noria.system import System

SAMPLED = 60
ALLOWED = 0.05
TOLERANCE = 1e-9


def served(home: Home, system: System, window: Window, release: str) -> list[Signal]:
    """The shares of sampled rows that were answered on other features than the batch query gives (``skew``), and with other scores than
    the release gives for the features that were logged (``parity``); nothing where that cannot be computed again.
    """
    made = features.recomputed(home, system, window.start, window.end, most=SAMPLED)
    if made is None:
        return []
    apart = [features.differing(made.logged[name], made.computed[name]) for name in made.names]
    rows = pl.DataFrame([one.alias(str(k)) for k, one in enumerate(apart)]).select(pl.any_horizontal(pl.all())).to_series()
    signals = [_share("skew", "features", rows.to_numpy())]
    own = made.logged.filter((pl.col("_release") == release) & pl.col("_score").is_finite())
    if system.combine is None and own.height:
        signals += _parity(home, release, own)
    return signals


def _parity(home: Home, release: str, own: pl.DataFrame) -> list[Signal]:
    try:
        said = np.asarray(load(home.artifacts.get(release), release).predict(own), float)
    except NoriaError:
        return []  # a release that cannot be loaded refuses its rows, and that is watched
    said = said.max(axis=1) if said.ndim == 2 else said
    return [_share("parity", SCORE, ~(np.abs(said - measure.numbers_of(own["_score"])) <= TOLERANCE))]


def _share(name: str, subject: str, apart: NDArray[np.bool_]) -> Signal:
    share = float(f"{apart.mean():.6g}")
    return Signal(name, subject, "operation", share, ALLOWED, judged(share, high=ALLOWED))
