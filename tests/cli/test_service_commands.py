"""What a person does with a service: look at it, decide what waits, score files; each against what the service itself does."""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from noria.cli import batch
from noria.cli.batch import score_file
from noria.cli.common import load_system
from noria.core import SettingsError, SystemClock
from noria.deployment.service.incoming import Incoming
from noria.deployment.service.service import Service
from noria.settings import Settings
from noria.store import Home

AT = "2020-01-18T12:00:00Z"
MOMENT = datetime(2020, 1, 18, 12, tzinfo=UTC)
ROW = {"visit": "new", "pages": 12, "country": "ch"}


def opened(file: Path) -> Home:
    return Home.open(file.parent / ".noria" / "visits", Settings(durable=False), SystemClock(), create=False, write=False)


def ask(file: Path, rows: list[dict[str, Any]], asked: datetime | None = None) -> list[Any]:
    """The service's answers, logged as it logs them."""

    async def answers() -> list[Any]:
        service = Service(home, load_system(file))
        try:
            return await service.answer(rows, asked)
        finally:
            service.close()

    with opened(file) as home:
        return asyncio.run(answers())


@pytest.fixture
def copy(turned: Path, tmp_path: Path) -> Path:
    """A copy of the small system for a test that writes."""
    shutil.copytree(turned.parent, tmp_path / "shop")
    return tmp_path / "shop" / "system.py"


def degree(file: Path, serve: str) -> None:
    text = file.read_text()
    file.write_text(text.replace('    every="6h",\n', f'    every="6h",\n    serve={serve},\n'))


def visits(file: Path, n: int) -> pl.DataFrame:
    return pl.read_parquet(file.parent / "visits.parquet").tail(n)


# ----------------------------------------------------------------------------------------------------------------- files


def test_a_file_gets_the_services_answers(noria: Any, copy: Path, tmp_path: Path) -> None:
    frame = visits(copy, 40).drop("came_at")
    frame = pl.concat([frame, frame.head(3)])  # the same visitors once more
    frame.with_columns(more=pl.lit("something else")).write_parquet(tmp_path / "rows.parquet")
    done = noria("predict", tmp_path / "rows.parquet", "--to", tmp_path / "out.parquet", "--at", AT, "--file", copy)
    assert done.out.splitlines() == [f"wrote {tmp_path / 'out.parquet'}: 43 rows, 43 with a score"]
    out = pl.read_parquet(tmp_path / "out.parquet")
    said = ask(copy, frame.to_dicts(), MOMENT)
    assert out["id"].to_list() == [one.id for one in said]
    assert out["visit"].to_list() == frame["visit"].to_list()
    for name in ("score", "act", "act_propensity", "variant", "variant_propensity", "release", "review"):
        assert out[name].to_list() == [getattr(one, name) for one in said], name
    assert len(set(out["score"].to_list())) > 10
    assert out.schema["act"] == pl.Boolean


def test_a_file_with_times_gets_what_the_turns_logged(noria: Any, turned: Path, tmp_path: Path) -> None:
    visits(turned, 700).write_parquet(tmp_path / "rows.parquet")
    assert noria("predict", tmp_path / "rows.parquet", "--to", tmp_path / "out.parquet", "--file", turned).code == 0
    out = pl.read_parquet(tmp_path / "out.parquet")
    with opened(turned) as home:
        logged = home.lake.read("predictions")
    both = out.join(logged, left_on="id", right_on="_id", how="inner")
    assert both.height == out.height
    assert both["score"].to_list() == both["_score"].to_list()
    assert both["release"].to_list() == both["_release"].to_list()
    assert both["act"].cast(pl.Float64).to_list() == both["_act"].to_list()


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_every_kind_of_file_says_the_same(noria: Any, turned: Path, tmp_path: Path, kind: str) -> None:
    frame = visits(turned, 25)
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        frame.write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S%.fZ")
    elif kind == "json":
        path.write_text(json.dumps([row | {"came_at": row["came_at"].isoformat()} for row in frame.to_dicts()]))
    else:
        frame.write_parquet(path)
    assert noria("predict", path, "--to", tmp_path / "out.csv", "--file", turned).code == 0
    frame.write_parquet(tmp_path / "same.parquet")
    assert noria("predict", tmp_path / "same.parquet", "--to", tmp_path / "same.csv", "--file", turned).code == 0
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "same.csv").read_bytes()
    assert pl.read_csv(tmp_path / "out.csv")["score"].null_count() == 0


def test_every_row_comes_out_with_why_it_has_no_score(noria: Any, turned: Path, tmp_path: Path) -> None:
    rows = [
        ROW,
        ROW | {"pages": None},
        {"visit": "a", "country": "ch"},
        ROW | {"pages": "many"},
        ROW | {"came_at": "2200-01-01T00:00:00Z"},
        ROW | {"came_at": "2020-01-01T00:00:00Z"},
        ROW | {"came_at": "yesterday"},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows).replace('"many"', "1.5"))
    done = noria("predict", tmp_path / "rows.json", "--to", tmp_path / "out.parquet", "--file", turned, "--json").json
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["row"].to_list() == list(range(7))
    assert out["visit"].to_list() == [row["visit"] for row in rows]
    assert [reason and reason.partition(":")[0] for reason in out["reason"].to_list()] == [
        None, "row.pages", "row.pages", "row.pages", "asked_at", "nothing was released then", "asked_at",
    ]  # fmt: skip
    assert out["score"].is_not_null().to_list() == [True] + [False] * 6
    assert (done["rows"], done["scored"]) == (7, 1)
    assert sum(done["reasons"].values()) == 6


def test_killed_in_the_middle_it_goes_on(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visits(copy, 50).drop("came_at").write_parquet(tmp_path / "rows.parquet")
    system, target = load_system(copy), tmp_path / "out.parquet"

    def stop(done: int, _of: int) -> None:
        if done >= 30:
            raise KeyboardInterrupt

    scored: list[int] = []
    whole = batch._Scorer.__call__
    monkeypatch.setattr(batch._Scorer, "__call__", lambda self, start, n: scored.append(start) or whole(self, start, n))
    with opened(copy) as home:
        with pytest.raises(KeyboardInterrupt):
            score_file(home, system, tmp_path / "rows.parquet", target, chunk=10, on_rows=stop)
        assert not target.exists()
        assert score_file(home, system, tmp_path / "rows.parquet", target, chunk=10).scored == 50
    assert scored == [0, 10, 20, 30, 40]
    out = pl.read_parquet(target)
    assert out["row"].to_list() == list(range(50))
    assert out["asked_at"].n_unique() == 1  # those after the stop were asked when the first were
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "rows.parquet", "shop"]


def test_what_was_begun_for_other_rows_is_not_taken_up(copy: Path, tmp_path: Path) -> None:
    system, target, rows = load_system(copy), tmp_path / "out.parquet", tmp_path / "rows.parquet"

    def stop(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with opened(copy) as home:
        visits(copy, 30).write_parquet(rows)
        with pytest.raises(KeyboardInterrupt):
            score_file(home, system, rows, target, chunk=10, on_rows=stop)
        visits(copy, 60).head(30).write_parquet(rows)
        score_file(home, system, rows, target, chunk=10)
    assert pl.read_parquet(target)["visit"].to_list() == visits(copy, 60).head(30)["visit"].to_list()


def test_twice_is_once(noria: Any, turned: Path, tmp_path: Path) -> None:
    visits(turned, 30).write_parquet(tmp_path / "rows.parquet")
    for name in ("out.parquet", "out.csv"):
        made = []
        for _ in range(2):
            assert noria("predict", tmp_path / "rows.parquet", "--to", tmp_path / name, "--file", turned).code == 0
            made.append((tmp_path / name).read_bytes())
        assert made[0] == made[1]
    from deltalake import DeltaTable

    for _ in range(2):
        assert noria("predict", tmp_path / "rows.parquet", "--to", tmp_path / "out.delta", "--file", turned).code == 0
    table = DeltaTable(tmp_path / "out.delta")
    assert table.version() == 0
    whole = pl.read_parquet(tmp_path / "out.parquet")
    assert pl.DataFrame(pl.from_arrow(table.to_pyarrow_table())).sort("row")["score"].to_list() == whole["score"].to_list()
    visits(turned, 10).write_parquet(tmp_path / "rows.parquet")
    assert noria("predict", tmp_path / "rows.parquet", "--to", tmp_path / "out.delta", "--file", turned).code == 0
    assert DeltaTable(tmp_path / "out.delta").to_pyarrow_table().num_rows == 10


def test_a_delta_table_is_written_again_by_a_later_run_and_once_by_a_killed_one(
    turned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deltalake import DeltaTable

    rows, target, system = tmp_path / "rows.parquet", tmp_path / "out.delta", load_system(turned)
    visits(turned, 12).drop("came_at").write_parquet(rows)

    def asked() -> tuple[int, datetime]:
        table = DeltaTable(target)
        frame = pl.DataFrame(pl.from_arrow(table.to_pyarrow_table()))
        assert (frame.height, frame["asked_at"].n_unique()) == (12, 1)
        return table.version(), frame["asked_at"][0]

    with opened(turned) as home:
        score_file(home, system, rows, target, chunk=5)
        first = asked()
        with monkeypatch.context() as killed:
            killed.setattr(batch.shutil, "rmtree", _killed)
            with pytest.raises(KeyboardInterrupt):
                score_file(home, system, rows, target, chunk=5)
        second = asked()
        assert second[0] == first[0] + 1
        assert second[1] > first[1], "rows that do not say when are asked anew"
        score_file(home, system, rows, target, chunk=5)
        assert asked() == second
        score_file(home, system, rows, target, chunk=5)
        assert asked()[0] == second[0] + 1


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "wrong",
    [
        ("nothing.parquet", "out.parquet", "there is no file"),
        ("rows.parquet", "out.xls", "no kind of file"),
        ("rows.parquet", "nowhere/out.csv", "there is no folder"),
        ("broken.parquet", "out.csv", "cannot be read"),
        ("empty.csv", "out.csv", "no rows"),
    ],
)
def test_what_cannot_be_scored_into_a_file(noria: Any, turned: Path, tmp_path: Path, wrong: tuple[str, str, str]) -> None:
    rows, to, said = wrong
    visits(turned, 3).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "empty.csv").write_text("visit,pages\n")
    done = noria("predict", tmp_path / rows, "--to", tmp_path / to, "--file", turned)
    assert done.code == 1
    assert said in done.err
    assert "what to do:" in done.err


# --------------------------------------------------------------------------------------------------------------- reviews


def test_what_waits_is_listed_and_decided(noria: Any, copy: Path) -> None:
    degree(copy, 'nr.Serve("assist")')
    first, second = ask(copy, [ROW, ROW | {"visit": "other", "pages": 1}])
    assert first.review
    found = noria("review", copy, "--json").json
    assert found["waiting"] == 2
    assert [one["id"] for one in found["reviews"]] == sorted([first.id, second.id])
    assert {one["id"]: one["score"] for one in found["reviews"]} == {first.id: first.score, second.id: second.score}
    assert found["reviews"][0]["row"]["country"] == "ch"
    text = noria("review", copy).out
    assert first.id in text
    assert "2 wait" in text
    assert noria("review", copy, "--newest", 1, "--json").json["reviews"][0]["id"] == max(first.id, second.id)

    done = noria("review", copy, "--id", first.id, "--act", "true", "--by", "ada", "--label", "false")
    assert (done.code, done.out) == (0, f"decided: {first.id}, by ada\n")
    assert noria("review", copy, "--json").json["waiting"] == 1
    assert "before" in noria("review", copy, "--id", first.id, "--act", "true", "--by", "ada", "--label", "false").out
    other = noria("review", copy, "--id", first.id, "--act", "false", "--by", "bob")
    assert other.code == 1
    assert "decided otherwise" in other.err

    assert noria("turn", copy).code == 0
    with opened(copy) as home:
        taken = home.lake.read("labels").filter(pl.col("_id") == first.id)
    assert taken.select("_act", "_label", "_by").rows() == [(1.0, 0.0, "ada")]
    assert noria("review", copy, "--json").json["waiting"] == 1


def test_people_who_decide_alone_see_no_score(noria: Any, copy: Path) -> None:
    degree(copy, 'nr.Serve("human")')
    ask(copy, [ROW])
    (one,) = noria("review", copy, "--json").json["reviews"]
    assert one["score"] is None
    assert "score" not in noria("review", copy).out


def test_what_cannot_be_decided(noria: Any, copy: Path) -> None:
    assert noria("review", copy).out == "nothing waits for a person\n"
    degree(copy, 'nr.Serve("assist")')
    (one,) = ask(copy, [ROW])
    for arguments, said in (
        (["--id", one.id], "--id and --act"),
        (["--id", "somebody@20200101T000000Z", "--act", "true"], "does not wait"),
        (["--id", one.id, "--act", "perhaps"], "act"),
        (["--id", one.id, "--act", "true", "--label", "perhaps"], "label"),
    ):
        done = noria("review", copy, *arguments, "--by", "ada")
        assert done.code == 1
        assert said in done.err
    assert noria("review", copy, "--json").json["waiting"] == 1


# ---------------------------------------------------------------------------------------------------------------- status


def test_status_shows_the_service(noria: Any, copy: Path) -> None:
    assert noria("status", copy, "--json").json["service"] is None
    assert "Service" not in noria("status", copy).out
    degree(copy, 'nr.Serve("assist")')
    first, _ = ask(copy, [ROW, ROW | {"visit": "other"}])
    with opened(copy) as home:
        incoming = Incoming(home, load_system(copy))
        incoming.outcomes([{"id": first.id, "label": True}])
        incoming.outcomes([{"id": first.id, "label": False}])
        incoming.close()
    service = noria("status", copy, "--json").json["service"]
    assert (service["unsealed"], service["sealed_today"], service["reviews"]) == (2, 0, 2)
    assert (service["labels"], service["labels_waiting"], service["conflicts"]) == (1, 1, {"labels": 1})
    text = noria("status", copy).out
    for line in ("predictions: 2 in the log", "reviews: 2 wait", "labels given: 1", "conflicts of labels: 1"):
        assert line in text
    assert "lost" not in text
    assert noria("turn", copy).code == 0
    service = noria("status", copy, "--json").json["service"]
    assert (service["unsealed"], service["sealed_today"], service["labels"], service["labels_waiting"]) == (0, 2, 1, 0)
    with Home.open(copy.parent / ".noria" / "visits", Settings(), SystemClock(), create=False) as home:
        home.measurements.add("predictions_lost", 3)
    assert "lost: 3 " in noria("status", copy).out


# ----------------------------------------------------------------------------------------------------------------- drill


def test_a_drill_goes_back_and_forth(noria: Any, copy: Path) -> None:
    before = noria("status", copy, "--json").json["wheel"]
    done = noria("drill", copy, "--by", "ada", "--json")
    assert done.code == 0, done
    found = done.json["rehearsal"]
    assert [phase["name"] for phase in found["phases"]] == ["rollback", "promote"]
    assert (found["phases"][0]["was"], found["phases"][0]["to"]) == (found["phases"][1]["to"], found["phases"][1]["was"])
    assert all(0 < phase["first"] < 30 for phase in found["phases"])
    assert found["failed"] == 0
    assert found["requests"] >= 100
    assert {check["name"]: check["verdict"] for check in found["record"]["checks"]} == dict.fromkeys(
        [
            "no failed request",
            "no answer for a broken model",
            "answers from the other release",
            "every answer is in the log",
            "answers after equal those before",
        ],
        "pass",
    )
    with opened(copy) as home:
        from noria.records import Drilled

        (entry,) = home.ledger.read(Drilled)
        assert (entry.key, entry.record.by, str(entry.record.verdict)) == (done.json["key"], "ada", "pass")
        assert home.measurements.read("drill_seconds").height == 4
        assert not (home.path / "service").exists()  # nothing was answered here
    after = noria("status", copy, "--json").json["wheel"]
    assert after["spokes"] == before["spokes"]
    assert [path.name for path in (copy.parent / ".noria").iterdir()] == ["visits"]


def test_a_drill_needs_a_release(noria: Any, shop: Path, tmp_path: Path) -> None:
    assert noria("turn", shop / "system.py", "--at", "2020-01-01T02:00", "--home", tmp_path / "home").code == 0
    done = noria("drill", shop / "system.py", "--home", tmp_path / "home")
    assert done.code == 1
    assert "nothing is released" in done.err
    with pytest.raises(SettingsError):
        batch._joiner(tmp_path / "x")


# ------------------------------------------------------------------------------------------------------------------ init


def test_init_writes_a_system_that_is_asked_by_request(noria: Any, tmp_path: Path) -> None:
    file, asked = tmp_path / "system.py", "loan_id:VARCHAR, amount:DECIMAL(9,2), months:INTEGER"
    done = noria("init", "loans", "--request", asked, "--to", file)
    assert done.code == 0, done.err
    system = load_system(file)
    assert (system.predict.columns["amount"], system.predict.key) == ("DECIMAL(9,2)", "loan_id")
    assert noria("check", file).code == 0
    assert noria("turn", file).code == 0
    with Home.open(tmp_path / ".noria" / "loans", Settings(durable=False), SystemClock(), create=False, write=False) as home:

        async def answers() -> list[Any]:
            service = Service(home, system)
            try:
                return await service.answer([{"loan_id": "a", "amount": 3.5, "months": 12}])
            finally:
                service.close()

        (answer,) = asyncio.run(answers())
    assert (answer.act, answer.release) == (None, "")
    assert noria("turn", file).code == 0
    assert noria("status", file, "--json").json["service"]["sealed_today"] == 1


@pytest.mark.parametrize(
    "given", [[], ["--request", "a"], ["--request", "a:DOUBLE,a:DOUBLE"], ["x.parquet", "--request", "a:DOUBLE"]]
)
def test_init_needs_files_or_a_request(noria: Any, tmp_path: Path, given: list[str]) -> None:
    done = noria("init", "loans", *given, "--to", tmp_path / "system.py")
    assert done.code == 1
    assert "--request" in done.err
    assert not (tmp_path / "system.py").exists()
