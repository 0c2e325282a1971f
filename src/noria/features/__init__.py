"""Features that know only what could be known when the question was asked.

The definition
--------------
Let a row of the predicted table be asked at ``t``, and let a source's rows carry ``_time`` (when it happened), ``_known`` (when it
could be used) and ``_row`` (the hash of its content). All times are microseconds in UTC; grids are counted from 1970.

``column``, ``expression``
    SQL over the predicted row alone.
``last``
    Among the source's rows with the same ``by`` and ``_known <= t``, the greatest by (``_known``, ``_time``, ``_row``): the newest known.
    It counts if ``t - _known <= max_age``; otherwise, and when there is none, the feature is null. Its value is that row's value, null
    included: an older row never fills in. A restatement is a newer row, so it replaces what it restates.
``window`` of length ``W`` on a grid ``every``
    The source's rows with the same ``by`` and ``floor(t, every) - W < _known <= t``. The leading edge is exact; the trailing edge lies on
    the grid, so a window is between ``W`` and ``W + every`` long. ``W`` is a whole number of ``every``. Tiles are half-open at the start,
    as all windows of Noria are: tile ``m`` is ``(m·every, (m+1)·every]``, and a window is exactly the ``W / every`` tiles before the
    one that is open at ``t`` plus the rows of the open one known by ``t``. A tile's state is its count, sums, sums of squares, minimum and
    maximum, which merge in any order.

    Every accepted row counts once, as of when it became known. A restatement is one more row: which earlier row it replaces would
    depend on ``t``, and no state that is kept per tile can say it.

Values that are null, NaN or infinite are ignored: they do not count (``count`` without an expression counts rows). Over no values
``count`` and ``sum`` are 0, the others null. A predicted row with a null among its ``by`` has no rows.

``std`` is the population's. Sums are exact: each value is rounded once to a multiple of 0.000001 and summed as a whole number
(``DECIMAL``), so neither the order of rows nor the number of threads can change a bit. Values must lie within ±10¹² and, for ``std``,
the sum of squares below 10²⁶; beyond that ``compute`` raises ``DataFault`` and names the feature.

``Online`` gives the same numbers for one row without a query, from tiles that it keeps in memory; ``Rowwise`` evaluates SQL over single rows.

Each feature comes out as ``Float64`` (numbers, booleans) or ``String`` (texts). ``NaN`` and infinities come out as null.
"""

from noria.features.check import check_features
from noria.features.compute import compute, schemas
from noria.features.leaks import suspects
from noria.features.online import Online
from noria.features.plan import FeatureColumn, Plan, plan
from noria.features.rowwise import Rowwise, compiled
from noria.features.skew import Skewed, differing, recomputed, skew
from noria.features.sql import sql

__all__ = [
    "FeatureColumn",
    "Online",
    "Plan",
    "Rowwise",
    "Skewed",
    "check_features",
    "compiled",
    "compute",
    "differing",
    "plan",
    "recomputed",
    "schemas",
    "skew",
    "sql",
    "suspects",
]
