"""Runs: a home is brought to a frozen champion once, copied, and goes on under a planted fault, turn by turn.

Every day's rows come as a file of each source just before the day's turn, as they would arrive. The turns are Noria's own (``loop.turn``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from loopbench import hooks
from loopbench.faults import FAULTS, Stage
from loopbench.histories import AT, BEGIN, DAY, PREFIX, Tables, World, days_of, declared, drawn, laid, real, seeded, tables
from loopbench.plan import Spec
from loopbench.results import read
from noria import deployment
from noria.core import SimulatedClock, stopwatch
from noria.deployment import Bundles
from noria.loop import turn
from noria.records import Approved, Charter, Gated, Released
from noria.settings import Settings
from noria.store import Home
from noria.system import System

SETTINGS = Settings(durable=False, threads=1)
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Ground:
    """A home that was brought to a champion: its folder, the seconds it took, and the days that it did not use."""

    folder: Path
    seconds: float
    left: list[datetime] = field(default_factory=list)


def code() -> str:
    """The hash of Noria's and this benchmark's code: results and homes made by other code are not taken up."""
    if "LOOPBENCH_CODE" in os.environ:
        return os.environ["LOOPBENCH_CODE"]
    made = hashlib.sha256()
    for folder in (ROOT / "src" / "noria", ROOT / "benchmarks" / "loopbench"):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".json") and path.name not in ("report.py", "scoring.py", "calibrate.py", "peers.py"):
                made.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return made.hexdigest()[:12]


# -------------------------------------------------------------------------------------------------------------- the files


def deliver(
    folder: Path, stage_tables: Tables, now: datetime, since: datetime, shape: Callable[[str, pl.DataFrame], pl.DataFrame]
) -> None:
    """Writes the rows of every source that arrive in (``since``, ``now``] as a file of its own."""
    for name, frame in stage_tables.items():
        rows = frame.filter((pl.col(AT) > since) & (pl.col(AT) <= now))
        if rows.is_empty():
            continue
        target = folder / "data" / name
        target.mkdir(parents=True, exist_ok=True)
        part = target / f".{now:%Y%m%d}.part"
        shape(name, rows.drop(AT)).write_parquet(part)
        part.rename(target / f"{now:%Y%m%d}.parquet")


def _as_is(_: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame


# ------------------------------------------------------------------------------------------------------------ the ground


def split_days(spec: Spec) -> tuple[list[datetime], list[datetime]]:
    """The days of the prefix in their order, and those left for the runs."""
    days = days_of(spec.history, *spec.days)
    used = drawn(days, PREFIX, BEGIN, seeded("prefix", spec.history, spec.days, spec.seed))
    return used, [day for day in days if day not in set(used)]


def ground(spec: Spec, cache: Path, *, any_code: bool = False) -> Ground:
    """The home of a (history, seed) under its champion; made when it is not there."""
    name = f"{spec.history}-{spec.days[0]}-{spec.seed}"
    used, left = split_days(spec)
    made = sorted((cache / "grounds").glob(f"{name}-*/ready"), key=lambda path: path.stat().st_mtime)
    wanted = cache / "grounds" / f"{name}-{code()}"
    if (wanted / "ready").exists():
        return Ground(wanted, float((wanted / "ready").read_text()), left)
    if any_code and made:
        return Ground(made[-1].parent, float(made[-1].read_text()), left)
    shutil.rmtree(wanted, ignore_errors=True)
    begun = stopwatch()
    world = laid(spec.history, used, BEGIN)
    end = BEGIN + PREFIX * DAY
    all_tables = tables(world)
    deliver(wanted, all_tables, end, BEGIN - DAY, _as_is)
    system = declared(spec.history, wanted)
    champion = _turned(wanted, system)
    if champion is None:
        raise RuntimeError(f"{name}: no candidate came to the gate within {PREFIX} days")
    seconds = stopwatch() - begun
    (wanted / "ready").write_text(f"{seconds:.1f}")
    return Ground(wanted, seconds, left)


def _turned(folder: Path, system: System) -> str | None:
    clock = SimulatedClock(BEGIN)
    champion = None
    with Home.open(folder / "home", SETTINGS, clock) as home, home.hold("loopbench"):
        bundles = Bundles(home)
        for k in range(1, PREFIX + 1):
            clock.move(BEGIN + k * DAY)
            turn(home, system, bundles=bundles)
            gated = home.ledger.latest(Gated)
            if champion is None and gated is not None:
                champion = gated.record.bundle
                deployment.promote(home, system, champion, by="loopbench", note="the champion stays")
    return champion


# --------------------------------------------------------------------------------------------------------------- the run


def run(spec: Spec, cache: Path, *, any_code: bool = False, keep: bool = False) -> dict[str, Any]:
    """One run: what was seen from the prefix's end on, as plain data."""
    gate = bool(spec.fault) and FAULTS[spec.fault].gate
    base = None if gate else ground(spec, cache, any_code=any_code)
    folder = cache / "runs" / hashlib.sha256(spec.key.encode()).hexdigest()[:16]
    shutil.rmtree(folder, ignore_errors=True)
    begun = stopwatch()
    try:
        if base is None:
            made = gate_run(spec, folder)
        else:
            _copied(base.folder, folder)
            made = _run(spec, base, folder) | {"ground_seconds": base.seconds}
        made["seconds"] = round(stopwatch() - begun, 2)
        return made
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _copied(source: Path, folder: Path) -> None:
    shutil.copytree(source / "home", folder / "home")
    for path in (source / "data").glob("*/*.parquet"):
        target = folder / "data" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)


def staged(spec: Spec, left: list[datetime], folder: Path) -> Stage:
    """The days after the prefix with the fault planted: what is still to arrive, and how the software is changed."""
    start = BEGIN + PREFIX * DAY
    random = seeded("run", spec.history, spec.days, spec.seed, spec.draw)
    days = drawn(left, spec.before + spec.length, start, random)
    used, _ = split_days(spec)
    world = laid(spec.history, [*used[-2:], *days], start - 2 * DAY)
    stage = Stage(world, start + spec.before * DAY, seeded(spec.key), declared(spec.history, folder))
    if spec.fault:
        FAULTS[spec.fault].plant(stage, spec.size)
    return stage


def _run(spec: Spec, base: Ground, folder: Path) -> dict[str, Any]:
    stage = staged(spec, base.left, folder)
    start = BEGIN + PREFIX * DAY
    arriving = stage.tables()
    clock = SimulatedClock(start)
    stopped: list[str] = []
    with (
        Home.open(folder / "home", SETTINGS, clock) as home,
        home.hold("loopbench"),
        hooks.planted(stage),
        hooks.tested() as seen,
    ):
        bundles = Bundles(home)
        first = home.ledger.read(newest=1)[-1].seq
        for k in range(1, spec.before + spec.length + 1):
            now = start + k * DAY
            deliver(folder, arriving, now, now - DAY, stage.shape(now))
            clock.move(now)
            system = stage.system_at(now)
            done = turn(home, system, bundles=bundles)
            if done.stopped:
                stopped.append(now.isoformat())
            if stage.acted is not None and now > stage.start:
                arriving = stage.acted(arriving, acts(home, now))
        made = read(home, first)
        export = windows(home, stage.system)
        champion = home.ledger.latest(Released)
    target = folder.parent.parent / "windows" / f"{folder.name}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    export.write_parquet(target)
    return {
        "key": spec.key,
        "spec": spec.as_dict(),
        "code": code(),
        "champion": champion.record.bundle[:12] if champion is not None else "",
        "start": stage.start.isoformat(),
        "arrives": stage.arrives.isoformat(),
        "from": start.isoformat(),
        "end": (start + (spec.before + spec.length) * DAY).isoformat(),
        "stopped": stopped,
        "windows": target.name,
        "tested": seen,
        **made,
    }


def gate_run(spec: Spec, folder: Path) -> dict[str, Any]:
    """A run that begins with nothing and ends with the gate's first verdict; a charter that says no is signed against."""
    if spec.history == "openbandit":
        rows = real("openbandit").rows.filter(pl.col("policy") == spec.days[0])
        world, start, every, many = World("openbandit", rows), _midnight(rows), DAY / 4, 28
    else:
        world, start, every, many = laid(spec.history, split_days(spec)[0], BEGIN), BEGIN, DAY, PREFIX
    stage = Stage(world, start - DAY, seeded(spec.key), declared(spec.history, folder))
    FAULTS[spec.fault].plant(stage, spec.size)
    system = declared(spec.history, folder, candidates=stage.candidates) if stage.candidates else stage.system
    deliver(folder, stage.tables(), start + many * every, start - DAY, _as_is)
    clock, gated = SimulatedClock(start), None
    signed_for: set[str] = set()
    quick = many * 3 // 4  # nothing is trained before that: seven steps at a time
    with Home.open(folder / "home", SETTINGS, clock) as home, home.hold("loopbench"), hooks.tested() as seen:
        bundles = Bundles(home)
        for k in [*range(7, quick, 7), *range(quick, many + 1)]:
            clock.move(start + k * every)
            turn(home, system, bundles=bundles)
            charter, gated = home.ledger.latest(Charter), home.ledger.latest(Gated)
            if gated is not None:
                break
            if charter is not None and charter.record.decision == "no-go" and charter.key not in signed_for:
                signed_for.add(charter.key)
                signed = Approved(subject=charter.key, by="loopbench", note="to see what the gate says")
                home.commit(signed, key=f"approved/{charter.key}/0000", parents=[charter.id])
        made = read(home, 0)
        decision = charter.record.decision if charter is not None else ""
        at, verdict = (gated.at.isoformat(), str(gated.record.verdict)) if gated is not None else ("", "")
    begun = {"start": start.isoformat(), "arrives": start.isoformat(), "from": start.isoformat(), "end": clock.now().isoformat()}
    own = {"key": spec.key, "spec": spec.as_dict(), "code": code(), "stopped": [], "tested": seen, "charter": decision}
    return own | begun | {"gate": {"at": at, "verdict": verdict}} | made


def _midnight(rows: pl.DataFrame) -> datetime:
    first = rows["asked"].dt.truncate("1d").min()
    assert isinstance(first, datetime)
    return first


def acts(home: Home, now: datetime) -> pl.DataFrame:
    """``id`` and ``act`` of what was asked on the last day."""
    rows = home.lake.read("predictions", columns=["_id", "_act"], _time=(now - DAY, now))
    return rows.select(id=pl.col("_id").str.replace(r"@[^@]*$", ""), act=pl.col("_act"))


def windows(home: Home, system: System) -> pl.DataFrame:
    """What a monitor sees of the champion's days: time, features, score, and the label once it is closed."""
    known = home.lake.schema("predictions") or {}
    features = [feature.name for feature in system.flat_features if feature.name in known]
    rows = home.lake.read("predictions", columns=["_id", "_time", "_score", "_release", *features])
    labels = home.lake.read("outcomes", columns=["_id", "_time", "_label", "_revision"])
    labels = labels.sort("_revision").unique("_id", keep="last").select("_id", "_label")
    rows = rows.filter(pl.col("_release").fill_null("") != "").join(labels, on="_id", how="left")
    return rows.drop("_release").sort("_time", "_id")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Two runs at a time have one processor each."""
    before = dict(os.environ)
    os.environ.update({"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


__all__ = ["Ground", "acts", "code", "deliver", "ground", "run", "staged", "windows"]
