"""A home with a year of hand-made records: what a report has to show, without running the year."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import noria as nr
from noria.core import Check, Estimate, SimulatedClock, Verdict, Window
from noria.records import (
    Alerted,
    Blocked,
    Cause,
    Charter,
    CohortClosed,
    Declared,
    Diagnosed,
    Evaluated,
    Gated,
    Ingested,
    Monitored,
    Part,
    RawFile,
    Released,
    Retraining,
    RolloutMoved,
    SchemaFrozen,
    Scored,
    Signal,
    SliceResult,
    Snapshot,
    Standing,
    Trained,
    TrainingSet,
    Valued,
    Verified,
)
from noria.settings import Settings
from noria.store import Home

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NASTY = "<script>alert('x')</script>"


def declared() -> nr.System:
    """The flights system in short, with markup where a user's words go."""
    schedule = nr.Source("schedule", "schedule.parquet", key="flight_id", time="asked_at", owner="operations")
    departed = nr.Source("departed", "departed.parquet", key="flight_id", time="departed_at", owner=NASTY)
    return nr.System(
        name="late-flights",
        predict=schedule,
        label=nr.Label(departed, "delay >= 15", within="8h", otherwise=True),
        features=[schedule.columns("carrier", "distance")],
        objective=nr.Objective(
            problem="Missed connections cost us passengers; rebooking early is cheap, rebooking in vain is not.",
            value=nr.Value("case when act and label then 60 when act then -15 when label then -20 else 0 end", "USD"),
            metric="log_loss",
        ),
        candidates=[nr.Prior(), nr.Boosting()],
    )


def wobble(day: int, size: float) -> float:
    """A number that moves, the same in every run."""
    return size * (math.sin(day / 3.1) + math.sin(day / 11.7) + math.cos(day * 1.7))


@pytest.fixture(scope="session")
def system() -> nr.System:
    return declared()


@pytest.fixture(scope="session")
def year(tmp_path_factory: pytest.TempPathFactory, system: nr.System) -> Iterator[Home]:
    """The year: blocked in February, released in March, harmed in July, rolled back in September."""
    clock = SimulatedClock(START)
    path = tmp_path_factory.mktemp("year") / "home"
    with Home.open(path, Settings(durable=False), clock) as home, home.hold("test"):
        _write(home, clock, system)
        yield home


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which nothing has happened."""
    with Home.open(tmp_path_factory.mktemp("empty") / "home", Settings(durable=False), SimulatedClock(START)) as home:
        yield home


def _write(home: Home, clock: SimulatedClock, system: nr.System) -> None:
    home.commit(Declared(system=system.name, declaration=system.id, spec=system.spec()), key="declared/0000")
    for source in ("schedule", "departed"):
        home.commit(SchemaFrozen(source=source, version=1, columns={"flight_id": "String"}), key=f"schema/{source}/1")
    bundle = ""
    for day in range(1, 366):
        clock.move(START + day * DAY)
        _daily(home, day, bundle)
        if day == 45:
            fault = Blocked(
                source="departed", reason="the column delay is missing", where="departed.parquet", hint="ask operations"
            )
            blocked = home.commit(fault, key="blocked/45")
            _diagnosis(home, "diagnosed/45", blocked.key, "data", "bad data")
        if day == 50:
            _charter(home, system)
        if day in (60, 150, 250):
            made = "abcdef"[day % 5] * 64
            _training(home, day, made, bundle)
            bundle = made
        if day == 200:
            _alert(home, "alert-harm", "value", harm=True, state="open")
        if day == 230:
            _alert(home, "alert-harm", "value", harm=True, state="resolved")
        if day == 320:
            opened = _alert(home, "alert-drift", "drift", harm=False, state="open")
            _diagnosis(home, "diagnosed/320", opened, "development", NASTY)


def _daily(home: Home, day: int, bundle: str) -> None:
    window = Window(START + (day - 1) * DAY, START + day * DAY)
    at = home.clock.now()
    n = 900 + int(wobble(day, 40))
    for source, reasons in (("schedule", {}), ("departed", {"duplicate": 2} if day % 30 == 0 else {})):
        bad = sum(reasons.values())
        taken = Ingested(
            source=source,
            upto=at,
            received=n,
            accepted=n - bad,
            quarantined=bad,
            reasons=reasons,
            files=(RawFile(f"{source}.parquet", "5" * 64),),
            rows="r" * 64,
        )
        home.commit(taken, key=f"ingest/{source}/{at.isoformat()}")
    home.commit(Scored(window=window, n=n, rows="r" * 64, variants={"champion": n}, acts={"0": n}), key=f"score/{at.isoformat()}")
    if day < 2:
        return
    window = Window(START + (day - 2) * DAY, START + (day - 1) * DAY)
    mean = 0.24 + wobble(day, 0.03)
    cohort = CohortClosed(
        window=window, revision=0, n=n, labelled=n - 3, silent=20, mean=mean, delay={"p50": 2.0, "p90": 3.1}, rows="r" * 64
    )
    home.commit(cohort, key=f"cohort/{window.end.isoformat()}/0")
    nothing, always = -20 * mean * n, (60 * mean - 15 * (1 - mean)) * n
    value = nothing if not bundle else max(nothing, always) * 0.7 + 600 + wobble(day, 500)
    policies = {"do nothing": nothing, "always act": always, "perfect": 60 * mean * n}
    account = Valued(
        window=window,
        n=n,
        currency="USD",
        total=value,
        per_prediction=Estimate(value / n),
        releases=(Standing(bundle, value=Estimate(value / n)),),
        policies=tuple(Standing(name, value=Estimate(total / n)) for name, total in policies.items()),
        sums={bundle: {"n": float(n), "value": value, **policies}},
    )
    home.commit(account, key=f"valued/{window.end.isoformat()}/0")
    signals = (Signal("largest", "temp", "feature", abs(wobble(day, 0.5)), 1.0, Verdict.PASS),)
    home.commit(Monitored(window=window, about="traffic", release=bundle or None, n=n, signals=signals), key=f"traffic/{day}")
    loss = 0.52 + wobble(day, 0.02)
    seen = [("champion", loss), ("base rate", loss + 0.05), ("last label", loss + 0.08 + wobble(day + 4, 0.01))]
    outcome = tuple(Signal("log_loss", name, "outcome", size) for name, size in seen)
    home.commit(Monitored(window=window, about="outcomes", release=bundle or None, n=n, signals=outcome), key=f"outcomes/{day}")


def _charter(home: Home, system: nr.System) -> None:
    charter = Charter(
        declaration=system.id,
        decision="go",
        reasons=("learnable: better than the base rate and than a lookup",),
        checks=(Check("learnable", Verdict.PASS, "boosting", Estimate(0.05, 0.04, 0.06, 30), 0.0),),
        fitness=0.9,
        task="binary",
        framing="delay >= 15 within 8h",
        alternatives=("regression of the delay",),
        base_rate=Estimate(0.24, 0.22, 0.26, 45),
        labels={"n": 40000.0, "p90": 3.1},
        baselines=(Standing("prior", metric=Estimate(0.55, 0.53, 0.57, 45)),),
        policies=(Standing("do nothing", value=Estimate(-4.8, -5.2, -4.4, 45)),),
        break_even=0.61,
        reachable=Estimate(0.7, 0.68, 0.72, 30),
    )
    home.commit(charter, key=f"charter/{system.id}/0")


def _training(home: Home, day: int, bundle: str, champion: str) -> None:
    at = home.clock.now()
    order = home.commit(Retraining(decision="go", triggers=("schedule",), reason="due"), key=f"retraining/go/{at.isoformat()}")
    snapshot = home.commit(Snapshot(tables={"predictions": "h" * 64}), key=f"snapshot/{day}")
    parts = tuple(
        Part(name, Window(START + k * DAY, START + (k + 10) * DAY), 9000, "p" * 64)
        for k, name in enumerate(("train", "validate", "test", "fresh"))
    )
    training = TrainingSet(features="f" * 64, columns=("carrier", "distance"), parts=parts, gap="8h", dropped={"no label": 12})
    made = home.commit(training, key=f"training_set/{day}", parents=[snapshot.id, order.id])
    fitted = Trained(
        candidate=f"boosting-{day}",
        recipe="boosting",
        baseline=False,
        cost=2,
        settings={"learning_rate": 0.08},
        bundle=bundle,
        decision={"kind": "expected"},
        trained_until=at,
    )
    trained = home.commit(fitted, key=f"trained/{day}", parents=[made.id])
    metrics = {"log_loss": Estimate(0.48, 0.47, 0.49, 14), "auc": Estimate(0.72, 0.7, 0.74, 14)}
    slices = (SliceResult(column="carrier", value=NASTY, n=400, metrics=metrics),)
    bins = tuple((k / 10 + 0.05, k / 10 + 0.04, 900) for k in range(8))
    seen = Evaluated(
        candidate=f"boosting-{day}",
        part="test",
        n=9000,
        blocks=14,
        metrics=metrics,
        value=Estimate(1.2, 0.9, 1.5, 14),
        slices=slices,
        calibration=bins,
    )
    home.commit(seen, key=f"evaluated/{day}", parents=[trained.id])
    checks = (
        Check("superior to baseline", Verdict.PASS, "prior", Estimate(0.05, 0.04, 0.06, 14), 0.0, "lower log loss on every part"),
        Check("guardrail", Verdict.NOT_MEASURED, "latency_p99_ms", None, 20.0, "not measured under a simulated clock"),
    )
    gate = home.commit(
        Gated(candidate=f"boosting-{day}", bundle=bundle, verdict=Verdict.PASS, checks=checks, against=champion or None),
        key=f"gated/{at.isoformat()}",
        parents=[trained.id],
    )
    number = home.ledger.count(Released) + 1
    for step, (stage, share) in enumerate((("shadow", 0.0), ("canary", 0.05), ("full", 1.0))):
        moved = RolloutMoved(
            rollout=number,
            stage=stage,
            share=share,
            step=step,
            challenger=bundle,
            champion=champion or None,
            verdict=Verdict.PASS,
            checks=(),
            reason="gate passed",
        )
        home.commit(moved, key=f"rollout/{number}/{step}", parents=[gate.id])
    home.commit(
        Released(number=number, bundle=bundle, previous=champion or None, reason="promotion"),
        key=f"release/{number}",
        parents=[gate.id],
    )


def _alert(home: Home, alert: str, name: str, *, harm: bool, state: str) -> str:
    record = Alerted(
        alert=alert,
        name=name,
        subject="temp",
        state=state,
        since=home.clock.now(),
        harm=harm,
        size=Estimate(1.4),
        bound=1.0,
        message=f"{name} is beyond its bound {NASTY}",
    )
    return home.commit(record, key=f"{alert}/{state}").key


def _diagnosis(home: Home, key: str, symptom: str, back_to: str, cause: str) -> None:
    window = Window(home.clock.now() - 7 * DAY, home.clock.now())
    causes = (
        Cause(cause, Verdict.FAIL, 0.7, back_to, "mend the source", (Check("nulls", Verdict.FAIL, "delay"),)),
        Cause("no signal", Verdict.PASS, 0.1, "scoping", "stop"),
    )
    record = Diagnosed(
        symptoms=(symptom,),
        window=window,
        causes=causes,
        back_to=back_to,
        account=f"The data is at fault: {cause}.",
        blocks_retraining=True,
    )
    home.commit(record, key=key)
    if key.endswith("/45"):
        home.commit(
            Verified(
                source="departed",
                upto=home.clock.now(),
                verdict=Verdict.FAIL,
                tested=9,
                checks=(Check("nulls", Verdict.FAIL, "delay"),),
            ),
            key="verify/departed/45",
        )
