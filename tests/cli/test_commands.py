"""Every command, run on a small system that has gone round the wheel: what it prints, its JSON, its exit code, its errors."""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from noria.cli import main
from noria.cli.app import build
from noria.cli.commands import COMMANDS, overview
from noria.cli.common import load_system
from noria.cli.declare import differences
from noria.core import DeclarationError, SystemClock, parse_time
from noria.settings import Settings
from noria.store import Home

READING = ["status", "gate", "labels", "diagnose"]


def open_home(file: Path) -> Home:
    return Home.open(file.parent / ".noria" / "visits", Settings(), SystemClock(), create=False, write=False)


# ------------------------------------------------------------------------------------------------------------- the frame


def test_the_overview_lists_every_command() -> None:
    text = overview()
    assert all(f"\n  {command.name} " in text for command in COMMANDS)
    assert all(len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_takes_home_and_json(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    build()([command.name, "--help"])
    text = capsys.readouterr().out
    assert "--home" in text
    assert "--json" in text
    assert command.about.rstrip(".").split(",")[0][:40] in " ".join(text.split())


def test_help_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == overview() + "\n"


def test_completion_knows_the_commands() -> None:
    script = build().generate_completion(shell="bash")
    assert all(command.name in script for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["chek"], ["check", "--nothing"], ["replay"], ["trace"]])
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- declarations


def test_check_says_what_is_right(noria: Any, shop: Path) -> None:
    done = noria("check", shop / "system.py")
    assert done.code == 0
    assert "visits, binary, 2 sources, 3 features, 2 candidates" in done.out
    assert noria("check", shop / "system.py", "--json").json["task"] == "binary"


def test_check_says_how_long_a_rollout_takes_to_decide(noria: Any, turned: Path, tmp_path: Path) -> None:
    done = noria("check", turned)
    assert re.search(
        r"a rollout's decision: shadow, on the same rows, at worst: about \d+ days to tell .* \(10% of what the champion",
        done.out,
    )
    (way,) = noria("check", turned, "--json").json["to_decision"]
    assert way["days"] > 0
    assert way["effect"] > 0
    assert "not known yet, there is no home" in noria("check", turned, "--home", tmp_path / "new").out
    assert noria("check", turned, "--home", tmp_path / "new", "--json").json["to_decision"] == []
    assert not (tmp_path / "new").exists()
    assert "a rollout's decision: not known yet" in noria("check", turned, "--home", tmp_path).out


def test_check_names_every_mistake(noria: Any, shop: Path) -> None:
    wrong = shop / "wrong.py"
    text = (shop / "system.py").read_text()
    wrong.write_text(
        text.replace('within="6h"', 'within="soon"').replace('"pages"', '"page"').replace('owner="shop"', 'owner=""', 1)
    )
    done = noria("check", wrong)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith(f"error: {wrong} has")
    assert all(word in done.err for word in ("soon", "page"))
    assert "what to do:" in done.err
    assert len(noria("check", wrong, "--json").json["problems"]) >= 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("system = ", "broken.py:1: SyntaxError"),
        ("\n\n1 / 0\n", "broken.py:3: ZeroDivisionError"),
        ("system = 3\n", "does not make a `system`"),
        ("import nothing_of_that_name\n", "broken.py:1: ModuleNotFoundError"),
    ],
)
def test_a_broken_declaration_names_the_line(noria: Any, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    done = noria("check", tmp_path / "broken.py")
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err


def test_no_declaration_there(noria: Any, tmp_path: Path) -> None:
    done = noria("status", tmp_path / "system.py")
    assert done.code == 1
    assert "there is no declaration" in done.err
    assert noria("status", tmp_path / "system.py", "--json").json["kind"] == "NotFound"


def test_a_declarations_helpers_are_found_beside_it(tmp_path: Path, shop: Path) -> None:
    (tmp_path / "beside_the_declaration.py").write_text('OWNER = "somebody"\n')
    text = (shop / "system.py").read_text().replace('owner="shop"', "owner=OWNER")
    (tmp_path / "system.py").write_text("from beside_the_declaration import OWNER\n" + text.partition("\n")[2])
    assert load_system(tmp_path / "system.py").sources["visits"].owner == "somebody"


def test_a_system_may_not_leave_its_folder(noria: Any, tmp_path: Path, shop: Path) -> None:
    (tmp_path / "system.py").write_text((shop / "system.py").read_text().replace('name="visits"', 'name="../visits"'))
    assert noria("turn", tmp_path / "system.py", "--json").json["kind"] == "Refused"
    assert not (tmp_path / ".noria").exists()


def test_init_writes_what_check_accepts(noria: Any, shop: Path, tmp_path: Path) -> None:
    done = noria("init", "shop-visits", shop / "visits.parquet", shop / "sales.parquet", "--to", tmp_path / "new" / "system.py")
    assert done.code == 0, done.err
    checked = noria("check", tmp_path / "new" / "system.py", "--json")
    assert checked.code == 0, checked.out
    assert checked.json["system"] == "shop-visits"
    again = noria("init", "shop-visits", shop / "visits.parquet", "--to", tmp_path / "new" / "system.py")
    assert again.code == 1
    assert "already there" in again.err


def test_init_takes_one_csv_with_a_flag(noria: Any, tmp_path: Path) -> None:
    times = pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 5), "1h", time_zone="UTC", eager=True)
    frame = pl.DataFrame(
        {"order_id": range(len(times)), "at": times, "size": 1.5, "late": [k % 3 == 0 for k in range(len(times))]}
    )
    frame.write_csv(tmp_path / "orders.csv")
    assert noria("init", "orders", tmp_path / "orders.csv", "--to", tmp_path / "system.py").code == 0
    checked = noria("check", tmp_path / "system.py")
    assert checked.code == 0, checked.err


def test_diff_between_files_and_the_declaration_in_force(noria: Any, turned: Path, tmp_path: Path) -> None:
    assert noria("diff", "--file", turned).out == "no difference\n"
    other = tmp_path / "other.py"
    other.write_text(turned.read_text().replace('within="6h"', 'within="5h"').replace("nr.Prior(), ", ""))
    done = noria("diff", turned, other, "--file", turned)
    assert "~ label.within: 6h → 5h" in done.out
    assert "within" in noria("diff", turned, other, "--file", turned, "--json").out


def test_differences_of_named_lists_are_by_name() -> None:
    one = [{"name": "a", "x": 1}, {"name": "b", "x": 2}]
    assert differences(one, [{"name": "b", "x": 3}]) == [("[a]", {"name": "a", "x": 1}, None), ("[b].x", 2, 3)]


# -------------------------------------------------------------------------------------------------------------- turning


def test_replay_goes_on_where_it_stopped(noria: Any, shop: Path, tmp_path: Path) -> None:
    file, home = shop / "system.py", tmp_path / "home"
    first = noria("replay", file, "--from", "2020-01-01", "--to", "2020-01-03", "--home", home)
    assert first.code == 0, first.err
    assert "predictions whose outcome is closed" in first.out
    whole = noria("replay", file, "--from", "2020-01-01", "--to", "2020-01-05", "--home", home, "--json")
    straight = noria("replay", file, "--from", "2020-01-01", "--to", "2020-01-05", "--home", tmp_path / "straight", "--json")
    assert {**whole.json, "home": ""} == {**straight.json, "home": ""}
    back = noria("replay", file, "--from", "2020-01-01", "--to", "2020-01-02", "--home", home)
    assert back.code == 1
    assert "already stands at" in back.err


def test_replay_needs_a_span(noria: Any, shop: Path) -> None:
    done = noria("replay", shop / "system.py", "--from", "2020-01-02", "--to", "2020-01-01")
    assert done.code == 1
    assert "--to must lie after --from" in done.err
    assert "is not a time" in noria("replay", shop / "system.py", "--from", "yesterday", "--to", "2020-01-01").err


def test_an_interrupted_replay_says_how_to_go_on(noria: Any, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from noria import replay
    from noria.loop import turn

    calls: list[int] = []

    def interrupted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return turn(*given, **named)

    monkeypatch.setattr(replay, "turn", interrupted)
    arguments = ("replay", shop / "system.py", "--from", "2020-01-01", "--to", "2020-01-04", "--home", tmp_path / "home")
    done = noria(*arguments)
    assert done.code == 130
    assert "stopped after 2020-01-02" in done.err
    monkeypatch.undo()
    assert noria(*arguments).code == 0


def test_turn_does_what_is_due_once(noria: Any, copy: Path) -> None:
    done = noria("turn", copy, "--at", "2020-01-19T06:00", "--json")
    assert done.code == 0
    assert "data" in done.json["did"]
    with open_home(copy) as home:
        count = home.ledger.count()
    assert noria("turn", copy, "--at", "2020-01-19T06:00").out == "2020-01-19 06:00: nothing was due\n"
    with open_home(copy) as home:
        assert home.ledger.count() == count


def test_a_turn_that_stops_says_what_to_do(noria: Any, copy: Path) -> None:
    (copy.parent / "sales.parquet").write_bytes(b"this is no Parquet")
    done = noria("turn", copy, "--at", "2020-01-20")
    assert done.code == 1
    assert "stopped at data" in done.out
    assert "what to do:" in done.out


# --------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("command", READING)
def test_reading_prints_and_writes_nothing(noria: Any, turned: Path, command: str) -> None:
    with open_home(turned) as home:
        count = home.ledger.count()
    done = noria(command, turned)
    assert done.code == 0
    assert done.out.strip()
    assert noria(command, turned, "--json").json is not None
    with open_home(turned) as home:
        assert home.ledger.count() == count


@pytest.mark.parametrize("command", READING)
def test_reading_before_anything_happened(noria: Any, shop: Path, tmp_path: Path, command: str) -> None:
    done = noria(command, shop / "system.py", "--home", tmp_path / "nowhere")
    assert done.code == 1
    assert "there is nothing of visits yet" in done.err
    assert not (tmp_path / "nowhere").exists()


def test_status_shows_the_wheel(noria: Any, turned: Path) -> None:
    text = noria("status", turned).out
    assert all(step in text for step in ("scoping", "data", "development", "deployment", "monitoring", "business"))
    assert "release 1 (linear) serves" in text
    state = noria("status", turned, "--json").json
    wheel, moved = state["wheel"], state["moved_since_release"]
    assert 1 <= len(moved) <= 3
    assert moved == sorted(moved, key=lambda one: -one["js"])
    assert "Furthest from the training time since the release" in text
    assert next(spoke["step"] for spoke in wheel["spokes"]) == "scoping"
    assert wheel["at"] == "2020-01-19T00:00:00Z"


def test_labels_count_what_the_tables_hold(noria: Any, turned: Path) -> None:
    found = noria("labels", turned, "--json").json
    with open_home(turned) as home:
        outcomes, predictions = home.lake.read("outcomes"), home.lake.read("predictions")
    (month,) = found["months"]
    assert month["closed"] == outcomes.height
    assert month["asked"] == predictions.height
    assert month["silent"] == outcomes.filter(pl.col("_known").is_null()).height
    assert month["mean"] == pytest.approx(outcomes["_label"].mean())
    assert found["closed_until"] == "2020-01-18T18:00:00Z"


def test_the_report_is_written(noria: Any, turned: Path, tmp_path: Path) -> None:
    done = noria("report", turned, "--to", tmp_path / "report.html")
    assert done.code == 0
    text = (tmp_path / "report.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "A call costs money" in text


def test_trace_goes_to_the_raw_files(noria: Any, turned: Path) -> None:
    with open_home(turned) as home:
        row = home.lake.read("predictions").filter(pl.col("_release") != "").tail(1).row(0, named=True)
    done = noria("trace", row["_id"], "--file", turned)
    assert done.code == 0
    kinds = ["prediction", "scored", "bundle", "release", "gate", "trained", "training_set", "snapshot", "ingested", "file"]
    assert all(kind in done.out for kind in kinds)
    for name in ("visits.parquet", "sales.parquet"):
        assert hashlib.sha256((turned.parent / name).read_bytes()).hexdigest() in done.out
    assert noria("trace", row["_id"], "--file", turned, "--json").json["what"] == "prediction"


def test_trace_takes_the_beginning_of_an_id(noria: Any, turned: Path) -> None:
    gated = noria("gate", turned, "--json").json
    assert noria("trace", gated["id"][:10], "--file", turned, "--json").json["id"] == gated["id"]
    assert noria("trace", gated["key"], "--file", turned, "--json").json["id"] == gated["id"]
    for wrong in ("nobody@20200101T000000Z", "nobody@never", "0" * 10, "0" * 64):
        done = noria("trace", wrong, "--file", turned)
        assert (done.code, done.out) == (1, "")


def test_predict_gives_the_score_of_the_batch(noria: Any, turned: Path) -> None:
    """The same row asked at the same moment: the score that was logged."""
    with open_home(turned) as home:
        logged = home.lake.read("predictions").filter(pl.col("_release") != "").tail(3)
    for row in logged.to_dicts():
        given = {"visit": row["visit"], "pages": int(row["pages"]), "country": row["country"]}
        asked = (row["_time"]).isoformat()
        done = noria("predict", pl.DataFrame([given]).write_json()[1:-1], "--at", asked, "--file", turned, "--json")
        assert done.code == 0, done.out
        (scored,) = done.json
        assert scored["id"] == row["_id"]
        assert scored["score"] == row["_score"]
        assert scored["release"] == row["_release"]


def test_predict_names_the_wrong_field(noria: Any, turned: Path, tmp_path: Path) -> None:
    for row in (
        '{"visit": "x", "pages": "many", "country": "at"}',
        '{"visit": "x", "country": "at"}',
        '{"visit": "x"',
        "[1]",
        "gone.csv",
    ):
        done = noria("predict", row, "--at", "2020-01-19", "--file", turned)
        assert done.code == 1, row
        assert "Traceback" not in done.err
    frame = pl.DataFrame({"visit": ["a", "b"], "pages": [2, 19], "country": ["at", "ch"]})
    frame.write_csv(tmp_path / "rows.csv")
    scored = noria("predict", tmp_path / "rows.csv", "--at", "2020-01-19", "--file", turned, "--json").json
    assert scored[0]["score"] < scored[1]["score"]


# ------------------------------------------------------------------------------------------------------- what goes wrong


def test_two_writers_do_not_meet(noria: Any, copy: Path) -> None:
    with Home.open(copy.parent / ".noria" / "visits", Settings(), SystemClock()) as home, home.hold("somebody else"):
        done = noria("turn", copy, "--at", "2020-01-20")
    assert done.code == 1
    assert "is held by 'somebody else'" in done.err


def test_repair_finds_a_flipped_byte(noria: Any, copy: Path) -> None:
    assert noria("repair", copy).out == "every stored file is what was written\n"
    file = max((copy.parent / ".noria" / "visits" / "lake").rglob("*.parquet"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    done = noria("repair", copy, "--json")
    assert done.json["found"]
    assert done.json["did"]


def test_homes_can_be_elsewhere(noria: Any, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(copy.parent / ".noria" / "visits", tmp_path / "away")
    assert noria("status", copy).code == 1
    assert noria("status", copy, "--home", tmp_path / "away").code == 0
    monkeypatch.setenv("NORIA_HOME", str(tmp_path / "away"))
    assert noria("status", copy).code == 0
    monkeypatch.setenv("NORIA_THREADS", "many")
    assert noria("status", copy, "--json").json["kind"] == "SettingsError"


def test_loading_a_declaration_that_is_no_python(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("system = 1")
    with pytest.raises(DeclarationError, match="is not a Python file"):
        load_system(tmp_path / "system.txt")


def test_a_bar_moves_with_simulated_days(shop: Path, tmp_path: Path) -> None:
    """What the progress says comes from what was recorded, turn by turn."""
    from noria.cli.replay import Tally
    from noria.replay import replay

    said: list[str] = []
    tally = Tally()

    def note(home: Home, done: Any) -> None:
        tally.add(home, done)
        said.append(tally.says())

    system, start = load_system(shop / "system.py"), parse_time("2020-01-01")
    settings = Settings(durable=False)
    replay(
        tmp_path / "home", system, start, start + timedelta(days=2), timedelta(days=1), settings=settings, on_turn=note
    ).close()
    visits = pl.read_parquet(shop / "visits.parquet")
    asked = [visits.filter(pl.col("came_at") <= start + timedelta(days=day)).height for day in (1, 2)]
    assert [text.split(" ")[0] for text in said] == [f"{n:,}" for n in asked]


def test_a_home_of_another_system_is_neither_read_nor_written(noria: Any, turned: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    text = turned.read_text()
    name = re.search(r'name="([a-z0-9-]+)"', text)
    assert name is not None
    other.write_text(text.replace(name.group(0), 'name="another"'))
    home = turned.parent / ".noria" / name.group(1)
    span = ("--from", "2020-01-01", "--to", "2030-01-01")
    for command in (("status",), ("turn", "--at", "2030-01-01"), ("replay", *span), ("repair",), ("labels",)):
        done = noria(command[0], other, *command[1:], "--home", home)
        assert done.code == 1
        assert f"is the home of {name.group(1)}, not of another" in done.err


def test_a_report_that_cannot_be_written_is_said(noria: Any, turned: Path, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "report.html"):
        done = noria("report", turned, "--to", place)
        assert done.code == 1
        assert f"cannot write {place}" in done.err
