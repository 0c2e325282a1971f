"""``estimate``: what another decision policy, or another bundle's, would have made on the predictions whose labels are closed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from noria.cli.common import DEFAULT_FILE, FileArgument, HomeOption, JsonOption, day, opened, show
from noria.core import DataFault, NotEnoughData, Verdict, Window, parse_time
from noria.core.window import EPOCH
from noria.measure import Decision, OtherPolicy
from noria.store import Home
from noria.system import System

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from noria.deployment.bundles import Bundles

    Floats = NDArray[np.float64]


class Estimated(msgspec.Struct, frozen=True):
    """What is printed: the policy that was asked about, on which rows, and what it would have made."""

    policy: str
    bundle: str
    currency: str
    window: Window
    found: OtherPolicy


def estimate(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    policy: Annotated[
        str | None,
        Parameter(
            help='Another policy, as a declaration writes it: "act when score > 0.4". Default: that of the bundle that answered.'
        ),
    ] = None,
    bundle: Annotated[
        str | None, Parameter(help="Another bundle's scores: its sha256, or the beginning of it. Default: the logged scores.")
    ] = None,
    start: Annotated[
        str | None, Parameter(name="--from", help="Predictions asked from then on. Default: from the first release.")
    ] = None,
    end: Annotated[
        str | None, Parameter(name="--to", help="Predictions asked until then. Default: until the last closed.")
    ] = None,
    clip: Annotated[
        float | None, Parameter(help="The largest weight of a row. It makes intervals narrower, and wrong by more than they say.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Estimates what another policy, or another bundle, would have made on closed predictions, without exploration.

    By pairing, where acting changes neither the label nor whether it is seen; and from the chance with which each act was taken: by inverse propensity
    (IPS), self-normalised (SNIPS) and doubly robust (DR). A bundle is asked only about what came after it was trained.
    """
    with opened(file, home, computes=True) as (store, system):
        made = _estimated(store, system, policy, bundle, start=start, end=end, clip=clip)
    show(made, lambda: _shown(made), as_json=json)
    return 0


def _estimated(
    home: Home, system: System, policy: str | None, bundle: str | None, *, start: str | None, end: str | None, clip: float | None
) -> Estimated:
    import numpy as np
    import polars as pl

    from noria.cli.decide import bundle_named
    from noria.deployment.bundles import Bundles
    from noria.measure import closed, closed_until, other_policy

    if clip is not None and clip <= 0:
        raise DataFault(f"weights cannot be clipped at {clip:g}", hint="give a number above 0, for example --clip 20")
    _readable(policy)
    until = closed_until(home)
    if until is None:
        raise NotEnoughData("no label is closed yet", hint="run `noria labels` to see how mature they are")
    sha256 = bundle_named(home, bundle) if bundle is not None else ""
    first = parse_time(start) if start is not None else EPOCH
    last = parse_time(end) if end is not None else until
    first = max(first, _trained(home, sha256)) if sha256 else first
    frame = closed(home, system, Window(first, last)) if first < last else None
    frame = None if frame is None else frame.filter(pl.col("_release").fill_null("") != "")
    if frame is None or frame.is_empty():
        raise NotEnoughData(
            f"no closed prediction of a release was asked after {day(first)} and until {day(last)}",
            hint="give another span; a bundle is asked only about what came after it was trained",
        )
    bundles = Bundles(home)
    raw, known = _logged(system, frame), None
    if sha256:
        raw, known = _scores(home, system, bundles, sha256, frame, Window(first, last))
    act = _acts(system, bundles, policy, sha256, raw, frame)
    act = act if known is None else np.where(known, act, np.nan)
    found = other_policy(home.engine, system, frame, act, worth=_worth(system, bundles, frame), clip=clip)
    said = policy or system.decide.policy
    asked = start is not None and first == parse_time(start)
    span = Window(first if asked else frame["_time"][0], last)
    return Estimated(said, sha256, system.objective.value.currency, span, found)


def _readable(policy: str | None) -> None:
    """Raises ``DataFault`` unless the text is a policy that can be followed without being chosen first."""
    from noria.measure import parse_policy

    if policy is None:
        return
    try:
        parsed = parse_policy(policy)
    except ValueError as error:
        raise DataFault(str(error), hint='write for example --policy "act when score > 0.4"') from None
    if parsed.kind in ("human", "quantile") or (parsed.kind == "threshold" and parsed.bound is None):
        raise DataFault(
            f"{policy!r} does not say how to act on a score", hint='write for example --policy "act when score > 0.4"'
        )


def _trained(home: Home, sha256: str) -> datetime:
    """When the bundle was made: what was asked before may have taught it."""
    from noria.records import Trained

    return max(entry.at for entry in home.ledger.read(Trained) if entry.record.bundle == sha256)


def _logged(system: System, frame: pl.DataFrame, *, prefix: str = "_") -> Floats:
    """The scores as they were logged, (n,) or (n, classes)."""
    import numpy as np
    import polars as pl

    if system.task != "multiclass":
        return frame[f"{prefix}score"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    lists = frame[f"{prefix}scores"].to_list()
    width = next((len(some) for some in lists if some is not None), 1)
    return np.array([some if some is not None else [np.nan] * width for some in lists], float)


def _scores(  # noqa: PLR0917
    home: Home, system: System, bundles: Bundles, sha256: str, frame: pl.DataFrame, window: Window
) -> tuple[Floats, NDArray[np.bool_]]:
    """What the bundle says of the rows, and of which it says something: as it was logged or shadowed, else from the features as served."""
    import numpy as np

    from noria.deployment.bundles import answer
    from noria.measure import closed

    answers = answer(system, bundles, sha256, frame)
    raw = np.array(answers.score if answers.scores is None else answers.scores, float)
    known = np.isfinite(raw if raw.ndim == 1 else raw[:, 0])
    place = {name: k for k, name in enumerate(frame["_id"].to_list())}
    quiet = closed(home, system, window, columns=["_id"], shadow_of=sha256)
    for source, prefix in ((frame.filter(frame["_release"] == sha256), "_"), (quiet, "_shadow_")):
        at = np.array([place.get(name, -1) for name in source["_id"].to_list()], int)
        if not (at >= 0).any():
            continue
        said = _logged(system, source, prefix=prefix)
        if raw.shape[1:] != said.shape[1:]:  # the bundle itself could not be asked
            raw = np.full((frame.height, *said.shape[1:]), np.nan)
        raw[at[at >= 0]], known[at[at >= 0]] = said[at >= 0], True
    return raw, known


def _acts(  # noqa: PLR0917
    system: System, bundles: Bundles, policy: str | None, sha256: str, raw: Floats, frame: pl.DataFrame
) -> Floats:
    """The other policy's act of each row, with what the bundle that scores it knows (classes, means of outcomes)."""
    import numpy as np

    from noria.deployment.bundles import policy_act

    acts = np.full(frame.height, np.nan)
    for release, rows in _by_release(frame) if not sha256 else [(sha256, np.arange(frame.height))]:
        decision = _decision(bundles, release, policy)
        acts[rows] = policy_act(bundles, system, decision, raw[rows], frame[rows.tolist()])
    return acts


def _decision(bundles: Bundles, release: str, policy: str | None) -> Decision:
    from noria.deployment.bundles import decision_of
    from noria.measure import parse_policy

    chosen = decision_of(bundles.get(release))
    if policy is None:
        return chosen
    parsed = parse_policy(policy)
    return msgspec.structs.replace(chosen, kind=parsed.kind, threshold=parsed.bound, quantile=None, offset=0.0)


def _by_release(frame: pl.DataFrame) -> list[tuple[str, NDArray[np.int64]]]:
    import numpy as np

    releases = np.array(frame["_release"].to_list(), dtype=str)
    return [(str(release), np.flatnonzero(releases == release)) for release in np.unique(releases)]


def _worth(system: System, bundles: Bundles, frame: pl.DataFrame) -> Floats | None:
    """What the model that answered expected of each act before it was taken: it saw none of these outcomes."""
    import numpy as np

    from noria.deployment.bundles import decision_of
    from noria.measure import numeric_act, worth_of_acts

    if numeric_act(system):
        return None
    raw = _logged(system, frame)
    made = np.zeros((frame.height, len(system.decide.acts)))
    for release, rows in _by_release(frame):
        decision = decision_of(bundles.get(release))
        made[rows] = worth_of_acts(bundles.home.engine, system, decision, raw[rows], frame[rows.tolist()])
    return made


def _shown(made: Estimated) -> Any:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from noria.cli.steps import checks_table

    found = made.found
    scores = f" on the scores of {made.bundle[:12]}" if made.bundle else ""
    left = f", {found.left_out:,} left out" if found.left_out else ""
    lines: list[Any] = [
        f"[bold]{escape(made.policy)}[/]{scores}, without exploration: {found.n:,} closed predictions{left}, "
        f"{day(made.window.start)} to {day(made.window.end)}",
        f"it acts otherwise on {found.differs:.2%} of them; value per prediction{', ' + made.currency if made.currency else ''}:",
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    rows: list[tuple[str, Any, str]] = [
        ("made", found.on_policy, "by the acts that were taken, exploration and hold-out included")
    ]
    if found.paired is not None:
        rows += [
            ("paired", found.paired, "exact: acting does not change the label"),
            ("  more", found.paired_gain, "than was made, on the same rows"),
        ]
    if found.log is not None:
        log = found.log
        rows += [
            ("IPS", log.ips, "inverse propensity"),
            ("SNIPS", log.snips, "self-normalised"),
            ("DR", log.dr, "doubly robust, with the model's own expectation"),
            ("  more", log.gain, "than was made, on the same rows"),
        ]
    for name, one, about in rows:
        table.add_row(name, str(one), f"[dim]{about}[/]")
    lines.append(table)
    if found.log is None:
        lines.append("an act that is an amount has no other chance: nothing can be said from propensities")
        return Group(*lines)
    if found.log.verdict is not Verdict.PASS:
        lines.append(f"[yellow]what the propensities say is not to be used: {found.log.verdict}[/]")
    lines.append(
        f"{found.log.effective:,.0f} effective of {found.log.n:,} rows, largest weight {found.log.largest:.4g}, "
        f"{found.log.clipped:.2%} clipped, {found.log.unknown:,} without a known value"
    )
    lines.append(checks_table(found.log.checks))
    return Group(*lines)
