"""The vocabulary: time, identity, windows, verdicts."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given

from noria.core import (
    Check,
    Conflict,
    Estimate,
    Refused,
    SettingsError,
    SimulatedClock,
    SystemClock,
    Verdict,
    Window,
    canonical,
    check_name,
    digest,
    duration,
    duration_text,
    floor,
    from_micros,
    micros,
    overall,
    parse_time,
    windows,
)
from noria.settings import HELP, Settings, read_settings

moments = st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers(-(2**60), 2**60) | st.text(), st.lists), max_size=5))
def test_identity_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert digest(value) == digest(turned)
    assert canonical(value) == canonical(turned)


@pytest.mark.parametrize("name", ["", "..", "a/b", "../etc", "A", "-a", "a" * 64, "a..b", "ä", "a\n", "a\x00"])
def test_names_cannot_leave_their_folder(name: str) -> None:
    with pytest.raises(Refused, match="not allowed"):
        check_name(name)


@given(st.integers(1, 10**6), st.sampled_from("smhdw"))
def test_durations_survive_being_written_and_read(count: int, unit: str) -> None:
    span = duration(f"{count}{unit}")
    assert duration(duration_text(span)) == span


@pytest.mark.parametrize("text", ["", "8", "h", "8 h", "-8h", "1.5h", "8mo", "8H"])
def test_what_is_not_a_duration_is_told_so(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a duration"):
        duration(text)


@given(moments)
def test_microseconds_are_exact(moment: datetime) -> None:
    assert from_micros(micros(moment)) == moment


@given(moments, st.integers(1, 10_000), st.integers(0, 40))
def test_windows_tile_a_span_without_gap_or_overlap(start: datetime, minutes: int, days: int) -> None:
    every = timedelta(minutes=minutes)
    tiles = list(windows(start, start + timedelta(days=min(days, minutes)), every))
    assert all(left.end == right.start for left, right in itertools.pairwise(tiles))
    assert all(tile.start == floor(tile.start, every) and tile.length == every for tile in tiles)
    if tiles:
        assert timedelta(0) <= tiles[0].start - start < every


def test_a_window_is_open_at_its_start() -> None:
    day = Window(parse_time("2013-01-01"), parse_time("2013-01-02"))
    assert day.start not in day
    assert day.end in day


def test_a_simulated_clock_does_not_go_back() -> None:
    clock = SimulatedClock(parse_time("2013-01-02"))
    with pytest.raises(Conflict, match="cannot go back"):
        clock.move(parse_time("2013-01-01"))
    assert clock.latency(0.5) is None


def test_the_clock_of_the_machine_does_not_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    first = clock.now()
    clock._last = first + timedelta(days=1)  # the machine's clock was a day ahead and has been put right
    assert clock.now() == first + timedelta(days=1)


def test_nothing_known_is_never_a_pass() -> None:
    passed, unknown = Check("a", Verdict.PASS), Check("b", Verdict.NOT_ENOUGH_DATA)
    failed, unmeasured = Check("c", Verdict.FAIL), Check("d", Verdict.NOT_MEASURED)
    assert overall([]) is Verdict.NOT_ENOUGH_DATA
    assert overall([unmeasured]) is Verdict.NOT_ENOUGH_DATA
    assert overall([passed, unmeasured]) is Verdict.PASS
    assert overall([passed, unknown]) is Verdict.NOT_ENOUGH_DATA
    assert overall([passed, unknown, failed]) is Verdict.FAIL


def test_an_estimate_without_an_interval_decides_nothing() -> None:
    point = Estimate(1.0)
    assert not point.above(0.0)
    assert not point.below(2.0)
    assert Estimate(1.0, 0.5, 1.5, 20).above(0.4)
    assert not Estimate(1.0, float("-inf"), 1.5, 20).below(2.0)


def test_settings_come_from_the_environment_and_are_checked() -> None:
    assert set(HELP) == set(Settings.__struct_fields__)
    assert len(HELP) < 40
    settings = read_settings({"NORIA_PORT": "9000", "NORIA_HOME": "elsewhere"}, port=9001)
    assert (settings.port, settings.home.name) == (9001, "elsewhere")
    with pytest.raises(SettingsError, match="port"):
        read_settings({"NORIA_PORT": "many"})
