"""The stream of the story: slots for advertisements, whether somebody saw them, whether somebody clicked. All of it is simulated.

What happens when is planned here, and is the truth that the story is held against.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

START = datetime(2024, 1, 1, tzinfo=UTC)
PILOT = 35
"""Until this day slots are chosen by hand, and raters say whether they were seen."""
NATURAL = 71
"""Until this day every slot of every page is asked about: one in ten thousand is seen."""
LAYOUT = 113
"""On this day the pages get a new layout: what was at the top of the screen is now at its bottom."""
TIRED = 192
"""From this day advertisements are seen more surely than ever, and people click only on the few that really concern them."""
END = 250
WRONG = 0.24
"""The share of the labels of rater ``c`` that are wrong; a third of the labels are hers, so that 8 % of all are."""
RARE = 1e-4
EACH, MANY = 300, 2400
_ZONE = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Streams:
    """The three sources, and what the raters should have said."""

    slots: pl.DataFrame
    verdicts: pl.DataFrame
    clicks: pl.DataFrame
    truth: pl.DataFrame

    def write(self, folder: Path) -> None:
        """Writes the sources as Parquet files under ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("slots", "verdicts", "clicks"):
            getattr(self, name).write_parquet(folder / f"{name}.parquet")


def streams(seed: int = 0, days: int = END) -> Streams:
    """The whole stream, the same for the same seed."""
    parts = [_day(np.random.default_rng([seed, day]), day) for day in range(days)]
    whole = pl.concat(parts)
    slots = whole.select("slot", "asked_at", "position", "page", "device", "visible", "relevance")
    verdicts = whole.select("slot", (pl.col("asked_at") + pl.duration(minutes="wait")).cast(_ZONE).alias("at"), "rater", "seen")
    clicks = whole.filter("truth").select(
        "slot", (pl.col("asked_at") + pl.duration(minutes=pl.col("wait") + 5)).cast(_ZONE).alias("at"), "clicked"
    )
    return Streams(slots, verdicts, clicks, whole.select("slot", "truth"))


def _day(random: np.random.Generator, day: int) -> pl.DataFrame:
    natural = PILOT <= day < NATURAL
    n = MANY if natural else EACH
    seconds = np.sort(random.integers(1, 86_400, n))
    position = random.choice(["top", "middle", "bottom"], n)
    visible = random.beta(1.2, 6.0, n) if natural else random.uniform(0, 1, n)
    relevance = random.uniform(0, 1, n)
    swing = random.normal(0, 0.2)
    chance = np.full(n, RARE) if natural else _chance(position, visible, swing, turned=day >= LAYOUT, sure=day >= TIRED)
    truth = random.random(n) < chance
    clicked = truth & (random.random(n) < _liking(relevance, tired=day >= TIRED))
    rater = random.choice(["a", "b", "c"], n) if not natural else np.full(n, "counter")
    wrong = (rater == "c") & (random.random(n) < WRONG) & (day < PILOT)
    return pl.DataFrame(
        {
            "slot": [f"s{day:03d}{k:05d}" for k in range(n)],
            "asked_at": pl.Series([START + timedelta(days=day, seconds=int(s)) for s in seconds], dtype=_ZONE),
            "position": position,
            "page": random.choice(["news", "sport", "finance", "games"], n),
            "device": random.choice(["phone", "desktop", "tablet"], n, p=[0.6, 0.3, 0.1]),
            "visible": visible.round(3),
            "relevance": relevance.round(3),
            "wait": random.integers(5, 120, n),
            "rater": rater,
            "seen": truth ^ wrong,
            "truth": truth,
            "clicked": clicked,
        }
    )


def _liking(relevance: NDArray[np.float64], *, tired: bool) -> NDArray[np.float64]:
    """How likely who saw an advertisement clicks on it; who is tired of them clicks only on what really concerns him."""
    return np.asarray(np.where(relevance > 0.8, 0.4, 0.005) if tired else 0.15 + 0.5 * relevance)


def _chance(
    position: NDArray[np.str_], visible: NDArray[np.float64], swing: float, *, turned: bool, sure: bool
) -> NDArray[np.float64]:
    """How likely a slot is seen: by how much of it is on the screen, and where."""
    height = np.where(position == "top", 4.0, np.where(position == "bottom", -4.0, 0.0)) * (-1.0 if turned else 1.0)
    return np.asarray(1 / (1 + np.exp(-(1.6 if sure else 1.0) * (20 * (visible - 0.65) + height + swing))))
