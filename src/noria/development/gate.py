"""The gate: what a candidate must show before it may be rolled out.

It must beat every baseline, and stand against the champion (a refit of the same or a cheaper recipe: not inferior by the declared margin; a
costlier one, or the champion itself calibrated anew: superior), on the test part, paired on the same rows, by intervals over blocks of time; the backtest on the freshest closed data then has a veto. Its decisions
must be worth more than the trivial policies; slices, guardrails and calibration must hold; no column may know the answer; and the bundle must load in
a clean process and say what it said. Anything that cannot be told is *not enough data*, which is not a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from noria.core import Check, Estimate, NoriaError, Verdict, overall
from noria.development import checks
from noria.development.answers import Answers, ask
from noria.development.evaluation import evaluate, known_rows, openings, training_of
from noria.development.frames import Frames, Rows
from noria.development.leaks import leaks
from noria.model.verify import verify_apart
from noria.records import Entry, Gated, Trained, TrainingSet
from noria.store import Home
from noria.system import System


def gate(
    home: Home,
    system: System,
    trained: Entry[Trained],
    frames: Mapping[str, pl.DataFrame],
    champion: str | None,
    *,
    key: str | None = None,
) -> Entry[Gated]:
    """Lets a candidate through or not, once per ``key`` (default: one per candidate).

    Parameters
    ----------
    trained, frames:
        The candidate and the training set it was made from; that set's baselines must have been trained too.
    champion:
        The bundle in force, ``None`` before the first release.
    """
    key = key or f"gated/{trained.key.removeprefix('trained/')}"
    there = home.ledger.find(key)
    if there is not None:
        return there  # type: ignore[return-value]  # the key is only used for this kind
    training = training_of(home, trained)
    rivals = _baselines(home, trained)
    parents = [trained.id, *(evaluate(home, system, entry, frames, "test").id for entry in (trained, *rivals))]
    if _measurable(system, frames):
        parents.append(evaluate(home, system, trained, frames, "fresh").id)
    made = list(_checks(home, system, trained, training, rivals=rivals, frames=frames, champion=champion))
    made.append(_clean_process(home, trained, made))
    record = Gated(
        candidate=trained.record.candidate,
        bundle=trained.record.bundle,
        verdict=overall(made),
        checks=tuple(made),
        against=champion,
    )
    return home.commit(record, key=key, parents=list(dict.fromkeys(parents)))


def _baselines(home: Home, trained: Entry[Trained]) -> list[Entry[Trained]]:
    prefix = trained.key.rpartition("/")[0] + "/"
    return [entry for entry in home.ledger.read(Trained, prefix=prefix) if entry.record.baseline and entry.id != trained.id]


def _checks(
    home: Home,
    system: System,
    trained: Entry[Trained],
    training: Entry[TrainingSet],
    *,
    rivals: list[Entry[Trained]],
    frames: Frames,
    champion: str | None,
) -> Iterator[Check]:
    test = known_rows(system, frames, "test")
    mine = ask(home, system, trained.record.bundle, test)
    baselines = {entry.record.recipe: ask(home, system, entry.record.bundle, test) for entry in rivals}
    yield from leaks(system, known_rows(system, frames, "train"), training.record.columns)
    yield checks.varies(mine, _positives(system, frames))
    yield from _against(mine, baselines, champion, trained.record.cost)
    yield from _backtest(home, system, trained, rivals, frames=frames, champion=champion)
    yield from checks.worth(mine)
    yield from checks.calibrated(mine)
    yield from checks.guardrails(mine, len(home.artifacts.get(trained.record.bundle)))
    yield checks.served(mine, training.record.columns)
    yield checks.fresh_enough(mine, max(part.window.end for part in training.record.parts), home.clock.now())
    count = openings(home, training)
    yield Check(
        "test part opened", Verdict.PASS, estimate=Estimate(float(count)), detail=f"opened {count} times, once a candidate"
    )


def _against(mine: Answers, baselines: Mapping[str, Answers], champion: str | None, cost: int) -> Iterator[Check]:
    """Baselines, champion and slices on the test part."""
    best = _best(mine, baselines)
    for name, other in baselines.items():
        yield checks.superior(mine, other, "superior to baseline", name)
    if not baselines:
        yield Check("superior to baseline", Verdict.NOT_ENOUGH_DATA, detail="no baseline was trained with it")
    there = _champion(mine, champion)
    if isinstance(there, Check):
        yield there
        there = None
    elif there is not None:
        yield _stands(mine, there, best, cost)
    reference, subject = (there, "the champion") if there is not None else (best, "the best baseline")
    if reference is not None:
        gain = mine.over(best, mine.system.objective.metric).value if best is not None else None
        yield from checks.slices(mine, reference, subject, max(0.0, mine.system.gate.margin * (gain or 0.0)))


def _backtest(
    home: Home,
    system: System,
    trained: Entry[Trained],
    rivals: list[Entry[Trained]],
    *,
    frames: Frames,
    champion: str | None,
) -> Iterator[Check]:
    """The same comparisons on the freshest closed data, where there is enough of it for an interval."""
    if not _measurable(system, frames):
        least = system.gate.blocks
        yield Check(
            "backtest on the freshest data", Verdict.NOT_MEASURED, detail=f"fewer than {least} blocks of fresh closed data"
        )
        return
    fresh = known_rows(system, frames, "fresh")
    mine = ask(home, system, trained.record.bundle, fresh)
    baselines = {entry.record.recipe: ask(home, system, entry.record.bundle, fresh) for entry in rivals}
    for name, other in baselines.items():
        yield checks.holds(mine, other, name)
    there = _champion(mine, champion)
    if isinstance(there, Answers):
        yield checks.holds(mine, there, "champion", _margin(mine, there, _best(mine, baselines)))


def _stands(mine: Answers, champion: Answers, best: Answers | None, cost: int) -> Check:
    """Against the champion: not inferior for the same or a cheaper recipe, superior for a costlier one, and for itself calibrated anew."""
    if cost > champion.bundle.spec.cost or mine.bundle.spec.settings.get("recalibrated") == champion.bundle.sha256:
        return checks.superior(mine, champion, "superior to champion", "champion")
    return checks.not_inferior(mine, champion, "not inferior to champion", "champion", _margin(mine, champion, best))


def _margin(mine: Answers, champion: Answers, best: Answers | None) -> float:
    """How much worse than the champion still counts as not inferior: the declared share of its gain over the best baseline."""
    gain = champion.over(best, mine.system.objective.metric).value if best is not None else None
    return mine.system.gate.margin * max(0.0, gain or 0.0)


def _champion(mine: Answers, champion: str | None) -> Answers | Check | None:
    if champion is None:
        return None
    try:
        made = ask(mine.home, mine.system, champion, mine.rows)
        return made if made.score.shape == mine.score.shape else _mute("its scores have another shape")
    except NoriaError as error:
        return _mute(error.message)


def _mute(why: str) -> Check:
    """A champion that cannot answer cannot be compared with; the baselines still stand, and a person has to know."""
    return Check(
        "not inferior to champion", Verdict.NOT_MEASURED, "champion", detail=f"the champion cannot answer on these rows: {why}"
    )


def _best(mine: Answers, baselines: Mapping[str, Answers]) -> Answers | None:
    """The baseline that the candidate beats by least."""
    metric = mine.system.objective.metric
    gains = {name: mine.over(other, metric).value for name, other in baselines.items()}
    known = {name: gain for name, gain in gains.items() if gain is not None}
    return baselines[min(known, key=lambda name: (known[name], name))] if known else None


def _measurable(system: System, frames: Frames) -> bool:
    if "fresh" not in frames or frames["fresh"].is_empty():
        return False
    fresh: Rows = known_rows(system, frames, "fresh")
    return fresh.block_count >= system.gate.blocks


def _positives(system: System, frames: Frames) -> int | None:
    if system.task != "binary":
        return None
    label = known_rows(system, frames, "train").label
    return int(min((label == 1).sum(), (label == 0).sum())) if np.size(label) else 0


def _clean_process(home: Home, trained: Entry[Trained], made: list[Check]) -> Check:
    """Only what could be released is tried: a process of its own takes about a second."""
    name = "loads in a clean process"
    if any(check.verdict is Verdict.FAIL for check in made):
        return Check(name, Verdict.NOT_MEASURED, detail="not tried: another check failed")
    bundle = trained.record.bundle
    answer = verify_apart(home.artifacts.path(bundle), bundle)
    if answer["ok"]:
        return Check(name, Verdict.PASS, detail=f"reproduced its scores of {answer['rows']} golden rows")
    return Check(name, Verdict.FAIL, detail=str(answer["error"]))
