"""Every kind of record that the steps exchange: the contract between the rooms, on one page.

A record is immutable and typed. What surrounds it in the ledger is an ``Entry``: id, key, logical time, parents. The id is
the hash of the logical content (kind, key, time, parents, payload), so two runs over the same history give the same ids.
Nothing physical (seconds, bytes, file paths of a home, versions of tables) is ever in a record.

The kinds, by the step that writes them:

=============  ====================================================================================================
the wheel      Declared, Turned, Diagnosed, Approved, Stated
scoping        Charter
data           SchemaFrozen, Ingested, Blocked, Verified, CohortClosed, Relabelled, Snapshot, TrainingSet
development    Tuned, Trained, TestOpened, Evaluated, Analysed, Gated, Reproduced
deployment     Scored, RolloutMoved, Released, Drilled
monitoring     Monitored, Alerted, Retraining
business       Valued, Linked
=============  ====================================================================================================

It is one file, longer than others, because a reader wants the whole contract on one page.

Fields that a later version of Noria adds have defaults, and unknown fields are ignored, so that old ledgers stay readable.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from noria.core import Check, Estimate, Verdict, Window, digest


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """The root of all kinds. ``STEP`` names the room that writes the kind."""

    STEP: ClassVar[str] = ""


R_co = TypeVar("R_co", bound=Record, covariant=True)
Step = Literal["scoping", "data", "development", "deployment", "monitoring", "business"]

# ------------------------------------------------------------------------------------------------------------ the wheel


class Declared(Record, frozen=True, kw_only=True, tag="declared"):
    """A declaration came into force. ``spec`` is ``System.spec()``; ``previous`` the declaration it replaces."""

    STEP = "wheel"
    system: str
    declaration: str
    spec: dict[str, Any]
    previous: str | None = None


class Turned(Record, frozen=True, kw_only=True, tag="turned"):
    """One turn that did something: the steps that acted, and where it stopped (a step and a sentence) if it did."""

    STEP = "wheel"
    did: tuple[str, ...]
    stopped: str = ""
    reason: str = ""


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """A possible cause of a symptom.

    ``verdict`` is FAIL when its tests found it at work, PASS when they cleared it, NOT_ENOUGH_DATA when they could not say.
    ``weight`` is the probability that this is what is behind the symptoms (0 to 1, summing to at most 1 over a diagnosis); ``step`` is where to go
    back to, ``act`` what to do there, ``runbook`` the section of the docs that says how. Checks that failed speak for the cause, those that
    passed against it.
    """

    name: str
    verdict: Verdict
    weight: float
    step: Step
    act: str
    evidence: tuple[Check, ...] = ()
    runbook: str = ""


class Diagnosed(Record, frozen=True, kw_only=True, tag="diagnosed"):
    """From symptoms (keys of alerts, gates, rollouts) to ranked causes and the step to return to.

    ``blocks_retraining`` is set when the first cause is a fault of data, labels or software: training on it would learn the fault.
    """

    STEP = "wheel"
    symptoms: tuple[str, ...]
    window: Window
    causes: tuple[Cause, ...]
    back_to: Step
    account: str
    blocks_retraining: bool = False


class Approved(Record, frozen=True, kw_only=True, tag="approved"):
    """A person signed: a release, a lifted stop, an acknowledged alert. ``subject`` is the key of what was signed, ``until`` when it lapses."""

    STEP = "wheel"
    subject: str
    by: str
    note: str = ""
    granted: bool = True
    until: datetime | None = None


class Stated(Record, frozen=True, kw_only=True, tag="stated"):
    """A person states what no machine can see: that a test of the ML Test Score is done by hand and documented. Counts until ``until``."""

    STEP = "wheel"
    test: str
    by: str
    note: str
    until: datetime


# -------------------------------------------------------------------------------------------------------------- scoping


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a trivial policy or baseline does: its ML metric and its value per prediction."""

    name: str
    metric: Estimate | None = None
    value: Estimate | None = None


class Charter(Record, frozen=True, kw_only=True, tag="charter"):
    """Is ML worth it here: the verdict (PASS is go) with everything it rests on.

    ``decision`` is ``go``, ``no-go`` or ``partial``. ``labels`` has counts and the delay's quantiles in hours. ``break_even`` is the
    least discrimination (AUC; R² for regression) at which deciding by the model makes more than the best trivial policy, ``None``
    when no discrimination would. ``alternatives`` are other framings with a sentence each.
    """

    STEP = "scoping"
    declaration: str
    decision: Literal["go", "no-go", "partial"]
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    fitness: float
    task: str
    framing: str
    alternatives: tuple[str, ...]
    base_rate: Estimate
    labels: dict[str, float]
    baselines: tuple[Standing, ...]
    policies: tuple[Standing, ...]
    break_even: float | None
    reachable: Estimate | None = None
    requirements: dict[str, float] = {}


# ----------------------------------------------------------------------------------------------------------------- data


class SchemaFrozen(Record, frozen=True, kw_only=True, tag="schema_frozen"):
    """The schema of a source at its first acceptance, or a later version of it with what changed."""

    STEP = "data"
    source: str
    version: int
    columns: dict[str, str]
    changes: tuple[str, ...] = ()


class RawFile(msgspec.Struct, frozen=True):
    """A file that rows came from: its name relative to the declaration, its bytes' sha256."""

    name: str
    sha256: str


class ColumnDay(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column of a source on one day: missing values, range and mean of numbers, counts of values (``None``: not texts, or too many).

    ``quantiles`` are those of numbers at 10, 25, 50, 75 and 90 %; ``numbers`` counts the values of a number that takes few of them;
    ``shapes`` counts how texts of many values are written (letters as ``A``, digits as ``9``); ``moved`` is the share of rows that say
    otherwise than the row before under the same key (of the source, where keys come once a day).
    """

    nulls: int = 0
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    values: dict[str, int] | None = None
    quantiles: tuple[float, ...] = ()
    numbers: dict[str, int] | None = None
    shapes: dict[str, int] | None = None
    moved: float | None = None


class DaySummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rows of a batch that became known on one UTC day (``day`` is its end); ``newest`` is the last time among them.

    ``hours`` counts the rows by the UTC hour of their own time; ``again`` those that repeat an earlier row of the day in all but its time.
    """

    day: datetime
    n: int
    newest: datetime
    columns: dict[str, ColumnDay]
    hours: tuple[int, ...] = ()
    again: int = 0


class Ingested(Record, frozen=True, kw_only=True, tag="ingested"):
    """What came in from one source up to a time. ``received = accepted + quarantined``; ``reasons`` counts the quarantined.

    ``first`` and ``last`` bound the rows' own times; ``late`` counts rows that arrived after a turn that should have seen them;
    ``restated`` those under the key and time of an earlier row. ``rows`` is the hash of the accepted rows. ``days`` summarises the accepted rows by day:
    what verification compares later days with.
    """

    STEP = "data"
    source: str
    upto: datetime
    received: int
    accepted: int
    quarantined: int
    reasons: dict[str, int]
    files: tuple[RawFile, ...]
    rows: str
    first: datetime | None = None
    last: datetime | None = None
    late: int = 0
    restated: int = 0
    days: tuple[DaySummary, ...] = ()


class Blocked(Record, frozen=True, kw_only=True, tag="blocked"):
    """Data came that cannot be used (unreadable file, missing or retyped column): the turn stopped. Nothing was taken in."""

    STEP = "data"
    source: str
    reason: str
    where: str
    hint: str


class Verified(Record, frozen=True, kw_only=True, tag="verified"):
    """Verification of what a source brought, against its reference. Only failures and unknowns are listed in ``checks``."""

    STEP = "data"
    source: str
    upto: datetime
    verdict: Verdict
    tested: int
    checks: tuple[Check, ...]


class CohortClosed(Record, frozen=True, kw_only=True, tag="cohort_closed"):
    """All labels of the predictions asked in ``window`` are as known as they will be. A higher ``revision`` replaces a lower one.

    ``labelled`` of ``n`` predictions have a label; ``silent`` of those got it by silence; ``mean`` is the labels' mean (share of true,
    for binary); ``delay`` has the quantiles of the delay in hours among those that came.
    """

    STEP = "data"
    window: Window
    revision: int
    n: int
    labelled: int
    silent: int
    mean: float | None
    delay: dict[str, float]
    rows: str


class Relabelled(Record, frozen=True, kw_only=True, tag="relabelled"):
    """A batch of labels was corrected from a file: who, why, how many; ``cohorts`` are the ends of the windows that get a new revision by it."""

    STEP = "data"
    batch: str
    by: str
    note: str
    n: int
    changed: int
    rows: str
    cohorts: tuple[datetime, ...]


class Snapshot(Record, frozen=True, kw_only=True, tag="snapshot"):
    """An immutable version of the tables: for each its head, the chained hash of everything ever committed to it."""

    STEP = "data"
    tables: dict[str, str]


class Part(msgspec.Struct, frozen=True):
    """One part of a training set: rows asked within ``window``, their number and the hash of their content."""

    name: Literal["train", "validate", "test", "fresh"]
    window: Window
    n: int
    rows: str


class TrainingSet(Record, frozen=True, kw_only=True, tag="training_set"):
    """Four parts in time order with gaps. ``features`` is the id of the feature plan, ``columns`` its names in order.

    ``dropped`` counts the rows that did not enter, by reason.
    """

    STEP = "data"
    features: str
    columns: tuple[str, ...]
    parts: tuple[Part, ...]
    gap: str
    dropped: dict[str, int]


# ---------------------------------------------------------------------------------------------------------- development


class Tuned(Record, frozen=True, kw_only=True, tag="tuned"):
    """A search over settings on the validation part: what was tried, and what was best. Later refits reuse ``best``."""

    STEP = "development"
    recipe: str
    declaration: str
    best: dict[str, Any]
    score: float
    trials: int
    spread: float | None = None


class Trained(Record, frozen=True, kw_only=True, tag="trained"):
    """A fitted candidate. ``bundle`` is the sha256 of its archive; ``decision`` what was chosen on the validation part."""

    STEP = "development"
    candidate: str
    recipe: str
    baseline: bool
    cost: int
    settings: dict[str, Any]
    bundle: str
    decision: dict[str, Any]
    trained_until: datetime


class TestOpened(Record, frozen=True, kw_only=True, tag="test_opened"):
    """The test part was opened for a candidate. ``count`` says how often this part has been opened, by anybody."""

    STEP = "development"
    candidate: str
    part: str
    count: int


class SliceResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a candidate does on one slice."""

    column: str
    value: str
    n: int
    metrics: dict[str, Estimate]


class Evaluated(Record, frozen=True, kw_only=True, tag="evaluated"):
    """A candidate on one part, out of sample: metrics with intervals over blocks of time, value per prediction, slices, calibration.

    ``calibration`` lists (mean score, mean label, n) per bin. ``daily`` lists the metric's and the value's mean per block: the
    performance reference of monitoring.
    """

    STEP = "development"
    candidate: str
    part: str
    n: int
    blocks: int
    metrics: dict[str, Estimate]
    value: Estimate | None
    slices: tuple[SliceResult, ...] = ()
    calibration: tuple[tuple[float, float, int], ...] = ()
    daily: dict[str, tuple[float, ...]] = {}


class Reproduced(Record, frozen=True, kw_only=True, tag="reproduced"):
    """A candidate was trained again from its training set: PASS when the bundle is the same byte by byte."""

    STEP = "development"
    candidate: str
    bundle: str
    again: str
    verdict: Verdict
    says: str


class ErrorTag(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a candidate's errors lie: the rows with a tag, their share of all the loss, and the room there is.

    ``room`` is the share of the loss that would go if these rows did as well as the others (``wrong labels``: if they were right), ``act``
    what would be done about it.
    """

    tag: str
    n: int
    share: float
    room: Estimate
    act: str


class Analysed(Record, frozen=True, kw_only=True, tag="analysed"):
    """The error analysis of a candidate, out of sample: tags in the order of the room they leave; fully known only where an interval is.

    ``doubted`` is the share of labels that confident learning doubts: an upper bound, since classes may overlap by nature. ``noise`` is the share shown
    to be wrong, from groups (a rater, a batch) that disagree more than the others on rows alike; ``groups`` has each one's share.
    """

    STEP = "development"
    candidate: str
    n: int
    doubted: float
    noise: Estimate
    groups: dict[str, Estimate]
    tags: tuple[ErrorTag, ...]
    suspects: str = ""


class Gated(Record, frozen=True, kw_only=True, tag="gated"):
    """The gate's verdict on a candidate, with every check behind it. ``against`` is the champion's bundle, if there was one."""

    STEP = "development"
    candidate: str
    bundle: str
    verdict: Verdict
    checks: tuple[Check, ...]
    against: str | None = None


# ----------------------------------------------------------------------------------------------------------- deployment


class Scored(Record, frozen=True, kw_only=True, tag="scored"):
    """The predictions asked in ``window`` were scored and logged. ``variants`` counts rows by variant, ``releases`` by bundle.

    ``late`` counts rows scored more than a cohort's length after they were asked, ``unknown`` categories never seen in training,
    ``refused`` rows that could not be scored, ``fallbacks`` rows that the fallback answered, ``reviews`` rows that wait for a person.
    """

    STEP = "deployment"
    window: Window
    n: int
    rows: str
    variants: dict[str, int]
    releases: dict[str, int] = {}
    acts: dict[str, float]
    late: int = 0
    unknown: int = 0
    refused: int = 0
    fallbacks: int = 0
    reviews: int = 0


Stage = Literal["shadow", "canary", "full", "rolled back", "withdrawn"]


class RolloutMoved(Record, frozen=True, kw_only=True, tag="rollout_moved"):
    """A rollout came into a stage. ``rollout`` numbers it; ``share`` is the challenger's part of the units from now on.

    ``step`` counts canary shares from 0. ``champion`` is ``None`` when the challenger runs against doing nothing.
    """

    STEP = "deployment"
    rollout: int
    stage: Stage
    share: float
    step: int
    challenger: str
    champion: str | None
    verdict: Verdict
    checks: tuple[Check, ...]
    reason: str


class Released(Record, frozen=True, kw_only=True, tag="released"):
    """From ``at`` on, ``bundle`` is the champion. ``number`` counts releases; ``reason`` is promotion, rollback or by hand."""

    STEP = "deployment"
    number: int
    bundle: str
    previous: str | None
    reason: str
    by: str = ""


class Drilled(Record, frozen=True, kw_only=True, tag="drilled"):
    """A rollback was rehearsed on a copy, under load: whether it held (no failed request, every later answer from the release gone back to).

    How many seconds it took lies beside the ledger, as every measurement does.
    """

    STEP = "deployment"
    release: int
    back_to: str
    verdict: Verdict
    checks: tuple[Check, ...]
    by: str = ""


# ----------------------------------------------------------------------------------------------------------- monitoring


class Signal(msgspec.Struct, frozen=True, omit_defaults=True):
    """One watched number in one window. ``bound`` is its threshold when there is one, ``low`` and ``high`` its interval when it has one.

    ``level`` is ``input``, ``feature``, ``prediction``, ``outcome`` or ``operation``. ``impact`` estimates how much of the release's loss moves
    with it (a share, 0 to 1): what orders the signals of a window. ``note`` says why there is no verdict.
    """

    name: str
    subject: str
    level: Literal["input", "feature", "prediction", "outcome", "operation"]
    value: float | None
    bound: float | None = None
    verdict: Verdict = Verdict.NOT_ENOUGH_DATA
    low: float | None = None
    high: float | None = None
    impact: float | None = None
    note: str = ""


class Monitored(Record, frozen=True, kw_only=True, tag="monitored"):
    """What was seen in one window. ``about`` is ``traffic`` (as soon as scored) or ``outcomes`` (once the cohort closed).

    ``profile`` is the sha256 of the window's profile over the bins of its release (traffic; empty without a reference).
    """

    STEP = "monitoring"
    window: Window
    about: Literal["traffic", "outcomes"]
    release: str | None
    n: int
    signals: tuple[Signal, ...]
    revision: int = 0
    profile: str = ""


class Alerted(Record, frozen=True, kw_only=True, tag="alerted"):
    """An alert opened, resolved, was acknowledged or muted. One fault is one alert: all its entries share ``alert``.

    ``harm`` marks an alert that pages; the others are facts for the next look. ``size`` is in the units of ``name``'s signal. ``until`` is
    the end of the last window that was looked at. ``slice`` is the part of the rows where it is worst (``column=value``), ``cost`` the value
    lost per window since ``since``, ``severity`` follows from it; ``runbook`` says what to do, ``with_it`` names what the same fault also
    moved. A muted alert is not delivered again before ``muted_until``.
    """

    STEP = "monitoring"
    alert: str
    name: str
    subject: str
    state: Literal["open", "resolved", "acknowledged", "muted"]
    since: datetime
    harm: bool
    size: Estimate
    bound: float | None
    message: str
    level: str = ""
    until: datetime | None = None
    slice: str = ""
    cost: Estimate | None = None
    severity: Literal["", "page", "ticket", "note"] = ""
    runbook: str = ""
    with_it: tuple[str, ...] = ()
    muted_until: datetime | None = None


class Retraining(Record, frozen=True, kw_only=True, tag="retraining"):
    """The retraining policy spoke: ``go`` with its triggers, ``recalibrate`` (the cheaper act), or ``blocked`` with the reason (a data fault, a
    cool-down, the budget).
    """

    STEP = "monitoring"
    decision: Literal["go", "recalibrate", "blocked"]
    triggers: tuple[str, ...]
    reason: str
    tune: bool = False


# ------------------------------------------------------------------------------------------------------------- business


class Valued(Record, frozen=True, kw_only=True, tag="valued"):
    """What the decisions of the closed cohorts in ``window`` were worth.

    ``total`` is money (or what the business counts) over the window; ``per_prediction`` has the interval over blocks; ``releases`` splits by
    bundle (``""`` before the first release); ``policies`` are the references: ``do nothing``, ``always act``, ``perfect``. ``sums`` has, by
    release, what later sums are made of: ``n`` and the totals ``value`` and of each policy over the same rows.
    """

    STEP = "business"
    window: Window
    n: int
    currency: str
    total: float
    per_prediction: Estimate
    releases: tuple[Standing, ...]
    policies: tuple[Standing, ...]
    revision: int = 0
    sums: dict[str, dict[str, float]] = {}


class Linked(Record, frozen=True, kw_only=True, tag="linked"):
    """The link from the ML metric to the business metric, estimated over what closed by ``window``'s end.

    ``slope`` is how many standard deviations of the value per prediction one standard deviation of the metric (higher is better) brings,
    over ``pairs`` comparisons between versions, variants and windows; ``by`` splits it by kind of comparison. PASS: a better metric brings a better
    value. FAIL: the link is broken (one up, the other down), or a better metric brings nothing; ``account`` begins with which.
    """

    STEP = "business"
    window: Window
    metric: str
    slope: Estimate
    pairs: int
    verdict: Verdict
    by: dict[str, Estimate] = {}
    account: str = ""


KINDS: tuple[type[Record], ...] = (
    Declared,
    Turned,
    Diagnosed,
    Approved,
    Stated,
    Charter,
    SchemaFrozen,
    Ingested,
    Blocked,
    Verified,
    CohortClosed,
    Relabelled,
    Snapshot,
    TrainingSet,
    Tuned,
    Trained,
    TestOpened,
    Evaluated,
    Analysed,
    Gated,
    Reproduced,
    Scored,
    RolloutMoved,
    Released,
    Drilled,
    Monitored,
    Alerted,
    Retraining,
    Valued,
    Linked,
)


def kind_of(record: Record | type[Record]) -> str:
    """The kind's name as it is stored: ``kind_of(Charter) == "charter"``."""
    return str(record.__struct_config__.tag)


class Entry(msgspec.Struct, Generic[R_co], frozen=True):
    """A record in the ledger.

    ``id`` is the hash of the logical content; ``key`` says which effect this is (unique in the ledger); ``at`` is the logical time;
    ``parents`` are the ids of the entries it was made from; ``seq`` is its place in this ledger (not part of the id).
    """

    id: str
    key: str
    at: datetime
    parents: tuple[str, ...]
    record: R_co
    seq: int = 0

    @property
    def kind(self) -> str:
        return kind_of(self.record)


def entry_id(record: Record, key: str, at: datetime, parents: tuple[str, ...]) -> str:
    """The id of a record: 64 hexadecimal digits of its logical content."""
    return digest([key, at, sorted(parents), record])
