"""``noria diagnose``: what a person reads of a diagnosis, and of a period."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from noria.cli.diagnosis import diagnosis
from noria.core import Check, Estimate, SimulatedClock, SystemClock, Verdict, Window
from noria.records import Alerted, Cause, Diagnosed
from noria.settings import Settings
from noria.store import Home
from noria.web.period import _faults

NOON = datetime(2020, 1, 10, 12, tzinfo=UTC)


def cause(name: str, verdict: Verdict, weight: float, *evidence: Check) -> Cause:
    return Cause(
        name=name, verdict=verdict, weight=weight, step="data", act=f"mend {name}", evidence=evidence, runbook=f"docs#{name}"
    )


FOUND = Diagnosed(
    symptoms=("alert/one",),
    window=Window(NOON - timedelta(days=1), NOON),
    causes=(
        cause("unit", Verdict.FAIL, 0.7, Check("median", Verdict.FAIL, estimate=Estimate(0.25), detail="a quarter of before")),
        cause("clock", Verdict.NOT_ENOUGH_DATA, 0.2, Check("silence", Verdict.NOT_ENOUGH_DATA)),
        cause("leak", Verdict.PASS, 0.0, Check("lead", Verdict.PASS, detail="none")),
    ),
    back_to="data",
    account="The unit changed.",
)


def read(made: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=200, highlight=False).print(made)
    return out.getvalue()


def test_a_diagnosis_shows_what_was_found_and_names_the_rest() -> None:
    text = read(diagnosis("2020-01-10: go back to data", FOUND, ["alert sales, since 2020-01-09"]))
    assert text.count("The unit changed.") == 1
    assert "symptoms: alert sales, since 2020-01-09" in text
    assert "unit probability 70% → data: mend unit" in text
    assert "how: docs#unit" in text
    assert "median: fail 0.25. a quarter of before" in text
    assert "\nCleared: leak\n" in text
    assert "\nNot enough data (together 20%): clock\n" in text
    assert "\nNone of these: 10%\n" in text
    assert "mend clock" not in text
    assert "silence" not in text


def test_all_shows_every_cause_with_its_evidence_and_no_empty_words() -> None:
    text = read(diagnosis("", FOUND, [], everything=True))
    assert "clock not enough data, probability 20% → data" in text
    assert "silence: not enough data\n" in "\n".join(line.rstrip() for line in text.splitlines())
    assert "lead: pass. none" in text
    assert "no interval, n=0" not in text
    assert text.count("mend ") == 1


def alerted() -> Alerted:
    return Alerted(
        alert="labels missing/label",
        name="labels missing",
        subject="label",
        state="open",
        since=NOON - timedelta(days=1),
        harm=False,
        size=Estimate(0.5),
        bound=None,
        message="half of the labels are missing",
    )


def test_symptoms_are_named_and_the_account_is_there_once(noria: Any, copy: Path) -> None:
    with (
        Home.open(copy.parent / ".noria" / "visits", Settings(), SystemClock(), create=False, write=True) as home,
        home.hold("t"),
    ):
        home.commit(alerted(), key="alert/one")
        home.commit(FOUND, key="diagnosis/one")
    assert "symptoms: alert labels missing, since 2020-01-09 12:00" in noria("diagnose", copy).out
    period = noria("diagnose", copy, "--since", "2020-01-08").out
    look = period[period.index("A look at all of it, as of ") :]
    assert look.count("What was seen:") == 1
    said = period[: period.index("What happened")]
    assert "Diagnosed at the time" in said
    assert re.search(r"alert labels missing, since 2020-01-09 12:00 +unit \(70%\) +data *\n", said)
    faults = noria("diagnose", copy, "--since", "2020-01-08", "--json").json["faults"]
    assert [(f["cause"], f["weight"], f["step"]) for f in faults if f["symptom"] == "alert/one"] == [("unit", 0.7, "data")]


def test_of_a_fault_the_newest_diagnosis_in_the_period_counts(tmp_path: Path) -> None:
    clock = SimulatedClock(NOON)
    with Home.open(tmp_path / "home", Settings(), clock) as home, home.hold("t"):
        home.commit(FOUND, key="diagnosis/one")
        clock.move(NOON + timedelta(days=1))
        late = (cause("leak", Verdict.FAIL, 0.9), *FOUND.causes)
        newest = home.commit(structs.replace(FOUND, causes=late), key="diagnosis/two")
        clock.move(NOON + timedelta(days=5))
        home.commit(structs.replace(FOUND, causes=()), key="diagnosis/three")
        (fault,) = _faults(home, Window(NOON - timedelta(days=1), NOON + timedelta(days=2)))
    assert (fault.cause, fault.weight, fault.record) == ("leak", 0.9, newest.id)
    assert (fault.start, fault.end) == (NOON, NOON + timedelta(days=1))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--newest", "0"], ["--newest 0 shows nothing", "at least 1"]),
        (["--newest=-3"], ["--newest -3 shows nothing", "at least 1"]),
        (["--newest", "2", "--since", "2020-01-05"], ["--newest together with --since"]),
        (["--since", "2020-01-09", "--until", "2020-01-05"], ["--since 2020-01-09 is not before --until 2020-01-05"]),
        (["--since", "2999-01-01"], ["nothing is recorded after 2999-01-01: it stands at 20"]),
    ],
)
def test_what_cannot_be_shown_is_refused_with_what_can(noria: Any, turned: Path, given: list[str], said: list[str]) -> None:
    done = noria("diagnose", turned, *given)
    assert done.code == 1
    assert all(words in done.err for words in said)


def test_a_period_ends_where_the_records_end(noria: Any, turned: Path) -> None:
    text = noria("diagnose", turned, "--since", "2020-01-05", "--until", "2999-01-01").out
    assert "2999" not in text
    assert ", where the records end\n" in text
    assert "where the records end" not in noria("diagnose", turned, "--since", "2020-01-05", "--until", "2020-01-08").out
