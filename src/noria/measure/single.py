"""The decision for one row without the engine: what the service asks for every request, and what it costs there counts.

``single_act`` makes a function of what is known once (the policy, the value's constants) that gives the very act, bit for bit, which
``measure.act`` gives for a frame of that one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from noria.measure.decision import Decision
from noria.measure.value import bound_to, columns_read, fixed, reads, table
from noria.system import System

Score = float | Sequence[float]
Row = Mapping[str, Any]
SingleAct = Callable[[Score, Row], float]
Compile = Callable[[str, Mapping[str, str]], Callable[[Row], Any] | None]
Worth = Callable[[Any, Row], list[float]]

_NONE = float("nan")
_INFINITE = float("inf")


def single_act(
    system: System, decision: Decision, *, compile: Compile | None = None, types: Mapping[str, str] | None = None
) -> SingleAct | None:
    """A function of (score, row) that gives the policy's act, without exploration; ``None`` when it cannot be exact.

    Parameters
    ----------
    compile:
        Makes a function of a row from an expression and its columns' SQL types, or ``None`` when it cannot do it exactly. It is asked only
        when the value reads columns or ``score`` (which it finds in the row, as a DOUBLE). What the function raises for a row that it cannot
        do passes through; ``measure.act`` then answers.
    types:
        The SQL types of the predicted row's columns.

    The score is a number, or one for each of ``decision.classes``. A score that is not finite has no act: NaN. Where this is
    ``None``, ask ``measure.act`` with a frame of one row.

    >>> from noria import Label, Objective, Source, Value
    >>> asked = Source("asked", key="id", owner="us")
    >>> pays = Objective("Waste.", Value("case when act and label then 3 when act then -1 else 0 end"), "log_loss")
    >>> system = System("s", asked, Label(asked, "done", within="1h", task="binary"), [], pays, [])
    >>> decide = single_act(system, Decision("expected", 0.0))
    >>> decide(0.2, {}), decide(0.3, {})
    (0.0, 1.0)
    """
    if decision.kind == "human":
        return lambda _score, _row: _NONE
    several = system.task == "multiclass"
    if decision.kind in ("score", "quantile"):
        return None if several else _amount(decision.offset)
    if decision.kind == "threshold":
        return None if several else _threshold(decision.threshold or 0.0)
    if decision.kind == "expected" and len(system.decide.acts) < 2:
        return None
    bound = decision.threshold or 0.0
    sql, acts = system.objective.value.sql, system.decide.acts
    if system.task == "binary" and decision.kind == "expected" and fixed(sql, decision.outcomes):
        made = table(sql, acts, (False, True), decision.outcomes).tolist()
        return _constant(made[0], made[1], bound)
    worth = _worth(system, decision, compile, types or {})
    if worth is None:
        return None
    return _decided(worth, bound if decision.kind == "expected" else None, many=several)


def _amount(offset: float) -> SingleAct:
    def amount(score: Any, _row: Row) -> float:
        return float(score + offset) if -_INFINITE < score < _INFINITE else _NONE

    return amount


def _threshold(bound: float) -> SingleAct:
    def above(score: Any, _row: Row) -> float:
        if -_INFINITE < score < _INFINITE:
            return 1.0 if score > bound else 0.0
        return _NONE

    return above


def _constant(not_acting: list[float], acting: list[float], bound: float) -> SingleAct:
    """By expected value, where act and label alone say what each is worth: (value if false, value if true)."""
    (quiet_false, quiet_true), (acting_false, acting_true) = not_acting, acting

    def decide(score: Any, _row: Row) -> float:
        if -_INFINITE < score < _INFINITE:
            rest = 1 - score
            gain = (rest * acting_false + score * acting_true) - (rest * quiet_false + score * quiet_true)
            return 1.0 if gain > bound else 0.0
        return _NONE

    return decide


def _decided(worth: Worth, bound: float | None, *, many: bool) -> SingleAct:
    """The act from what each is worth: whether the second is worth more than the first by ``bound``, or (``None``) the best."""

    def decide(score: Any, row: Row) -> float:
        scores = score if many else (score,)
        if not all(-_INFINITE < one < _INFINITE for one in scores):
            return _NONE
        made = worth(score, row)
        if bound is not None:
            return 1.0 if made[1] - made[0] > bound else 0.0
        best, most = 0, -_INFINITE
        for place, one in enumerate(made):
            if one > most:
                best, most = place, one
        return float(best)

    return decide


def _worth(system: System, decision: Decision, compile: Compile | None, types: Mapping[str, str]) -> Worth | None:
    """What each act is expected to be worth for one row, summed over the labels in the order in which ``expected`` does it."""
    sql, acts = system.objective.value.sql, system.decide.acts
    names: tuple[Any, ...] = {"binary": (False, True), "multiclass": decision.classes, "regression": (...,)}[system.task]
    unknown = {name for name in columns_read(sql) if name in system.outcomes} - set(decision.outcomes)
    if not names or unknown:
        return None
    if system.task != "regression" and fixed(sql, decision.outcomes):
        known = table(sql, acts, names, decision.outcomes).T.tolist()
        return _summed(lambda _score, _row: known, len(acts), binary=system.task == "binary")
    expressions = [[f"cast(({bound_to(sql, act, name, decision.outcomes)}) as double)" for act in acts] for name in names]
    parts = [[_compiled(one, compile, types) for one in some] for some in expressions]
    ready = [[part for part in some if part is not None] for some in parts]
    if any(len(some) != len(acts) for some in ready):
        return None
    scored, labelled = reads(sql, "score"), system.task == "regression"

    def values(score: Any, row: Row) -> list[list[float]]:
        if scored or labelled:
            row = {**row, "score": max(score) if system.task == "multiclass" else score, "label": score}
        return [[_number(part(row)) for part in some] for some in ready]

    if labelled:
        return lambda score, row: values(score, row)[0]
    return _summed(values, len(acts), binary=system.task == "binary")


def _compiled(expression: str, compile: Compile | None, types: Mapping[str, str]) -> Callable[[Row], Any] | None:
    return None if compile is None else compile(expression, {**types, "score": "DOUBLE", "label": "DOUBLE"})


def _summed(values: Callable[[Any, Row], list[list[float]]], many: int, *, binary: bool) -> Worth:
    def worth(score: Any, row: Row) -> list[float]:
        chances = (1 - score, score) if binary else score
        made = values(score, row)
        total = [chances[0] * one for one in made[0]]
        for chance, some in zip(chances[1:], made[1:], strict=True):
            for place in range(many):
                total[place] = total[place] + chance * some[place]
        return total

    return worth


def _number(found: Any) -> float:
    return _NONE if found is None else float(found)
