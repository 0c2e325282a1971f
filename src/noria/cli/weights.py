"""``weights``: how much each combined objective counts, shown or changed, without training anything."""

from __future__ import annotations

import math
from typing import Annotated

from cyclopts import Parameter

from noria.cli.common import DEFAULT_FILE, AtOption, FileOption, HomeOption, JsonOption, opened, show
from noria.core import DataFault, NotFound, Verdict


def weights(
    *changes: Annotated[str, Parameter(help="NAME=WEIGHT for each weight to change. Without one, the weights are shown.")],
    bundle: Annotated[
        str | None, Parameter(help="The bundle to start from: its sha256, or the beginning of it. Default: the champion.")
    ] = None,
    at: AtOption = None,
    file: FileOption = DEFAULT_FILE,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Shows the weights of combined objectives (System(combine=...)), or makes a bundle of the same models with other weights.

    The new bundle is gated by what its acts are worth on closed rows beside those of the old one. When that passes it goes into a rollout like any other;
    when it does not, `noria promote` is left to you.
    """
    from noria import deployment, development
    from noria.cli.decide import bundle_named

    wanted = _read(changes)
    with opened(file, home, at=at, owner="weights" if wanted else "") as (store, system):
        champion = deployment.state(store).champion
        sha256 = bundle_named(store, bundle) if bundle is not None else champion
        if sha256 is None:
            raise NotFound("nothing is released, so there are no weights", hint="name a bundle with --bundle")
        old = development.weights_of(deployment.Bundles(store).get(sha256))
        declared = dict(system.combine.weights) if system.combine is not None else {}
        if not wanted:
            data = {"bundle": sha256, "weights": old, "declared": declared}
            show(data, lambda: f"{sha256[:12]}: {_listed(old)}\ndeclared: {_listed(declared)}", as_json=json)
            return 0
        trained, gated = development.reweigh(store, system, sha256, wanted)
        made = gated.record
        if made.verdict is Verdict.PASS:
            deployment.begin(store, system, made.bundle, gated)
    new = old | wanted
    lines = [f"{made.bundle[:12]}: {_listed(new)}; the models are those of {sha256[:12]}", made.checks[0].detail]
    passed = made.verdict is Verdict.PASS
    lines.append(
        "it is in shadow from the next prediction on"
        if passed
        else f"the gate says: {made.verdict}. `noria promote {made.bundle[:12]}` overrides it"
    )
    if new != declared:
        lines.append(f"the declaration says {_listed(declared)}: change it there too, or the next training goes back to that")
    show({"trained": trained, "gated": gated, "weights": new}, lambda: "\n".join(lines), as_json=json)
    return 0


def _read(changes: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in changes:
        name, equals, number = text.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not equals or not math.isfinite(weight):
            raise DataFault(f"{text!r} is no weight", hint="write for example quality=0.3")
        found[name] = weight
    return found


def _listed(weights: dict[str, float]) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.items()) or "nothing"
