"""The minutes of the live service: what is appended is read back by window, and a quantile is a bound of its histogram."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from noria.core import Window
from noria.store.minutes import Minute, leave_minute, minute_of, minutes, quantile

DAY = datetime(2026, 3, 1, tzinfo=UTC)
BOUNDS = (0.001, 0.01, 0.1, 1.0)


def test_a_window_has_the_minutes_that_began_within_it(tmp_path: Path) -> None:
    for hours in (0, 23, 24, 25, 49):
        at = minute_of(DAY + timedelta(hours=hours))
        leave_minute(tmp_path, Minute(at=at, requests=hours + 1, errors=0, bounds=BOUNDS, counts=(0,) * 5))
    window = Window(DAY + timedelta(hours=23), DAY + timedelta(hours=49))
    assert [one.requests for one in minutes(tmp_path, window)] == [24, 25, 26]
    assert not list(minutes(tmp_path / "nothing", window))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_quantile_lies_in_the_bin_that_its_bound_closes(share: float) -> None:
    seconds = np.random.default_rng(0).lognormal(-4, 1.5, 5000)
    counts = np.bincount(np.searchsorted(BOUNDS, seconds, side="left"), minlength=5)
    found = quantile(BOUNDS, tuple(int(n) for n in counts), share)
    exact = float(np.quantile(seconds, share))
    assert found is not None
    assert found == min(bound for bound in (*BOUNDS, np.inf) if bound >= exact)
