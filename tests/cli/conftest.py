"""A small system with made-up visits, gone round the wheel once, and a way to run commands in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from noria.cli.app import run

START = datetime(2020, 1, 1, tzinfo=UTC)
DAYS, A_DAY = 18, 300
DECLARATION = '''"""Will a visitor buy within six hours?"""

import noria as nr

visits = nr.Source("visits", "visits.parquet", key="visit", time="came_at", owner="shop")
sales = nr.Source("sales", "sales.parquet", key="visit", time="bought_at", owner="shop")

system = nr.System(
    name="visits",
    predict=visits,
    label=nr.Label(sales, "true", within="6h", otherwise=False, task="binary"),
    features=[visits.columns("pages", "country"), sales.window("1d", every="1h", by="country").count()],
    objective=nr.Objective(
        problem="A call costs money, and a sale that needed one brings more.",
        value=nr.Value("case when act and label then 8 when act then -2 else 0 end", "EUR"),
        metric="log_loss",
        slices=["country"],
    ),
    candidates=[nr.Prior(), nr.Linear(trials=2)],
    parts=nr.Parts(least="2d", validate="1d", test="3d", fresh="2d"),
    gate=nr.Gate(block="6h", blocks=6),
    rollout=nr.Rollout(shadow="1d", canary=(0.3,), step="1d", unit="visit"),
    retrain=nr.Retrain(every="10d", cooldown="2d"),
    every="6h",
)
'''


def write_data(folder: Path) -> None:
    """Visits at random times; more pages mean more sales, an hour or so later."""
    rng = np.random.default_rng(7)
    n = DAYS * A_DAY
    minutes = np.sort(rng.integers(0, DAYS * 24 * 60, n))
    pages = rng.integers(1, 20, n)
    country = rng.choice(["at", "ch", "de"], n)
    chance = 1 / (1 + np.exp(4 - 0.35 * pages - 0.8 * (country == "ch")))
    sold = rng.random(n) < chance
    came = pl.Series([START + timedelta(minutes=int(m)) for m in minutes], dtype=pl.Datetime("us", "UTC"))
    visits = pl.DataFrame({"visit": [f"v{k:05d}" for k in range(n)], "came_at": came, "pages": pages, "country": country})
    later = pl.duration(minutes=pl.Series(rng.integers(5, 300, n)))
    sales = visits.filter(pl.Series(sold)).select(
        "visit", bought_at=pl.col("came_at") + later.filter(pl.Series(sold)), country="country"
    )
    visits.write_parquet(folder / "visits.parquet")
    sales.sort("bought_at").write_parquet(folder / "sales.parquet")


class Done(NamedTuple):
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Noria = Callable[..., Done]


@pytest.fixture
def noria(capsys: pytest.CaptureFixture[str]) -> Noria:
    """Runs a command in this process."""

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small system: its declaration and data, nothing turned yet."""
    folder = tmp_path_factory.mktemp("shop")
    write_data(folder)
    (folder / "system.py").write_text(DECLARATION)
    return folder


@pytest.fixture(scope="session")
def turned(shop: Path) -> Path:
    """The declaration of the small system after 18 days."""
    code = run(["replay", str(shop / "system.py"), "--from", "2020-01-01", "--to", "2020-01-19", "--json"])
    assert code == 0
    return shop / "system.py"


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The declaration of the small system with a fifth of its acts drawn at random, after 18 days."""
    folder = tmp_path_factory.mktemp("explored")
    write_data(folder)
    text = DECLARATION.replace("    candidates=", "    decide=nr.Decide(explore=0.2),\n    candidates=")
    (folder / "system.py").write_text(text)
    assert run(["replay", str(folder / "system.py"), "--from", "2020-01-01", "--to", "2020-01-19", "--json"]) == 0
    return folder / "system.py"


@pytest.fixture
def copy(turned: Path, tmp_path: Path) -> Path:
    """A copy of the small system for a test that writes."""
    shutil.copytree(turned.parent, tmp_path / "shop")
    return tmp_path / "shop" / "system.py"
