"""The SQL of a declaration, bound by the engine against the columns it will see, and never run on data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from noria.core import Problem
from noria.features.binding import bind, kind_of_type, objection
from noria.measure import numeric_act
from noria.system import Every, Rule, System

Schema = Mapping[str, Any]
_TIMES: dict[str, Any] = {name: pl.Datetime("us", "UTC") for name in ("_time", "_known")} | {"_row": pl.String()}
_LABELS: dict[str, Any] = {"binary": pl.Boolean(), "multiclass": pl.String(), "regression": pl.Float64()}


def check_expressions(system: System, schemas: Mapping[str, Schema], predicted: Schema | None) -> Iterator[Problem]:
    """Problems of every expression but the features': label, outcomes, conditions, value, rules, what the rollout and the service are written in."""
    label = system.label
    there = _of(schemas, label.source.name)
    if not (label.how == "count" and label.expression.strip() == "*"):
        yield from _expression("label.expression", label.expression, there, _label_kinds(system))
    if label.censored_when:
        yield from _expression("label.censored_when", label.censored_when, there, ("BOOLEAN",))
    asked = None if predicted is None else {**predicted, "_time": _TIMES["_time"]}
    if label.observed_when:
        yield from _expression(
            "label.observed_when", label.observed_when, None if asked is None else {**asked, "act": _act(system)}, ("BOOLEAN",)
        )
    kinds: dict[str, Any] = {}
    for name, outcome in system.outcomes.items():
        columns = _of(schemas, outcome.source.name)
        yield from _expression(f"outcomes.{name}.expression", outcome.expression, columns, ("number", "text"))
        kinds[name] = _outcome_kind(columns, outcome.expression)
    if isinstance(system.predict, Every) and system.predict.where:
        yield from _expression("predict.where", system.predict.where, predicted, ("BOOLEAN",))
    if asked is not None:
        named = {f.name: pl.Float64() for f in system.flat_features if f.name not in asked}
        row = {**asked, **kinds, "act": _act(system), "label": _LABELS[system.task], "score": pl.Float64()}
        yield from _expression("objective.value.sql", system.objective.value.sql, row, ("number",))
        for place, recipe in enumerate(system.recipes):
            if isinstance(recipe, Rule):
                yield from _expression(
                    f"candidates[{place}] (rule).expression", recipe.expression, {**asked, **named}, ("number",)
                )
        fallback, covariate = system.serve.fallback, system.rollout.covariate
        if isinstance(fallback, Rule):
            yield from _expression("serve.fallback (rule).expression", fallback.expression, {**asked, **named}, ("number",))
        if covariate is not None:
            yield from _expression("rollout.covariate", covariate, {**asked, **named}, ("number",))
        if system.decide.before is not None:
            yield from _expression("decide.before", system.decide.before, {**asked, **named}, ("number", "BOOLEAN"))


def _of(schemas: Mapping[str, Schema], source: str) -> Schema | None:
    return {**schemas[source], **_TIMES} if source in schemas else None


def _act(system: System) -> Any:
    """The type of ``act`` in a value."""
    if numeric_act(system):
        return pl.Float64()
    first = system.decide.acts[0] if system.decide.acts else False
    return pl.Boolean() if isinstance(first, bool) else pl.Float64() if isinstance(first, int | float) else pl.String()


def _label_kinds(system: System) -> tuple[str, ...]:
    if system.label.how == "count":
        return ("number", "text", "other")
    if system.label.how == "sum":
        return ("number",)
    return {"binary": ("BOOLEAN", "whole"), "multiclass": ("text",), "regression": ("number",)}[system.task]


def _outcome_kind(columns: Schema | None, expression: str) -> Any:
    """The type in which an outcome enters the value: numbers as DOUBLE, others as they are."""
    found = bind(columns, [expression])[expression] if columns is not None else "DOUBLE"
    if isinstance(found, Exception) or (kind_of_type(found) == "number" and found != "BOOLEAN"):
        return pl.Float64()
    return found


def _expression(place: str, text: Any, columns: Schema | None, allowed: tuple[str, ...]) -> Iterator[Problem]:
    """What is wrong with one expression; ``allowed`` are SQL types, or ``number``, ``whole``, ``text``, ``other``."""
    if not isinstance(text, str) or not text.strip():
        yield Problem(place, f"{text!r} is no expression", "write SQL over the row's columns")
        return
    if reason := objection(text):
        yield Problem(place, reason, "an expression is SQL over one row's columns")
        return
    if columns is None:
        return
    found = bind(columns, [text])[text]
    if isinstance(found, Exception):
        first = str(found).splitlines()[0]
        yield Problem(
            place,
            f"{text} cannot be computed: {first}",
            f"the row has {', '.join(sorted(c for c in columns if not c.startswith('_')))}",
        )
        return
    kind = kind_of_type(found)
    fitting = (
        found in allowed or kind in allowed or ("whole" in allowed and found in ("BIGINT", "INTEGER", "TINYINT", "SMALLINT"))
    )
    if not fitting and not ("BOOLEAN" in allowed and found == '"NULL"'):
        wanted = " or ".join(
            {"BOOLEAN": "a condition", "whole": "0 and 1", "number": "a number", "text": "a text", "other": "anything"}[a]
            for a in allowed
        )
        yield Problem(place, f"{text} is of type {found}", f"it has to be {wanted}")
