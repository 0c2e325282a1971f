"""What Prometheus is told: text that its own tool finds nothing wrong with, and sums over workers that never go back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from noria.deployment.service import metrics
from noria.deployment.service.app import routes
from noria.deployment.service.metrics import Metrics


def read(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by a parser that we did not write."""
    families = text_string_to_metric_families(text.decode())
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def total(found: Any, name: str, **labels: str) -> float:
    return float(found[name, tuple(sorted(labels.items()))])


def test_promtool_finds_nothing_wrong(served: Any, numbers: Any) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool: `make promtool` installs it where that is allowed")
    for service in (served, numbers):
        service.get("/v1/predict", b"{}")
        service.get("/v1/events/nowhere", b"{}")
        service.get("/nowhere")
        status, headers, body = service.get("/metrics")
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        done = subprocess.run([tool, "check", "metrics"], input=body, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert total(read(body), "noria_requests_total", route="/v1/predict", status="422") >= 1


def test_promtool_would_find_something() -> None:
    """Otherwise the test above would say nothing."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool: `make promtool` installs it where that is allowed")
    done = subprocess.run(
        [tool, "check", "metrics"], input=b"# TYPE noria_requests counter\nnoria_requests 1\n", capture_output=True
    )
    assert done.returncode != 0


def test_every_count_is_of_a_route_that_there_is(served: Any) -> None:
    """Paths that callers make up do not become labels."""
    for path in ("/nowhere", "/v2/models/made-up", "/v1/events/made-up"):
        served.get(path)
    labels = {dict(labels).get("route") for _, labels in read(served.get("/metrics")[2])}
    assert labels - {None} <= {*routes(), "door"}


def test_requests_are_counted_once_and_timed(numbers: Any) -> None:
    before = read(numbers.get("/metrics")[2])
    body = json.dumps({"row": {"a": 0.5, "b": 1, "c": 0.5}}).encode()
    for _ in range(5):
        assert numbers.get("/v1/predict", body)[0] == 200
    after = read(numbers.get("/metrics")[2])
    key = ("noria_requests_total", (("route", "/v1/predict"), ("status", "200")))
    assert after[key] - before.get(key, 0) == 5
    timed = ("noria_request_seconds_count", (("route", "/v1/predict"),))
    assert after[timed] - before.get(timed, 0) == 5
    said = ("noria_predictions_total", (("fallback", ""), ("variant", "champion")))
    assert after[said] - before.get(said, 0) == 5


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def worker(pid: int) -> Metrics:
    """The counts of a worker in another process."""
    made = Metrics()
    made.file = f"{pid}-{made.file.partition('-')[2]}"
    return made


def test_what_a_worker_counted_stays_when_it_has_ended(tmp_path: Path) -> None:
    own, living, dead = Metrics(), worker(os.getppid()), worker(ended())
    for number, one in enumerate((own, living, dead), start=1):
        one.add("requests", "/v1/predict", "200", n=number)
        one.took("/v1/predict", 0.004 * number)
        one.gauges |= {"waiting": float(number), "release": 3.0 + number, "ready": 1.0, "keys": 10.0}
        one.leave(tmp_path)
    found = read(metrics.text(own, tmp_path))
    assert total(found, "noria_requests_total", route="/v1/predict", status="200") == 6
    assert total(found, "noria_request_seconds_count", route="/v1/predict") == 3
    assert total(found, "noria_request_seconds_sum", route="/v1/predict") == pytest.approx(0.024)
    assert total(found, "noria_request_seconds_bucket", route="/v1/predict", le="0.005") == 1
    assert total(found, "noria_request_seconds_bucket", route="/v1/predict", le="+Inf") == 3
    assert total(found, "noria_waiting") == 1 + 2  # what is now is that of the living
    assert total(found, "noria_ready") == 2
    assert total(found, "noria_release") == 5


def test_a_process_with_a_number_that_there_was_before_takes_nothing_away(tmp_path: Path) -> None:
    own, first, second = Metrics(), worker(os.getppid()), worker(os.getppid())
    first.add("events", "weather", "accepted", n=100)
    first.gauges["ready"] = 1.0
    first.leave(tmp_path)
    second.add("events", "weather", "accepted", n=1)
    second.gauges["ready"] = 1.0
    second.leave(tmp_path)
    os.utime(tmp_path / second.file, ns=(2**62, 2**62))
    found = read(metrics.text(own, tmp_path))
    assert total(found, "noria_events_total", source="weather", outcome="accepted") == 101
    assert total(found, "noria_ready") == 1


STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["add", "leave", "ask", "die"])), max_size=30)


@settings(deadline=None)
@given(STEPS)
def test_no_sum_goes_back_whoever_is_asked_and_whoever_dies(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    """A worker that dies takes with it what it has not left; what anybody was ever told stays."""
    folder, workers, told = tmp_path_factory.mktemp("metrics"), [Metrics(), Metrics(), Metrics()], 0.0
    for number, step in steps:
        one = workers[number]
        if step == "add":
            one.add("requests", "/v1/predict", "200")
        elif step == "leave":
            one.leave(folder)
        elif step == "die":
            workers[number] = Metrics()
        else:
            found = read(metrics.text(one, folder))
            now = found.get(("noria_requests_total", (("route", "/v1/predict"), ("status", "200"))), 0.0)
            assert now >= told
            told = now


def test_files_that_are_not_counts_are_passed_over(tmp_path: Path) -> None:
    own = Metrics()
    own.add("requests", "/v1/predict", "200")
    for name, content in (("1-x.json", b"{"), ("x.json", b"{}"), ("2-y.json", b"\xff"), ("3-z.part", b"")):
        (tmp_path / name).write_bytes(content)
    found = read(metrics.text(own, tmp_path))
    assert total(found, "noria_requests_total", route="/v1/predict", status="200") == 1
    (tmp_path / "folder.json").mkdir()
    assert metrics.text(own, tmp_path)


def test_counts_are_read_while_they_are_made() -> None:
    own = Metrics()

    def count() -> None:
        for number in range(30_000):
            own.took(f"/{number}", 0.1)
            own.add("refused", str(number))

    thread = threading.Thread(target=count)
    thread.start()
    seen = [0]
    while thread.is_alive():
        seen.append(len(own.snapshot().seconds))
    thread.join()
    assert seen == sorted(seen)
    assert len(own.snapshot().seconds) == 30_000
