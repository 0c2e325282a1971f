"""``noria check``: everything that is wrong with a declaration, at once, each mistake with its place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from noria.core import NoriaError, Problem, Refused, SettingsError, check_name, duration
from noria.data import readers
from noria.data.checkparts import check_rules
from noria.data.checksql import check_expressions
from noria.data.readers import Place
from noria.data.sql import Reader
from noria.data.times import MONTH
from noria.features import check_features
from noria.measure import by_pairs, predicted_keys
from noria.store.rows import ZONED, delay_of
from noria.system import Every, Label, Outcome, Request, Source, System

_TYPES: dict[str, pl.DataType] = {
    "BIGINT": pl.Int64(),
    "DOUBLE": pl.Float64(),
    "VARCHAR": pl.String(),
    "BOOLEAN": pl.Boolean(),
    "DATE": pl.Date(),
    "TIMESTAMP": pl.Datetime("us"),
    ZONED: pl.Datetime("us", "UTC"),
}
Schema = dict[str, Any]


def check(system: System, folder: Path) -> list[Problem]:
    """Every mistake in a declaration, in its order; an empty list when there is none.

    Sources are read where they lie (relative paths from ``folder``): their columns, types and time zones. What needs the columns of a source
    that cannot be read is left out, and the source is named.
    """
    if not isinstance(system, System):
        return [Problem("system", f"it is a {type(system).__name__}, not a System", "write system = noria.System(...)")]
    found: list[Problem] = []
    found += _names(system)
    types, unread = _types(system, folder)
    found += unread
    found += _sources(system, types)
    schemas = {name: polars_schema(columns) for name, columns in types.items()}
    predicted = predicted_columns(system, schemas)
    found += _predict(system)
    if not isinstance(system.predict, Source | Every | Request):
        return found  # the rest is written in the predicted row's columns
    found += _label(system, schemas, predicted)
    found += _guarded(lambda: check_features(None, system, schemas), "features")
    found += _guarded(lambda: list(check_expressions(system, schemas, predicted)), "expressions")
    found += _guarded(lambda: list(check_rules(system, predicted)), "rules")
    return list(dict.fromkeys(found))


def _guarded(look: Callable[[], list[Problem]], place: str) -> list[Problem]:
    """A part's problems; when looking itself fails on a value of a wrong type, that is the problem."""
    try:
        return look()
    except (TypeError, ValueError, AttributeError, NoriaError) as error:
        return [
            Problem(
                place,
                f"this cannot be read: {str(error).splitlines()[0]}",
                "compare the types with the docstrings of noria.system",
            )
        ]


def polars_schema(columns: Mapping[str, str]) -> Schema:
    """Columns for binding expressions: polars types, or the SQL type's name where polars has none of it."""
    return {name: _TYPES.get(kind, kind) for name, kind in columns.items()}


def predicted_columns(system: System, schemas: Mapping[str, Schema]) -> Schema | None:
    """The columns of the predicted row; ``None`` while its source cannot be read."""
    if isinstance(system.predict, Request):
        return {**system.predict.columns}
    asked = system.predict.of if isinstance(system.predict, Every) else system.predict
    return schemas.get(asked.name) if isinstance(asked, Source) else None


def span(place: str, text: Any, *, positive: bool = False) -> tuple[timedelta | None, list[Problem]]:
    """A duration, or what is wrong with it."""
    try:
        found = duration(text)
    except (SettingsError, TypeError) as error:
        hint = error.hint if isinstance(error, SettingsError) else 'write for example "10m", "8h", "14d" or "2w"'
        return None, [Problem(place, f"{text!r} is not a duration", hint)]
    if positive and not found:
        return None, [Problem(place, f"{text!r} is no time at all", "it has to be longer than nothing")]
    return found, []


# --------------------------------------------------------------------------------------------------------------- names


def _names(system: System) -> Iterator[Problem]:
    try:
        check_name(system.name, "system's name")
    except Refused as refused:
        yield Problem("name", refused.message, refused.hint)
    except TypeError:
        yield Problem("name", f"{system.name!r} is not a text", "give the system a name")
    seen: dict[str, Source] = {}
    for source in _every_source(system):
        if source.name in seen and seen[source.name] is not source:
            yield Problem(f"sources.{source.name}", "two sources have this name", "give each source a name of its own")
        if source.name not in seen:
            try:
                check_name(source.name, "source's name")
            except Refused as refused:
                yield Problem(f"sources.{source.name}", refused.message, refused.hint)
        seen.setdefault(source.name, source)
    yield from span("every", system.every, positive=True)[1]


def _every_source(value: Any) -> Iterator[Source]:
    if isinstance(value, Source):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _every_source(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _every_source(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _every_source(item)


# ------------------------------------------------------------------------------------------------------------- sources


def _types(system: System, folder: Path) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """The columns of every source with data, and what stands against reading it."""
    run, types, found = Reader(), dict[str, dict[str, str]](), list[Problem]()
    with tempfile.TemporaryDirectory(prefix="noria-check-") as staging:
        for name, source in system.sources.items():
            if source.data is None:
                continue
            try:
                pieces = readers.look(Place(run, folder, Path(staging) / "staged"), source, {}, {})
            except NoriaError as fault:
                found.append(Problem(f"sources.{name}.data", fault.message, fault.hint))
                continue
            columns: dict[str, str] = {}
            for piece in pieces.values():
                if piece.fault:
                    found.append(Problem(f"sources.{name}.data", piece.fault, piece.hint))
                for column, kind in piece.columns.items():
                    if columns.setdefault(column, kind) != kind:
                        message = f"column {column!r} is {columns[column]} in one file and {kind} in {piece.name}"
                        found.append(Problem(f"sources.{name}.data", message, "one column has one type in all files"))
            if columns:
                types[name] = columns
    return types, found


def _sources(system: System, types: Mapping[str, Mapping[str, str]]) -> Iterator[Problem]:
    for name, source in system.sources.items():
        place = f"sources.{name}"
        if not source.owner.strip():
            yield Problem(f"{place}.owner", "nobody answers for this source", 'write owner="…": the team or person to ask')
        if isinstance(source.data, str) and not source.data.lower().endswith((*readers.PARQUET, *readers.CSV)):
            yield Problem(
                f"{place}.data",
                f"{source.data!r} is neither Parquet nor CSV",
                f"it may end in {', '.join((*readers.PARQUET, *readers.CSV))}",
            )
        for key in source.keys:
            if name in types and key not in types[name]:
                yield Problem(f"{place}.key", f"there is no column {key!r}", f"it has {', '.join(sorted(types[name]))}")


# -------------------------------------------------------------------------------------------------- what is predicted


def _predict(system: System) -> Iterator[Problem]:
    asked = system.predict
    if isinstance(asked, Request):
        yield from _request(asked)
        return
    if isinstance(asked, Every):
        if asked.period != MONTH:
            yield from span("predict.period", asked.period, positive=True)[1]
        asked = asked.of
    if not isinstance(asked, Source):
        yield Problem(
            "predict", f"it is a {type(asked).__name__}", "give a Source, Every(period, of=source) or Request(columns, key)"
        )
        return
    if not asked.keys:
        yield Problem(
            "predict",
            f"source {asked.name!r} has no key, so its rows cannot be told apart",
            f'write Source({asked.name!r}, …, key="…")',
        )
    delay = delay_of(asked)
    if isinstance(system.predict, Source) and isinstance(delay, timedelta) and delay:
        message = f"its rows are known {asked.known} after they are asked"
        yield Problem(
            f"sources.{asked.name}.known",
            message,
            "what is asked at a time has to be known at that time: let time be when it is asked",
        )


def _request(asked: Request) -> Iterator[Problem]:
    keys = (asked.key,) if isinstance(asked.key, str) else tuple(asked.key)
    for key in keys:
        if key not in asked.columns:
            yield Problem("predict.key", f"a request has no column {key!r}", f"it has {', '.join(asked.columns)}")
    if asked.group is not None and asked.group not in asked.columns:
        yield Problem("predict.group", f"a request has no column {asked.group!r}", f"it has {', '.join(asked.columns)}")
    run = Reader()
    for column, kind in asked.columns.items():
        if column.startswith("_"):
            yield Problem("predict.columns", f"the name {column!r} is reserved", "names beginning with '_' are Noria's own")
        try:
            run(f"select cast(null as {kind}) as it")
        except NoriaError:
            yield Problem(
                "predict.columns",
                f"{column!r}: {kind!r} is not a SQL type",
                "write for example VARCHAR, BIGINT, DOUBLE, BOOLEAN, TIMESTAMPTZ",
            )


# --------------------------------------------------------------------------------------------------------------- label


def _label(system: System, schemas: Mapping[str, Schema], predicted: Schema | None) -> Iterator[Problem]:
    label = system.label
    if not isinstance(label, Label):
        yield Problem("label", f"it is a {type(label).__name__}", "write noria.Label(source, expression, within=…)")
        return
    within, wrong = span("label.within", label.within, positive=True)
    yield from wrong
    _, wrong = span("label.horizon", label.horizon)
    yield from wrong
    yield from span("label.lateness", label.lateness)[1]
    if label.how not in ("first", "any", "sum", "count"):
        yield Problem("label.how", f"{label.how!r} is not known", "it is first, any, sum or count")
    if label.task not in (None, "binary", "multiclass", "regression"):
        yield Problem("label.task", f"{label.task!r} is not known", "it is binary, multiclass or regression")
    if label.how in ("sum", "count") and label.kind != "regression":
        yield Problem(
            "label.how", f"a {label.how} is a number, and the task is {label.kind}", "predict the number, or compare it in an any"
        )
    if label.how in ("any", "count", "sum") and label.otherwise is None:
        nothing = "False" if label.how == "any" else "0"
        yield Problem(
            "label.otherwise",
            f"no event at all would be a missing label for {label.how!r}",
            f"write otherwise={nothing}: silence means nothing happened",
        )
    if label.otherwise is not None and not _otherwise_fits(label):
        allowed = {"binary": "True or False", "multiclass": "a text", "regression": "a number"}[label.kind]
        yield Problem("label.otherwise", f"{label.otherwise!r} is no {label.kind} label", f"it is {allowed}")
    yield from _by("label.by", system, label, schemas, predicted)
    for name, outcome in system.outcomes.items():
        place = f"outcomes.{name}"
        if not isinstance(outcome, Outcome):
            yield Problem(place, f"it is a {type(outcome).__name__}", "write noria.Outcome(source, expression, within=…)")
            continue
        if name.startswith("_") or name.lower() in ("act", "label", "score"):
            yield Problem(place, "the name is reserved", "give the outcome another name")
        elif predicted is not None and name in predicted:
            yield Problem(place, "the name is that of a column of the predicted row", "give the outcome another name")
        length, wrong = span(f"{place}.within", outcome.within, positive=True)
        yield from wrong
        if length is not None and within is not None and length > within:
            message = f"it comes within {outcome.within}, and the cohort closes when the label's {label.within} are over"
            yield Problem(f"{place}.within", message, "give the label a longer within, or shorten the outcome's")
        yield from _by(f"{place}.by", system, outcome, schemas, predicted)


def _otherwise_fits(label: Label) -> bool:
    match label.kind:
        case "binary":
            return isinstance(label.otherwise, bool)
        case "multiclass":
            return isinstance(label.otherwise, str)
        case _:
            return isinstance(label.otherwise, int | float) and not isinstance(label.otherwise, bool)


def _by(
    place: str, system: System, found: Label | Outcome, schemas: Mapping[str, Schema], predicted: Schema | None
) -> Iterator[Problem]:
    pairs = by_pairs(found, predicted_keys(system))
    if not pairs:
        yield Problem(place, "nothing ties a row to its prediction", "write by=… (columns), or give the predicted source a key")
    theirs = schemas.get(found.source.name)
    for mine, other in pairs:
        if predicted is not None and mine not in predicted:
            yield Problem(place, f"the predicted row has no column {mine!r}", f"it has {', '.join(sorted(predicted))}")
        if theirs is not None and other not in theirs:
            hint = f"it has {', '.join(sorted(theirs))}; join other names with by={{predicted: source}}"
            yield Problem(place, f"source {found.source.name!r} has no column {other!r}", hint)
        if (
            predicted is not None
            and theirs is not None
            and mine in predicted
            and other in theirs
            and (str(predicted[mine]) == "String") != (str(theirs[other]) == "String")
        ):
            yield Problem(
                place,
                f"{mine!r} is {predicted[mine]} and {other!r} is {theirs[other]}; they can never be equal",
                "give both columns one type",
            )
