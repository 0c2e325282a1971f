"""What a user declares: one system, as data.

Nothing here reads, writes or computes. Constructors accept what they are given; ``noria check`` finds every mistake at once
and names its place. ``System.spec()`` is the whole declaration as plain data: hashable, printable, diffable.

It is one file, longer than others, because a reader wants everything that can be declared on one page.

Expressions are SQL in DuckDB's dialect. Durations are texts such as ``"10m"``, ``"8h"``, ``"14d"``, ``"2w"``.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from noria.core import digest

Task = Literal["binary", "multiclass", "regression"]
Names = str | Sequence[str] | Mapping[str, str]


def _pairs(by: Names) -> tuple[tuple[str, str], ...]:
    """(column of the predicted rows, column of the source) pairs from the three ways to write them."""
    if isinstance(by, str):
        return ((by, by),)
    if isinstance(by, Mapping):
        return tuple(by.items())
    return tuple((name, name) for name in by)


def _tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _slug(text: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


# ----------------------------------------------------------------------------------------------------- sources, features


@dataclass(frozen=True)
class Feature:
    """One feature, flattened: what every later step reads.

    ``op`` is ``column`` (a column of the predicted row), ``expression`` (SQL over the predicted row), ``last`` (newest row known)
    or ``window`` (an aggregate over what became known in ``window``, on a grid of ``every``). ``expr`` is SQL over the source's
    columns; ``by`` pairs columns of the predicted row with columns of the source.
    """

    name: str
    source: str
    op: Literal["column", "expression", "last", "window"]
    expr: str
    agg: Literal["count", "sum", "mean", "min", "max", "std"] | None = None
    by: tuple[tuple[str, str], ...] = ()
    window: str | None = None
    every: str | None = None
    max_age: str | None = None


@dataclass(frozen=True)
class FeatureSet:
    """Some features. ``named`` renames them in order; a window's set grows by ``count``, ``mean``, … calls."""

    features: tuple[Feature, ...] = ()
    base: Feature | None = None
    origin: Source | None = None

    def named(self, *names: str) -> FeatureSet:
        """Gives the last ``len(names)`` features these names."""
        kept = self.features[: len(self.features) - len(names)]
        renamed = tuple(replace(f, name=n) for f, n in zip(self.features[len(kept) :], names, strict=True))
        return replace(self, features=kept + renamed)

    def _add(self, agg: Any, expr: str) -> FeatureSet:
        if self.base is None:
            raise TypeError("only a window has aggregates: write source.window(...).mean(...)")
        by = "_".join(name for name, _ in self.base.by)
        parts = [self.base.source, agg, _slug(expr) if expr != "*" else "", "by", by, self.base.window or ""]
        name = "_".join(part for part in parts if part)
        return replace(self, features=(*self.features, replace(self.base, name=name, agg=agg, expr=expr)))

    def count(self, expr: str = "*") -> FeatureSet:
        """The number of rows, or of those where ``expr`` is not null."""
        return self._add("count", expr)

    def sum(self, expr: str) -> FeatureSet:
        return self._add("sum", expr)

    def mean(self, expr: str) -> FeatureSet:
        return self._add("mean", expr)

    def min(self, expr: str) -> FeatureSet:
        return self._add("min", expr)

    def max(self, expr: str) -> FeatureSet:
        return self._add("max", expr)

    def std(self, expr: str) -> FeatureSet:
        """The population standard deviation."""
        return self._add("std", expr)


@dataclass(frozen=True, eq=False)
class Source:
    """A table of events.

    Parameters
    ----------
    name:
        a-z, 0-9, ``.``, ``_``, ``-``.
    data:
        A path to Parquet or CSV (relative to the declaration's file; a glob is a growing set of files), a polars, pandas or Arrow
        frame, ``Query(url, sql)``, or ``None`` for a source whose rows come by HTTP.
    key:
        The column or columns that tell entities apart. A row is identified by key and time.
    time:
        The column saying when it happened. It must carry a time zone.
    known:
        When a row could be used: a delay after ``time`` (``"1h"``), or the name of a column with a time. Default: at ``time``.
    owner:
        Who answers for it. A source without an owner is refused at scoping.
    cost, regulation, note:
        The rest of the source's card, in words.
    """

    name: str
    data: Any = None
    key: str | Sequence[str] = ()
    time: str = "time"
    known: str | None = None
    owner: str = ""
    cost: str = ""
    regulation: str = ""
    note: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        return _tuple(self.key)

    def columns(self, *names: str) -> FeatureSet:
        """Columns of the predicted row, as they are."""
        return FeatureSet(tuple(Feature(n, self.name, "column", f'"{n}"') for n in names), None, self)

    def sql(self, expression: str) -> FeatureSet:
        """A SQL expression over the predicted row. Name it with ``named``."""
        return FeatureSet((Feature(_slug(expression), self.name, "expression", expression),), None, self)

    def last(self, *expressions: str, by: Names, max_age: str) -> FeatureSet:
        """The newest row known at the time of asking, not older than ``max_age``."""
        pairs = _pairs(by)
        made = (Feature(f"{self.name}_{_slug(e)}", self.name, "last", e, by=pairs, max_age=max_age) for e in expressions)
        return FeatureSet(tuple(made), None, self)

    def window(self, length: str, *, every: str, by: Names) -> FeatureSet:
        """What became known in the last ``length``, kept in tiles of width ``every``; follow with ``count``, ``mean``, …"""
        base = Feature("", self.name, "window", "*", by=_pairs(by), window=length, every=every)
        return FeatureSet((), base, self)


@dataclass(frozen=True)
class Query:
    """Rows from a database: ``Source("orders", Query("postgresql://…", "select …"), …)``."""

    url: str
    sql: str


@dataclass(frozen=True, eq=False)
class Every:
    """Asks on a schedule instead of on events: one prediction for each entity of ``of`` (optionally ``where``) per period.

    ``period`` is a duration, or ``"1mo"`` for the first of every month (00:00 UTC).
    """

    period: str
    of: Source
    where: str | None = None


@dataclass(frozen=True)
class Request:
    """Predictions are asked by HTTP only: the columns of a request with their SQL types, and its key.

    ``group`` names the column that ties the candidates of one request together (a ranking).
    """

    columns: Mapping[str, str]
    key: str | Sequence[str]
    group: str | None = None
    time: str = "asked_at"


@dataclass(frozen=True, eq=False)
class Label:
    """What is to be predicted, and when it becomes known.

    Parameters
    ----------
    source, expression:
        SQL over the source's columns, evaluated on the rows that match the prediction's key within ``(asked, asked + within]``.
    within:
        How long after asking the label may still come (over ``time``).
    otherwise:
        The label when nothing came: silence means this. ``None``: silence is a missing label.
    by:
        Column pairs when they are not the keys' own names.
    how:
        ``first`` row (default), or ``any`` / ``sum`` / ``count`` over the rows.
    lateness:
        How long after ``within`` rows may still arrive before the cohort closes.
    horizon:
        The label's rows begin this long after asking (a forecast for a day ahead).
    observed_when:
        SQL over act and columns: the label is seen only then; elsewhere it is *missing*, never negative.
    censored_when:
        SQL over the label source's columns: such a label is missing.
    affected_by_action:
        Whether acting changes the label. Then training and monitoring use the untreated part.
    task:
        ``binary``, ``multiclass`` or ``regression``; by default read off ``how`` and ``otherwise``.
    """

    source: Source
    expression: str
    within: str
    otherwise: Any = None
    by: Names | None = None
    how: Literal["first", "any", "sum", "count"] = "first"
    lateness: str = "0s"
    horizon: str = "0s"
    observed_when: str | None = None
    censored_when: str | None = None
    affected_by_action: bool = False
    task: Task | None = None

    @property
    def kind(self) -> Task:
        if self.task is not None:
            return self.task
        if self.how in ("sum", "count") or (isinstance(self.otherwise, int | float) and not isinstance(self.otherwise, bool)):
            return "regression"
        return "multiclass" if isinstance(self.otherwise, str) else "binary"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A value that becomes known later and enters ``Value`` (the price paid); found as a label is."""

    source: Source
    expression: str
    within: str
    otherwise: Any = None
    by: Names | None = None


# -------------------------------------------------------------------------------------------------- decisions, objective


@dataclass(frozen=True)
class Decide:
    """How a score becomes an act.

    ``policy`` is one of

    - ``"act when expected value > 0"``: acts where the expected value of acting exceeds that of not acting by more than the number;
    - ``"act when score > 0.3"``, or ``"act when score > best"``: a threshold, given or chosen for value on the validation part;
    - ``"largest expected value"``: among ``acts`` the one with the largest expected value (multiclass);
    - ``"score"``: the act is the score itself (regression), ``"quantile 0.8"``: the act is that quantile (regression);
    - ``"human"``: a person decides; the score is advice.

    ``explore`` is the share of predictions whose act is drawn at random, ``holdout`` the share of units that are never acted on.

    ``before`` is what is done before the first release: SQL over the predicted row and its features that says whether to act (a number where acts
    are numbers); without it nothing is done. It is logged as any act is, and the first rollout has to be worth more than it. Units held out are not acted
    on by it either, and it has no act where people decide (``policy="human"``, ``Serve.degree``).
    """

    policy: str = "act when expected value > 0"
    explore: float = 0.0
    holdout: float = 0.0
    acts: tuple[Any, ...] = (False, True)
    before: str | None = None


@dataclass(frozen=True)
class Value:
    """What a decision turned out to be worth: SQL over ``act``, ``label``, ``score``, the predicted row's columns and the outcomes.

    ``low`` and ``high`` bound it; when they are not given they are derived from the constants of the expression where possible.
    """

    sql: str
    currency: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class AtMost:
    """A bound from above: ``AtMost("latency_p99_ms", 20)``."""

    metric: str
    bound: float


@dataclass(frozen=True)
class AtLeast:
    """A bound from below: ``AtLeast("precision", 0.3)``."""

    metric: str
    bound: float


@dataclass(frozen=True)
class Fitness:
    """What only a person can say about whether ML is fit for the problem; what data can say is measured.

    Each text is empty when there is nothing to say. ``unethical`` stops the system until a second reviewer lifts it.
    """

    repetitive: bool = True
    cheap_errors: bool = True
    at_scale: bool = True
    changing_patterns: bool = True
    unethical: str = ""
    simpler_solution: str = ""
    only_for: str = ""


@dataclass(frozen=True)
class Objective:
    """What the business wants.

    Parameters
    ----------
    problem:
        The business problem in words. A charter without one is refused.
    value:
        What a decision is worth.
    metric:
        The ML metric: ``log_loss``, ``brier``, ``auc``, ``average_precision``, ``accuracy``, ``mae``, ``rmse``, ``pinball``.
    guardrails:
        Bounds that must hold whatever else improves: metrics, or ``latency_p99_ms``, ``bundle_mb``.
    slices:
        Columns whose every frequent value must hold too.
    sensitive:
        Columns that may not be features and are watched as slices.
    target:
        What is wanted of the metric, if somebody said so.
    human, existing:
        The metric of people, and of what is in use today, if known.
    fitness:
        A person's statements for the fitness test.
    """

    problem: str
    value: Value
    metric: str
    guardrails: Sequence[AtMost | AtLeast] = ()
    slices: Sequence[str] = ()
    sensitive: Sequence[str] = ()
    target: float | None = None
    human: float | None = None
    existing: float | None = None
    fitness: Fitness = Fitness()


# ------------------------------------------------------------------------------------------------------------ candidates


@dataclass(frozen=True)
class Candidate:
    """A recipe for a model. ``cost`` orders recipes from cheap (0) to costly: a costlier one must be superior to replace."""

    @property
    def name(self) -> str:
        return _slug(type(self).__name__)

    @property
    def is_baseline(self) -> bool:
        return False

    @property
    def cost(self) -> int:
        return 0


@dataclass(frozen=True)
class Prior(Candidate):
    """Baseline: the base rate (or the class frequencies, or the mean) of the training part."""

    @property
    def is_baseline(self) -> bool:
        return True


@dataclass(frozen=True)
class Last(Candidate):
    """Baseline: the last label *closed* at the time of asking, for the same ``by`` (or over all)."""

    by: Names = ()

    @property
    def is_baseline(self) -> bool:
        return True


@dataclass(frozen=True)
class Seasonal(Candidate):
    """Baseline: the mean of the closed labels of the same ``by`` at the same place in the season (``period``, e.g. ``"1w"``)."""

    period: str = "1w"
    by: Names = ()

    @property
    def is_baseline(self) -> bool:
        return True


@dataclass(frozen=True)
class Rule(Candidate):
    """Baseline: a rule of the user's, SQL over the features giving the score."""

    expression: str
    title: str = "rule"

    @property
    def name(self) -> str:
        return _slug(self.title)

    @property
    def is_baseline(self) -> bool:
        return True


@dataclass(frozen=True)
class Linear(Candidate):
    """Logistic or ridge regression on standardised numbers and one-hot categories; ``trials`` settings are tried."""

    trials: int = 8

    @property
    def cost(self) -> int:
        return 1


@dataclass(frozen=True)
class Boosting(Candidate):
    """Histogram gradient boosting; ``trials`` settings are tried, each with ``seeds`` seeds."""

    trials: int = 20
    seeds: int = 3

    @property
    def cost(self) -> int:
        return 2


@dataclass(frozen=True, eq=False)
class Estimator(Candidate):
    """Any scikit-learn estimator. A bare estimator among the candidates is wrapped in this."""

    estimator: Any = None
    title: str = ""

    @property
    def name(self) -> str:
        return _slug(self.title or type(self.estimator).__name__)

    @property
    def cost(self) -> int:
        return 3


# ----------------------------------------------------------------------------------------------- rules for going live


@dataclass(frozen=True)
class Parts:
    """The parts of a training set, in time order, each after a gap of the label's ``within``.

    ``train`` is the longest stretch to train on (``None``: everything), ``least`` the shortest.
    """

    train: str | None = None
    least: str = "28d"
    validate: str = "14d"
    test: str = "28d"
    fresh: str = "14d"


@dataclass(frozen=True)
class Gate:
    """What a candidate must show.

    ``margin`` is how much worse than the champion a refit may be and still count as not inferior, as a share of the
    champion's own gain over its best baseline. ``confidence`` is that of every interval; ``blocks`` the fewest blocks that give one.
    ``approval`` asks for a person's signature before a release.
    """

    margin: float = 0.1
    confidence: float = 0.95
    blocks: int = 10
    block: str = "1d"
    approval: bool = False


@dataclass(frozen=True)
class Rollout:
    """How a release goes live: shadow → canary steps → full.

    ``shadow`` is the shortest time in shadow, ``patience`` the longest; ``step`` how long each canary share is held at least;
    ``unit`` the column that is assigned to a variant (where units influence each other, the cluster they share); ``error`` the
    chance, over the whole rollout, of a wrong promotion or a wrong rollback.

    ``style`` is ``canary`` (the shares one after the other), ``blue-green`` (from shadow to everything at once, with the champion before kept
    ready to take over) or ``bandit`` (between the first and the last share, in proportion to the chance that the challenger is the
    better one: Thompson sampling, for when exploration should pay). ``switchback`` assigns whole stretches of time of that length
    instead of units, for when units share a budget or compete. ``covariate`` is SQL over the predicted row and its features,
    known before acting, that takes variance out of the comparison of arms (CUPED); the champion's score is used without one.
    """

    shadow: str = "14d"
    canary: Sequence[float] = (0.05, 0.25)
    unit: str | None = None
    step: str = "3d"
    patience: str = "56d"
    error: float = 0.05
    style: Literal["canary", "blue-green", "bandit"] = "canary"
    switchback: str | None = None
    covariate: str | None = None


@dataclass(frozen=True)
class Serve:
    """Who answers, and what answers when the model cannot.

    Parameters
    ----------
    degree:
        How much is automatic: ``human`` (people decide and see no score), ``shadow`` (the same, while the model's decisions are logged beside),
        ``assist`` (people decide and see the score), ``partial`` (the model decides where it is confident, people the rest), ``full``.
    confidence:
        With ``partial``: the least confidence (the largest class probability, 0 to 1) at which the model decides. What lies below waits in
        the review queue; the person's answer is the decision and becomes a label.
    fallback:
        What answers when the model fails or is late: ``"nothing"`` (not acting), ``"previous"`` (the champion before), or a ``Rule`` over the
        predicted row and its features.
    timeout:
        How long an answer may take before the fallback gives it.
    sticky:
        How long whoever got the fallback's answer keeps getting it, so that answers do not flicker.
    """

    degree: Literal["human", "shadow", "assist", "partial", "full"] = "full"
    confidence: float = 0.0
    fallback: str | Rule = "nothing"
    timeout: str = "500ms"
    sticky: str = "1m"


@dataclass(frozen=True)
class Combine:
    """Several objectives at once: beside the label's model one for each of these declared outcomes, trained on the same rows, added up when serving.

    The score is that of the label's log-odds plus each outcome's prediction times its weight. The weights lie apart from the models: ``noria weights``
    changes them, and with them the order of what is ranked, without training anything. For a binary label, a metric of order (``auc``,
    ``average_precision``) and a threshold policy, since such a score is no probability.
    """

    weights: Mapping[str, float]


@dataclass(frozen=True)
class Retrain:
    """When to train again.

    ``every`` is the schedule (``None``: never by the clock); ``on`` any of ``decay`` (closed performance is worse than at the gate),
    ``drift`` (inputs moved and stay moved), ``volume`` (closed labels grew by ``growth``); ``cooldown`` the least time between two
    trainings; ``budget`` the most trainings in 365 days.

    ``state`` is ``stateless`` (every training starts anew), ``stateful`` (it goes on from the champion's model, where the recipe can), or
    ``compare`` (both, and the gate's evidence decides). ``recalibrate`` lets the policy mend scores that are only miscalibrated by fitting the
    calibration anew instead of training.
    """

    every: str | None = "28d"
    on: Sequence[str] = ("decay", "drift", "volume")
    cooldown: str = "7d"
    growth: float = 1.0
    budget: int | None = None
    state: Literal["stateless", "stateful", "compare"] = "stateless"
    recalibrate: bool = True


@dataclass(frozen=True)
class Alerts:
    """How often Noria may cry wolf, and what people do when it speaks.

    Parameters
    ----------
    false_alarms, per:
        The budget: so many alerts at most in that time while nothing is wrong, over all that is watched together. Every threshold is set from it.
    severe:
        The value at stake in a window, in the value's currency, from which an alert pages somebody at once; ``None``: any harm pages.
    runbooks:
        What to do, by an alert's name, as text or as the address of a page; alerts without one get Noria's own.
    """

    false_alarms: float = 1.0
    per: str = "28d"
    severe: float | None = None
    runbooks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Costs:
    """What the machine learning itself costs, in the value's currency: for each prediction served, label obtained, training, and day of running it all."""

    prediction: float = 0.0
    label: float = 0.0
    training: float = 0.0
    day: float = 0.0

    @property
    def running(self) -> bool:
        """Whether anything but trainings costs something."""
        return bool(self.prediction or self.label or self.day)


# ---------------------------------------------------------------------------------------------------------- the system


@dataclass(frozen=True, eq=False)
class System:
    """One ML application, whole. See the module's classes for each part.

    ``every`` is the length of a cohort and of a monitoring window. ``folder`` is where relative paths of sources start; the
    command line sets it to the declaration's folder.
    """

    name: str
    predict: Source | Every | Request
    label: Label
    features: Sequence[FeatureSet]
    objective: Objective
    candidates: Sequence[Any]
    decide: Decide = Decide()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    parts: Parts = Parts()
    gate: Gate = Gate()
    rollout: Rollout = Rollout()
    serve: Serve = Serve()
    retrain: Retrain = Retrain()
    alerts: Alerts = Alerts()
    costs: Costs = Costs()
    combine: Combine | None = None
    every: str = "1d"
    folder: Path = Path()

    @property
    def task(self) -> Task:
        return self.label.kind

    @cached_property
    def flat_features(self) -> tuple[Feature, ...]:
        """Every feature, in order of declaration."""
        return tuple(feature for some in self.features for feature in some.features)

    @cached_property
    def recipes(self) -> tuple[Candidate, ...]:
        """Every candidate; bare scikit-learn estimators are wrapped."""
        return tuple(c if isinstance(c, Candidate) else Estimator(c) for c in self.candidates)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """Every source that is named anywhere, by name, in a stable order."""
        found: list[Source] = []
        if isinstance(self.predict, Source):
            found.append(self.predict)
        elif isinstance(self.predict, Every):
            found.append(self.predict.of)
        found += [self.label.source, *(outcome.source for outcome in self.outcomes.values())]
        found += [some.origin for some in self.features if some.origin is not None]
        return {source.name: source for source in found}

    def spec(self) -> dict[str, Any]:
        """The declaration as plain data. Where it lies and how its data is stored are not part of it."""
        apart = ("folder", "candidates", "features")
        spec = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in apart}
        sources = {name: _plain(source) for name, source in self.sources.items()}
        made = {"features": _plain(self.flat_features), "candidates": _plain(self.recipes), "sources": sources}
        return spec | made

    @cached_property
    def id(self) -> str:
        """The hash of ``spec()``: another declaration is another id."""
        return digest(self.spec())


def _plain(value: Any) -> Any:
    """Plain data for a part of a declaration; callables and estimators by import path, parameters and source hash."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Source):
        kept = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name != "data"}
        return kept | {"data": value.data if isinstance(value.data, str) else _described(value.data)}
    if is_dataclass(value) and not isinstance(value, type):
        body = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return {"is": type(value).__name__} | body if isinstance(value, Candidate) else body
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return _described(value)


def _described(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Query):
        return {"sql": value.sql}
    if isinstance(value, Path):
        return value.as_posix()
    kind = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    described: dict[str, Any] = {"is": f"{kind.__module__}.{kind.__qualname__}"}
    if hasattr(value, "get_params"):
        described["params"] = {name: _plain(item) for name, item in sorted(value.get_params(deep=False).items())}
        described["code"] = _code_hash(kind)
    elif inspect.isroutine(value):
        described["code"] = _code_hash(kind)
    return described


def _code_hash(kind: type | Callable[..., Any]) -> str:
    try:
        return hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
