from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noria.core import Verdict
from noria.deployment.live import History, Live, after, fold
from noria.records import Entry, Released, RolloutMoved

T0 = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def moved(
    hour: int, stage: str, *, number: int = 1, share: float = 0.0, challenger: str = "B", champion: str | None = None
) -> Entry[Any]:
    record = RolloutMoved(
        rollout=number,
        stage=stage,  # type: ignore[arg-type]  # a stage
        share=share,
        step=0,
        challenger=challenger,
        champion=champion,
        verdict=Verdict.PASS,
        checks=(),
        reason="",
    )
    return Entry(f"m{hour}", f"rollout/{number}/{hour}", T0 + hour * HOUR, (), record, hour)


def released(hour: int, bundle: str, number: int = 1) -> Entry[Any]:
    return Entry(
        f"r{hour}",
        f"release/{number}",
        T0 + hour * HOUR,
        (),
        Released(number=number, bundle=bundle, previous=None, reason=""),
        hour,
    )


def test_nothing_is_live_before_the_first_record() -> None:
    assert fold([]) == Live()
    assert Live().champion is None


def test_a_whole_rollout() -> None:
    live = fold([moved(1, "shadow"), moved(5, "canary", share=0.05)])
    assert live.champion is None
    assert live.rollout is not None
    assert (live.rollout.stage, live.rollout.share, live.rollout.began, live.rollout.moved) == (
        "canary",
        0.05,
        T0 + HOUR,
        T0 + 5 * HOUR,
    )
    assert live.rollout.moves == 2
    full = after(after(live, moved(9, "full", share=1.0)), released(9, "B"))
    assert full.champion == "B"
    assert full.rollout is None
    assert full.guarded is not None
    assert full.guarded.challenger == "B"


def test_whatever_ends_a_rollout_sends_traffic_back() -> None:
    for end in ("rolled back", "withdrawn"):
        live = fold(
            [
                released(0, "A"),
                moved(1, "shadow", champion="A"),
                moved(2, "canary", share=0.25, champion="A"),
                moved(3, end, champion="A"),
            ]
        )
        assert (live.champion, live.rollout, live.guarded) == ("A", None, None)


def test_going_back_goes_back_in_the_line() -> None:
    live = fold([released(0, "A"), released(1, "B", 2), released(2, "C", 3)])
    assert (live.champion, live.previous) == ("C", "B")
    live = after(live, released(3, "B", 4))
    assert (live.champion, live.previous) == ("B", "A")
    live = after(live, released(4, "A", 5))
    assert (live.champion, live.previous) == ("A", None)
    assert after(live, released(5, "", 6)).champion is None


def test_a_new_rollout_ends_the_guard() -> None:
    live = fold(
        [moved(1, "shadow"), moved(2, "full"), released(2, "B"), moved(3, "shadow", number=2, challenger="C", champion="B")]
    )
    assert live.guarded is None
    assert live.rollout is not None
    assert live.rollout.began == T0 + 3 * HOUR


def test_a_release_acts_after_its_own_time() -> None:
    history = History((T0, T0 + HOUR), (Live(), fold([released(0, "A")]), fold([released(0, "A"), released(1, "B", 2)])))
    second = timedelta(seconds=1)
    assert [history.at(t).champion for t in (T0, T0 + second, T0 + HOUR, T0 + HOUR + second)] == [None, "A", "A", "B"]


# ----------------------------------------------------------------------------------------------- whatever happens, restarted


class Story:
    """Random moves as the rules and people make them: each step is allowed in the state that the records so far give."""

    def __init__(self) -> None:
        self.entries: list[Entry[Any]] = []

    def add(self, record: Any) -> None:
        number = len(self.entries)
        self.entries.append(Entry(f"e{number}", f"k/{number}", T0 + number * HOUR, (), record, number))

    def move(self, live: Live, stage: str, share: float, *, challenger: str = "", number: int | None = None) -> None:
        at = live.rollout or live.guarded
        self.add(
            RolloutMoved(
                rollout=number if number is not None else at.number,  # type: ignore[union-attr]  # there is one
                stage=stage,  # type: ignore[arg-type]  # a stage
                share=share,
                step=0,
                challenger=challenger or at.challenger,  # type: ignore[union-attr]
                champion=live.champion if number is not None else at.champion,  # type: ignore[union-attr]
                verdict=Verdict.PASS,
                checks=(),
                reason="",
            )
        )

    def release(self, live: Live, bundle: str) -> None:
        self.add(Released(number=live.number + 1, bundle=bundle, previous=live.champion, reason=""))

    def step(self, choice: int, share: float) -> None:
        live = fold(self.entries)
        if live.rollout is None and choice in (0, 1):
            self.move(live, "shadow", 0.0, challenger=f"B{len(self.entries)}", number=live.rollouts + 1)
        elif live.rollout is None and choice == 2:
            self.release(live, f"H{len(self.entries)}")  # by hand
        elif live.rollout is None and choice == 3 and live.champion is not None:
            if live.guarded is not None:
                self.move(live, "rolled back", 0.0)
            self.release(live, live.previous or "")
        elif live.rollout is not None and choice in (0, 1, 2):
            self.move(live, "canary", share)  # a ramp, or a bandit going up and down
        elif live.rollout is not None and choice == 3:
            self.move(live, "full", 1.0)
            self.release(live, live.rollout.challenger)
        elif live.rollout is not None:
            self.move(live, "rolled back" if live.rollout.stage == "canary" else "withdrawn", 0.0)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.05, 0.2, 0.31, 0.5])), max_size=30), st.integers(0, 60))
def test_after_a_restart_the_state_is_what_the_records_say(steps: list[tuple[int, float]], cut: int) -> None:
    story = Story()
    for choice, share in steps:
        before = len(story.entries)
        story.step(choice, share)
        live = fold(story.entries)
        if len(story.entries) == before:
            continue
        newest = next(entry for entry in reversed(story.entries) if isinstance(entry.record, RolloutMoved | Released))
        if isinstance(newest.record, RolloutMoved) and newest.record.stage in ("rolled back", "withdrawn"):
            assert live.rollout is None  # traffic is the champion's, whoever that is
        if live.rollout is not None:
            assert live.rollout.entered <= live.rollout.moved
            assert live.rollout.began <= live.rollout.entered
            own = [e for e in story.entries if isinstance(e.record, RolloutMoved) and e.record.rollout == live.rollout.number]
            assert live.rollout.moves == len(own)
            assert (live.rollout.share, live.rollout.moved) == (own[-1].record.share, own[-1].at)
            stage = [e.at for e in own if e.record.stage == live.rollout.stage]
            assert live.rollout.entered == stage[0]
    whole = fold(story.entries)
    stopped = story.entries[: min(cut, len(story.entries))]
    again = fold(stopped)
    for entry in story.entries[len(stopped) :]:
        again = after(again, entry)
    assert again == whole
    assert len(whole.line) == len(set(whole.line))
