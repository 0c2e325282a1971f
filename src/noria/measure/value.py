"""What decisions are worth: the declared ``Value``, row by row.

In the expression ``act`` is one of ``Decide.acts`` (BOOLEAN by default; DOUBLE when the policy is ``score`` or ``quantile``), ``label`` is
BOOLEAN (binary), VARCHAR (multiclass) or DOUBLE (regression), ``score`` is DOUBLE (the largest probability, for multiclass). In arrays
an act is its index into ``Decide.acts``, or the number itself; NaN is "no act" (a person decides). A missing act or label has no
value: NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import sqlglot
from numpy.typing import NDArray
from sqlglot import exp

from noria.core import NoriaError
from noria.system import Decide, System, Value

if TYPE_CHECKING:
    from noria.store.engine import Engine

Floats = NDArray[np.float64]
StandIns = Mapping[str, float | Mapping[str, float]]
"""What stands in for each outcome while it is not known: one number, or one for each label (``true`` and ``false``, or the classes)."""
RESERVED = ("act", "label", "score")
_LARGEST_TABLE = 64


def numeric_act(system: System) -> bool:
    """Whether the act is a number (an amount to order), not a choice among ``Decide.acts``."""
    return numeric_policy(system.decide)


def numeric_policy(decide: Decide) -> bool:
    """The same, of a policy that stands alone.

    >>> numeric_policy(Decide(policy="quantile 0.8")), numeric_policy(Decide(policy="act when score > 0.5"))
    (True, False)
    """
    words = decide.policy.split()
    return bool(words) and words[0] in ("score", "quantile")


@lru_cache(maxsize=256)
def columns_read(sql: str) -> tuple[str, ...]:
    """The columns that an expression reads besides ``act``, ``label`` and ``score``, sorted.

    >>> columns_read("case when act and label then price * 2 else 0 end")
    ('price',)
    """
    names = {column.name for column in sqlglot.parse_one(sql, read="duckdb").find_all(exp.Column)}
    return tuple(sorted(name for name in names if name.lower() not in RESERVED))


@lru_cache(maxsize=256)
def reads(sql: str, name: str) -> bool:
    """Whether an expression reads ``act``, ``label`` or ``score``.

    >>> reads("case when act then 1 else 0 end", "label")
    False
    """
    return any(c.name.lower() == name for c in sqlglot.parse_one(sql, read="duckdb").find_all(exp.Column))


def stand_in(given: float | Mapping[str, float], label: Any) -> float:
    """The number that stands in for an outcome when the label is ``label``; ``...`` is a label that has no classes.

    A class that was not there when the numbers were taken gets the mean of the others.

    >>> stand_in({"true": 2.5, "false": 0.0}, True), stand_in(1.0, True), stand_in({"a": 1.0, "b": 2.0}, "c")
    (2.5, 1.0, 1.5)
    """
    if not isinstance(given, Mapping):
        return float(given)
    name = str(label).lower() if isinstance(label, bool) else str(label)
    return float(given[name]) if name in given else float(np.mean(list(given.values()))) if given else 0.0


def bound_to(sql: str, act: Any, label: Any, outcomes: StandIns | None = None) -> str:
    """The expression with ``act``, ``label`` (unless it is ``...``) and the outcomes replaced by constants.

    >>> bound_to("case when act and label then price else 0 end", True, False, {"price": {"true": 2.5, "false": 0.0}})
    "CASE WHEN TRUE AND FALSE THEN CAST('0.0' AS DOUBLE) ELSE 0 END"
    """
    return _bound_to(sql, act, label, tuple((name, stand_in(one, label)) for name, one in (outcomes or {}).items()))


@lru_cache(maxsize=4096)
def _bound_to(sql: str, act: Any, label: Any, outcomes: tuple[tuple[str, float], ...]) -> str:
    known = {name: exp.cast(exp.Literal.string(repr(one)), "double") for name, one in outcomes}  # exact, as no decimal literal is

    def put(node: Any) -> Any:
        if isinstance(node, exp.Column) and not node.table:
            if node.name.lower() == "act" and act is not ...:
                return exp.convert(act)
            if node.name.lower() == "label" and label is not ...:
                return exp.convert(label)
            if node.name in known:
                return known[node.name].copy()
        return node

    return str(sqlglot.parse_one(sql, read="duckdb").transform(put).sql(dialect="duckdb"))


@lru_cache(maxsize=256)
def _constants(expressions: tuple[str, ...]) -> tuple[float, ...]:
    """Expressions without columns, evaluated: a pure function of their text, so its memory is harmless."""
    import duckdb

    picked = ", ".join(f"cast(({expression}) as double)" for expression in expressions)
    with duckdb.connect(":memory:", config={"enable_external_access": False}) as connection:
        try:
            found = connection.execute(f"select {picked}").fetchone() or ()
        except duckdb.Error as error:
            raise NoriaError(f"the value cannot be computed: {error}", hint="mend Objective.value") from error
    return tuple(float("nan") if one is None else float(one) for one in found)


def table(sql: str, acts: tuple[Any, ...], labels: tuple[Any, ...], outcomes: StandIns | None = None) -> Floats:
    """(acts, labels) values of an expression that reads nothing else, but for the outcomes that are stood in for.

    >>> table("case when act and label then 3 when act then -1 else 0 end", (False, True), (False, True)).tolist()
    [[0.0, 0.0], [-1.0, 3.0]]
    """
    made = _constants(tuple(bound_to(sql, a, y, outcomes) for a in acts for y in labels))
    return np.array(made).reshape(len(acts), len(labels))


def _by_row(engine: Engine, frame: pl.DataFrame, expressions: list[str], extra: dict[str, pl.Series]) -> Floats:
    """(n, k) values of k expressions over the rows of ``frame``, in its order."""
    if frame.height == 0:
        return np.empty((0, len(expressions)))
    wanted = sorted({name for e in expressions for name in columns_read(e)})
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise NoriaError(
            f"the value reads {', '.join(missing)}, which the rows do not have",
            hint=f"the rows have {', '.join(c for c in frame.columns if not c.startswith('_'))}",
        )
    rows = pl.DataFrame({"_place": np.arange(frame.height)}).with_columns(
        *(frame[name] for name in wanted), *(series.alias(name) for name, series in extra.items())
    )
    picked = ", ".join(f"cast(({e}) as double) as v{i}" for i, e in enumerate(expressions))
    made = engine.sql(f"select {picked} from rows order by _place", rows=rows)
    return made.cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(frame.height, len(expressions))


def _score_series(score: NDArray[Any] | None, n: int) -> pl.Series:
    if score is None:
        return pl.Series([None] * n, dtype=pl.Float64)
    flat = np.asarray(score, float)
    return pl.Series(flat.max(axis=1) if flat.ndim == 2 else flat).fill_nan(None)


def _act_series(system: System, act: Floats) -> pl.Series:
    if numeric_act(system):
        return pl.Series(act).fill_nan(None)
    acts = system.decide.acts
    return pl.Series([None if np.isnan(a) else acts[int(a)] for a in act], dtype=_type_of(acts), strict=False)


def _type_of(values: tuple[Any, ...]) -> pl.DataType:
    if all(isinstance(v, bool) for v in values):
        return pl.Boolean()
    return pl.Float64() if all(isinstance(v, int | float) for v in values) else pl.String()


def known_labels(system: System, label: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels are there: numbers that are not NaN, classes that are not null."""
    if system.task == "multiclass":
        return np.array([isinstance(value, str) for value in label], dtype=bool)
    return np.asarray(np.isfinite(np.asarray(label, float)))


def _label_series(system: System, label: NDArray[Any], keep: NDArray[np.bool_]) -> pl.Series:
    if system.task == "multiclass":
        return pl.Series([str(v) if k else None for v, k in zip(label, keep, strict=True)], dtype=pl.String)
    numbers = pl.Series(np.asarray(label, float)).fill_nan(None)
    return numbers > 0.5 if system.task == "binary" else numbers


def value(  # noqa: PLR0917  act, label and score are told apart by their order everywhere
    engine: Engine,
    system: System,
    frame: pl.DataFrame,
    act: NDArray[Any],
    label: NDArray[Any],
    score: NDArray[Any] | None = None,
) -> Floats:
    """What each row's act turned out to be worth, given its label, in ``Value.currency``.

    Parameters
    ----------
    frame:
        The predicted rows with the outcomes, as ``measure.closed`` gives them; only columns the expression reads are looked at.
    act:
        Indices into ``Decide.acts`` (0/1 for the default), or amounts when the policy is ``score`` or ``quantile``.
    label:
        0/1, numbers, or (multiclass) class names; NaN or ``None`` where missing.

    An expression over ``act`` and ``label`` alone is evaluated once for each pair that occurs; any other runs in the engine.
    """
    sql = system.objective.value.sql
    act = np.asarray(act, float)
    keep = known_labels(system, label) & np.isfinite(act)
    out = np.full(len(act), np.nan)
    if fixed(sql) and not numeric_act(system) and system.task != "regression":
        if not keep.any():
            return out
        texts = np.asarray(label, object)[keep] if system.task == "multiclass" else np.asarray(label, float)[keep] > 0.5
        names, places = np.unique(texts.astype(str) if system.task == "multiclass" else texts, return_inverse=True)
        if len(names) <= _LARGEST_TABLE:
            out[keep] = table(sql, system.decide.acts, tuple(names.tolist()))[act[keep].astype(int), places]
            return out
    extra = {
        "act": _act_series(system, act),
        "label": _label_series(system, label, keep),
        "score": _score_series(score, len(act)),
    }
    out[keep] = _by_row(engine, frame, [sql], extra)[keep, 0]
    return out


def fixed(sql: str, outcomes: StandIns | None = None) -> bool:
    """Whether an expression is a constant once act, label and the outcomes are.

    >>> fixed("case when act then price else 0 end"), fixed("case when act then price else 0 end", {"price": 1.0})
    (False, True)
    """
    return not set(columns_read(sql)) - set(outcomes or ()) and not reads(sql, "score")


def seen(engine: Engine, system: System, frame: pl.DataFrame, act: NDArray[Any]) -> NDArray[np.bool_]:
    """For which rows the label can be seen at all, given their acts (``Label.observed_when``); unknown is not seen."""
    sql = system.label.observed_when
    if sql is None:
        return np.ones(frame.height, bool)
    taken = pl.Series(np.asarray(act, float)).fill_nan(None) > 0
    return np.asarray(_by_row(engine, frame, [sql], {"act": taken})[:, 0] > 0)


_PROBES = (-1e6, -1.0, 0.0, 0.5, 1.0, 7.25, 1e6)


def without_label(
    engine: Engine, system: System, frame: pl.DataFrame, act: NDArray[Any], score: NDArray[Any] | None = None
) -> Floats:
    """What each row's act is worth whatever its label is; NaN where that depends on the label.

    A row that was not shown has no label and yet a value: that of its act, when no label could change it. Both labels are tried (for
    classes those of ``frame`` and one that is not among them, for numbers several far apart): a NULL in the expression would
    pass for "no".
    """
    n = frame.height
    tried: list[NDArray[Any]]
    if system.task == "multiclass":
        names = frame["_class"].drop_nulls().unique().sort().to_list() if "_class" in frame.columns else []
        tried = [np.array([name] * n, dtype=object) for name in [*names, "no such class"]]
    else:
        tried = [np.full(n, number) for number in ((0.0, 1.0) if system.task == "binary" else _PROBES)]
    made = np.stack([value(engine, system, frame, act, label, score) for label in tried])
    return np.where((made == made[0]).all(axis=0), made[0], np.nan)


def expected(
    engine: Engine,
    system: System,
    frame: pl.DataFrame,
    score: NDArray[Any],
    *,
    classes: tuple[str, ...] = (),
    outcomes: StandIns | None = None,
) -> Floats:
    """The expected value of each act, (n, number of acts).

    Binary: (1 - score) · v(act, false) + score · v(act, true). Multiclass: the sum over ``classes``, the names of the columns of
    ``score``. Regression: the value at label = score, which is exact only for values linear in the label. ``outcomes`` stand in for
    what is not known yet, each with its number given that label; the others are columns of ``frame``.

    The sum is taken class by class, so that a row's result does not depend on how many rows are asked at once.
    """
    sql, acts = system.objective.value.sql, system.decide.acts
    score = np.asarray(score, float)
    n = len(score)
    if system.task == "regression":
        extra = {"label": pl.Series(score).fill_nan(None), "score": pl.Series(score).fill_nan(None)}
        return _by_row(engine, frame, [bound_to(sql, a, ..., outcomes) for a in acts], extra)
    names: tuple[Any, ...] = (False, True) if system.task == "binary" else classes
    chances = np.column_stack([1 - score, score]) if system.task == "binary" else score
    if chances.shape[1:] != (len(names),):
        raise ValueError(f"{chances.shape[1:]} columns of scores for the classes {names}: pass classes= in the scores' order")
    if fixed(sql, outcomes):
        made = np.broadcast_to(table(sql, acts, names, outcomes).T, (n, len(names), len(acts)))
    else:
        expressions = [bound_to(sql, a, y, outcomes) for y in names for a in acts]
        found = _by_row(engine, frame, expressions, {"score": _score_series(score, n)})
        made = found.reshape(n, len(names), len(acts))
    total = chances[:, :1] * made[:, 0]
    for k in range(1, len(names)):
        total = total + chances[:, k : k + 1] * made[:, k]
    return total


def policies(engine: Engine, system: System, frame: pl.DataFrame, label: NDArray[Any]) -> dict[str, Floats]:
    """Value per row of the reference policies: ``do nothing``, ``always act`` and ``perfect``.

    Choices: the first act always; the other act always (of several, the one that is worth most on these rows); and for each row the
    act that turned out best. Amounts: zero always; the labels' mean (or declared quantile) always, fitted on these rows; the
    label itself.
    """
    n = frame.height
    if numeric_act(system):
        numbers = np.asarray(label, float)
        known = numbers[np.isfinite(numbers)]
        words = system.decide.policy.split()
        middle = float("nan")
        if len(known):
            middle = float(np.quantile(known, float(words[1])) if words[0] == "quantile" else known.mean())
        tried = {"do nothing": np.zeros(n), "always act": np.full(n, middle), "perfect": numbers}
        return {name: value(engine, system, frame, act, label) for name, act in tried.items()}
    each = [value(engine, system, frame, np.full(n, float(i)), label) for i in range(len(system.decide.acts))]
    others = [np.nansum(some) for some in each[1:]]
    always = each[1 + int(np.argmax(others))] if others else each[0]
    return {"do nothing": each[0], "always act": always, "perfect": np.max(np.stack(each), axis=0)}


# --------------------------------------------------------------------------------------------------------------- bounds

Range = tuple[float | None, float | None]


def bounds(value: Value) -> Range:
    """The least and the largest value: as declared, else derived from the constants of the expression; ``None`` is unbounded.

    >>> bounds(Value("case when act and label then 60 when act then -15 else 0 end"))
    (-15.0, 60.0)
    >>> bounds(Value("case when act then price else 0 end", low=-5))
    (-5.0, None)
    """
    low, high = _range(sqlglot.parse_one(value.sql, read="duckdb"))
    return low if value.low is None else float(value.low), high if value.high is None else float(value.high)


def _range(node: Any) -> Range:
    if isinstance(node, exp.Literal):
        return (float(node.this), float(node.this)) if not node.is_string else (None, None)
    if isinstance(node, exp.Boolean):
        return (float(bool(node.this)),) * 2
    if isinstance(node, exp.Paren | exp.Cast):
        return _range(node.this)
    if isinstance(node, exp.Neg):
        low, high = _range(node.this)
        return (None if high is None else -high, None if low is None else -low)
    if isinstance(node, exp.Case | exp.If):
        branches = node.args.get("ifs") or [node]
        default = node.args.get("default") or node.args.get("false")
        return _union([_range(b.args["true"]) for b in branches] + ([_range(default)] if default is not None else []))
    if isinstance(node, exp.Coalesce):
        return _union([_range(part) for part in (node.this, *node.expressions)])
    if isinstance(node, exp.Least | exp.Greatest):
        return _extreme([_range(part) for part in (node.this, *node.expressions)], least=isinstance(node, exp.Least))
    if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
        return _arithmetic(node)
    if isinstance(node, exp.Predicate | exp.Not | exp.Connector):
        return 0.0, 1.0
    return None, None


def _union(ranges: list[Range]) -> Range:
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    return (
        None if None in lows else min(x for x in lows if x is not None),
        None if None in highs else max(x for x in highs if x is not None),
    )


def _extreme(ranges: list[Range], *, least: bool) -> Range:
    """The range of the least (or the greatest) of several: one bounded part bounds it on its side."""
    pick = min if least else max
    lows, highs = [x for x, _ in ranges if x is not None], [x for _, x in ranges if x is not None]
    whole_low, whole_high = len(lows) == len(ranges), len(highs) == len(ranges)
    low = pick(lows) if lows and (whole_low or not least) else None
    high = pick(highs) if highs and (whole_high or least) else None
    return low, high


def _arithmetic(node: Any) -> Range:
    left, right = _range(node.this), _range(node.expression)
    if isinstance(node, exp.Sub):
        right = (None if right[1] is None else -right[1], None if right[0] is None else -right[0])
    if isinstance(node, exp.Add | exp.Sub):
        ends = [None if a is None or b is None else a + b for a, b in zip(left, right, strict=True)]
        return ends[0], ends[1]
    if None in left or None in right:
        return None, None
    if isinstance(node, exp.Div):
        if right[0] is not None and right[1] is not None and right[0] <= 0 <= right[1]:
            return None, None
        right = tuple(1 / x for x in right if x is not None)  # type: ignore[assignment]  # both ends are there
    products = [a * b for a in left if a is not None for b in right if b is not None]
    return min(products), max(products)
