"""What is done before there is a model: the declared policy, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.system import System

if TYPE_CHECKING:
    from noria.store.engine import Engine

NOT_ACTING = 0.0


def before_acts(engine: Engine, system: System, frame: pl.DataFrame) -> NDArray[np.float64]:
    """The act of each row under ``Decide.before``, as the tables have acts; not acting without one, and where it says null.

    ``frame`` has the predicted row's columns and the features that the policy reads.
    """
    sql = system.decide.before
    if sql is None or frame.is_empty():
        return np.full(frame.height, NOT_ACTING)
    rows = frame.with_columns(_place=pl.int_range(pl.len()))
    said = engine.sql(f"select cast(({sql}) as double) as x from rows order by _place", rows=rows)["x"]
    return np.asarray(said.fill_null(NOT_ACTING).to_numpy(), np.float64)
