"""The commands that decide: they sign, refuse what cannot be, and write in the time that they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from noria import loop
from noria.core import SimulatedClock, SystemClock, parse_time
from noria.records import Alerted, Approved, Gated, Retraining
from noria.settings import Settings
from noria.store import Home


def open_home(file: Path) -> Home:
    return Home.open(file.parent / ".noria" / "visits", Settings(), SystemClock(), create=False, write=False)


def test_rollback_and_promote_are_signed(noria: Any, copy: Path) -> None:
    before = noria("gate", copy, "--json").json["record"]["bundle"]
    back = noria("rollback", copy, "--by", "ada", "--note", "a try", "--at", "2020-01-19T01:00", "--json")
    assert back.code == 0, back.out
    assert back.json["record"]["by"] == "ada"
    assert "nothing acts" in noria("status", copy).out
    forth = noria("promote", before[:12], "--by", "ada", "--at", "2020-01-19T02:00", "--file", copy)
    assert forth.code == 0, forth.err
    assert "release 3 is" in forth.out
    assert noria("promote", before[:12], "--by", "ada", "--at", "2020-01-19T03:00", "--file", copy).code == 1
    assert "no trained bundle begins with" in noria("promote", "ffffffffffff", "--at", "now", "--file", copy).err


def test_ack_signs_an_open_alert(noria: Any, copy: Path) -> None:
    (alert,) = noria("status", copy, "--json").json["alerts"]
    done = noria("ack", alert["alert"], "--by", "ada", "--at", "2020-01-19T01:00", "--file", copy, "--json")
    assert done.code == 0, done.out
    assert noria("turn", copy, "--at", "2020-01-19T06:00").code == 0
    states = {a["alert"]: a["state"] for a in noria("status", copy, "--json").json["alerts"]}
    assert states.get(alert["alert"], "acknowledged") == "acknowledged"


def test_ack_takes_a_part_of_the_name(noria: Any, copy: Path) -> None:
    late = "alert/late scoring/traffic/2020-01-16T00:00:00+00:00"
    with Home.open(copy.parent / ".noria" / "visits", Settings(), SimulatedClock(parse_time("2020-01-19T00:30"))) as home:
        first = home.ledger.latest(Alerted)
        assert first is not None
        with home.hold("planted"):
            for subject in ("sales", "visits"):
                name = f"alert/no rows/{subject}/2020-01-18"
                home.commit(msgspec.structs.replace(first.record, alert=name, subject=subject, state="open"), key=f"{name}/open")

    def ack(name: str) -> Any:
        return noria("ack", name, "--by", "ada", "--at", "2020-01-19T01:00", "--file", copy)

    wrong = ack("nothing")
    assert "no open alert has 'nothing' in its name" in wrong.err
    assert 'open are: "late scoring/traffic", "no rows/sales", "no rows/visits"' in wrong.err
    several = ack("NO rows")
    assert "2 open alerts have 'NO rows' in their names" in several.err
    assert 'name one of them: "no rows/sales", "no rows/visits"' in several.err
    for name in (late, late.removeprefix("alert/"), "late scoring/traffic", "LATE", "traffic"):
        assert ack(name).code == 0, name
    with open_home(copy) as home:
        assert {entry.record.subject for entry in home.ledger.read(Approved)} == {late}
        assert home.ledger.count(Approved) == 5


def test_a_file_that_is_not_in_force_is_said(noria: Any, copy: Path) -> None:
    other = copy.parent / "other.py"
    other.write_text(copy.read_text().replace("then 8", "then 80"))
    same = copy.parent / "same.py"
    same.write_text(copy.read_text() + "\n# the same declaration, written otherwise\n")
    for command in (
        ("value",),
        ("scope", "--at", "2020-01-19"),
        ("readiness",),
        ("diagnose", "--since", "2020-01-10"),
        ("estimate", "--policy", "act when score > 0.4"),
    ):
        name, *options = command
        where = ("--home", copy.parent / ".noria" / "visits")
        assert "warning" not in noria(name, same, *options, *where).err, command
        (line,) = [one for one in noria(name, other, *options, *where).err.splitlines() if one.startswith("warning")]
        assert f"{other} is not the declaration in force since 2020-01-02" in line
        assert "noria diff --file" in line


def test_a_muted_alert_says_until_when(noria: Any, copy: Path) -> None:
    (alert,) = noria("status", copy, "--json").json["alerts"]
    asked = ("ack", alert["alert"], "--by", "ada", "--note", "known", "--at", "2020-01-19T01:00", "--file", copy)
    assert "is no length of time" in noria(*asked, "--mute", "0d").err
    done = noria(*asked, "--mute", "7d")
    assert done.out.startswith("muted until 2020-01-26 01:00 by ada: ")
    for state, until in (("open", None), ("muted", "2020-01-26T01:00:00Z")):  # before a turn has noted it, and after
        (muted,) = noria("status", copy, "--json").json["alerts"]
        assert (muted["state"], muted["muted_until"]) == (state, until)
        assert (muted["message"], muted["signed"]) == (alert["message"], "muted until 2020-01-26 01:00 by ada: known")
        text = " ".join(noria("status", copy).out.split())
        assert f"{alert['message']} (muted until 2020-01-26 01:00 by ada: known)" in text
        assert noria("report", copy, "--to", copy.parent / "report.html").code == 0
        assert "; muted until 2020-01-26 01:00 by ada: known<" in (copy.parent / "report.html").read_text()
        assert noria("turn", copy, "--at", "2020-01-19T02:00").code == 0


def test_alerts_are_not_sent_of_history_and_a_wrong_channel_is_said(
    noria: Any, copy: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("NORIA_ALERTS", f"file:{tmp_path / 'alerts.jsonl'}")
    assert noria("turn", copy, "--at", "2020-01-19T06:00").code == 0
    assert not (tmp_path / "alerts.jsonl").exists()
    assert noria("status", copy, "--json").json["sending"] == [
        {"to": f"file:{tmp_path / 'alerts.jsonl'}", "sent": 0, "waiting": 0, "error": "", "given_up": 0, "refusal": ""}
    ]
    monkeypatch.setenv("NORIA_ALERTS", "pigeon://loft")
    wrong = noria("turn", copy, "--at", "2020-01-19T07:00")
    assert wrong.code != 0
    assert "is no channel" in wrong.err


def test_approve_signs_a_gate_by_its_key(noria: Any, copy: Path) -> None:
    key = noria("gate", copy, "--json").json["key"]
    assert "already rolled out" in noria("approve", "--at", "now", "--file", copy).err
    done = noria("approve", key, "--refuse", "--by", "ada", "--note", "not now", "--at", "2020-01-19T01:00", "--file", copy)
    assert done.out == f"refused: {key}, by ada\n"
    with open_home(copy) as home:
        signed = home.ledger.latest(Approved)
    assert signed is not None
    assert not signed.record.granted
    assert "no record with the key nothing" in noria("approve", "nothing", "--at", "now", "--file", copy).err


def test_train_gates_and_the_next_turn_begins(noria: Any, copy: Path) -> None:
    done = noria("train", copy, "--at", "2020-01-19T01:00", "--json")
    assert done.json["record"]["verdict"] in ("pass", "fail", "not enough data")
    assert done.code == (0 if done.json["record"]["verdict"] == "pass" else 1)
    with open_home(copy) as home:
        order = home.ledger.latest(Retraining)
    assert order is not None
    assert order.record.triggers == ("by hand",)


def test_scope_shows_the_charter(noria: Any, copy: Path) -> None:
    done = noria("scope", copy, "--at", "2020-01-19T01:00")
    assert done.code == 0, done.err
    assert done.out.startswith("go")
    assert "base rate" in done.out


def test_scope_and_gate_wait_for_labels(noria: Any, shop: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert noria("turn", shop / "system.py", "--at", "2020-01-01T12:00", "--home", home).code == 0
    for command in ("scope", "train"):
        done = noria(command, shop / "system.py", "--at", "2020-01-01T13:00", "--home", home)
        assert done.code == 1
        assert "too few labels are closed" in done.err
    assert "nothing was gated yet" in noria("gate", shop / "system.py", "--home", home).err
    assert "days of closed labels that a training takes" in noria("status", shop / "system.py", "--home", home).out


def test_a_training_that_cannot_be_made_leaves_no_order(noria: Any, shop: Path, tmp_path: Path, monkeypatch: Any) -> None:
    file, home = shop / "system.py", tmp_path / "home"
    assert noria("replay", file, "--from", "2020-01-01", "--to", "2020-01-04", "--home", home, "--json").code == 0
    done = noria("train", file, "--at", "2020-01-04T01:00", "--home", home)
    assert done.code == 1
    assert "it takes 9 days of closed labels, and there are 2.75" in done.err
    with Home.open(home, Settings(), SystemClock(), create=False, write=False) as store:
        assert store.ledger.latest(Retraining) is None
    assert noria("turn", file, "--at", "2020-01-12", "--home", home).code == 0
    with monkeypatch.context() as broken:
        broken.setattr(loop, "train", lambda *_: None)
        assert "too few labels" in noria("train", file, "--at", "2020-01-12T01:00", "--home", home).err
    with Home.open(home, Settings(), SystemClock(), create=False, write=False) as store:
        assert [order.record.decision for order in store.ledger.read(Retraining)][-2:] == ["go", "blocked"]
        assert loop.pending(store) is None


def test_deciding_makes_no_home_and_does_not_go_back(noria: Any, turned: Path, tmp_path: Path) -> None:
    for command in (
        ["approve"],
        ["rollback", turned],
        ["ack", "x"],
        ["promote", "abcdef12"],
        ["repair", turned],
        ["train", turned],
    ):
        where = [] if turned in command else ["--file", turned]
        done = noria(*command, *where, "--home", tmp_path / "nowhere")
        assert done.code == 1
        assert not (tmp_path / "nowhere").exists()
    done = noria("turn", turned, "--at", "2020-01-10")
    assert done.code == 1
    assert "already stands at 2020-01-19" in done.err


def test_what_is_written_in_a_home_of_history_needs_a_time(noria: Any, copy: Path) -> None:
    """Else a record of now would be the newest, and nothing could be written before it any more."""
    corrected = copy.parent / "corrected.csv"
    corrected.write_text("id,label\n")
    with open_home(copy) as home:
        count, key = home.ledger.count(), home.ledger.latest(Gated).key
    for command in (
        ("approve", key, "--file", copy),
        ("promote", "--file", copy),
        ("rollback", copy),
        ("ack", "late", "--file", copy),
        ("train", copy),
        ("scope", copy),
        ("weights", "quality=1", "--file", copy),
        ("labels", copy, "--relabel", corrected),
        ("readiness", copy, "--reproduce"),
    ):
        done = noria(*command)
        assert (done.code, done.out) == (1, ""), command
        assert "stands at 2020-01-19, long before now: nothing was written" in done.err
        assert "--at 2020-01-19 to act as of then, or --at now" in done.err
    with open_home(copy) as home:
        assert home.ledger.count() == count
    assert noria("approve", key, "--refuse", "--at", "2020-01-19", "--file", copy).code == 0
    assert noria("approve", key, "--refuse", "--at", "now", "--file", copy).code == 0
    assert noria("approve", key, "--refuse", "--file", copy).code == 0  # it stands at now from here on
    with open_home(copy) as home:
        assert home.ledger.read(newest=1)[0].at.year > 2020
