"""SQL over one row as Python: the part of DuckDB's expressions whose values Python gives to the last bit.

A tree of closures, each a function of the row. What cannot be exact is not translated (``Untranslatable``), and what is exact but
for some values raises ``Inexact`` on those: whole numbers that overflow, NaN in a comparison, case of letters beyond ASCII.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from noria.features.values import (
    PARTS,
    UNITS,
    Inexact,
    checked,
    guarded,
    in_ascii,
    is_true,
    moment,
    nearest,
    ordered,
    quotient,
    remainder,
    span_seconds,
    to_whole,
    whole_quotient,
)

Closure = Callable[[Mapping[str, Any]], Any]
_DIGITS = 15
_RANGES = {f"{name}INT" if name != "INTEGER" else name: (-(2**bits), 2**bits - 1) for name, bits in
           (("TINY", 7), ("SMALL", 15), ("INTEGER", 31), ("BIG", 63))}  # fmt: skip
_KINDS = dict.fromkeys(_RANGES, "whole") | {"DOUBLE": "number", "VARCHAR": "text", "BOOLEAN": "truth"}
_KINDS |= dict.fromkeys(("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"), "time")
_NUMERIC = ("whole", "number", "decimal")


class Untranslatable(Exception):
    """An expression that only the engine can answer."""


class Node(NamedTuple):
    """A translated expression: what it gives (``whole``, ``number``, ``decimal``, ``text``, ``truth``, ``time``, ``span``, ``null``) and how.

    A ``decimal`` is given as the double nearest to it; ``literal`` marks a constant.
    """

    kind: str
    run: Closure
    literal: bool = False


def kind_of(sql_type: str) -> str:
    """The kind of a SQL type, empty for those that are not translated.

    >>> [kind_of(t) for t in ("BIGINT", "DECIMAL(3,1)", "DATE")]
    ['whole', 'decimal', '']
    """
    return "decimal" if sql_type.startswith("DECIMAL") else _KINDS.get(sql_type, "")


def arithmetic(tree: Any) -> list[str]:
    """The parts of an expression whose SQL type matters: where whole numbers overflow, whether a time has a zone."""
    from sqlglot import exp

    found = [node.sql(dialect="duckdb") for node in tree.find_all(exp.Add, exp.Sub, exp.Mul, exp.Neg, exp.Abs)]
    return found + [node.this.sql(dialect="duckdb") for node in tree.find_all(exp.TimeToUnix)]


class Translator:
    """Translates trees over rows with these column types; ``bound`` has the SQL types of the parts in ``arithmetic``."""

    def __init__(self, columns: Mapping[str, str], bound: Mapping[str, str | Exception]) -> None:
        self._columns = {name.lower(): (name, kind) for name, kind in columns.items()}
        self.bound = bound
        self._makers = _makers()

    def node(self, tree: Any) -> Node:
        """The expression as a closure; raises ``Untranslatable``."""
        maker = self._makers.get(type(tree).__name__)
        if maker is None:
            raise Untranslatable(type(tree).__name__)
        return maker(self, tree)

    def of(self, tree: Any, *kinds: str) -> Node:
        """The same, of one of these kinds."""
        made = self.node(tree)
        if made.kind not in kinds and made.kind != "null":
            raise Untranslatable(f"{type(tree).__name__} is {made.kind}")
        return made

    def column(self, tree: Any) -> Node:
        if tree.table or tree.name.lower() not in self._columns:
            raise Untranslatable(tree.name)
        name, sql_type = self._columns[tree.name.lower()]
        kind = _KINDS.get(sql_type, "")
        if not kind:
            raise Untranslatable(sql_type)
        return Node(kind, _COLUMNS[kind](name))

    def limits(self, tree: Any) -> tuple[int, int]:
        found = self.bound.get(tree.sql(dialect="duckdb"))
        if not isinstance(found, str) or found not in _RANGES:
            raise Untranslatable(str(found))
        return _RANGES[found]


# --------------------------------------------------------------------------------------------------------------- columns


def _whole(name: str) -> Closure:
    def run(row: Mapping[str, Any]) -> int | None:
        value = row.get(name)
        if value is None or type(value) is int:
            return value
        raise Inexact(name)

    return run


def _number(name: str) -> Closure:
    def run(row: Mapping[str, Any]) -> float | None:
        value = row.get(name)
        if value is None or type(value) is float:
            return value
        if type(value) is int:
            return float(value)
        raise Inexact(name)

    return run


def _of_type(kind: type) -> Callable[[str], Closure]:
    def maker(name: str) -> Closure:
        def run(row: Mapping[str, Any]) -> Any:
            value = row.get(name)
            if value is None or type(value) is kind:
                return value
            raise Inexact(name)

        return run

    return maker


def _time(name: str) -> Closure:
    def run(row: Mapping[str, Any]) -> int | None:
        value = row.get(name)
        if value is None or type(value) is int:
            return value
        try:
            return moment(value)
        except ValueError:
            raise Inexact(name) from None

    return run


_COLUMNS: dict[str, Callable[[str], Closure]] = {
    "whole": _whole,
    "number": _number,
    "text": _of_type(str),
    "truth": _of_type(bool),
    "time": _time,
}


def _literal(_: Translator, tree: Any) -> Node:
    text = str(tree.this)
    if tree.is_string:
        return Node("text", lambda _: text, True)
    if text.isdigit():
        whole = int(text)
        if whole > _RANGES["BIGINT"][1]:
            raise Untranslatable(text)
        return Node("whole", lambda _: whole, True)
    value = float(text)
    if "e" in text.lower():
        return Node("number", lambda _: value, True)
    if len(text.replace(".", "").lstrip("0")) > _DIGITS or len(text) > 2 * _DIGITS:
        raise Untranslatable(text)
    return Node("decimal", lambda _: value, True)


# ------------------------------------------------------------------------------------------------------------ arithmetic


def _strict(function: Callable[..., Any], *nodes: Node) -> Closure:
    """A function that is null when any of its one or two arguments is."""
    if len(nodes) == 1:
        only = nodes[0].run

        def one(row: Mapping[str, Any]) -> Any:
            value = only(row)
            return None if value is None else function(value)

        return one
    first, second = (node.run for node in nodes)

    def two(row: Mapping[str, Any]) -> Any:
        left, right = first(row), second(row)
        return None if left is None or right is None else function(left, right)

    return two


def _double(node: Node) -> Node:
    """A node as a double."""
    if node.kind in ("number", "decimal", "null"):
        return Node("number", node.run, node.literal)
    if node.kind == "time" or node.kind not in (*_NUMERIC, "truth"):
        raise Untranslatable(node.kind)
    return Node("number", _strict(float, node), node.literal)


def _arithmetic(function: Callable[[Any, Any], Any]) -> Callable[[Translator, Any], Node]:
    def maker(t: Translator, tree: Any) -> Node:
        left, right = t.node(tree.this), t.node(tree.expression)
        kinds = {left.kind, right.kind}
        if kinds == {"time"} and function is operator.sub:
            return Node("span", _strict(function, left, right))
        if not kinds <= set(_NUMERIC):
            raise Untranslatable(str(kinds))
        if "number" in kinds:
            return Node("number", _strict(function, _double(left), _double(right)))
        if kinds == {"whole"}:
            return Node("whole", _strict(checked(function, *t.limits(tree)), left, right))
        raise Untranslatable("decimals")

    return maker


def _divided(t: Translator, tree: Any) -> Node:
    return Node("number", _strict(quotient, _double(t.of(tree.this, *_NUMERIC)), _double(t.of(tree.expression, *_NUMERIC))))


def _whole_pair(function: Callable[[int, int], int]) -> Callable[[Translator, Any], Node]:
    def maker(t: Translator, tree: Any) -> Node:
        left, right = t.node(tree.this), t.node(tree.expression)
        if left.kind != "whole" or right.kind != "whole":
            raise Untranslatable(left.kind)
        return Node("whole", _strict(function, left, right))

    return maker


def _negated(t: Translator, tree: Any) -> Node:
    inner = t.node(tree.this)
    if inner.kind == "whole":
        return Node("whole", _strict(checked(operator.neg, *t.limits(tree)), inner), inner.literal)
    if inner.kind not in ("number", "decimal"):
        raise Untranslatable(inner.kind)
    return Node(inner.kind, _strict(operator.neg, inner), inner.literal)


def _absolute(t: Translator, tree: Any) -> Node:
    inner = t.node(tree.this)
    if inner.kind == "whole":
        return Node("whole", _strict(checked(abs, *t.limits(tree)), inner))
    if inner.kind != "number":
        raise Untranslatable(inner.kind)
    return Node("number", _strict(abs, inner))


def _function(function: Callable[..., float], *, least: float = -math.inf) -> Callable[[Translator, Any], Node]:
    def maker(t: Translator, tree: Any) -> Node:
        trees = [tree.this] + ([tree.expression] if tree.args.get("expression") is not None else [])
        nodes = [t.of(some, "number", "whole", "decimal") for some in trees]
        return Node("number", _strict(guarded(function, least=least), *(_double(node) for node in nodes)))

    return maker


def _rounding(function: Callable[[float], float]) -> Callable[[Translator, Any], Node]:
    def maker(t: Translator, tree: Any) -> Node:
        inner = t.node(tree.this)
        if inner.kind != "number" or any(value for name, value in tree.args.items() if name != "this"):
            raise Untranslatable("rounding")
        return Node("number", _strict(guarded(function), inner))

    return maker


# ---------------------------------------------------------------------------------------------------------- comparisons


def _pair(left: Node, right: Node) -> tuple[Node, Node, bool]:
    """Two nodes as they are compared, and whether NaN may be among them."""
    kinds = {left.kind, right.kind} - {"null"}
    if kinds <= set(_NUMERIC):
        if "number" in kinds:
            return _double(left), _double(right), True
        return left, right, False
    if len(kinds) == 1 and kinds <= {"text", "truth", "time"}:
        return left, right, False
    raise Untranslatable(str(kinds))


def _compare(function: Callable[[Any, Any], bool], left: Node, right: Node) -> Node:
    one, other, doubtful = _pair(left, right)
    return Node("truth", _strict(ordered(function) if doubtful else function, one, other))


def _comparison(function: Callable[[Any, Any], bool]) -> Callable[[Translator, Any], Node]:
    return lambda t, tree: _compare(function, t.node(tree.this), t.node(tree.expression))


def _both(left: Closure, right: Closure) -> Closure:
    def run(row: Mapping[str, Any]) -> bool | None:
        one, other = left(row), right(row)  # both, as the engine does: the second may fail
        if one is False or other is False:
            return False
        return None if one is None or other is None else True

    return run


def _either(left: Closure, right: Closure) -> Closure:
    def run(row: Mapping[str, Any]) -> bool | None:
        one, other = left(row), right(row)
        if one or other:
            return True
        return None if one is None or other is None else False

    return run


def _joined(join: Callable[[Closure, Closure], Closure]) -> Callable[[Translator, Any], Node]:
    return lambda t, tree: Node("truth", join(t.of(tree.this, "truth").run, t.of(tree.expression, "truth").run))


def _is(t: Translator, tree: Any) -> Node:
    if type(tree.expression).__name__ != "Null":
        raise Untranslatable("is")
    inner = t.node(tree.this).run
    return Node("truth", lambda row: inner(row) is None)


def _between(t: Translator, tree: Any) -> Node:
    if tree.args.get("symmetric"):
        raise Untranslatable("symmetric")
    value, low, high = t.node(tree.this), t.node(tree.args["low"]), t.node(tree.args["high"])
    unified = _unified([value, low, high])
    above, below = _compare(operator.ge, unified[0], unified[1]), _compare(operator.le, unified[0], unified[2])
    return Node("truth", _both(above.run, below.run))


def _among(t: Translator, tree: Any) -> Node:
    if not tree.expressions or any(tree.args.get(name) for name in ("query", "unnest", "field")):
        raise Untranslatable("in")
    value, *others = _unified([t.node(some) for some in (tree.this, *tree.expressions)])
    found = _compare(operator.eq, value, others[0]).run
    for other in others[1:]:
        found = _either(found, _compare(operator.eq, value, other).run)
    return Node("truth", found)


# --------------------------------------------------------------------------------------------------------------- choices


def _unified(nodes: Sequence[Node]) -> list[Node]:
    """Nodes as values of one type, as the engine makes them."""
    kinds = {node.kind for node in nodes} - {"null"}
    if len(kinds) <= 1:
        return list(nodes)
    if not kinds <= set(_NUMERIC):
        raise Untranslatable(str(kinds))
    if "number" not in kinds and not all(node.literal for node in nodes if node.kind == "whole"):
        raise Untranslatable("decimals")
    kind = "number" if "number" in kinds else "decimal"
    return [Node(kind, _double(node).run) for node in nodes]


def _kind(nodes: Sequence[Node]) -> str:
    return next((node.kind for node in nodes if node.kind != "null"), "null")


def _case(t: Translator, tree: Any) -> Node:
    ifs = tree.args.get("ifs", [tree])
    default = tree.args.get("default") if "ifs" in tree.args else tree.args.get("false")
    if "ifs" in tree.args and tree.this is not None:
        value, *cases = _unified([t.node(tree.this), *(t.node(branch.this) for branch in ifs)])
        tests = [_compare(operator.eq, value, case).run for case in cases]
    else:
        tests = [t.of(branch.this, "truth").run for branch in ifs]
    values = [t.node(branch.args["true"]) for branch in ifs]
    values = _unified([*values, t.node(default) if default is not None else _NULL])
    branches = [(test, value.run) for test, value in zip(tests, values, strict=False)]
    otherwise = values[-1].run

    def run(row: Mapping[str, Any]) -> Any:
        for test, value in branches:
            if test(row):
                return value(row)
        return otherwise(row)

    return Node(_kind(values), run)


def _coalesce(t: Translator, tree: Any) -> Node:
    nodes = _unified([t.node(some) for some in (tree.this, *tree.expressions)])
    runs = [node.run for node in nodes]

    def run(row: Mapping[str, Any]) -> Any:
        for each in runs:
            value = each(row)
            if value is not None:
                return value
        return None

    return Node(_kind(nodes), run)


def _nullif(t: Translator, tree: Any) -> Node:
    value, other = t.node(tree.this), t.node(tree.expression)
    if value.kind != other.kind:
        raise Untranslatable("nullif")
    same, inner = _compare(operator.eq, value, other).run, value.run
    return Node(value.kind, lambda row: None if same(row) else inner(row))


def _extreme(choose: Callable[[Any], Any]) -> Callable[[Translator, Any], Node]:
    def maker(t: Translator, tree: Any) -> Node:
        nodes = _unified([t.node(some) for some in (tree.this, *tree.expressions)])
        if _kind(nodes) not in ("whole", "number", "text", "time"):
            raise Untranslatable(_kind(nodes))
        runs = [node.run for node in nodes]

        def run(row: Mapping[str, Any]) -> Any:
            values = [value for value in (each(row) for each in runs) if value is not None]
            if any(value != value for value in values):  # noqa: PLR0124  # NaN
                raise Inexact("NaN")
            return choose(values) if values else None

        return Node(_kind(nodes), run)

    return maker


# ------------------------------------------------------------------------------------------------------- texts and casts


def _of_text(function: Callable[[str], Any], kind: str) -> Callable[[Translator, Any], Node]:
    return lambda t, tree: Node(kind, _strict(in_ascii(function), t.of(tree.this, "text")))


def _cast(t: Translator, tree: Any) -> Node:
    target = {"INT": "INTEGER", "TEXT": "VARCHAR"}.get(tree.to.this.value, str(tree.to.this.value))
    if tree.to.expressions or tree.to.args.get("nested"):
        raise Untranslatable("a type with parameters")
    if tree.this.is_string and target in ("TIMESTAMP", "TIMESTAMPNTZ", "TIMESTAMPTZ"):
        try:
            at = moment(str(tree.this.this))
        except ValueError:
            raise Untranslatable("a time") from None
        return Node("time", lambda _: at, True)
    inner = t.node(tree.this)
    if target == "DOUBLE":
        return _double(inner)
    makers: dict[tuple[str, str], Callable[[Any], Any]] = {("text", "VARCHAR"): str, ("truth", "BOOLEAN"): bool}
    makers |= {("whole", "VARCHAR"): str, ("truth", "VARCHAR"): lambda value: "true" if value else "false"}
    makers |= {("whole", "BOOLEAN"): bool, ("number", "BOOLEAN"): is_true}
    if target in _RANGES:
        low, high = _RANGES[target]
        makers |= {(kind, target): checked(make, low, high) for kind, make in
                   (("whole", int), ("truth", int), ("number", to_whole))}  # fmt: skip
    if (make := makers.get((inner.kind, target))) is None:
        raise Untranslatable(f"{inner.kind} to {target}")
    return Node(_KINDS[target], _strict(make, inner))


# ----------------------------------------------------------------------------------------------------------------- times


def _part(t: Translator, name: str, tree: Any) -> Node:
    if name.lower() not in PARTS:
        raise Untranslatable(name)
    return Node("whole", _strict(PARTS[name.lower()], t.of(tree, "time")))


def _named(name: str) -> Callable[[Translator, Any], Node]:
    return lambda t, tree: _part(t, name, tree.this)


def _anonymous(t: Translator, tree: Any) -> Node:
    name, given = str(tree.this).lower(), tree.expressions
    if name in ("date_part", "datepart") and len(given) == 2 and given[0].is_string:
        return _part(t, str(given[0].this), given[1])
    if name == "epoch_us" and len(given) == 1:
        return Node("whole", t.of(given[0], "time").run)
    if len(given) == 1:
        return _part(t, name, given[0])
    raise Untranslatable(name)


def _epoch(t: Translator, tree: Any) -> Node:
    """Seconds, by the steps of the engine's arithmetic, which are others for times with a zone, without one, and for spans."""
    inner = t.of(tree.this, "time", "span")
    if inner.kind == "span":
        return Node("number", _strict(span_seconds, inner))
    if t.bound.get(tree.this.sql(dialect="duckdb")) == "TIMESTAMP":
        return Node("number", _strict(lambda at: at / 1_000_000, inner))
    return Node("number", _strict(lambda at: at // 1000 / 1000 + at % 1000 / 1_000_000, inner))


def _difference(t: Translator, tree: Any) -> Node:
    unit = str(tree.args["unit"].name).lower().removesuffix("s")
    if unit not in UNITS or not tree.args.get("date_part_boundary"):
        raise Untranslatable(unit)
    size, left, right = UNITS[unit], t.of(tree.this, "time"), t.of(tree.expression, "time")
    return Node("whole", _strict(lambda end, begin: end // size - begin // size, left, right))


_NULL = Node("null", lambda _: None, True)


def _makers() -> dict[str, Callable[[Translator, Any], Node]]:
    parts = {"Hour": "hour", "Minute": "minute", "Second": "second", "Day": "day", "Month": "month", "Year": "year"}
    parts |= {"DayOfWeek": "dow", "DayOfWeekIso": "isodow", "DayOfYear": "doy", "DayOfMonth": "day"}
    comparisons = {"EQ": operator.eq, "NEQ": operator.ne, "LT": operator.lt, "LTE": operator.le}
    comparisons |= {"GT": operator.gt, "GTE": operator.ge}
    return {
        "Column": Translator.column,
        "Literal": _literal,
        "Boolean": lambda _, tree: Node("truth", (lambda _: True) if tree.this else (lambda _: False), True),
        "Null": lambda _, __: _NULL,
        "Paren": lambda t, tree: t.node(tree.this),
        "Add": _arithmetic(operator.add),
        "Sub": _arithmetic(operator.sub),
        "Mul": _arithmetic(operator.mul),
        "Div": _divided,
        "IntDiv": _whole_pair(whole_quotient),
        "Mod": _whole_pair(remainder),
        "Neg": _negated,
        "Abs": _absolute,
        "Round": _rounding(nearest),
        "Floor": _rounding(lambda value: float(math.floor(value))),
        "Ceil": _rounding(lambda value: float(math.ceil(value))),
        "Sqrt": _function(math.sqrt, least=0.0),
        "Exp": _function(math.exp),
        "Ln": _function(math.log, least=5e-324),
        "Sin": _function(math.sin),
        "Cos": _function(math.cos),
        "Pow": _function(math.pow),
        "And": _joined(_both),
        "Or": _joined(_either),
        "Not": lambda t, tree: Node("truth", _strict(operator.not_, t.of(tree.this, "truth"))),
        "Is": _is,
        "Between": _between,
        "In": _among,
        "Case": _case,
        "If": _case,
        "Coalesce": _coalesce,
        "Nullif": _nullif,
        "Least": _extreme(min),
        "Greatest": _extreme(max),
        "Lower": _of_text(str.lower, "text"),
        "Upper": _of_text(str.upper, "text"),
        "Length": _of_text(len, "whole"),
        "DPipe": lambda t, tree: Node("text", _strict(operator.add, t.of(tree.this, "text"), t.of(tree.expression, "text"))),
        "Cast": _cast,
        "TryCast": _cast,
        "Extract": lambda t, tree: _part(t, str(tree.this.name), tree.expression),
        "Anonymous": _anonymous,
        "TimeToUnix": _epoch,
        "DateDiff": _difference,
        **{name: _named(part) for name, part in parts.items()},
        **{name: _comparison(function) for name, function in comparisons.items()},
    }
