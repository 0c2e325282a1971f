"""Artifacts and measurements."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from noria.core import Corrupt, NotFound, Refused
from noria.store import Artifacts, Home, Measurements


def test_bytes_are_kept_once_under_their_hash(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    sha256 = artifacts.put(b"a bundle")
    assert sha256 == hashlib.sha256(b"a bundle").hexdigest()
    assert artifacts.put(b"a bundle") == sha256
    assert artifacts.get(sha256) == b"a bundle"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [sha256]


def test_damaged_bytes_are_never_given_and_can_be_put_again(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    sha256 = artifacts.put(b"a bundle")
    artifacts.path(sha256).write_bytes(b"a bundlf")
    with pytest.raises(Corrupt, match=sha256):
        artifacts.get(sha256)
    artifacts.put(b"a bundle")
    assert artifacts.get(sha256) == b"a bundle"


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64 + "/..", "0" * 64 + "\n"])
def test_names_are_hashes_and_nothing_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        Artifacts(tmp_path).get(name)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no artifact"):
        Artifacts(tmp_path).get("0" * 64)


def test_points_are_read_in_order_with_their_tags(tmp_path: Path) -> None:
    measurements = Measurements(tmp_path / "m.db")
    for number in range(1200):  # more than two batches
        measurements.add("seconds" if number % 2 else "bytes", number, step=f"s{number % 3}")
    with measurements.span("span_seconds", step="data"):
        pass
    measurements.close()
    again = Measurements(tmp_path / "m.db")
    found = again.read("seconds")
    assert found["value"].to_list() == list(range(1, 1200, 2))
    assert found["tags"][0] == '{"step":"s1"}'
    [span] = again.read("span_seconds")["value"].to_list()
    assert span >= 0
    assert again.read("nothing").height == 0
    again.close()


def test_a_reader_of_a_home_writes_no_measurements(open_home: Callable[..., Home]) -> None:
    open_home().measurements.add("seconds", 1.0)
    reader = open_home(write=False)
    reader.measurements.add("seconds", 2.0)
    assert reader.measurements.read("seconds").height == 0
    assert not (reader.path / "measurements.db").exists()
