"""Finds every mistake in the features of a declaration at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from noria.core import Problem, SettingsError, duration
from noria.features.binding import columns_of, objection
from noria.features.compute import schemas as lake_schemas
from noria.features.plan import Schemas, place, predicted_schema, resolve
from noria.system import Every, Feature, Request, System

if TYPE_CHECKING:
    from noria.store import Home


def check_features(home: Home | None, system: System, schemas: Schemas | None = None) -> list[Problem]:
    """Names, collisions, durations, joins, expressions and types of all features.

    ``schemas`` are the columns of the sources by name, as the files have them; with a ``home`` the lake's stand in for those not given.
    What cannot be checked without a schema is left out. Returns an empty list when nothing is wrong.
    """
    known = {**(lake_schemas(home, system) if home is not None else {}), **(schemas or {})}
    problems = [*_names(system, known), *_empty_windows(system)]
    sound: list[Feature] = []
    for number, feature in enumerate(system.flat_features):
        own = [*_spans(number, feature), *_place_of(number, feature, system), *_joins(number, feature, system, known)]
        own += _expression(number, feature, system)
        problems += own
        sound += [] if own else [feature]
    _, untyped = resolve(system, known)
    doubtful = {place(n, f) for n, f in enumerate(system.flat_features) if f not in sound}
    return problems + [problem for problem in untyped if problem.place not in doubtful]


def _names(system: System, known: Schemas) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    predicted = {name.lower() for name in predicted_schema(system, known) or {}}
    for number, feature in enumerate(system.flat_features):
        where, name = place(number, feature), feature.name
        if not name.strip() or any(ord(letter) < 32 for letter in name):
            yield Problem(where, "the name is empty or has control characters", "name it with .named(...)")
        elif name.startswith("_"):
            yield Problem(where, "names that begin with _ belong to Noria", "name it otherwise with .named(...)")
        if name.lower() in seen:
            first = seen[name.lower()]
            yield Problem(
                where, f"the name is that of features[{first}] (case does not count)", "name one of them with .named(...)"
            )
        seen.setdefault(name.lower(), number)
        if feature.op != "column" and name.lower() in predicted:
            yield Problem(where, "the name is that of a column of the predicted row", "name it otherwise with .named(...)")


def _empty_windows(system: System) -> Iterator[Problem]:
    for number, some in enumerate(system.features):
        if some.base is not None and not some.features:
            hint = 'follow it with .count(), .mean("column"), …'
            yield Problem(f"features[{number}] window over {some.base.source!r}", "the window has no aggregate", hint)


def _spans(number: int, feature: Feature) -> Iterator[Problem]:
    spans: dict[str, timedelta] = {}
    for part, text in (("window", feature.window), ("every", feature.every), ("max_age", feature.max_age)):
        if text is None:
            continue
        try:
            spans[part] = duration(text)
        except (SettingsError, TypeError) as error:
            hint = error.hint if isinstance(error, SettingsError) else 'write for example "2h"'
            yield Problem(place(number, feature), f"{part}: {text!r} is not a duration", hint)
            continue
        if spans[part] <= timedelta(0):
            yield Problem(place(number, feature), f"{part} has to be longer than nothing", 'write for example "2h"')
            del spans[part]
    if "window" in spans and "every" in spans and spans["window"] % spans["every"]:
        message = f"the window {feature.window} is not a whole number of every={feature.every}"
        yield Problem(place(number, feature), message, "its trailing edge moves on the grid of every, so every has to divide it")


def _place_of(number: int, feature: Feature, system: System) -> Iterator[Problem]:
    """Which table a feature reads."""
    if feature.op in ("column", "expression"):
        asked = system.predict.of if isinstance(system.predict, Every) else system.predict
        if not isinstance(asked, Request) and feature.source != asked.name:
            message = f"{feature.source!r} is not what is predicted ({asked.name!r}); its columns are not in the predicted row"
            yield Problem(place(number, feature), message, f"look them up: {feature.source}.last(..., by=..., max_age=...)")
    if feature.expr.strip() == "*" and feature.agg != "count":
        yield Problem(place(number, feature), f"{feature.agg or feature.op} needs an expression", "name a column instead of *")


def _joins(number: int, feature: Feature, system: System, known: Schemas) -> Iterator[Problem]:
    predicted, source = predicted_schema(system, known), known.get(feature.source)
    for asked, looked in feature.by:
        for name, columns, table in ((asked, predicted, "predicted row"), (looked, source, f"source {feature.source!r}")):
            if columns is not None and name not in columns:
                hint = f"it has {', '.join(sorted(columns))}; join other names with by={{predicted: source}}"
                yield Problem(place(number, feature), f"by: the {table} has no column {name!r}", hint)
        if predicted is not None and source is not None and asked in predicted and looked in source:
            one, other = predicted[asked], source[looked]
            if not isinstance(one, str) and _family(one) != _family(other):
                message = f"by: {asked!r} is {one} and {looked!r} is {other}; they can never be equal"
                yield Problem(place(number, feature), message, "give both columns one type")


def _family(kind: object) -> str:
    text = str(kind)
    if text in ("String", "Categorical") or text.startswith("Enum"):
        return "text"
    numbers = ("Int", "UInt", "Float", "Decimal")
    return "number" if text.startswith(numbers) else text


def _expression(number: int, feature: Feature, system: System) -> Iterator[Problem]:
    plain = feature.op == "column" or feature.expr.strip() == "*"
    if not plain and (reason := objection(feature.expr)):
        yield Problem(place(number, feature), reason, "an expression is SQL over one row's columns")
    if feature.op in ("column", "expression"):
        read = {feature.expr[1:-1]} if feature.op == "column" else columns_of(feature.expr)
        for name in sorted(read & set(system.objective.sensitive)):
            hint = "drop the feature; it stays watched as a slice"
            yield Problem(place(number, feature), f"{name!r} is declared sensitive and may not be a feature", hint)
