"""What a declaration's features come to: columns with their types, and how far back each source is read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache

import msgspec
import polars as pl

from noria.core import DeclarationError, Problem, digest, duration, quoted
from noria.features.binding import bind, kind_of_type
from noria.system import Every, Feature, Request, System
from noria.tables import SOURCE, TIME

Schemas = Mapping[str, Mapping[str, pl.DataType | type[pl.DataType]]]

PREDICTED = "predicted row"


class FeatureColumn(msgspec.Struct, frozen=True):
    """A column of ``compute``.

    ``numeric`` is ``True`` for ``Float64``, ``False`` for ``String``, ``None`` while the source's schema is not known.
    ``counts_text`` is set for a window whose expression is a text (it can only be counted).
    """

    name: str
    numeric: bool | None
    feature: Feature
    counts_text: bool = False


class Plan(msgspec.Struct, frozen=True):
    """Every feature of a system, in order of declaration.

    ``id`` is the hash of the features' definitions and of the keys and times of their sources; types are not part of it.
    ``sources`` says, for each source that is looked up, how long before asking a row may have become known and still matter.
    """

    id: str
    columns: tuple[FeatureColumn, ...]
    sources: dict[str, timedelta]

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in order."""
        return tuple(column.name for column in self.columns)

    def numeric(self, name: str) -> bool:
        """Whether the feature ``name`` is a number. Raises ``KeyError`` for another name."""
        return bool({column.name: column.numeric for column in self.columns}[name])


def expression(feature: Feature) -> str:
    """The feature's SQL; for a bare column its name, quoted for whatever it has in it."""
    return quoted(feature.expr[1:-1]) if feature.op == "column" else feature.expr


def lookback(feature: Feature) -> timedelta:
    """How long before asking a row may have become known and still enter this feature."""
    if feature.op == "window":
        return duration(feature.window or "") + duration(feature.every or "")
    return duration(feature.max_age or "") if feature.op == "last" else timedelta(0)


def predicted_schema(system: System, schemas: Schemas) -> Mapping[str, pl.DataType | type[pl.DataType] | str] | None:
    """The columns of the predicted row, or ``None`` while they are not known. A request's types are texts of SQL."""
    if isinstance(system.predict, Request):
        return {**system.predict.columns, "_time": TIME}
    source = system.predict.of if isinstance(system.predict, Every) else system.predict
    return {**schemas[source.name], "_time": TIME} if source.name in schemas else None


def plan(system: System, schemas: Schemas | None = None) -> Plan:
    """Resolves the features of a system.

    ``schemas`` are the columns of each source by name (see ``features.schemas``); without them, and for sources that have none yet,
    the type of a ``column``, ``expression`` or ``last`` stays open (``numeric`` is ``None``).

    Raises ``DeclarationError`` when an expression does not fit its source, or gives what cannot be a feature.

    >>> import noria as nr
    >>> sold = nr.Source("sold", key="shop", time="at")
    >>> features = [sold.columns("shop"), sold.window("7d", every="1d", by="shop").mean("amount")]
    >>> label = nr.Label(sold, "amount", within="1d", otherwise=0)
    >>> system = nr.System("s", sold, label, features, nr.Objective("p", nr.Value("0"), "mae"), [])
    >>> [(c.name, c.numeric) for c in plan(system, {"sold": {"shop": pl.String, "amount": pl.Int64}}).columns]
    [('shop', False), ('sold_mean_amount_by_shop_7d', True)]
    """
    known = {name: tuple(columns.items()) for name, columns in (schemas or {}).items() if name in system.sources}
    return _plan(system, tuple(sorted(known.items())))


@lru_cache(maxsize=64)
def _plan(system: System, schemas: tuple[tuple[str, tuple[tuple[str, pl.DataType | type[pl.DataType]], ...]], ...]) -> Plan:
    columns, problems = resolve(system, {name: dict(columns) for name, columns in schemas})
    if problems:
        raise DeclarationError(problems, where="the features")
    sources: dict[str, timedelta] = {}
    for feature in system.flat_features:
        if feature.op in ("last", "window"):
            sources[feature.source] = max(lookback(feature), sources.get(feature.source, timedelta(0)))
    return Plan(_identity(system), columns, sources)


def _identity(system: System) -> str:
    used = sorted({feature.source for feature in system.flat_features} & set(system.sources))
    declared = [[s.name, s.keys, s.time, s.known] for s in (system.sources[name] for name in used)]
    return digest({"features": [msgspec.to_builtins(f) for f in system.flat_features], "sources": declared})


def resolve(system: System, schemas: Schemas) -> tuple[tuple[FeatureColumn, ...], list[Problem]]:
    """The columns with their types, and a problem for each feature that has none."""
    rows: dict[str, Mapping[str, pl.DataType | type[pl.DataType] | str] | None] = {
        name: {**schemas[name], **SOURCE.columns} if name in schemas else None for name in system.sources
    }
    predicted = predicted_schema(system, schemas)
    asked: list[tuple[str, str]] = []
    for feature in system.flat_features:
        over = PREDICTED if feature.op in ("column", "expression") else feature.source
        asked.append((over, "1" if feature.agg == "count" and feature.expr == "*" else expression(feature)))
    types: dict[tuple[str, str], str | Exception] = {}
    for over in {over for over, _ in asked}:
        schema = predicted if over == PREDICTED else rows.get(over)
        if schema is not None:
            expressions = sorted({text for other, text in asked if other == over})
            types |= {(over, text): found for text, found in bind(schema, expressions).items()}
    columns: list[FeatureColumn] = []
    problems: list[Problem] = []
    for number, (feature, key) in enumerate(zip(system.flat_features, asked, strict=True)):
        column, problem = _column(feature, types.get(key), place(number, feature))
        columns.append(column)
        problems += [problem] if problem else []
    return tuple(columns), problems


def place(number: int, feature: Feature) -> str:
    """Where a feature stands in the flattened declaration."""
    return f"features[{number}] {feature.name!r}"


def _column(feature: Feature, found: str | Exception | None, where: str) -> tuple[FeatureColumn, Problem | None]:
    if isinstance(found, Exception):
        over = PREDICTED if feature.op in ("column", "expression") else f"source {feature.source!r}"
        message = f"{feature.expr} cannot be computed over the {over}: {str(found).splitlines()[0]}"
        more = [line for line in str(found).splitlines()[1:2] if line.startswith("Candidate")]
        return FeatureColumn(feature.name, None, feature), Problem(
            where, message, "; ".join(more) or "an expression is SQL over one row's columns"
        )
    kind = None if found is None else kind_of_type(found)
    if kind == "other":
        if feature.agg == "count":
            return FeatureColumn(feature.name, True, feature, counts_text=True), None
        hint = 'take a number of it, for example "hour(column)" or "epoch(_time - column)"'
        return FeatureColumn(feature.name, None, feature), Problem(
            where,
            f"{feature.expr} is of type {found}; a feature is a number, a boolean or a text",
            hint if str(found).startswith(("TIME", "DATE", "INTERVAL")) else "convert it in the expression",
        )
    if feature.op != "window":
        return FeatureColumn(feature.name, None if kind is None else kind == "number", feature), None
    if kind == "text" and feature.agg != "count":
        message = f"{feature.agg} needs a number, and {feature.expr} is of type {found}"
        return FeatureColumn(feature.name, None, feature), Problem(where, message, "count it, or convert it in the expression")
    return FeatureColumn(feature.name, True, feature, counts_text=kind == "text"), None
