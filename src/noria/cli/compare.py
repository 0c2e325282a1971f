"""``replay --compare``: several retraining policies over the same history, and what each came to."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.cli.common import Bar, load_system, show
from noria.core import SettingsError, SimulatedClock, Verdict
from noria.settings import Settings, read_settings

if TYPE_CHECKING:
    from noria.core import Estimate
    from noria.development import Freshness, Interval
    from noria.replay import Lived

Span = tuple[datetime, datetime, timedelta]


def side_by_side(file: Path, path: Path, names: str, span: Span, *, jobs: int, json: bool) -> int:
    """Replays every policy (what was replayed before is not replayed again), and shows the table."""
    from noria.replay import freshness, lived, place, policies, policy
    from noria.store import Home

    system, settings = load_system(file), read_settings()
    asked = policies(names)
    for name in asked:
        policy(system, name)  # a wrong name is said before anything runs
    if jobs < 1:
        raise SettingsError(f"--jobs {jobs} runs nothing", hint="at least 1")
    try:
        _replay(file, path, asked, span, jobs=jobs, quiet=json)
    except KeyboardInterrupt:
        print("\nstopped; nothing is lost. Run the same command again to go on from there.", file=sys.stderr)
        return 130
    rows = lived(system, path, asked, settings, span[1])
    with Home.open(place(path, asked[0]), settings, SimulatedClock(span[1]), create=False, write=False) as first:
        found, best = freshness(first, system, span[1])
    data = {
        "system": system.name,
        "from": span[0],
        "to": span[1],
        "currency": system.objective.value.currency,
        "policies": rows,
        "freshness": found,
        "best": best,
    }
    show(data, lambda: _rendered(rows, found, best, system.objective.value.currency), as_json=json)
    return 0


def _replay(file: Path, path: Path, names: list[str], span: Span, *, jobs: int, quiet: bool) -> None:
    from noria.replay import moments

    turns = len(moments(*span))
    if jobs == 1:
        for place, name in enumerate(names, 1):
            with Bar(f"turns of {name} ({place} of {len(names)})", quiet=quiet) as bar:
                one(file, path, name, span, bar=bar, turns=turns)
        return
    settings = replace_threads(read_settings(), jobs)
    with (
        Bar("policies", quiet=quiet) as bar,
        ProcessPoolExecutor(min(jobs, len(names)), mp_context=get_context("spawn")) as pool,
    ):
        waiting = [pool.submit(one, file, path, name, span, settings=settings) for name in names]
        for done, future in enumerate(waiting, 1):
            future.result()
            bar.move(done, len(names))


def replace_threads(settings: Settings, jobs: int) -> Settings:
    """The settings of one of several processes: each gets its share of the threads. No record depends on their number."""
    import msgspec

    return msgspec.structs.replace(settings, threads=max(1, settings.threads // jobs))


def one(
    file: Path, path: Path, name: str, span: Span, *, bar: Bar | None = None, turns: int = 0, settings: Settings | None = None
) -> None:
    """Replays one policy in its home, from wherever it stands."""
    from noria.replay import place, policy, replay

    def moved(_home: Any, done: Any) -> None:
        if bar is not None:
            bar.move((done.at - span[0]) // span[2], turns)

    system = policy(load_system(file), name)
    replay(place(path, name), system, *span, settings=settings or read_settings(), on_turn=moved).close()


def _rendered(rows: list[Lived], found: Freshness | None, best: Interval | None, currency: str) -> Any:
    from rich.console import Group

    return Group(_policies(rows, currency), ages(found, best, currency))


def ages(found: Freshness | None, best: Interval | None, currency: str) -> Any:
    """How a model ages, as a table, and how often to train."""
    from rich.console import Group

    if found is None:
        return "History is too short to say how a model ages."
    return Group(_ages(found, currency), advice(best))


def _policies(rows: list[Lived], currency: str) -> Any:
    from rich.table import Table

    table = Table(title=f"Retraining policies, in {currency}", title_justify="left")
    table.add_column("policy")
    for name in ("trainings", "calibrations", "releases", "value", "cost", "net", "alerts", "days under alert"):
        table.add_column(name, justify="right")
    table.add_column(f"net against {rows[0].policy}", justify="right")
    for row in rows:
        versus = "" if row is rows[0] else spread(row.versus)
        counts = [str(n) for n in (row.trainings, row.recalibrations, row.releases)]
        money = [f"{x:,.0f}" for x in (row.value, row.cost, row.net)]
        table.add_row(row.policy, *counts, *money, str(row.alerts), f"{row.alert_days:.0f}", versus)
    return table


def spread(made: Estimate) -> str:
    """An amount with its interval, in whole units."""
    if made.value is None:
        return "not enough data"
    if made.low is None or made.high is None:
        return f"{made.value:+,.0f}"
    return f"{made.value:+,.0f} [{made.low:+,.0f}, {made.high:+,.0f}]"


def _ages(found: Freshness, currency: str) -> Any:
    from rich.table import Table

    title = f"How {found.recipe} ages: {found.models} models, each trained on {found.train:g} days, compared with the freshest on the same rows"
    table = Table(title=title, title_justify="left")
    table.add_column("age in days")
    for name in (f"worse in {found.metric}", f"{currency} lost a prediction", f"{currency} lost a day", "rows"):
        table.add_column(name, justify="right")
    for age in found.ages[1:]:
        lost = f"{(age.value.value or 0.0) * found.per_day:+,.2f}" if age.value.value is not None else ""
        table.add_row(f"{age.start:g} to {age.end:g}", str(age.loss), str(age.value), lost, f"{age.rows:,}")
    return table


def advice(best: Interval | None) -> str:
    """How often to train, in a sentence."""
    if best is None:
        return "How often to train cannot be said: declare costs.training, or replay more of history."
    if best.verdict is not Verdict.PASS:
        return "Older models are not shown to cost money here: not enough data to say that a schedule pays, or how often."
    least = "at least " if best.open_ended else ""
    return (
        f"At the declared cost of a training, training every {least}{best.days:g} days costs least; "
        f"within the intervals above it may be {best.low:g} to {best.high:g}."
    )
