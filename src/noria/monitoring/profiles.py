"""The profiles of windows, kept so that they can be added up: hours make days, days make "since the release", and no row is read again.

A window's profile is an artifact, named by its content and by the window's record. It holds the counts only; the bins are the release's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import reduce

import msgspec

from noria import measure
from noria.core import Window
from noria.measure import Profile
from noria.measure.profile import Column, grid_of
from noria.monitoring.reference import profile_of
from noria.records import Monitored
from noria.store import Home


class Kept(msgspec.Struct, frozen=True):
    """A window's profile as it is stored: over the bins of ``release``, judged by the bounds in the artifact ``bounds`` (may be empty)."""

    release: str
    bounds: str
    n: int
    columns: dict[str, Column]


def keep(home: Home, release: str, bounds: str, profile: Profile) -> str:
    """Stores a window's profile; gives its sha256."""
    bare = {name: msgspec.structs.replace(column, edges=None, values=None, grid=None) for name, column in profile.columns.items()}
    return home.artifacts.put(msgspec.json.encode(Kept(release, bounds, profile.n, bare), order="deterministic"))


def bounds_of(home: Home, sha256: str) -> str:
    """The artifact of the bounds that a stored profile was judged by."""
    return msgspec.json.decode(home.artifacts.get(sha256), type=Kept).bounds


def read(home: Home, sha256: str, reference: Profile) -> Profile:
    """A stored profile, over the bins of its release's ``reference``."""
    kept = msgspec.json.decode(home.artifacts.get(sha256), type=Kept)
    columns = {}
    for name, column in kept.columns.items():
        of = reference.columns[name]
        grid = grid_of(of) if of.numeric else None
        columns[name] = msgspec.structs.replace(column, edges=of.edges, values=of.values, grid=grid)
    return Profile(kept.n, columns)


def merged(home: Home, records: Iterable[Monitored], reference: Profile) -> Profile | None:
    """The profile of several windows of one release together; ``None`` when none of them is stored."""
    parts = [read(home, record.profile, reference) for record in records if record.profile]
    return reduce(Profile.merge, parts) if parts else None


def window_profile(home: Home, window: Window, release: str | None = None) -> Profile | None:
    """The profile of all traffic in ``window`` that a release answered (the last one that did, unless it is named).

    It is added up from the windows watched: those that end in ``window``. ``None`` when there are none. The score is the column ``score``.
    """
    records = [record for record in _watched(home, window) if record.profile]
    release = release or next((record.release for record in reversed(records)), None)
    reference = profile_of(home, release) if release is not None else None
    return None if reference is None else merged(home, [record for record in records if record.release == release], reference)


def moved(home: Home, window: Window, release: str | None = None) -> dict[str, dict[str, float]]:
    """How far the traffic in ``window`` as a whole is from the release's reference: ``measure.distance`` by column; empty when nothing is stored.

    A week says what a day cannot: a slow drift is small beside a day's chance and large beside a week's.
    """
    records = [record for record in _watched(home, window) if record.profile]
    release = release or next((record.release for record in reversed(records)), None)
    reference = profile_of(home, release) if release is not None else None
    found = window_profile(home, window, release)
    return {} if reference is None or found is None else measure.distance(reference, found)


def since_release(home: Home, until: datetime) -> dict[str, dict[str, float]]:
    """``moved`` over everything that the release which answers at ``until`` has answered so far."""
    records = [record for record in _watched(home, Window(datetime.min.replace(tzinfo=until.tzinfo), until)) if record.profile]
    if not records:
        return {}
    own = [record for record in records if record.release == records[-1].release]
    return moved(home, Window(own[0].window.start, until), own[0].release)


def _watched(home: Home, window: Window) -> list[Monitored]:
    newest: dict[datetime, Monitored] = {}
    for entry in home.ledger.read(Monitored, prefix="monitored/traffic/", since=window.start):
        if entry.record.window.end in window:
            newest[entry.record.window.end] = entry.record
    return [newest[end] for end in sorted(newest)]
