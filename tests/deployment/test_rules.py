"""The rollout's rules on simulated days: autocorrelated, heavy-tailed value differences with a planted mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import noria as nr
from noria.core import Check, Estimate, Verdict
from noria.deployment.live import Rollout
from noria.deployment.rollout import arms
from noria.deployment.rollout.rules import Evidence, Move, Terms, next_move

DAY = timedelta(days=1)
RULES = nr.Rollout(shadow="14d", canary=(0.05, 0.25), step="3d", patience="56d", error=0.05)
SOUND = (Check("sample ratio", Verdict.PASS),)
T0 = datetime(2024, 1, 1, tzinfo=UTC)


def at(stage: str, step: int = 0, share: float = 0.0) -> Rollout:
    return Rollout(1, stage, share, step, "B", "A", T0, T0, 1, "id", T0)  # type: ignore[arg-type]  # a stage


def days(random: np.random.Generator, n: int, mean: float, *, r: float = 0.3) -> np.ndarray:
    """Daily mean differences: AR(1) with innovations of Student's t with 3 degrees of freedom, standard deviation about 1."""
    shocks = random.standard_t(3, size=n + 30) / np.sqrt(3) * np.sqrt(1 - r * r)
    made = np.empty_like(shocks)
    made[0] = shocks[0]
    for i in range(1, len(shocks)):
        made[i] = r * made[i - 1] + shocks[i]
    return made[30:] + mean


def run(random: np.random.Generator, mean: float, *, superior: bool, margin: float = 0.0) -> Move:
    """One rollout from shadow to its end, looked at after every day."""
    terms = Terms(RULES, superior, randomised=False)
    series = days(random, 200, mean)
    here = at("shadow")
    began = 0
    for today in range(1, 200):
        paired = arms.paired(series[:today], np.arange(today), error=RULES.error, least=10)
        own = slice(began, today) if here.stage == "canary" else slice(0)
        lately = arms.paired(series[own], np.arange(200)[own], error=RULES.error / 4, least=10)
        seen = Evidence((today - began) * DAY, margin, paired=paired, lately=lately, software=SOUND, units=500)
        move = next_move(terms, here, seen)
        if move is not None:
            if move.stage not in ("shadow", "canary"):
                return move
            here, began = at(move.stage, move.step, move.share), today
    raise AssertionError("a rollout has to end")


def outcomes(mean: float, runs: int, *, superior: bool, margin: float = 0.0) -> dict[str, float]:
    random = np.random.default_rng(7)
    ends = [run(random, mean, superior=superior, margin=margin).stage for _ in range(runs)]
    return {stage: ends.count(stage) / runs for stage in sorted(set(ends))}


def test_equal_models_are_promoted_as_superior_at_most_as_often_as_declared() -> None:
    found = outcomes(0.0, 200, superior=True)
    assert found.get("full", 0.0) <= RULES.error
    assert found.get("withdrawn", 0.0) + found.get("rolled back", 0.0) >= 1 - RULES.error


def test_equal_refits_are_wrongly_taken_back_at_most_as_often_as_declared() -> None:
    found = outcomes(0.0, 150, superior=False, margin=0.8)
    assert found["full"] > 0.8
    assert found.get("rolled back", 0.0) <= RULES.error


def test_a_worse_challenger_is_never_promoted() -> None:
    found = outcomes(-0.8, 80, superior=True)
    assert found.get("full", 0.0) == 0.0
    assert found["withdrawn"] == 1.0


def test_a_better_challenger_is_promoted() -> None:
    assert outcomes(1.2, 60, superior=True)["full"] > 0.9


@pytest.mark.parametrize("stage", ["shadow", "canary", "full"])
def test_failing_software_ends_a_rollout_at_once(stage: str) -> None:
    bad = (Check("score parity", Verdict.FAIL),)
    seen = Evidence(waited=timedelta(0), margin=0.0, software=bad)
    move = next_move(Terms(RULES, True, False), at(stage), seen)
    assert move is not None
    assert move.stage == ("withdrawn" if stage == "shadow" else "rolled back")
    assert (move.share, move.verdict) == (0.0, Verdict.FAIL)


GOOD = Estimate(1.0, 0.5, 1.5, 30)


@pytest.mark.parametrize(
    ("stage", "seen"),
    [
        ("shadow", Evidence(waited=13 * DAY, margin=0.0, paired=GOOD, software=SOUND)),  # too early
        ("shadow", Evidence(waited=20 * DAY, margin=0.0, paired=Estimate(1.0, n=3), software=SOUND)),  # no interval
        ("shadow", Evidence(waited=20 * DAY, margin=0.0, paired=Estimate(1.0, -0.1, 2.0, 30), software=SOUND)),  # undecided
        ("shadow", Evidence(waited=20 * DAY, margin=0.0, paired=GOOD, software=(Check("p", Verdict.NOT_ENOUGH_DATA),))),
        ("shadow", Evidence(waited=20 * DAY, margin=0.0, paired=GOOD)),  # nothing was tested
        ("canary", Evidence(waited=2 * DAY, margin=0.0, paired=GOOD, software=SOUND, units=500)),
        ("canary", Evidence(waited=9 * DAY, margin=0.0, paired=GOOD, lately=GOOD, software=SOUND, units=5)),  # too few units
        (
            "canary",
            Evidence(waited=9 * DAY, margin=0.0, paired=GOOD, software=SOUND, units=500),
        ),  # nothing of this step is closed
        ("canary", Evidence(waited=9 * DAY, margin=0.1, paired=GOOD, lately=Estimate(-0.2, n=3), software=SOUND, units=500)),
        ("full", Evidence(waited=200 * DAY, margin=0.0, paired=Estimate(0.0, -1.0, 1.0, 30))),
    ],
)
def test_what_is_not_known_pauses(stage: str, seen: Evidence) -> None:
    assert next_move(Terms(RULES, True, False), at(stage), seen) is None


def test_patience_ends_without_promotion() -> None:
    for stage in ("shadow", "canary"):
        seen = Evidence(waited=56 * DAY, margin=0.0, paired=Estimate(0.2, -0.1, 0.5, 50), software=SOUND, units=5)
        move = next_move(Terms(RULES, True, False), at(stage), seen)
        assert move is not None
        assert (move.stage, move.verdict, move.share) == ("withdrawn", Verdict.NOT_ENOUGH_DATA, 0.0)


def test_the_ramp_goes_one_step_at_a_time() -> None:
    seen = Evidence(waited=20 * DAY, margin=0.0, paired=GOOD, lately=GOOD, software=SOUND, units=500)
    terms = Terms(RULES, True, False)
    here, shares = at("shadow"), []
    while here.stage in ("shadow", "canary"):
        move = next_move(terms, here, seen)
        assert move is not None
        shares.append(move.share)
        here = at(move.stage, move.step, move.share)
    assert shares == [0.05, 0.25, 1.0]


def test_a_refit_may_be_worse_by_the_margin_and_no_more() -> None:
    terms = Terms(RULES, False, False)
    close = Evidence(waited=20 * DAY, margin=0.3, paired=Estimate(-0.05, -0.2, 0.1, 30), software=SOUND)
    assert next_move(terms, at("shadow"), close) is not None
    assert next_move(Terms(RULES, True, False), at("shadow"), close) is None
    worse = Evidence(waited=1 * DAY, margin=0.3, paired=Estimate(-0.6, -0.8, -0.35, 30), software=SOUND)
    move = next_move(terms, at("shadow"), worse)
    assert move is not None
    assert move.stage == "withdrawn"


def test_where_acting_changes_the_label_only_the_arms_promote() -> None:
    terms = Terms(RULES, True, randomised=True)
    first = next_move(terms, at("shadow"), Evidence(waited=14 * DAY, margin=0.0, software=SOUND))
    assert first is not None
    assert first.stage == "canary"
    last = at("canary", 1, 0.25)
    undecided = Evidence(waited=9 * DAY, margin=0.0, paired=GOOD, arms=Estimate(0.5, -0.1, 1.0, 400), software=SOUND, units=400)
    assert next_move(terms, last, undecided) is None
    decided = Evidence(waited=9 * DAY, margin=0.0, arms=GOOD, software=SOUND, units=400)
    move = next_move(terms, last, decided)
    assert move is not None
    assert move.stage == "full"


def test_gross_harm_between_the_arms_rolls_back() -> None:
    seen = Evidence(waited=1 * DAY, margin=0.1, paired=GOOD, arms=Estimate(-2.0, -3.0, -1.0, 60), software=SOUND, units=60)
    move = next_move(Terms(RULES, False, False), at("canary", 0, 0.05), seen)
    assert move is not None
    assert (move.stage, move.share) == ("rolled back", 0.0)
    assert "between the arms" in move.reason


# ----------------------------------------------------------------------------------------------------- styles, guardrails


def ruled(**changes: object) -> nr.Rollout:
    return replace(RULES, **changes)  # type: ignore[arg-type]  # parts of a rollout


def test_blue_green_goes_from_shadow_to_everything() -> None:
    terms = Terms(ruled(style="blue-green"), True, False)
    seen = Evidence(waited=20 * DAY, margin=0.0, paired=GOOD, software=SOUND)
    move = next_move(terms, at("shadow"), seen)
    assert move is not None
    assert (move.stage, move.share) == ("full", 1.0)
    without_arms = Terms(ruled(style="blue-green"), True, True)
    assert next_move(without_arms, at("shadow"), replace(seen, arms=GOOD)) is None  # nothing could decide
    patient = next_move(without_arms, at("shadow"), replace(seen, waited=56 * DAY))
    assert patient is not None
    assert (patient.stage, patient.verdict) == ("withdrawn", Verdict.NOT_ENOUGH_DATA)


BANDIT = Terms(ruled(style="bandit", canary=(0.1, 0.6), step="1d"), True, randomised=True)
LEANING = Evidence(waited=1 * DAY, staged=5 * DAY, margin=0.0, arms=Estimate(0.5, -0.1, 1.0, 400), software=SOUND, units=400)


@pytest.mark.parametrize(("chance", "share"), [(0.03, 0.1), (0.334, 0.33), (0.99, 0.6)])
def test_a_bandits_share_is_the_chance_of_being_better_within_its_range(chance: float, share: float) -> None:
    move = next_move(BANDIT, at("canary", 4, 0.2), replace(LEANING, better=chance))
    assert move is not None
    assert (move.stage, move.share, move.step) == ("canary", share, 5)


@pytest.mark.parametrize(
    "seen",
    [
        replace(LEANING, better=0.2),  # the share that it has
        replace(LEANING, better=None),
        replace(LEANING, better=0.9, waited=timedelta(hours=3)),  # moved a moment ago
        replace(LEANING, better=0.9, units=5),
        replace(LEANING, better=0.999, software=()),
        replace(LEANING, better=0.999, software=(Check("sample ratio", Verdict.NOT_ENOUGH_DATA),)),
        replace(LEANING, better=0.999, guardrails=(Check("guardrail", Verdict.NOT_ENOUGH_DATA),)),
    ],
)
def test_a_bandit_stays_where_nothing_is_known_or_new(seen: Evidence) -> None:
    assert next_move(BANDIT, at("canary", 4, 0.2), seen) is None


def test_a_bandit_is_promoted_by_evidence_only_and_rolled_back_by_it() -> None:
    sure = next_move(BANDIT, at("canary", 4, 0.6), replace(LEANING, better=0.9999))
    assert sure is None  # certainty of that kind promotes nobody
    promoted = next_move(BANDIT, at("canary", 4, 0.6), replace(LEANING, arms=GOOD, better=0.9))
    assert promoted is not None
    assert (promoted.stage, promoted.share) == ("full", 1.0)
    gone = next_move(BANDIT, at("canary", 4, 0.1), replace(LEANING, arms=Estimate(-1.0, -2.0, -0.2, 90)))
    assert gone is not None
    assert (gone.stage, gone.verdict) == ("rolled back", Verdict.FAIL)


def test_a_bandits_patience_is_over_the_whole_stage() -> None:
    tired = replace(LEANING, staged=56 * DAY, better=0.4)
    move = next_move(BANDIT, at("canary", 30, 0.2), tired)
    assert move is not None
    assert (move.stage, move.verdict) == ("withdrawn", Verdict.NOT_ENOUGH_DATA)
    done = next_move(BANDIT, at("canary", 30, 0.2), replace(tired, arms=GOOD))
    assert done is not None
    assert done.stage == "full"


def test_where_rows_can_be_paired_a_bandit_goes_by_them() -> None:
    terms = Terms(BANDIT.rules, True, randomised=False)
    seen = Evidence(waited=14 * DAY, margin=0.0, paired=Estimate(0.1, -0.1, 0.3, 20), software=SOUND, units=90, better=0.31)
    begun = next_move(terms, at("shadow"), seen)
    assert begun is not None
    assert (begun.stage, begun.share) == ("canary", 0.1)
    move = next_move(terms, at("canary", 0, 0.1), seen)
    assert move is not None
    assert move.share == 0.31
    full = next_move(terms, at("canary", 1, 0.31), replace(seen, paired=GOOD))
    assert full is not None
    assert full.stage == "full"


@pytest.mark.parametrize("stage", ["shadow", "canary", "full"])
def test_a_broken_guardrail_ends_a_rollout_that_is_worth_more(stage: str) -> None:
    broken = (Check("guardrail", Verdict.FAIL, "precision"),)
    seen = Evidence(waited=20 * DAY, margin=0.0, paired=GOOD, lately=GOOD, software=SOUND, units=500, guardrails=broken)
    move = next_move(Terms(RULES, True, False), at(stage), seen)
    assert move is not None
    assert move.stage == ("withdrawn" if stage == "shadow" else "rolled back")
    assert move.reason == "failed: guardrail"


@pytest.mark.parametrize("stage", ["shadow", "canary"])
def test_a_guardrail_of_which_nothing_is_known_pauses(stage: str) -> None:
    unknown = (Check("guardrail", Verdict.NOT_ENOUGH_DATA, "precision"),)
    seen = Evidence(waited=20 * DAY, margin=0.0, paired=GOOD, lately=GOOD, software=SOUND, units=500, guardrails=unknown)
    assert next_move(Terms(RULES, True, False), at(stage), seen) is None
    held = replace(seen, guardrails=(Check("guardrail", Verdict.PASS, "precision"),))
    assert next_move(Terms(RULES, True, False), at(stage), held) is not None


def test_what_is_only_shown_moves_nothing_and_is_recorded() -> None:
    note = Check("metric", Verdict.NOT_MEASURED, "log_loss", Estimate(-1.0, -1.5, -0.5, 30))
    seen = Evidence(waited=20 * DAY, margin=0.0, paired=GOOD, software=SOUND, notes=(note,), said="nothing was clipped")
    move = next_move(Terms(RULES, True, False), at("shadow"), seen)
    assert move is not None
    assert move.stage == "canary"
    assert note in move.checks
    assert next(check for check in move.checks if check.name == "paired value").detail == "nothing was clipped"


@given(st.data())
def test_nothing_unknown_ever_promotes(data: st.DataObject) -> None:
    """Whatever the style and the stage: a move forward needs sound software, no unknown guardrail, and the evidence that decides."""
    verdicts = st.sampled_from([Verdict.PASS, Verdict.NOT_ENOUGH_DATA, Verdict.FAIL])
    number = st.sampled_from([-0.5, -0.05, 0.05, 0.5])
    estimates = st.one_of(st.just(Estimate(None)), number.map(Estimate), number.map(lambda x: Estimate(x, x - 0.2, x + 0.2, 30)))
    style = data.draw(st.sampled_from(["canary", "blue-green", "bandit"]))
    terms = Terms(ruled(style=style, canary=(0.1, 0.5)), data.draw(st.booleans()), data.draw(st.booleans()))
    seen = Evidence(
        waited=data.draw(st.integers(0, 70)) * DAY,
        staged=data.draw(st.integers(0, 70)) * DAY,
        margin=data.draw(st.sampled_from([0.0, 0.1])),
        paired=data.draw(estimates),
        lately=data.draw(estimates),
        arms=data.draw(estimates),
        software=tuple(Check("software", verdict) for verdict in data.draw(st.lists(verdicts, max_size=2))),
        guardrails=tuple(Check("guardrail", verdict) for verdict in data.draw(st.lists(verdicts, max_size=1))),
        units=data.draw(st.sampled_from([0, 29, 30])),
        better=data.draw(st.sampled_from([None, 0.2, 1.0])),
    )
    stage, step = data.draw(st.sampled_from([("shadow", 0), ("canary", 0), ("canary", 1)]))
    move = next_move(terms, at(stage, step, 0.1), seen)
    failed = any(check.verdict is Verdict.FAIL for check in (*seen.software, *seen.guardrails))
    if failed:
        assert move is not None
        assert move.share == 0.0
    if move is None or move.stage in ("withdrawn", "rolled back"):
        return
    assert seen.software
    assert all(check.verdict is Verdict.PASS for check in (*seen.software, *seen.guardrails))
    assert not seen.paired.below(-seen.margin) or terms.randomised
    if move.stage == "full":
        bound = 0.0 if terms.superior else -seen.margin
        decided = seen.arms if terms.randomised else seen.paired
        assert decided.above(bound)
