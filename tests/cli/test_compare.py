"""``noria replay --compare``: policies side by side, each in a home of its own; the table is what the homes hold."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from noria import replay
from noria.cli.app import run
from noria.cli.common import load_system
from noria.cli.compare import advice, spread
from noria.core import Estimate, SettingsError, SimulatedClock, Verdict, parse_time
from noria.development import Interval
from noria.records import Alerted, Gated, Released, Valued
from noria.replay import Lived, policies, policy
from noria.settings import Settings
from noria.store import Home

SPAN = ("--from", "2020-01-01", "--to", "2020-01-19")
END = parse_time("2020-01-19")


class Said(NamedTuple):
    code: int
    out: str
    err: str


def noria_once(*arguments: object) -> Said:
    """Runs a command in this process, outside any one test."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Said(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def place(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small shop, where trainings and days cost something."""
    folder = tmp_path_factory.mktemp("compared")
    declaration = (shop / "system.py").read_text()
    (folder / "system.py").write_text(declaration.replace("    every=", "    costs=nr.Costs(training=25, day=1),\n    every="))
    for name in ("visits.parquet", "sales.parquet"):
        shutil.copy(shop / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def compared(place: Path) -> Any:
    done = noria_once("replay", place / "system.py", *SPAN, "--compare", "never, 3d", "--home", place / "home", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def opened(path: Path) -> Home:
    return Home.open(path, Settings(), SimulatedClock(END), create=False, write=False)


def test_the_table_is_what_the_homes_hold(compared: Any, place: Path) -> None:
    rows = {row["policy"]: row for row in compared["policies"]}
    assert list(rows) == ["never", "3d"]
    value = {}
    for name, row in rows.items():
        with opened(place / "home" / "compare" / name) as home:
            assert row["trainings"] == home.ledger.count(Gated)
            assert row["releases"] == home.ledger.count(Released) >= 1
            value[name] = {e.record.window.end: e.record.total for e in home.ledger.read(Valued)}
        assert row["value"] == pytest.approx(sum(value[name].values()))
        assert row["cost"] == pytest.approx(25 * row["trainings"] + 18, abs=1.0)
        assert row["net"] == pytest.approx(row["value"] - row["cost"])
        assert rows["never"]["trainings"] == 1 < rows["3d"]["trainings"]
    assert rows["never"]["versus"]["value"] == 0.0
    apart = sum(value["3d"].values()) - sum(value["never"].values())
    extra = 25 * (rows["3d"]["trainings"] - rows["never"]["trainings"])
    assert rows["3d"]["versus"]["value"] == pytest.approx(apart - extra)
    assert rows["3d"]["versus"]["low"] <= rows["3d"]["versus"]["value"] <= rows["3d"]["versus"]["high"]


def test_a_second_run_replays_nothing_and_says_the_same(compared: Any, place: Path) -> None:
    arguments = ("replay", place / "system.py", *SPAN, "--compare", "never,3d", "--home", place / "home")
    with opened(place / "home" / "compare" / "3d") as home:
        before = home.ledger.count()
    again = noria_once(*arguments, "--jobs", "2", "--json")
    assert json.loads(again.out) == compared
    with opened(place / "home" / "compare" / "3d") as home:
        assert home.ledger.count() == before
    shown = noria_once(*arguments)
    assert "Retraining policies, in EUR" in shown.out
    assert "net against never" in shown.out
    assert "too short to say how a model ages" in shown.out


# ------------------------------------------------------------------------------------------------------------- the parts


def test_policies_are_named(place: Path) -> None:
    system = load_system(place / "system.py")
    assert policy(system, "declared").id == system.id
    assert policy(system, "never").retrain.every is None
    assert not policy(system, "never").retrain.recalibrate
    assert policy(system, "recalibrated").retrain.recalibrate
    made = policy(system, "7d+compare").retrain
    assert (made.every, made.on, made.cooldown, made.state) == ("7d", (), "7d", "compare")
    assert policy(system, "triggered").retrain.on == ("decay", "drift", "volume")
    for wrong in ("sometimes", "0d", "-3d", "7d+warm", ""):
        with pytest.raises(SettingsError, match="no retraining policy"):
            policy(system, wrong)
    for wrong in ("never", "7d,7d", ","):
        with pytest.raises(SettingsError, match="two policies"):
            policies(wrong)


def test_a_wrong_name_runs_nothing(place: Path, tmp_path: Path, noria: Any) -> None:
    done = noria("replay", place / "system.py", *SPAN, "--compare", "never,sometimes", "--home", tmp_path / "home")
    assert done.code == 1
    assert "sometimes" in done.err
    assert not (tmp_path / "home").exists()
    assert noria("replay", place / "system.py", *SPAN, "--compare", "never,3d", "--jobs", "0").code == 1


def lived(cost: float) -> Lived:
    return Lived("p", 1, 0, 1, 0.0, cost, 0.0, 0, 0.0, Estimate(None), "h")


def test_the_difference_is_paired_by_window_and_less_the_costs() -> None:
    draw = np.random.default_rng(0)
    ends = [END + timedelta(days=k) for k in range(40)]
    noise, gain = draw.normal(0, 50, 40), draw.normal(3.0, 1.0, 40)
    first = replay._Books(dict(zip(ends, noise.tolist(), strict=True)), ends[9])
    other = replay._Books(dict(zip(ends, (noise + gain).tolist(), strict=True)), ends[12])
    made = replay._versus(lived(70.0), other, lived(20.0), first)
    after = gain[10:]  # windows that end after either had a release
    assert made.value == pytest.approx(after.sum() - 50.0)
    plain = 1.96 * after.std(ddof=1) * np.sqrt(30)
    assert made.low is not None
    assert made.high is not None
    assert 0.9 * plain < (made.high - made.low) / 2 < 1.6 * plain  # what both share is gone
    assert replay._versus(lived(0.0), replay._Books({}, None), lived(0.0), first).value is None


def test_days_under_alert_are_counted_once(tmp_path: Path) -> None:
    clock = SimulatedClock(END)
    with Home.open(tmp_path / "home", Settings(durable=False), clock) as home, home.hold("test"):

        def say(day: int, name: str, state: Any, *, harm: bool = True) -> None:
            clock.move(END + timedelta(days=day))
            record = Alerted(
                alert=name, name=name, subject="", state=state, since=END, harm=harm, size=Estimate(1.0), bound=None, message=""
            )  # fmt: skip
            home.commit(record, key=f"{name}/{state}/{day}")

        say(0, "a", "open")
        say(1, "fact", "open", harm=False)
        say(2, "b", "open")
        say(3, "a", "acknowledged")
        say(4, "a", "resolved")
        say(6, "b", "resolved")
        say(10, "c", "open")
        assert replay._alerts(home, END + timedelta(days=15)) == (3, 11.0)


def test_what_is_said_of_how_often() -> None:
    assert "declare costs.training" in advice(None)
    assert "every 21 days costs least" in advice(Interval(21.0, 14.0, 42.0, False, {}, Verdict.PASS))
    assert "every at least 84 days" in advice(Interval(84.0, 42.0, 84.0, True, {}, Verdict.PASS))
    assert "not enough data" in advice(Interval(84.0, 42.0, 84.0, True, {}, Verdict.NOT_ENOUGH_DATA))
    assert spread(Estimate(None)) == "not enough data"
    assert spread(Estimate(12.4, -3.0, 28.0, 20)) == "+12 [-3, +28]"


def test_scope_shows_how_a_model_ages(compared: Any, place: Path, noria: Any) -> None:
    home = place / "home" / "compare" / "never"
    done = noria("scope", place / "system.py", "--ages", "--home", home, "--at", "2020-01-19")
    assert done.code == 0, done.err
    assert "too short" in done.out
    assert noria("scope", place / "system.py", "--ages", "--home", home, "--json").json["freshness"] is None


def test_history_long_enough_is_measured(compared: Any, place: Path, monkeypatch: pytest.MonkeyPatch, noria: Any) -> None:
    monkeypatch.setattr(replay, "FRESH_TRAIN", timedelta(days=4))
    monkeypatch.setattr(replay, "FRESH_STEP", timedelta(days=1))
    home = place / "home" / "compare" / "never"
    found = noria("scope", place / "system.py", "--ages", "--home", home, "--at", "2020-01-19", "--json").json["freshness"]
    assert (found["recipe"], found["metric"]) == ("linear", "log_loss")
    assert found["per_day"] == pytest.approx(300, rel=0.05)
    assert len(found["ages"]) > 5
    assert abs(found["ages"][3]["loss"]["value"]) < 0.05  # this shop does not change
    shown = noria("scope", place / "system.py", "--ages", "--home", home, "--at", "2020-01-19").out
    assert "How linear ages" in shown
    assert "not enough data to say that a schedule pays" in shown
