"""Tells the story: turns the wheel over the simulated stream, does what its people do, and holds what Noria recorded against what was planned.

People act six times: they look at doubted labels, order a training (twice), sign a release or refuse it, and write a second declaration. Everything
else follows from the two declarations and the stream.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from noria import business, data, diagnosis, loop
from noria.core import Estimate, SimulatedClock, Verdict
from noria.deployment import Bundles
from noria.monitoring.grouping import members
from noria.records import (
    Alerted,
    Analysed,
    Approved,
    Charter,
    CohortClosed,
    Declared,
    Diagnosed,
    Entry,
    Evaluated,
    Gated,
    Ingested,
    Linked,
    Relabelled,
    Released,
    Retraining,
    RolloutMoved,
    SchemaFrozen,
    Snapshot,
    Trained,
    TrainingSet,
)
from noria.settings import Settings
from noria.store import Home
from noria.story import world
from noria.system import System

DAY = timedelta(days=1)
HERE = Path(__file__).parent
TEAM = "the advertising team"


class Trap(msgspec.Struct, frozen=True):
    """One thing the system had to see: whether it did, what it said, and the key of the record that says so."""

    what: str
    seen: bool
    says: str
    record: str = ""


class Chapter(msgspec.Struct, frozen=True):
    """Some of the thirteen steps: what happened in the world, and what the system made of it."""

    steps: str
    title: str
    day: int
    happened: str
    traps: tuple[Trap, ...]

    @property
    def passed(self) -> bool:
        return all(trap.seen for trap in self.traps)


@dataclass
class Told:
    """The home while it is told, and where the clock stands."""

    home: Home
    folder: Path
    system: System
    clock: SimulatedClock
    bundles: Bundles
    truth: pl.DataFrame
    load: Callable[[Path], System]
    on_day: Callable[[datetime], None]

    @property
    def day(self) -> int:
        return (self.home.clock.now() - world.START) // DAY

    def until(self, day: int, stop: Callable[[], bool] | None = None) -> None:
        """Turns once a day up to ``day``, or until ``stop`` says so."""
        for number in range(self.day + 1, day + 1):
            self.clock.move(world.START + number * DAY)
            loop.turn(self.home, self.system, bundles=self.bundles)
            self.on_day(self.clock.now())
            if stop is not None and stop():
                return

    def train(self, why: str) -> Entry[Gated] | None:
        """A person orders a training."""
        now = self.clock.now()
        order = Retraining(decision="go", triggers=("by hand",), reason=why)
        asked = self.home.commit(order, key=f"retraining/go/{now.isoformat()}")
        gated = loop.train(self.home, self.system, asked)
        self._diagnose()
        return gated

    def _diagnose(self) -> None:
        diagnosis.diagnose(self.home, self.system, self.clock.now())

    def sign(self, key: str, note: str, *, granted: bool = True) -> None:
        """A person signs, or refuses."""
        record = Approved(subject=key, by=TEAM, note=note, granted=granted)
        self.home.commit(record, key=f"approved/{key}/{self.clock.now().isoformat()}")

    def newest(self, kind: Any, prefix: str = "") -> Any:
        entry = self.home.ledger.latest(kind, prefix=prefix)
        assert entry is not None, f"there is no {kind.__name__}"
        return entry


def tell(
    folder: Path,
    load: Callable[[Path], System],
    *,
    settings: Settings | None = None,
    on_day: Callable[[datetime], None] | None = None,
) -> Iterator[Chapter]:
    """Tells the story in a folder of its own, chapter by chapter, as it happens.

    Parameters
    ----------
    folder:
        Where the declarations, the data and the home are put; it must not hold another story.
    load:
        Reads a declaration's file.
    on_day:
        Called after each day's turn.
    """
    stream = world.streams()
    stream.write(folder / "data")
    for name in ("impressions.py", "clicks.py"):
        shutil.copyfile(HERE / name, folder / name)
    clock = SimulatedClock(world.START)
    home = Home.open(folder / "home", settings or Settings(durable=False), clock)
    with home, home.hold("story"):
        told = Told(
            home, folder, load(folder / "impressions.py"), clock, Bundles(home), stream.truth, load, on_day or (lambda _: None)
        )
        for chapter in CHAPTERS:
            yield chapter(told)


# ---------------------------------------------------------------------------------------------------------- the chapters


def objective(told: Told) -> Chapter:
    problems = data.check(told.system, told.folder)
    told.until(1)
    declared = told.newest(Declared)
    spec = declared.record.spec["objective"]
    rails = [f"{rail['metric']} ≥ {rail['bound']:g}" for rail in spec["guardrails"]]
    log = told.home.lake.read("predictions", columns=["_act", "_score", "_release"])
    acts, closed = int((log["_act"] == 1).sum()), told.home.ledger.count(CohortClosed)
    traps = (
        Trap(
            "the objective is saved with its link to the business and a guardrail on revenue",
            not problems and "value_per_prediction ≥ 0.01" in rails,
            f"ML metric {spec['metric']}; value {spec['value']['sql']} in {spec['value']['currency']}; guardrails {', '.join(rails)}",
            declared.key,
        ),
        Trap(
            "there is a policy before there are labels, and it is logged",
            acts > 0 and log["_score"].null_count() == log.height and closed == 0,
            f"{log.height} slots asked about, {acts} acted on by the rule of before, {closed} labels closed",
            told.newest(Declared).key,
        ),
    )
    return Chapter("1", "Optimise for impressions", told.day, "The team declares its system. Nothing is known yet.", traps)


def versions(told: Told) -> Chapter:
    told.until(60, lambda: told.home.ledger.latest(Gated) is not None)
    training, trained = told.newest(TrainingSet), told.newest(Trained)
    snapshot = next(e for e in told.home.ledger.parents(training.id) if isinstance(e.record, Snapshot))
    files = sorted({file.name for e in told.home.ledger.read(Ingested) for file in e.record.files})
    lineage = any(e.id == training.id for e in told.home.ledger.parents(trained.id))
    parts = ", ".join(f"{part.name} {part.n}" for part in training.record.parts)
    traps = (
        Trap(
            "data, features and models have versions, and each model knows its own",
            lineage and len(files) == 3,
            f"snapshot {snapshot.id[:12]}, features {training.record.features[:12]}, training set {parts}, model {trained.record.bundle[:12]}; raw: {', '.join(files)}",
            training.key,
        ),
    )
    charter = told.newest(Charter)
    happened = f"Slots are chosen by hand and three raters label them. The charter says {charter.record.decision}; the first candidates are trained."
    return Chapter("2–4", "Collect, label, engineer features, train", told.day, happened, traps)


def wrong_labels(told: Told) -> Chapter:
    before, analysed, diagnosis = told.newest(Gated), told.newest(Analysed), told.newest(Diagnosed)
    tags, noise = analysed.record.tags, analysed.record.noise
    worst = max(analysed.record.groups.items(), key=lambda item: item[1].value or 0.0)
    traps = [
        Trap(
            "the error analysis ranks wrong labels first, and says whose they are",
            bool(tags) and tags[0].tag == "wrong labels" and worst[0] == "rater=c" and noise.above(0.04),
            f"{tags[0].tag}: {tags[0].n} rows hold {tags[0].share:.0%} of the loss; {noise} of all labels are wrong, {worst[1]} of {worst[0]} (planted: 8 % and 24 %)",
            analysed.key,
        ),
        Trap(
            "the gate refuses, and the diagnosis goes back to the data",
            before.record.verdict is Verdict.FAIL
            and diagnosis.record.back_to == "data"
            and _of(diagnosis, before)
            and _first(diagnosis) == "label noise",
            f"{_failed(before)}; {_first(diagnosis)} → {diagnosis.record.back_to}",
            diagnosis.key,
        ),
    ]
    corrections = _looked_at_again(told, analysed)
    batch = data.relabel(told.home, told.system, corrections, by="a second panel", note="labels of rater c, looked at again")
    told.until(told.day + 1)
    after = told.train("the labels were mended")
    assert after is not None
    revisions = [e for e in told.home.ledger.read(CohortClosed, after=batch.seq) if e.record.revision > 0]
    old, new = _tested(told, before), _tested(told, after)
    rose = _metric(new, "precision") > _metric(old, "precision") and _metric(new, "log_loss") < _metric(old, "log_loss")
    traps += [
        Trap(
            "relabelling makes a new version, with a name under it",
            bool(revisions) and told.newest(Relabelled).key == batch.key,
            f"batch {batch.record.batch} by {batch.record.by}: {batch.record.changed} labels changed, {len(revisions)} windows have a new revision, the old ones are kept",
            batch.key,
        ),
        Trap(
            "the score rises, and the gate lets the candidate through",
            rose and after.record.verdict is Verdict.PASS,
            f"precision {_metric(old, 'precision'):.3f} → {_metric(new, 'precision'):.3f}, log loss {_metric(old, 'log_loss'):.3f} → {_metric(new, 'log_loss'):.3f}",
            after.key,
        ),
    ]
    told.sign(after.key, "first we want it to work on all slots", granted=False)
    happened = (
        "The gate refuses the first candidate. A second panel looks at the doubted labels and hands in a file of corrections."
    )
    return Chapter("5–6", "The errors come from wrong labels", told.day, happened, tuple(traps))


def always_no(told: Told) -> Chapter:
    told.until(world.NATURAL)
    gated = told.train("all slots instead of those chosen by hand")
    assert gated is not None
    diagnosis = told.newest(Diagnosed)
    check = next((c for c in gated.record.checks if c.name == "not a constant predictor"), None)
    accuracy = _metric(_tested(told, gated), "accuracy")
    asks = next((c.act for c in diagnosis.record.causes if c.name == "constant predictor"), "")
    traps = [
        Trap(
            "accuracy is no witness: a model that always says no is refused",
            check is not None and check.verdict is Verdict.FAIL and accuracy > 0.999,
            f"{check.detail if check else 'no check'}",
            gated.key,
        ),
        Trap(
            "the diagnosis names the constant predictor and asks for a number of positives",
            _of(diagnosis, gated)
            and _first(diagnosis) == "constant predictor"
            and diagnosis.record.back_to == "data"
            and any(c.isdigit() for c in asks),
            f"{_first(diagnosis)} → {diagnosis.record.back_to}: {asks}",
            diagnosis.key,
        ),
    ]
    told.until(world.NATURAL + 36)
    again = told.train("the positives that were asked for are there")
    assert again is not None
    traps.append(
        Trap(
            "with what was asked for, the next candidate passes",
            again.record.verdict is Verdict.PASS,
            f"{sum(p.n for p in told.newest(TrainingSet).record.parts)} rows; {_metric(_tested(told, again), 'recall'):.2f} recall, {_metric(_tested(told, again), 'precision'):.2f} precision",
            again.key,
        )
    )
    told.sign(again.key, "wait for the new layout of the pages", granted=False)
    happened = "All slots of all pages are asked about: one in ten thousand is seen. Then slots are sampled so that a third is."
    return Chapter("7–8", "The model always says no", told.day, happened, tuple(traps))


def stale(told: Told) -> Chapter:
    told.until(world.LAYOUT + 6)
    gated = told.train("the training before the launch")
    assert gated is not None
    diagnosis, checks = told.newest(Diagnosed), gated.record.checks
    static = [c for c in checks if c.name == "superior to baseline"]
    fresh = [c for c in checks if c.name == "backtest on the freshest data" and c.verdict is Verdict.FAIL]
    age = (told.clock.now() - next(p for p in told.newest(TrainingSet).record.parts if p.name == "train").window.start) // DAY
    traps = [
        Trap(
            "the static test passes and the backtest on the freshest data fails",
            bool(static) and all(c.verdict is Verdict.PASS for c in static) and bool(fresh),
            f"test part: {static[0].detail if static else ''}; freshest: {fresh[0].detail if fresh else ''}; the oldest row learned from is {age} days old",
            gated.key,
        ),
        Trap(
            "the diagnosis sees that the world has changed",
            _of(diagnosis, gated) and "concept change" in _first(diagnosis) and diagnosis.record.back_to == "development",
            f"{_first(diagnosis)} → {diagnosis.record.back_to}",
            diagnosis.key,
        ),
    ]
    seen = gated.seq
    told.until(world.LAYOUT + 50, lambda: any(e.record.verdict is Verdict.PASS for e in told.home.ledger.read(Gated, after=seen)))
    order, passed = told.newest(Retraining, "retraining/go/"), told.newest(Gated)
    learned = next(p for p in told.newest(TrainingSet).record.parts if p.name == "train").window
    since = (learned.end - max(learned.start, world.START + world.LAYOUT * DAY)) / learned.length
    traps.append(
        Trap(
            "retraining is triggered without anybody asking, on data nearly all from after the change",
            order.seq > seen
            and "by hand" not in order.record.triggers
            and passed.record.verdict is Verdict.PASS
            and since > 0.75,
            f"{', '.join(order.record.triggers)}; {since:.0%} of the time it learned from is after the change; the gate: {passed.record.verdict}",
            order.key,
        )
    )
    happened = "The pages get a new layout. What was learned before it is no use any more, and nobody has told the model."
    return Chapter("9–10", "Good on the test set, bad yesterday", told.day, happened, tuple(traps))


def deploy(told: Told) -> Chapter:
    passed = told.newest(Gated)
    told.sign(passed.key, "go")
    told.until(world.TIRED, lambda: told.home.ledger.latest(Released) is not None)
    moved = told.home.ledger.read(RolloutMoved)
    path = [f"{e.record.stage} {e.record.share:.0%}" for e in moved]
    released = told.home.ledger.latest(Released)
    stages = [e.record.stage for e in moved]
    last = moved[-1] if moved else None
    value = next((c for c in (last.record.checks if last else ()) if "value" in c.name), None)
    traps = (
        Trap(
            "shadow, then canary, then full, each on evidence",
            released is not None
            and stages[:1] == ["shadow"]
            and "canary" in stages
            and stages[-1] == "full"
            and all(e.record.checks and e.record.verdict is Verdict.PASS for e in moved[1:]),
            f"{' → '.join(path)}{f'; {value.name} {value.estimate}' if value else ''}",
            released.key if released is not None else "",
        ),
    )
    return Chapter("11", "Deploy", told.day, "The team signs, and the roll-out takes its course.", traps)


def revenue_falls(told: Told) -> Chapter:
    seen = told.newest(Declared).seq

    began = world.START + world.TIRED * DAY

    def broken() -> list[Entry[Linked]]:
        return [e for e in told.home.ledger.read(Linked, since=began) if business.state(e.record) == "broken"]

    def fired() -> list[Entry[Alerted]]:
        found = told.home.ledger.read(Alerted, after=seen, since=began)
        return [e for e in found if _about_value(e.record) and e.record.state == "open"]

    def explained() -> list[Entry[Diagnosed]]:
        return [e for e in told.home.ledger.read(Diagnosed, since=began) if _misaligned(e)]

    told.until(world.TIRED + 45, lambda: bool(broken()) and bool(fired()) and bool(explained()))
    alerts, links = fired(), broken()
    diagnosis = next(iter(reversed(explained())), None)
    delay = (alerts[0].at - world.START) // DAY - world.TIRED if alerts else None
    traps = (
        Trap(
            "the guardrail on revenue fires before anyone asks",
            bool(alerts),
            f"{alerts[0].record.message} ({delay} days after it began)" if alerts else "no alert",
            alerts[0].key if alerts else "",
        ),
        Trap(
            "the broken link from the ML metric to the business is reported",
            bool(links),
            links[-1].record.account if links else "no link was found broken",
            links[-1].key if links else "",
        ),
        Trap(
            "the diagnosis goes back to scoping",
            diagnosis is not None and diagnosis.record.back_to == "scoping",
            f"{_first(diagnosis)} → {diagnosis.record.back_to}" if diagnosis is not None else "it does not",
            diagnosis.key if diagnosis is not None else "",
        ),
    )
    happened = "Advertisements are seen more surely than ever. But people have grown tired of them, and click on few."
    return Chapter("12", "Impressions up, clicks and revenue down", told.day, happened, traps)


def clicks(told: Told) -> Chapter:
    first, charters = told.newest(Declared), [e.id for e in told.home.ledger.read(Charter)]
    heads = told.home.lake.heads()
    schemas = told.home.ledger.count(SchemaFrozen)
    told.system = told.load(told.folder / "clicks.py")
    told.until(told.day + 1)
    declared = told.newest(Declared)
    told.until(told.day + 8, lambda: told.home.ledger.latest(Charter, prefix=f"charter/{told.system.id}") is not None)
    charter = told.newest(Charter, f"charter/{told.system.id}")
    linked = any(parent.id in charters for parent in told.home.ledger.parents(charter.id))
    gated = told.train("the new objective")
    same = told.home.ledger.count(SchemaFrozen) == schemas
    traps = (
        Trap(
            "a second declaration, linked to the first; the new charter to the old one",
            declared.record.previous == first.record.declaration and linked,
            f"{declared.record.declaration[:12]} replaces {first.record.declaration[:12]}; the charter says {charter.record.decision}",
            charter.key,
        ),
        Trap(
            "what did not change is used again",
            same and set(heads) <= set(told.home.lake.heads()) and _sources_kept(told),
            f"{len([n for n in heads if n.startswith('source.')])} sources with {told.home.ledger.count(Ingested)} batches, none of them taken in twice",
            told.newest(Ingested).key,
        ),
        Trap(
            "the old history is labelled anew, and a model for clicks is trained on it",
            gated is not None and gated.record.verdict is Verdict.PASS,
            f"the gate: {gated.record.verdict}; {_failed(gated) or 'every check passed'}"
            if gated is not None
            else "no training set",
            gated.key if gated is not None else "",
        ),
    )
    return Chapter("13", "Switch the objective to clicks", told.day, "The team writes a second file beside the first.", traps)


CHAPTERS: tuple[Callable[[Told], Chapter], ...] = (
    objective,
    versions,
    wrong_labels,
    always_no,
    stale,
    deploy,
    revenue_falls,
    clicks,
)


# --------------------------------------------------------------------------------------------------------------- helpers


def _looked_at_again(told: Told, analysed: Entry[Analysed]) -> Path:
    """What the second panel does: it looks at every doubted label, and says what it sees."""
    doubted = pl.read_csv(told.home.artifacts.get(analysed.record.suspects))
    asked = doubted.with_columns(slot=pl.col("id").str.replace(r"@.*$", ""))
    said = asked.join(told.truth, on="slot", how="left").select("id", pl.col("truth").alias("label"))
    path = told.folder / "corrections.csv"
    said.write_csv(path)
    return path


def _first(diagnosis: Entry[Diagnosed]) -> str:
    causes = diagnosis.record.causes
    return causes[0].name if causes and causes[0].verdict is Verdict.FAIL else "no cause found"


def _of(diagnosis: Entry[Diagnosed], gated: Entry[Gated]) -> bool:
    """Whether a diagnosis is of this refusal, and not of something before it."""
    return gated.key in diagnosis.record.symptoms


def _failed(gated: Entry[Gated]) -> str:
    return "; ".join(f"{c.name} {c.subject}: {c.detail}" for c in gated.record.checks if c.verdict is Verdict.FAIL)


def _tested(told: Told, gated: Entry[Gated]) -> Evaluated:
    found = [e.record for e in told.home.ledger.parents(gated.id) if isinstance(e.record, Evaluated)]
    return next(r for r in found if r.part == "test" and r.candidate == gated.record.candidate)


def _metric(evaluated: Evaluated, name: str) -> float:
    return evaluated.metrics.get(name, Estimate(None)).value or 0.0


def _about_value(record: Alerted) -> bool:
    return record.harm and any(subject == "value_per_prediction" for _, subject in members(record))


def _misaligned(entry: Entry[Diagnosed]) -> bool:
    return any(c.name == "metric misaligned" and c.verdict is Verdict.FAIL for c in entry.record.causes[:1])


def _sources_kept(told: Told) -> bool:
    """Whether every accepted row of every source is in the lake once."""
    for name in told.system.sources:
        table = told.home.lake.read(f"source.{name}", columns=["_row"])
        if table["_row"].n_unique() != table.height:
            return False
    return True


def plain(chapter: Chapter) -> dict[str, Any]:
    """A chapter as data."""
    made: dict[str, Any] = msgspec.to_builtins(chapter)
    return made | {"passed": chapter.passed}


__all__ = ["Chapter", "Trap", "plain", "tell"]
