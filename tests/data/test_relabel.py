"""Corrections from a file make new revisions, have a name, happen once, and are refused whole when a row cannot be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria import data, loop
from noria.core import DataFault, NotFound
from noria.records import CohortClosed, Relabelled

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TIME = pl.Datetime("us", "UTC")


def closed_day(world: Any) -> nr.System:
    """Two predictions of one day whose cohort has closed: both labelled false."""
    came = nr.Source("came", key="id", time="at", owner="us")
    made = world.declared(label=nr.Label(came, "x > 0", within="6h", otherwise=False))
    at = pl.Series("_time", [START + HOUR, START + 2 * HOUR], dtype=TIME)
    world.predict(pl.DataFrame({"_id": ["a@20240101T010000Z", "b@20240101T020000Z"], "id": ["a", "b"]}).with_columns(at))
    rows = pl.DataFrame({"id": ["a"], "x": [-1.0]}).with_columns(pl.Series("_time", [START + 3 * HOUR], dtype=TIME))
    world.source("came", rows.with_columns(_known=pl.col("_time")))
    turn(world, made, START + 2 * DAY)
    return made


def turn(world: Any, made: nr.System, now: datetime) -> list[CohortClosed]:
    world.at(now)
    data.ingest(world.home, made, now)
    return [entry.record for entry in data.close(world.home, made, now)]


def labels(world: Any) -> dict[str, float]:
    frame = world.home.lake.read("outcomes").sort("_revision")
    return {row["_id"]: row["_label"] for row in frame.iter_rows(named=True)}


def write(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("id,label,seen by\n" + "".join(f"{name},{label},us\n" for name, label in rows))
    return path


def test_a_batch_makes_a_new_revision_and_keeps_the_old(world: Any, tmp_path: Path) -> None:
    made = closed_day(world)
    world.at(START + 3 * DAY)
    file = write(tmp_path / "new.csv", ("a@20240101T010000Z", "true"), ("b@20240101T020000Z", "false"))
    entry = data.relabel(world.home, made, file, by="ada", note="looked again")
    assert (entry.record.n, entry.record.changed, entry.record.by) == (2, 1, "ada")
    assert entry.record.cohorts == (START + DAY,)
    [revised] = turn(world, made, START + 3 * DAY)
    assert (revised.revision, revised.mean) == (1, 0.5)
    assert labels(world) == {"a@20240101T010000Z": 1.0, "b@20240101T020000Z": 0.0}
    old = world.home.lake.read("outcomes").filter(pl.col("_revision") == 0)
    assert old["_label"].to_list() == [0.0, 0.0]
    assert world.home.lake.read("labels")["_by"].unique().to_list() == ["ada"]


def test_the_same_file_again_is_the_same_batch(world: Any, tmp_path: Path) -> None:
    made = closed_day(world)
    world.at(START + 3 * DAY)
    file = write(tmp_path / "new.csv", ("a@20240101T010000Z", "1"))
    first = data.relabel(world.home, made, file, by="ada")
    turn(world, made, START + 3 * DAY)
    world.at(START + 4 * DAY)
    assert data.relabel(world.home, made, file, by="ada").id == first.id
    assert turn(world, made, START + 4 * DAY) == []
    assert world.home.ledger.count(Relabelled) == 1
    assert world.home.lake.read("labels").height == 1


def test_a_batch_that_another_reverted_takes_effect_again(world: Any, tmp_path: Path) -> None:
    """To true, back to false, to true with the first file: three revisions; and once more changes nothing, killed before its record or not."""
    made, name = closed_day(world), "a@20240101T010000Z"
    there, back = write(tmp_path / "there.csv", (name, "true")), write(tmp_path / "back.csv", (name, "false"))
    entries = []
    for day, file in ((3, there), (4, back), (5, there)):
        world.at(START + day * DAY)
        entries.append(data.relabel(world.home, made, file, by="ada"))
        assert data.relabel(world.home, made, file, by="ada").id == entries[-1].id, "also while it is on its way"
        turn(world, made, START + day * DAY)
        assert labels(world)[name] == float(file == there)
        assert data.relabel(world.home, made, file, by="ada").id == entries[-1].id
    assert [e.record.batch for e in entries] == [entries[0].record.batch, entries[1].record.batch, f"{entries[0].record.batch}-1"]
    assert [e.record.revision for e in world.home.ledger.read(CohortClosed)] == [0, 1, 2, 3]
    assert world.home.lake.read("labels").height == world.home.ledger.count(Relabelled) == 3


def test_killed_before_its_record_a_batch_is_taken_in_once(world: Any, tmp_path: Path, monkeypatch: Any) -> None:
    made, name = closed_day(world), "a@20240101T010000Z"
    there, back = write(tmp_path / "there.csv", (name, "true")), write(tmp_path / "back.csv", (name, "false"))
    for day, file in ((3, there), (4, back)):
        world.at(START + day * DAY)
        data.relabel(world.home, made, file, by="ada")
        turn(world, made, START + day * DAY)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    world.at(START + 5 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr(world.home, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            data.relabel(world.home, made, there, by="ada")
    world.at(START + 5 * DAY + HOUR)
    again = data.relabel(world.home, made, there, by="ada")
    assert again.record.batch.endswith("-1")
    turn(world, made, START + 6 * DAY)
    assert labels(world)[name] == 1.0
    assert world.home.lake.read("labels").height == world.home.ledger.count(Relabelled) == 3


def test_parquet_is_read_too_and_a_later_batch_wins(world: Any, tmp_path: Path) -> None:
    made = closed_day(world)
    for day, label in ((3, True), (4, False)):
        world.at(START + day * DAY)
        pl.DataFrame({"id": ["a@20240101T010000Z"], "label": [label]}).write_parquet(tmp_path / "new.parquet")
        data.relabel(world.home, made, tmp_path / "new.parquet", by=f"panel {day}")
        turn(world, made, START + day * DAY)
        assert labels(world)["a@20240101T010000Z"] == float(label)
    assert [e.record.revision for e in world.home.ledger.read(CohortClosed)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,label\n", "has no rows"),
        ("name,label\na,true\n", "has no column id"),
        ("id,label\na@20240101T010000Z,perhaps\n", "row 1: label 'perhaps'"),
        ("id,label\na@20240101T010000Z,true\n,true\n", "row 2: id"),
        ("id,label\na@20240101T010000Z,2\n", "row 1: label"),
        ("id,label\na@20240101T010000Z,true\na@20240101T010000Z,false\n", "a@20240101T010000Z' has 2 corrections"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_whole(world: Any, tmp_path: Path, text: str, says: str) -> None:
    made = closed_day(world)
    (tmp_path / "new.csv").write_text(text)
    world.at(START + 3 * DAY)
    with pytest.raises(DataFault, match=says):
        data.relabel(world.home, made, tmp_path / "new.csv", by="ada")
    assert turn(world, made, START + 3 * DAY) == []
    assert world.home.ledger.count(Relabelled) == 0


def test_a_file_that_is_not_there(world: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        data.relabel(world.home, closed_day(world), tmp_path / "none.csv", by="ada")


def test_another_label_is_another_history(world: Any) -> None:
    """When a declaration gives the label another meaning, closed cohorts are revised under it, and only then."""
    made = closed_day(world)
    loop.declare(world.home, made)
    assert turn(world, made, START + 3 * DAY) == []
    other = replace(made, label=replace(made.label, expression="x < 0"))
    world.at(START + 4 * DAY)
    loop.declare(world.home, made)
    world.predict(
        pl.DataFrame({"_id": ["c@20240103T010000Z"], "id": ["c"]}).with_columns(
            pl.Series("_time", [START + 2 * DAY + HOUR], dtype=TIME)
        )
    )
    turn(world, made, START + 4 * DAY)
    world.at(START + 5 * DAY)
    loop.declare(world.home, other)
    revised = turn(world, other, START + 5 * DAY)
    assert [(r.window.end, r.revision) for r in revised] == [(START + DAY, 1)]
    assert labels(world)["a@20240101T010000Z"] == 1.0
    assert turn(world, other, START + 6 * DAY) == []
