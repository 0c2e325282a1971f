from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

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
