"""Gets two logs of one fashion shop, November 2019: what was shown at random, and what Thompson sampling chose (Open Bandit Data).

10,000 rows of each policy and campaign (``all``, ``men``, ``women``) over the same seven days, with the place in the list (1 to 3), the
click and the chance with which the item was shown there. The data comes with the Python package ``obp`` 0.4.1, as does what the Thompson sampling
knew when the week began: a Beta prior for each item.

``log`` has a row for each item shown. ``policy`` has the chance of each item at each place under the Thompson sampling as it began, by drawing
100,000 lists from the priors; during the week it learned on, so its logged chances move away from these.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fetching import archive, member

DATA = Path(__file__).resolve().parent / "data"
SHA256 = "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
CAMPAIGNS, POLICIES, PLACES = ("all", "men", "women"), ("random", "bts"), 3
DRAWS, AT_ONCE = 100_000, 10_000


def wheel() -> Path:
    """The package as published."""
    return archive("obp==0.4.1", "obp-0.4.1-py3-none-any.whl", SHA256)


def log() -> pl.DataFrame:
    """Every row that was shown, by campaign and policy, in the order of time."""
    parts = []
    for campaign in CAMPAIGNS:
        for policy in POLICIES:
            content = member(wheel(), f"obd/{policy}/{campaign}/{campaign}.csv")
            frame = pl.read_csv(io.BytesIO(content), columns=["timestamp", "item_id", "position", "click", "propensity_score"])
            parts.append(
                frame.select(
                    campaign=pl.lit(campaign),
                    policy=pl.lit(policy),
                    at=pl.col("timestamp").str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us", time_zone="UTC"),
                    item="item_id",
                    place="position",
                    click="click",
                    propensity="propensity_score",
                )
            )
    return pl.concat(parts).sort("campaign", "policy", "at", maintain_order=True)


def priors() -> dict[str, dict[str, list[float]]]:
    """``alpha`` and ``beta`` of each item, by campaign."""
    found: dict[str, dict[str, list[float]]] = {}
    campaign = name = ""
    for line in member(wheel(), "policy/conf/prior_bts.yaml").decode().splitlines():
        if line.strip().startswith("- "):
            found[campaign][name].append(float(line.strip()[2:]))
        elif line.startswith(" "):
            name = line.strip().rstrip(":")
            found[campaign][name] = []
        elif line.strip():
            campaign = line.strip().rstrip(":")
            found[campaign] = {}
    return found


def thompson(alpha: list[float], beta: list[float]) -> NDArray[np.float64]:
    """(items, places): how often each item comes to each place when the places go to the largest of one draw an item."""
    random = np.random.default_rng(0)
    counts = np.zeros((len(alpha), PLACES))
    for _ in range(DRAWS // AT_ONCE):
        drawn = random.beta(alpha, beta, size=(AT_ONCE, len(alpha)))
        top = np.argpartition(-drawn, PLACES, axis=1)[:, :PLACES]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(drawn, top, axis=1), axis=1), axis=1)
        for place in range(PLACES):
            counts[:, place] += np.bincount(top[:, place], minlength=len(alpha))
    return counts / DRAWS


def policy() -> pl.DataFrame:
    """The chance of each item at each place under the Thompson sampling as the week began."""
    parts = []
    for campaign, prior in priors().items():
        chances = thompson(prior["alpha"], prior["beta"])
        items, places = np.indices(chances.shape)
        columns = {"item": items.ravel(), "place": places.ravel() + 1, "chance": chances.ravel()}
        parts.append(pl.DataFrame(columns).select(pl.lit(campaign).alias("campaign"), pl.all()))
    return pl.concat(parts)


def main() -> None:
    if all((DATA / f"{name}.parquet").exists() for name in ("log", "policy")):
        return
    DATA.mkdir(exist_ok=True)
    for name, frame in {"log": log(), "policy": policy()}.items():
        part = DATA / f".{name}.part"
        frame.write_parquet(part)
        part.replace(DATA / f"{name}.parquet")
        print(f"{name}.parquet: {frame.height:,} rows")


if __name__ == "__main__":
    main()
