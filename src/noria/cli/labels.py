"""``labels``: how mature they are, which are probably wrong, and corrections from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.common import (
    DEFAULT_FILE,
    AtOption,
    ByOption,
    FileArgument,
    HomeOption,
    JsonOption,
    NoteOption,
    day,
    opened,
    person,
    show,
)
from noria.core import Conflict, NotFound, Unavailable
from noria.records import Analysed, Relabelled

if TYPE_CHECKING:
    from noria.web import facts


def labels(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    suspects: Annotated[Path | None, Parameter(help="Write the labels that are probably wrong to this CSV file.")] = None,
    relabel: Annotated[
        Path | None, Parameter(help="Take in corrected labels: a CSV or Parquet file with the columns id and label.")
    ] = None,
    by: ByOption = None,
    note: NoteOption = "",
    at: AtOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Shows how mature the labels are, month by month: asked, closed, labelled, by silence, and how late they came.

    --suspects writes those that the last error analysis doubts, for people to look at again; --relabel takes their corrections in as a batch
    with a name, and the next turn makes new revisions of the windows they touch. The old revisions are kept.
    """
    from noria.web import facts

    if relabel is not None:
        return _relabelled(file, relabel, home, at=at, by=person(by), note=note, json=json)
    with opened(file, home) as (store, system):
        if suspects is not None:
            return _suspects(store, suspects, json=json)
        until = facts.closed_until(store)
        rows = facts.maturity(store)
        batches = store.ledger.read(Relabelled)
    rule = {"within": system.label.within, "lateness": system.label.lateness, "cohort": system.every}
    data = {"closed_until": until, "rule": rule, "months": rows, "relabelled": [entry.record for entry in batches]}
    show(data, lambda: _labels(until, rule, rows), as_json=json)
    if batches and not json:
        last = batches[-1]
        print(
            f"{len(batches)} batches of corrections; the newest by {last.record.by} on {day(last.at)}: {last.record.changed} labels changed"
        )
    return 0


def _relabelled(file: Path, given: Path, home: Path | None, *, at: str | None, by: str, note: str, json: bool) -> int:
    from noria import data

    with opened(file, home, at=at, owner="relabel") as (store, system):
        made = data.relabel(store, system, given, by=by, note=note)
    record = made.record
    text = f"{record.n} labels taken in as batch {record.batch}, {record.changed} of them changed; the next turn revises {len(record.cohorts)} windows"
    show({"batch": record.batch, "n": record.n, "changed": record.changed, "windows": record.cohorts}, lambda: text, as_json=json)
    return 0


def _suspects(store: Any, to: Path, *, json: bool) -> int:
    last = store.ledger.latest(Analysed)
    if last is None or not last.record.suspects:
        raise NotFound("no label is doubted yet", hint="labels are looked at whenever candidates are trained")
    if to.exists():
        raise Conflict(f"{to} is already there", hint="name another file with --suspects")
    text = store.artifacts.get(last.record.suspects)
    try:
        to.write_bytes(text)
    except OSError as error:
        raise Unavailable(f"cannot write {to}: {error.strerror}", hint="name a file in a folder that is there") from None
    n = text.count(b"\n") - 1
    record = last.record
    worst = sorted(
        (name for name, made in record.groups.items() if made.above(0.0)), key=lambda name: -(record.groups[name].value or 0.0)
    )
    said = (
        f"; shown to be wrong: {record.noise} of all labels, mostly {', '.join(worst[:3])}"
        if worst
        else "; none is shown to be wrong: classes may overlap by nature"
    )
    show(
        {"file": str(to.resolve()), "doubted": n, "noise": record.noise, "groups": record.groups},
        lambda: f"wrote {n} doubted labels to {to}, the most doubtful first{said}",
        as_json=json,
    )
    return 0


def _labels(until: Any, rule: dict[str, str], rows: list[facts.Maturity]) -> Any:
    from rich.table import Table

    late = "" if rule["lateness"] == "0s" else f" + {rule['lateness']}"
    title = f"closed until {day(until)}; a cohort of {rule['cohort']} closes {rule['within']}{late} after its end"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="")
    quantiles = sorted({name for row in rows for name in row.delay})
    for name in (
        "asked in",
        "predictions",
        "open",
        "closed",
        "labelled",
        "by silence",
        "mean",
        *(f"delay {q} (h)" for q in quantiles),
    ):
        table.add_column(name, justify="left" if name == "asked in" else "right", header_style="dim")
    for row in rows:
        mean = "" if row.mean is None else f"{row.mean:.3f}"
        delays = [f"{row.delay[q]:.1f}" if q in row.delay else "" for q in quantiles]
        counts = (row.asked, row.asked - row.closed, row.closed, row.labelled, row.silent)
        table.add_row(f"{row.start:%Y-%m}", *(f"{count:,}" for count in counts), mean, *delays)
    return table
