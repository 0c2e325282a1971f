"""The places of Noria's software that a run changes, and the one that it listens to; undone when the run ends."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import noria.loop
from loopbench.faults import Stage
from noria import features
from noria.deployment import scoring


@contextlib.contextmanager
def planted(stage: Stage) -> Iterator[None]:
    """Scoring as the stage has it: other features, answers or logged rows. What diagnosis computes anew is right."""
    with contextlib.ExitStack() as stack:
        if stage.features is not None:
            served = stage.features
            own = SimpleNamespace(**{name: getattr(features, name) for name in features.__all__})
            own.compute = lambda home, system, spine: served(features.compute, home, system, spine)
            stack.enter_context(patch.object(noria.loop, "features", own))
        if stage.answers is not None:
            change, answer = stage.answers, vars(scoring)["answer"]
            stack.enter_context(
                patch.object(
                    scoring, "answer", lambda system, bundles, sha, frame: change(answer(system, bundles, sha, frame), frame)
                )
            )
        if stage.logged is not None:
            log, logged = stage.logged, scoring.logged

            def changed(*given: Any, **named: Any) -> scoring.Logged:
                made = logged(*given, **named)
                return replace(made, predictions=log(made.predictions))

            stack.enter_context(patch.object(scoring, "logged", changed))
        yield


@contextlib.contextmanager
def tested() -> Iterator[list[dict[str, Any]]]:
    """What the causes' tests found in each diagnosis: name, verdict, strength, and what the ranking is made of."""
    found: list[dict[str, Any]] = []
    diagnose = importlib.import_module("noria.diagnosis.diagnose")
    ranking: Any = None
    with contextlib.suppress(ModuleNotFoundError):
        ranking = importlib.import_module("noria.diagnosis.ranking")
    name = "probabilities" if ranking is not None else "ranked"
    places = [place for place in (ranking, diagnose) if place is not None and hasattr(place, name)]
    real = getattr(places[0], name) if places else None

    def listening(these: Any, *more: Any, **named: Any) -> Any:
        assert real is not None
        one: dict[str, Any] = {"causes": [[t.name, str(t.verdict), t.strength, t.step, t.blocks] for t in these]}
        if ranking is not None:
            one["features"] = _plain(ranking.features(these))
        found.append(one)
        return real(these, *more, **named)

    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(patch.object(place, name, listening))
        yield found


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
