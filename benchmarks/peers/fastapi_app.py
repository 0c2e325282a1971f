"""A model behind FastAPI as a careful person writes it: ``uvicorn fastapi_app:app``, with uvloop and httptools.

``MODEL`` names the model's file. With ``LOG`` (a SQLite file) every prediction is on the disk before its answer goes out: one thread writes
whatever is waiting in one transaction, so that requests share a flush.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sqlite3
import threading
import time
import uuid
from typing import Any

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

model = joblib.load(os.environ["MODEL"])
app = FastAPI()


class One(BaseModel):
    features: list[float]


class Many(BaseModel):
    rows: list[list[float]]


class Log:
    """A durable log with group commit."""

    def __init__(self, path: str) -> None:
        self._waiting: queue.SimpleQueue[tuple[tuple[Any, ...], asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._write, args=(path,), daemon=True).start()

    async def append(self, features: list[float], p: float) -> None:
        """Returns when it is on the disk."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put(((uuid.uuid4().hex, time.time(), json.dumps(features), p), future))
        await future

    def _write(self, path: str) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "pragma journal_mode=wal",
            "pragma synchronous=full",
            "create table if not exists log (id text primary key, time real, features text, p real)",
        ):
            connection.execute(statement)
        while True:
            taken = [self._waiting.get()]
            while not self._waiting.empty():
                taken.append(self._waiting.get())
            connection.execute("begin")
            connection.executemany("insert into log values (?, ?, ?, ?)", [row for row, _ in taken])
            connection.execute("commit")
            futures = [future for _, future in taken]
            futures[0].get_loop().call_soon_threadsafe(_resolve, futures)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


log = Log(os.environ["LOG"]) if os.environ.get("LOG") else None


@app.post("/predict")
async def predict(given: One) -> dict[str, float]:
    p = float(model.predict_proba(np.array([given.features]))[0, 1])
    if log is not None:
        await log.append(given.features, p)
    return {"p": p}


@app.post("/predict_many")
async def predict_many(given: Many) -> dict[str, list[float]]:
    return {"p": model.predict_proba(np.array(given.rows))[:, 1].tolist()}
