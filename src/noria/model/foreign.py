"""Scikit-learn estimators of any other kind, through skops: no pickle, and only types on our own list.

The archive never says what may be loaded; ``ALLOWED`` does. Before such an archive is loaded in this process for the first time, it is
loaded in another one with a limit on memory and time, so that a malformed one cannot take this process down.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import Corrupt, Refused, digest_bytes
from noria.model.design import Design
from noria.model.predictors import Link

ALLOWED = frozenset(
    {
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
    }
)
UNPACKED_LIMIT = 256 * 2**20
PROBE_MEMORY = 2 * 2**30
PROBE_SECONDS = 60
_EPOCH = (1980, 1, 1, 0, 0, 0)
_probed: set[str] = set()


class Foreign:
    """An estimator that reads the design matrix. ``predict_proba`` is used for classes, ``predict`` for numbers."""

    def __init__(self, data: bytes, design: Design, link: Link, *, probe: bool = True) -> None:
        self.data, self.design, self.link = data, design, link
        self._estimator = _load(data, probe=probe)

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        wide = self.design.dense(matrix)
        if self.link == "identity":
            return np.asarray(self._estimator.predict(wide), dtype=np.float64).ravel()
        scores = np.asarray(self._estimator.predict_proba(wide), dtype=np.float64)
        return scores if self.link == "softmax" else scores[:, 1]


def foreign_from(estimator: Any, design: Design, link: Link) -> Foreign:
    """Packs a fitted estimator. Raises ``Refused`` when it holds types that are not allowed."""
    import skops.io

    return Foreign(deterministic(skops.io.dumps(estimator)), design, link, probe=False)


def deterministic(data: bytes) -> bytes:
    """A skops archive without what differs from run to run: memory addresses as names, and the time of day."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
        renamed: dict[str, str] = {}
        _renumber(schema, {}, renamed)
        members = {renamed.get(name, name): archive.read(name) for name in archive.namelist() if name != "schema.json"}
    members["schema.json"] = json.dumps(schema, indent=1).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        for name in sorted(members):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3  # the same on every platform
            made.writestr(member, members[name])
    return out.getvalue()


def _renumber(node: Any, ids: dict[int, int], names: dict[str, str]) -> None:
    """Gives ids and file names in the order of first appearance. A JSON value is a constant, so each gets an id of its own."""
    if isinstance(node, dict):
        if isinstance(node.get("__id__"), int):
            old = node["__id__"]
            fresh = len(ids) + 1
            if node.get("is_json") and old in ids:
                ids[-fresh] = fresh
                node["__id__"] = fresh
            else:
                node["__id__"] = ids.setdefault(old, fresh)
        if isinstance(node.get("file"), str):
            stem, dot, suffix = node["file"].partition(".")
            node["file"] = names.setdefault(node["file"], f"{len(names) + 1:06d}{dot}{suffix}" if stem else node["file"])
        for value in node.values():
            _renumber(value, ids, names)
    elif isinstance(node, list):
        for value in node:
            _renumber(value, ids, names)


def _load(data: bytes, *, probe: bool) -> Any:
    import skops.io

    _check_size(data)
    try:
        asked = skops.io.get_untrusted_types(data=data)
    except Exception as error:
        raise Corrupt(f"the estimator's archive cannot be read: {error}") from None
    strange = sorted(set(asked) - ALLOWED)
    if strange:
        raise Refused(
            f"the estimator holds types that are not allowed: {', '.join(strange)}",
            hint="use an estimator of scikit-learn's own types, or add the type to noria.model.foreign.ALLOWED after reading its code",
        )
    if probe:
        _probe(data)
    try:
        return skops.io.loads(data, trusted=sorted(asked))
    except Exception as error:
        raise Corrupt(f"the estimator cannot be rebuilt: {type(error).__name__}: {error}") from None


def _check_size(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise Corrupt(f"the estimator's archive cannot be read: {error}") from None
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise Refused("the estimator's archive is compressed, and ours never are")
    if size > UNPACKED_LIMIT:
        raise Refused(f"the estimator unpacks to {size:,} bytes; {UNPACKED_LIMIT:,} are allowed")


def _probe(data: bytes) -> None:
    """Loads the archive in another process under limits; remembers what passed."""
    name = digest_bytes(data)
    if name in _probed:
        return
    command = [sys.executable, "-c", "import sys; from noria.model.foreign import probe_main; sys.exit(probe_main())"]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Refused(f"the estimator took more than {PROBE_SECONDS} s to load") from None
    if done.returncode != 0:
        tail = done.stderr.decode(errors="replace").strip().splitlines()
        raise Refused(f"the estimator did not load in a process of its own: {tail[-1] if tail else done.returncode}")
    _probed.add(name)


def probe_main() -> int:
    """What the other process does: loads standard input under limits, and returns 0."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (PROBE_MEMORY, PROBE_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PROBE_SECONDS, PROBE_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _load(sys.stdin.buffer.read(), probe=False)
    return 0
