"""Who is measured: each peer in an environment of its own, set up as its own manual says, and Noria."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import noria_home
import noria_request
from environments import SERVERS, environment
from models import ASKED, MANY, Kind, Trained, save, train
from running import HERE, HOST, TOKEN, Contender, Form

BIN = Path(sys.executable).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
BATCHES = 8


def versions(peer: str) -> str:
    """A peer's version as installed."""
    code = f"import importlib.metadata as m; print(m.version({SERVERS[peer][0]!r}))"
    done = subprocess.run([str(environment(peer) / "python"), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Asked:
    """The rows of a run in the two shapes that are asked: one row a request, and a thousand."""

    trained: Trained

    def one(self, route: str, body: Callable[[list[float], str], Any], scores: Callable[[Any], list[float]]) -> Form:
        """256 requests of one row, each of another customer."""
        rows = self.trained.asked[:ASKED].tolist()
        expected = [[score] for score in self.trained.expected[:ASKED].tolist()]
        return Form(route, [json.dumps(body(row, f"c{n}")) for n, row in enumerate(rows)], scores, expected)

    def many(self, route: str, body: Callable[[list[list[float]]], Any], scores: Callable[[Any], list[float]]) -> Form:
        """A few requests of a thousand rows, each beginning with another one."""
        rows, right = self.trained.asked.tolist(), self.trained.expected.tolist()
        turns = [number * MANY // BATCHES for number in range(BATCHES)]
        bodies = [json.dumps(body(rows[turn:] + rows[:turn])) for turn in turns]
        return Form(route, bodies, scores, [right[turn:] + right[:turn] for turn in turns])


# ------------------------------------------------------------------------------------------------------------------ peers


def fastapi(model: Path, form: Form, name: str = "FastAPI by hand", **more: str) -> Contender:
    """uvicorn with uvloop and httptools, one worker."""
    bin_ = environment("fastapi")

    def command(port: int) -> list[str]:
        quiet = ["--log-level", "warning", "--no-access-log", "--loop", "uvloop", "--http", "httptools"]
        where = ["--app-dir", str(HERE), "--host", HOST, "--port", str(port)]
        return [str(bin_ / "uvicorn"), *where, *quiet, "fastapi_app:app"]

    return Contender(name, "FastAPI", command, form, ONE_THREAD | {"MODEL": str(model)} | more)


def litserve(model: Path, form: Form, name: str = "LitServe", **more: str) -> Contender:
    """One API server and one worker: two processes besides the one that watches them."""
    bin_ = environment("litserve")

    def command(port: int) -> list[str]:
        return [str(bin_ / "python"), str(HERE / "litserve_app.py"), str(port)]

    return Contender(name, "LitServe", command, form, ONE_THREAD | {"MODEL": str(model)} | more)


def mlflow(model: Path, form: Form, name: str = "MLflow models serve") -> Contender:
    """``mlflow models serve`` in the environment as it is, one worker."""
    bin_ = environment("mlflow")
    folder = model.with_suffix(".mlflow")
    given = {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{bin_}:{os.environ['PATH']}"} | ONE_THREAD
    if not folder.exists():
        made = [str(bin_ / "python"), str(HERE / "mlflow_save.py"), str(model), str(folder)]
        done = subprocess.run(made, env=os.environ | given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])

    def command(port: int) -> list[str]:
        return [str(bin_ / "mlflow"), "models", "serve", "-m", str(folder), "--env-manager", "local", "-h", HOST, "-p", str(port)]

    return Contender(name, "MLflow", command, form, given)


def bentoml(model: Path, form: Form, name: str = "BentoML") -> Contender:
    """``bentoml serve`` with one worker."""
    bin_ = environment("bentoml")

    def command(port: int) -> list[str]:
        where = ["--working-dir", str(HERE), "--host", HOST, "--port", str(port)]
        return [str(bin_ / "bentoml"), "serve", "bentoml_app:Service", *where]

    return Contender(name, "BentoML", command, form, ONE_THREAD | {"MODEL": str(model), "BENTOML_DO_NOT_TRACK": "true"})


def echo(bodies: Sequence[str]) -> Contender:
    """The bare server under ours: the same Granian, the same loop, one worker, and requests as ours are."""

    def command(port: int) -> list[str]:
        where = ["--host", HOST, "--port", str(port), "--working-dir", str(HERE)]
        plain = [
            "--interface",
            "rsgi",
            "--http",
            "1",
            "--no-ws",
            "--loop",
            "uvloop",
            "--runtime-mode",
            "st",
            "--log-level",
            "warning",
        ]
        return [str(BIN / "granian"), *plain, *where, "echo:app"]

    form = Form("/v1/predict", bodies, lambda _: [0.0], [[0.0]] * len(bodies))
    return Contender("echo (bare Granian)", "echo", command, form)


# ------------------------------------------------------------------------------------------------------------------- ours


def noria(file: Path, home: Path, form: Form, name: str, **settings: str) -> Contender:
    """``noria serve`` on a home that is there already."""

    def command(port: int) -> list[str]:
        return [str(BIN / "noria"), "serve", str(file), "--home", str(home), "--port", str(port)]

    return Contender(name, "Noria", command, form, {"NORIA_TOKEN": TOKEN} | settings)


def named(row: Sequence[float], customer: str) -> dict[str, Any]:
    """A row as Noria is asked for it."""
    return {"customer": customer, **dict(zip(noria_request.COLUMNS, row, strict=True))}


def scores_of_rows(said: Any) -> list[float]:
    """The scores of an answer to many rows: the only list in it."""
    answers = said if isinstance(said, list) else next(value for value in said.values() if isinstance(value, list))
    return [answer["score"] for answer in answers]


def tensors(rows: list[list[float]]) -> dict[str, Any]:
    """Rows in the Open Inference Protocol, one tensor a column."""
    customers = {"name": "customer", "datatype": "BYTES", "shape": [len(rows), 1], "data": [f"c{n}" for n in range(len(rows))]}
    numbers = [
        {"name": name, "datatype": "FP64", "shape": [len(rows), 1], "data": list(column)}
        for name, column in zip(noria_request.COLUMNS, zip(*rows, strict=True), strict=True)
    ]
    return {"inputs": [customers, *numbers]}


def scores_of_tensors(said: Any) -> list[float]:
    """The output tensor that is called score."""
    return next(output["data"] for output in said["outputs"] if output["name"] == "score")


# ----------------------------------------------------------------------------------------------------------------- rounds


def single(kind: Kind, folder: Path) -> list[Contender]:
    """Everyone with one row a request; the echo comes first."""
    trained = train(kind)
    model, asked = save(trained, folder), Asked(trained)
    features = asked.one("/predict", lambda row, _: {"features": row}, lambda said: [said["p"]])
    ours = asked.one("/v1/predict", lambda row, who: {"row": named(row, who)}, lambda said: [said["score"]])
    served = [
        noria(HERE / "noria_request.py", _home(folder, trained, log), ours, f"Noria, {log} log", NORIA_LOG=log)
        for log in ("fast", "durable")
    ]
    slow = mlflow(model, asked.one("/invocations", lambda row, _: {"inputs": [row]}, lambda said: [said["predictions"][0][1]]))
    hand, lit = fastapi(model, features), litserve(model, features)
    others = [
        slow,
        lit,
        litserve(model, features, "LitServe, batching", BATCH="1"),
        hand,
        fastapi(model, features, "FastAPI by hand, durable log", LOG=str(folder / f"fastapi-{kind}.db")),
        bentoml(model, replace(features, scores=lambda said: [said])),
    ]
    wide = [_both_cores(one) for one in (slow, lit, hand)]
    return [echo(ours.bodies), *served, *others, *wide]


def many(kind: Kind, folder: Path) -> list[Contender]:
    """Those that take a thousand rows in one request."""
    trained = train(kind)
    model, asked = save(trained, folder), Asked(trained)
    rows = asked.many("/predict_many", lambda rows: {"rows": rows}, lambda said: said["p"])
    ours = {
        "named rows": asked.many(
            "/v1/predict", lambda rows: {"rows": [named(row, f"c{n}") for n, row in enumerate(rows)]}, scores_of_rows
        ),
        "tensors": asked.many(f"/v2/models/{noria_request.system.name}/infer", tensors, scores_of_tensors),
    }
    served = [
        noria(HERE / "noria_request.py", _home(folder, trained, name.replace(" ", "-")), form, f"Noria, {name}")
        for name, form in ours.items()
    ]
    everything = asked.many("/invocations", lambda rows: {"inputs": rows}, lambda said: [pair[1] for pair in said["predictions"]])
    features = asked.many("/predict", lambda rows: {"features": rows}, lambda said: said["p"])
    return [
        *served,
        mlflow(model, everything),
        litserve(model, features),
        fastapi(model, rows),
        bentoml(model, replace(rows, scores=list)),
    ]


def windows(folder: Path) -> list[Contender]:
    """Noria alone: 20 windowed features of the asked customer are looked up. Checked as of a fixed time, loaded as of now."""
    customers, now, expected = noria_home.windows_home(folder / "windows")
    bodies = [json.dumps({"row": {"customer": customer}, "asked_at": now.isoformat()}) for customer in customers]
    now_bodies = [json.dumps({"row": {"customer": customer}}) for customer in customers]
    form = Form("/v1/predict", bodies, lambda said: [said["score"]], [[score] for score in expected.tolist()], now_bodies)
    ours = noria(HERE / "noria_windows.py", folder / "windows", form, "Noria, 20 windows looked up")
    return [echo(now_bodies), ours]


def workers(kind: Kind, folder: Path, counts: Sequence[int]) -> list[Contender]:
    """Noria with more or fewer processes, on all cores."""
    trained = train(kind)
    ours = Asked(trained).one("/v1/predict", lambda row, who: {"row": named(row, who)}, lambda said: [said["score"]])
    made = []
    for count in counts:
        home = _home(folder, trained, f"workers-{count}")
        name = f"Noria, {count} worker{'s' if count > 1 else ''}"
        made.append(replace(noria(HERE / "noria_request.py", home, ours, name, NORIA_WORKERS=str(count)), cores="0,1"))
    return made


def _home(folder: Path, trained: Trained, name: str) -> Path:
    path = folder / f"{trained.kind}-{name}"
    if not path.exists():
        noria_home.request_home(path, trained)
    return path


def _both_cores(contender: Contender) -> Contender:
    """The same on both cores with as many threads as the library wants: as it starts when nobody says otherwise."""
    threads = {name: value for name, value in contender.environment.items() if name not in ONE_THREAD}
    return replace(contender, name=f"{contender.name}, both cores", cores="0,1", environment=threads)
