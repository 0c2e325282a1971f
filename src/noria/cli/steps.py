"""``scope``, ``train``, ``gate``, ``predict``: single steps, by hand."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.common import DEFAULT_FILE, NOW, AtOption, Bar, FileArgument, FileOption, HomeOption, JsonOption, day, opened, show
from noria.core import Check, DataFault, Estimate, NotEnoughData, NotFound, Verdict, parse_time
from noria.records import Charter, Entry, Gated, Retraining

if TYPE_CHECKING:
    from noria.store import Home
    from noria.system import System

_COLOUR = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.NOT_ENOUGH_DATA: "yellow", Verdict.NOT_MEASURED: "dim"}


def scope(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    ages: Annotated[
        bool, Parameter(negative="", show_default=False, help="Show how a model ages instead, and how often to train it.")
    ] = False,
    at: AtOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Answers whether ML is worth it here, from the labels that are closed: go, no-go or partial, with reasons."""
    from noria import scoping

    if ages:
        return _ages(file, home, at, json=json)
    with opened(file, home, at=at, owner="scope", computes=True) as (store, system):
        entry = scoping.charter(store, system, store.clock.now())
        entry = entry or store.ledger.latest(Charter, prefix=f"charter/{system.id}")
    if entry is None:
        raise NotEnoughData(
            "too few labels are closed for a charter", hint="run `noria labels` to see how mature they are, and turn on"
        )
    show(entry, lambda: _charter(entry), as_json=json)
    return 0


def _ages(file: Path, home: Path | None, at: str | None, *, json: bool) -> int:
    from noria.cli import compare
    from noria.replay import freshness

    with opened(file, home, computes=True) as (store, system):
        found, best = freshness(store, system, store.clock.now() if at is None or at == NOW else parse_time(at))
    currency = system.objective.value.currency
    data = {"currency": currency, "freshness": found, "best": best}
    show(data, lambda: compare.ages(found, best, currency), as_json=json)
    return 0


def _charter(entry: Entry[Charter]) -> Any:
    from rich.console import Group
    from rich.markup import escape

    charter = entry.record
    colour = {"go": "green", "no-go": "red", "partial": "yellow"}[charter.decision]
    lines: list[Any] = [f"[bold {colour}]{charter.decision}[/] ({day(entry.at)}, fitness {charter.fitness:.2f})"]
    lines += [f"  · {escape(reason)}" for reason in charter.reasons]
    lines.append(f"{charter.task}: {escape(charter.framing)}; base rate {charter.base_rate}")
    lines.append("  " + escape(", ".join(f"{name} {value:.4g}" for name, value in charter.labels.items())))
    for one in (*charter.baselines, *charter.policies):
        lines.append(f"  {escape(one.name)}: " + "; ".join(str(part) for part in (one.metric, one.value) if part is not None))
    even = "no discrimination would pay" if charter.break_even is None else f"break-even at {charter.break_even:.3f}"
    lines.append(even + (f", reachable {charter.reachable}" if charter.reachable else ""))
    lines.append(checks_table(charter.checks))
    return Group(*lines)


def checks_table(checks: tuple[Check, ...]) -> Any:
    """Checks as a table: verdict, what was tested on what, what came out, what was allowed."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("verdict", "check", "of", "found", "bound", ""):
        table.add_column(name, header_style="dim", overflow="fold")
    for check in checks:
        found = "" if check.estimate is None else _found(check.estimate)
        bound = "" if check.bound is None else f"{check.bound + 0.0:.4g}"  # -0 is 0
        table.add_row(
            f"[{_COLOUR[check.verdict]}]{check.verdict}[/]",
            escape(check.name),
            escape(check.subject),
            found,
            bound,
            escape(check.detail),
        )
    return table


def _found(estimate: Estimate) -> str:
    """An estimate in a table: a count has no interval, and needs no word about it."""
    return (
        f"{estimate.value:.6g}"
        if estimate.value is not None and estimate.low is None and estimate.high is None
        else str(estimate)
    )


def train(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    tune: Annotated[bool, Parameter(negative="", show_default=False, help="Search the settings anew.")] = False,
    at: AtOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Trains the candidates on the closed data, evaluates them and takes the chosen one through the gate.

    What passes starts its rollout at the next turn.
    """
    from noria import loop, monitoring
    from noria.data.training import part_windows

    with opened(file, home, at=at, owner="train") as (store, system):
        now = store.clock.now()
        if part_windows(store, system, now) is None:
            raise _too_few(store, system)
        order = Retraining(decision="go", triggers=("by hand",), reason="asked for on the command line", tune=tune)
        asked = store.commit(order, key=f"retraining/go/{now.isoformat()}")
        gated = loop.train(store, system, asked)
        if gated is None:
            monitoring.unmet(store, asked, "no training set could be made, or no candidate could be trained on it")
            raise _too_few(store, system)
    show(gated, lambda: _gate(gated, None), as_json=json)
    return 0 if gated.record.verdict is Verdict.PASS else 1


def _too_few(store: Home, system: System) -> NotEnoughData:
    """Too little is closed to train: how much it takes, and how much there is."""
    from noria import monitoring

    needed, there = monitoring.span_needed(system), monitoring.span_closed(store)
    one = timedelta(days=1)
    why = f": it takes {needed / one:.3g} days of closed labels, and there are {there / one:.3g}" if there < needed else ""
    return NotEnoughData(
        f"too few labels are closed to make a training set{why}",
        hint="run `noria labels` to see how mature they are, and turn on",
    )


def gate(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    json: JsonOption = False,
    home: HomeOption = None,
) -> int:
    """Shows the gate's verdict on the newest candidate: every check, what came out and what was allowed."""
    from noria.web import facts

    with opened(file, home) as (store, _):
        gated = store.ledger.latest(Gated)
        if gated is None:
            raise NotFound("nothing was gated yet", hint="run `noria train`, or turn until enough labels are closed")
        made = facts.trained(store, gated.record.bundle)
    show(gated, lambda: _gate(gated, made), as_json=json)
    return 0


def _gate(gated: Entry[Gated], made: Any) -> Any:
    from rich.console import Group

    record = gated.record
    name = made.record.recipe if made is not None else ""
    against = f" against champion {record.against[:12]}" if record.against else ""
    head = f"[bold {_COLOUR[record.verdict]}]{record.verdict}[/] {name} bundle {record.bundle[:12]}{against} ({day(gated.at)}, key {gated.key})"
    return Group(head, checks_table(record.checks))


def predict(
    rows: Annotated[
        str,
        Parameter(
            help="A JSON row or list of rows with the columns of what is predicted, or a file with them (.json, .parquet, .csv)."
        ),
    ],
    /,
    *,
    to: Annotated[
        Path | None,
        Parameter(
            help="Score a whole file into this one (.parquet, .csv, or .delta for a Delta table); may be begun again when killed."
        ),
    ] = None,
    at: AtOption = None,
    file: FileOption = DEFAULT_FILE,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Scores rows with the champion as of each row's own time, or a moment, with features from what was known then. Nothing is logged."""
    from noria.cli.scoring import score_rows

    if to is not None:
        return _predict_file(Path(rows), to, at, file, home, json=json)
    with opened(file, home, at=at) as (store, system):
        scored = score_rows(store, system, _rows(rows), store.clock.now())
    show(scored, lambda: "\n".join(map(_scored, scored)), as_json=json)
    return 0


def _predict_file(rows: Path, to: Path, at: str | None, file: Path, home: Path | None, *, json: bool) -> int:
    from noria.cli.batch import score_file

    with opened(file, home, at=at) as (store, system), Bar("rows", quiet=json) as bar:
        done = score_file(store, system, rows, to, at=at or "", on_rows=bar.move)
    lines = [f"wrote {done.file}: {done.rows:,} rows, {done.scored:,} with a score"]
    lines += [f"  {n:,} without: {reason}" for reason, n in done.reasons.items()]
    show(done, lambda: "\n".join(lines), as_json=json)
    return 0


def _scored(row: dict[str, Any]) -> str:
    score = "no score" if row["score"] is None else f"score {row['score']:.4f}"
    act = "no act" if row["act"] is None else f"act {row['act']:g}"
    return f"{row['id']}  {score}  {act}  {row['variant']}"


def _rows(text: str) -> list[dict[str, Any]]:
    """Rows from JSON text or from a file."""
    import msgspec
    import polars as pl

    try:
        if text.lstrip().startswith(("{", "[")):
            found = msgspec.json.decode(text.encode())
        elif not Path(text).is_file():
            raise NotFound(f"there is no file {text}", hint="give a JSON row or a file with rows")
        elif text.endswith(".json"):
            found = msgspec.json.decode(Path(text).read_bytes())
        else:
            return (pl.read_csv(text) if text.endswith(".csv") else pl.read_parquet(text)).to_dicts()
    except (msgspec.DecodeError, pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise DataFault(f"the rows cannot be read: {error}", hint="give a JSON row, a list of rows or a file with rows") from None
    found = [found] if isinstance(found, dict) else found
    if found == []:
        raise DataFault("there are no rows", hint="give a JSON row, a list of rows or a file with rows")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataFault("the rows are not one JSON object or a list of objects", hint="write for example [{…}, {…}]")
    return found
