"""``value``: what the decisions were worth, by what, net of costs, and whether the metric still means money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.common import DEFAULT_FILE, FileArgument, HomeOption, JsonOption, console, opened, show
from noria.core import DataFault, Estimate, NotEnoughData, Verdict, Window, parse_time
from noria.core.window import EPOCH

if TYPE_CHECKING:
    from noria.business import Worth
    from noria.business.breakdown import Part
    from noria.store import Home

_NEVER = "9999-01-01"
WIDEST = 10_000


def value(
    file: FileArgument = DEFAULT_FILE,
    /,
    *,
    start: Annotated[
        str | None, Parameter(name="--from", help="Predictions asked from then on. Default: from the first.")
    ] = None,
    end: Annotated[
        str | None, Parameter(name="--to", help="Predictions asked until then. Default: until the last closed.")
    ] = None,
    by: Annotated[
        tuple[str, ...],
        Parameter(
            help="What to split by: version, variant, month, slice (the declared ones), or a column. May be given several times. Default: all of these."
        ),
    ] = (),
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Shows what the decisions were worth, by version, variant, slice and month, net of costs, and whether the metric still means money.

    Only predictions whose label is closed count. Rollouts are read as experiments, by intervals that hold however often you look; with a hold-out
    the whole system is compared with the units that are never acted on.
    """
    from noria.business import worth

    with opened(file, home, computes=True) as (store, system):
        window = _window(start, end)
        _columns(store, by)
        made = worth(store, system, window, by)
    if made.window is None:
        raise NotEnoughData(
            "no closed prediction has a value there yet", hint="run `noria labels` to see how mature the labels are"
        )
    show(made, lambda: _shown(made, by), as_json=json)
    return 0


def _window(start: str | None, end: str | None) -> Window | None:
    if start is None and end is None:
        return None
    first = parse_time(start) if start is not None else EPOCH
    last = parse_time(end) if end is not None else parse_time(_NEVER)
    if first >= last:
        raise DataFault(f"--from {first:%Y-%m-%d} is not before --to {last:%Y-%m-%d}", hint="give an earlier --from")
    return Window(first, last)


def _columns(home: Home, by: tuple[str, ...]) -> None:
    known = home.lake.schema("predictions") or {}
    for name in by:
        if name not in ("version", "variant", "month", "slice") and (name not in known or name.startswith("_")):
            columns = ", ".join(sorted(one for one in known if not one.startswith("_")))
            raise DataFault(
                f"the predictions have no column {name!r}", hint=f"split by version, variant, month, slice, or one of: {columns}"
            )


def _shown(made: Worth, by: Sequence[str] = ()) -> Any:
    from rich.console import Group
    from rich.markup import escape

    span = f"{made.window.start:%Y-%m-%d} to {made.window.end:%Y-%m-%d}" if made.window else ""
    blocks: list[Any] = [f"[bold]{escape(made.system)}[/], {span}, in {made.currency or 'units of value'}"]
    blocks += [*_fitting(made), *_notes(made, by), *_experiments(made), *_held(made), *_net(made)]
    if made.link is not None:
        mark = {Verdict.PASS: "green", Verdict.FAIL: "red"}.get(made.link.verdict, "yellow")
        blocks.append(
            f"\n[bold]Metric link[/] ({escape(made.metric)}, until {made.link.window.end:%Y-%m-%d}): [{mark}]{escape(made.link.account)}[/]"
        )
    else:
        blocks.append("\n[bold]Metric link[/]: not estimated yet; it takes a week of closed windows under a release")
    blocks.append(f"\n{escape(made.advice)}")
    return Group(*blocks)


def _fitting(made: Worth) -> list[Any]:
    """The table with as many comparisons as the terminal is wide, and which were left out; where there is no terminal, all of them."""
    from rich.console import Console
    from rich.measure import Measurement

    out, wide = console(), Console(width=WIDEST)
    policies = _policies(made)
    for count in range(len(policies), -1, -1):
        table = _table(made, policies[:count])
        table.width = Measurement.get(wide, wide.options, table).maximum
        if not out.is_terminal or table.width <= out.width:
            break
    left = ", ".join(f"− {policy}" for policy in policies[count:])
    return [table, f"[dim]left out for want of room: {left}; take a wider terminal, or --json[/]"] if left else [table]


def _notes(made: Worth, by: Sequence[str]) -> list[str]:
    """Why a split that was asked for shows nothing, and that no release answered any of it."""
    from rich.markup import escape

    from noria.business.breakdown import LEAST_ROWS

    kinds = {one.kind for one in made.parts}
    slices = any(kind.startswith("slice ") for kind in kinds)
    empty = [name for name in by if name not in kinds and f"slice {name}" not in kinds and not (name == "slice" and slices)]
    lines = [f"nothing to show by {name}: no value of it has {LEAST_ROWS} predictions that a release answered" for name in empty]
    if made.whole is None:
        lines = [f"nothing to show by {name}: no value of it has {LEAST_ROWS} closed predictions" for name in empty]
        lines.append("no release answered any of these predictions: this is what doing nothing was worth")
    return [f"[dim]{escape(line)}[/]" for line in lines]


def _table(made: Worth, policies: Sequence[str]) -> Any:
    """Each part with its value, and the difference to each of the policies."""
    from rich.markup import escape
    from rich.table import Table

    from noria.web.facts import amount

    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(("", "predictions", "value", "per prediction", *(f"− {policy}" for policy in policies))):
        table.add_column(name, justify="left" if place == 0 else "right", header_style="dim", no_wrap=True)
    kind = ""
    for one in ([made.whole] if made.whole else []) + list(made.parts):
        if one.kind != kind:
            kind = one.kind
            table.add_row(f"[dim]{escape(kind)}[/]")
        cells = [_less(policy, one.versus.get(policy)) for policy in policies]
        table.add_row(f"  {escape(_name(one))}", f"{one.n:,}", amount(one.total), _size(one.per_prediction), *cells)
    return table


def _policies(made: Worth) -> list[str]:
    there = {policy for one in ([made.whole] if made.whole else []) + list(made.parts) for policy in one.versus}
    return [name for name in ("do nothing", "always act", "best fixed", "perfect") if name in there]


def _name(one: Part) -> str:
    if one.kind == "version":
        return one.name[:12] or "before the first release"
    return one.name or ("before the first release" if one.kind == "variant" else "(missing)")


def _size(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return ""
    if not estimate.known or estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _less(policy: str, estimate: Estimate | None) -> str:
    """The difference to a policy; of those chosen in hindsight without its interval, which ``--json`` has."""
    plain = policy in ("best fixed", "perfect") and estimate is not None
    return _size(Estimate(estimate.value, n=estimate.n) if plain and estimate is not None else estimate)


def _experiments(made: Worth) -> list[str]:
    from rich.markup import escape

    lines = []
    for one in made.experiments:
        against = one.champion[:12] if one.champion else "doing nothing"
        units = f"{one.units[0]:,} and {one.units[1]:,} units" if one.how == "arms" else f"{one.units[0]:,} units"
        text = f"  {one.rollout}, {one.how}: {one.challenger[:12]} − {against}: {_size(one.difference)} a prediction, {units}; {one.stage}"
        if one.sample_ratio is not None:
            text += f"; sample ratio: {one.sample_ratio.verdict}"
        if one.novelty.known:
            text += f"; later half − earlier half {_size(one.novelty)}"
        lines.append(escape(text))
    return ["\n[bold]Rollouts as experiments[/] (intervals hold however often you look)", *lines] if lines else []


def _held(made: Worth) -> list[str]:
    from noria.web.facts import amount

    one = made.hold_out
    if one is None:
        return []
    total = one.total
    span = f" [{amount(total.low)}, {amount(total.high)}]" if total.low is not None and total.high is not None else ""
    whole = f"{amount(total.value, made.currency)}{span}" if total.value is not None else "unknown"
    text = f"  {one.held:,} units held out, {one.units:,} not: {_size(one.per_prediction)} a prediction, {whole} in all"
    if one.acted:
        text += f"; [red]{one.acted} predictions of held-out units were acted on[/]"
    return [f"\n[bold]Against the hold-out[/] ({one.share:.0%} of the units are never acted on)", text]


def _net(made: Worth) -> list[str]:
    from noria.web.facts import amount

    one = made.net
    if one is None:
        return []
    gain = f"{amount(one.gain.value or 0.0, made.currency, sign=True)}{_span(one.gain)} against the best policy that needs no model ({one.against})"
    if one.cost <= 0:
        return ["\n[bold]Return[/]", f"  {gain}", "  no costs are declared (System(costs=...)): the return is not known"]
    paid = ", ".join(f"{name} {amount(cost)} ({one.counts[name]:,.0f})" for name, cost in one.costs.items() if cost)
    lines = ["\n[bold]Return[/]", f"  {gain}", f"  costs {amount(one.cost, made.currency)}: {paid}"]
    lines.append(f"  net {amount(one.net.value or 0.0, made.currency, sign=True)}{_span(one.net)}")
    if one.returned is not None and one.returned.value is not None:
        lines[-1] += f"; {one.returned.value:.2f} for one paid{_plain(one.returned)}"
    return lines


def _span(estimate: Estimate) -> str:
    from noria.web.facts import amount

    if estimate.low is None or estimate.high is None:
        return " (no interval yet)"
    return f" [{amount(estimate.low)}, {amount(estimate.high)}]"


def _plain(estimate: Estimate) -> str:
    return f" [{estimate.low:.2f}, {estimate.high:.2f}]" if estimate.low is not None and estimate.high is not None else ""
