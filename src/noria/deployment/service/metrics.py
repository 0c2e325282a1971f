"""What the service counts, and how all workers' counts are given to Prometheus as one.

Each worker counts in its own memory and leaves what it has beside the log about once a second; whoever is asked for ``/metrics`` adds up what
the others left to its own. No sum ever goes back: what a worker that has ended counted stays in it (also when a later process gets its number),
and whoever answers leaves its own counts first, so that the next answer, which another worker may give, has at least as much.
"""

from __future__ import annotations

import os
import secrets
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from noria.store.minutes import Minute

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
HELP = {
    "requests": "Requests by route and status.",
    "predictions": "Predictions answered by variant and by why the fallback answered (empty: the model did).",
    "acknowledged": "Predictions acknowledged.",
    "committed": "Predictions of the log that are on the disk.",
    "unwritable": "Predictions that could not be written down and were left out of the log.",
    "refused": "Requests refused at the door, by status.",
    "events": "Events and given outcomes, by source and by what became of them.",
    "reviews": "Predictions left to a person.",
    "shadow_dropped": "Rows that bundles in shadow were not asked about, because too many waited.",
    "log_lines_dropped": "Lines of the service's own log that were not written because there were too many.",
}
LABELS = {
    "requests": ("route", "status"),
    "predictions": ("variant", "fallback"),
    "refused": ("status",),
    "events": ("source", "outcome"),
}
GAUGES = {
    "waiting": "Predictions waiting for the disk, summed over the workers.",
    "release": "The number of the release that answers.",
    "ready": "Workers that can answer.",
    "keys": "Keys that the online store holds, summed over the workers.",
}


class Snapshot(msgspec.Struct):
    """What one worker has counted: counters by name and labels, seconds by route as (counts per bound and above, sum), gauges."""

    counts: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    seconds: dict[str, tuple[list[int], float]] = {}
    gauges: dict[str, float] = {}


class Metrics:
    """The counts of one worker."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[tuple[str, ...], int]] = {name: defaultdict(int) for name in HELP}
        self.seconds: dict[str, tuple[list[int], list[float]]] = {}
        self.gauges: dict[str, float] = {}
        self.file = f"{os.getpid()}-{secrets.token_hex(8)}.json"
        self._before: tuple[int, int, int, list[int]] | None = None

    def add(self, name: str, *labels: str, n: int = 1) -> None:
        """Counts ``n`` more."""
        self.counts[name][labels] += n

    def took(self, route: str, seconds: float) -> None:
        """One request's seconds."""
        found = self.seconds.get(route)
        if found is None:
            found = self.seconds[route] = ([0] * (len(BOUNDS) + 1), [0.0])
        found[0][bisect_left(BOUNDS, seconds)] += 1
        found[1][0] += seconds

    def snapshot(self) -> Snapshot:
        """Everything counted so far. May be called in any thread: the copies are made in one piece, what is made of them afterwards."""
        counts = {name: dict(values) for name, values in self.counts.items()}
        seconds = dict(self.seconds)
        return Snapshot(
            {name: list(values.items()) for name, values in counts.items()},
            {route: (list(counts), total[0]) for route, (counts, total) in seconds.items()},
            dict(self.gauges),
        )

    def minute(self, at: int, routes: Container[str]) -> Minute | None:
        """What was counted on ``routes`` since the minute before, once a minute is over (``at`` is the number of the running one)."""
        if self._before is not None and self._before[0] == at:
            return None
        answered = {key: n for key, n in dict(self.counts["requests"]).items() if key[0] in routes}
        requests = sum(answered.values())
        errors = sum(n for (_, status), n in answered.items() if status >= "500")
        per = [counts for route, (counts, _) in dict(self.seconds).items() if route in routes]
        counts = [sum(some) for some in zip(*per, strict=True)] or [0] * (len(BOUNDS) + 1)
        before, self._before = self._before, (at, requests, errors, counts)
        if before is None or requests == before[1]:
            return None
        since = tuple(now - then for now, then in zip(counts, before[3], strict=True))
        return Minute(before[0], requests - before[1], errors - before[2], BOUNDS, since)

    def leave(self, folder: Path) -> None:
        """Leaves a snapshot where other workers find it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / self.file
        part = path.with_suffix(f".{threading.get_ident()}.part")
        part.write_bytes(msgspec.json.encode(self.snapshot()))
        part.replace(path)


def others(folder: Path, own: str = "") -> list[tuple[int, Snapshot]]:
    """What workers left, each with its process's number, the newest last; without the file ``own``."""
    found: list[tuple[int, int, Snapshot]] = []
    for path in sorted(folder.glob("*.json")):
        if path.name == own:
            continue
        try:
            snapshot = msgspec.json.decode(path.read_bytes(), type=Snapshot)
            found.append((path.stat().st_mtime_ns, int(path.stem.partition("-")[0]), snapshot))
        except (OSError, ValueError, msgspec.DecodeError):
            continue  # it is not ours
    return [(pid, snapshot) for _, pid, snapshot in sorted(found, key=lambda one: one[0])]


def begin(folder: Path) -> None:
    """Removes what workers of an earlier service left; called before the first worker starts."""
    for path in folder.glob("*"):
        path.unlink(missing_ok=True)


def text(own: Metrics, folder: Path) -> bytes:
    """Prometheus's text format of all workers together. Leaves ``own`` in ``folder``."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

    with suppress(OSError):  # without room on the disk there still is an answer
        own.leave(folder)
    mine, beside = own.snapshot(), others(folder, own.file)
    newest = {pid: snapshot for pid, snapshot in beside if pid != os.getpid() and _lives(pid)}
    everyone = [mine, *(snapshot for _, snapshot in beside)]

    class All:
        def collect(self) -> Iterable[Metric]:
            for name, about in HELP.items():
                counter = CounterMetricFamily(f"noria_{name}", about, labels=LABELS.get(name, ()))
                for labels, n in _summed(snapshot.counts.get(name, []) for snapshot in everyone).items():
                    counter.add_metric(labels, n)
                yield counter
            seconds = HistogramMetricFamily(
                "noria_request_seconds", "Seconds from the whole request to its reply, by route.", labels=["route"]
            )
            for route, (counts, total) in _times(everyone).items():
                places = [*map(str, BOUNDS), "+Inf"]
                above = [sum(counts[: place + 1]) for place in range(len(counts))]
                seconds.add_metric([route], list(zip(places, above, strict=True)), total)
            yield seconds
            for name, about in GAUGES.items():
                values = [s.gauges[name] for s in (mine, *newest.values()) if name in s.gauges]
                if values:
                    yield GaugeMetricFamily(f"noria_{name}", about, value=max(values) if name == "release" else sum(values))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(All())
    return generate_latest(registry)


def _summed(parts: Iterable[list[tuple[tuple[str, ...], int]]]) -> Mapping[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = defaultdict(int)
    for part in parts:
        for labels, n in part:
            found[tuple(labels)] += n
    return dict(sorted(found.items()))


def _times(everyone: list[Snapshot]) -> Mapping[str, tuple[list[int], float]]:
    found: dict[str, tuple[list[int], float]] = {}
    for snapshot in everyone:
        for route, (counts, total) in snapshot.seconds.items():
            before, sum_before = found.get(route, ([0] * len(counts), 0.0))
            found[route] = ([a + b for a, b in zip(before, counts, strict=True)], sum_before + total)
    return dict(sorted(found.items()))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
