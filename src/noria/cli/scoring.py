"""Scoring rows by hand: the same checks, features, release, decision and exploration as the service, as of a moment; nothing is logged."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from noria.core import NotEnoughData, parse_time
from noria.store import Home
from noria.system import Every, Request, System


def score_rows(home: Home, system: System, rows: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Each row's id, score, act and release, with its features, as of the row's own time (``now`` where it has none).

    Raises ``NotEnoughData`` while nothing is released, and ``DataFault`` naming the field that is wrong.
    """
    from noria import features
    from noria.deployment.bundles import Bundles
    from noria.deployment.live import history
    from noria.deployment.scoring import logged
    from noria.deployment.service.rows import row_schema, spine_of

    past = history(home)
    if past.now.champion is None and past.now.rollout is None:
        raise NotEnoughData("nothing is released yet", hint="run `noria status`, or promote a bundle by hand")
    schema, bundles, time = row_schema(home, system), Bundles(home), time_column(system)
    found = []
    for given in rows:
        row = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items()}
        asked = now if row.get(time) is None else parse_time(str(row[time]))
        spine = spine_of(system, schema, row, asked)
        made = features.compute(home, system, spine)
        scored = logged(system, past, spine, made, bundles=bundles, now=now).predictions.row(0, named=True)
        if scored["_score"] is None and not scored["_release"]:
            raise NotEnoughData(
                f"nothing was released at {asked:%Y-%m-%d %H:%M}",
                hint="run `noria status`, ask for a later moment, or promote a bundle by hand",
            )
        found.append(
            {
                "id": scored["_id"],
                "at": scored["_time"],
                "score": scored["_score"],
                "scores": scored["_scores"],
                "act": scored["_act"],
                "variant": scored["_variant"],
                "release": scored["_release"],
                "features": {name: scored[name] for name in made.columns if name != "_id"},
            }
        )
    return found


def time_column(system: System) -> str:
    """The column in which a row says when it is asked."""
    asked = system.predict
    if isinstance(asked, Request):
        return asked.time
    return asked.of.time if isinstance(asked, Every) else asked.time
