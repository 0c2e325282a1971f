"""The conditions for going live: how a release is rolled out, who answers, and what answers when the model cannot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from noria.core import Problem, SettingsError, duration
from noria.system import Rule, System

DEGREES = ("human", "shadow", "assist", "partial", "full")
STYLES = ("canary", "blue-green", "bandit")
_DAY = timedelta(days=1)


def check_live(system: System) -> Iterator[Problem]:
    """Problems of the style of the rollout and of the service."""
    yield from _style(system)
    if system.rollout.switchback is not None:
        yield from _switchback(system)
    yield from _degree(system)
    fallback = system.serve.fallback
    if not isinstance(fallback, Rule) and fallback not in ("nothing", "previous"):
        yield Problem("serve.fallback", f"{fallback!r} is no fallback", 'write "nothing", "previous" or noria.Rule("…")')
    yield from _length("serve.timeout", system.serve.timeout, positive=True)
    yield from _length("serve.sticky", system.serve.sticky)


def _read(text: Any) -> timedelta | None:
    try:
        return duration(text)
    except (SettingsError, TypeError):
        return None


def _length(place: str, text: Any, *, positive: bool = False) -> Iterator[Problem]:
    found = _read(text)
    if found is None:
        yield Problem(place, f"{text!r} is not a duration", 'write for example "500ms", "2s" or "1m"')
    elif positive and not found:
        yield Problem(place, f"{text!r} is no time at all", "it has to be longer than nothing")


def _style(system: System) -> Iterator[Problem]:
    rollout = system.rollout
    match rollout.style:
        case "canary":
            return
        case "bandit":
            if len(set(rollout.canary)) < 2:
                message = f"a bandit moves between the first share and the last, and canary={tuple(rollout.canary)!r} has no two"
                yield Problem("rollout.canary", message, "write for example (0.05, 0.5)")
        case "blue-green":
            if system.label.affected_by_action or system.label.observed_when is not None:
                yield Problem(
                    "rollout.style",
                    "acting changes the label or what is seen of it, so only randomised arms can tell which is better, and blue-green has none",
                    'write style="canary" or style="bandit"',
                )
            for name, value in (("switchback", rollout.switchback), ("covariate", rollout.covariate)):
                if value is not None:
                    message = f"blue-green has no arms to compare, so {name}={value!r} would do nothing"
                    yield Problem(f"rollout.{name}", message, f"leave {name} out, or choose another style")
        case _:
            yield Problem("rollout.style", f"{rollout.style!r} is not known", f"it is one of {', '.join(STYLES)}")


def _switchback(system: System) -> Iterator[Problem]:
    """Stretches of time have to lie in the day alike, and every step needs stretches of both kinds."""
    rollout, place = system.rollout, "rollout.switchback"
    if rollout.unit is not None:
        yield Problem(
            place,
            f"whole stretches of time are assigned then, so unit={rollout.unit!r} would do nothing",
            "leave out unit, or switchback",
        )
    length, step = _read(rollout.switchback), _read(rollout.step)
    if length is None or not length:
        yield from _length(place, rollout.switchback, positive=True)
        return
    if _DAY % length and length % _DAY:
        yield Problem(
            place,
            f"{rollout.switchback!r} neither divides a day nor is a number of days, so the stretches of an arm wander through the day",
            'write for example "30m", "2h", "6h" or "1d"',
        )
    if step is not None and (step % length or step < 2 * length):
        yield Problem(
            place,
            f"step={rollout.step!r} is not two or more whole stretches of {rollout.switchback!r}",
            "every step has to hold stretches of both models: lengthen step, or shorten switchback",
        )


def _degree(system: System) -> Iterator[Problem]:
    serve = system.serve
    if serve.degree not in DEGREES:
        yield Problem("serve.degree", f"{serve.degree!r} is not known", f"it is one of {', '.join(DEGREES)}")
    is_number = isinstance(serve.confidence, int | float) and not isinstance(serve.confidence, bool)
    if not is_number or not 0 <= serve.confidence <= 1:
        yield Problem("serve.confidence", f"{serve.confidence!r} is no probability", "it lies between 0 and 1")
    elif serve.degree != "partial" and serve.confidence:
        yield Problem(
            "serve.confidence",
            f"with degree={serve.degree!r} nothing is decided by confidence",
            'write degree="partial", or leave confidence out',
        )
    elif serve.degree == "partial" and not serve.confidence:
        yield Problem("serve.confidence", "every score reaches 0, so nothing would be reviewed", "write for example 0.8")
    if serve.degree == "partial" and system.task == "regression":
        yield Problem(
            "serve.degree", "a number has no confidence, so none can be asked for", 'write "assist", or predict a class'
        )
