"""Every shared table: its columns, key, order, and the one step that writes it.

Columns that Noria adds begin with ``_``; a user's column may not. Times are microseconds in UTC. Tables of a declaration's
sources have the source's own columns besides; ``predictions`` has the feature columns and those of the predicted row.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Table:
    """A table: ``columns`` are the fixed ones, ``key`` identifies a row, ``order`` is how rows lie in it."""

    name: str
    writer: str
    columns: dict[str, pl.DataType | type[pl.DataType]]
    key: tuple[str, ...]
    order: tuple[str, ...]
    about: str


SOURCE = Table(
    "source.<name>",
    "data",
    {"_time": TIME, "_known": TIME, "_row": pl.String},
    ("_row",),
    ("_known", "_time", "_row"),
    "accepted rows: when it happened, when it could be used, and the hash of the row's own content",
)
QUARANTINE = Table(
    "quarantine",
    "data",
    {"source": pl.String, "_upto": TIME, "reason": pl.String, "row": pl.String},
    ("source", "_upto", "row"),
    ("source", "_upto", "reason", "row"),
    "rows that were not accepted, as JSON, each with its reason",
)
PREDICTIONS = Table(
    "predictions",
    "deployment",
    {
        "_id": pl.String,
        "_time": TIME,
        "_unit": pl.String,
        "_features": pl.String,
        "_score": pl.Float64,
        "_scores": pl.List(pl.Float64),
        "_act": pl.Float64,
        "_act_propensity": pl.Float64,
        "_variant": pl.String,
        "_variant_propensity": pl.Float64,
        "_release": pl.String,
        "_fallback": pl.String,
        "_review": pl.Boolean,
        "_scored_at": TIME,
    },
    ("_id",),
    ("_time", "_id"),
    "every row asked: features as served, score, act, propensities, variant, release; before the first release score and act "
    "are null and the release is empty; binary acts are 0 and 1, multiclass acts an index into the declared acts; _scores is "
    "one probability a class (multiclass only, else null); _fallback says why the fallback answered (null: the model did); "
    "_review marks what waits for a person",
)
SHADOW = Table(
    "shadow",
    "deployment",
    {
        "_id": pl.String,
        "_time": TIME,
        "_release": pl.String,
        "_score": pl.Float64,
        "_scores": pl.List(pl.Float64),
        "_act": pl.Float64,
    },
    ("_id", "_release"),
    ("_time", "_id", "_release"),
    "what the bundle that did not answer would have said and done (without exploration), for every row of a rollout: the "
    "challenger's where the champion answered, the champion's where the challenger did",
)
OUTCOMES = Table(
    "outcomes",
    "data",
    {
        "_id": pl.String,
        "_time": TIME,
        "_cohort": TIME,
        "_revision": pl.Int32,
        "_label": pl.Float64,
        "_class": pl.String,
        "_known": TIME,
        "_decided": pl.Float64,
    },
    ("_id", "_revision"),
    ("_time", "_id", "_revision"),
    "labels of closed cohorts (_cohort is the end of the cohort's window): 0/1 for binary, the number for regression, _class "
    "for multiclass; null is missing; _known is null where silence made the label; _decided is the act a person took; the highest revision of a cohort counts; "
    "declared outcomes follow as columns of their own",
)
LABELS = Table(
    "labels",
    "data",
    {
        "_row": pl.String,
        "_id": pl.String,
        "_key": pl.String,
        "_time": TIME,
        "_known": TIME,
        "_label": pl.Float64,
        "_class": pl.String,
        "_act": pl.Float64,
        "_by": pl.String,
    },
    ("_row",),
    ("_known", "_time", "_row"),
    "labels given outright, by HTTP or by a person: for one prediction (_id) or for an entity (_key, the key as it stands in an id); "
    "_act is the decision a person took, _by who; of several for one prediction the newest known counts, and all are kept",
)

TABLES = (SOURCE, QUARANTINE, PREDICTIONS, SHADOW, OUTCOMES, LABELS)


def source_table(source: str) -> str:
    """The name of a source's table."""
    return f"source.{source}"
