"""Every fault that is planted: where, how much, which causes name it rightly, and to which step it sends back.

A fault changes the world (``world.rows``), the tables that arrive, the files as they are written, the software that scores, or the money.
Only what happens from ``Stage.start`` on is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loopbench.histories import AT, DAY, Tables, World, tables
from noria.system import System

Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = ("small", "medium", "large")
LATER = ("record", "money")
Edit = Callable[[Tables], Tables]
Compute = Callable[..., pl.DataFrame]


@dataclass
class Stage:
    """The time after the prefix: what is still to arrive, and how the software differs from ``start`` on."""

    world: World
    start: datetime
    random: np.random.Generator
    system: System
    edits: list[Edit] = field(default_factory=list)
    shapes: list[Callable[[str, pl.DataFrame], pl.DataFrame]] = field(default_factory=list)
    features: Callable[[Compute, Any, System, pl.DataFrame], pl.DataFrame] | None = None
    answers: Callable[[Any, pl.DataFrame], Any] | None = None
    logged: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    acted: Callable[[Tables, pl.DataFrame], Tables] | None = None
    later: Callable[[System], System] | None = None
    touched: list[str] = field(default_factory=list)
    candidates: tuple[Any, ...] = ()

    @property
    def flights(self) -> bool:
        return self.world.history == "flights"

    def begin(self, table: str) -> datetime:
        """From when on what arrives in a table is about the time after ``start``."""
        return self.start + DAY if table in LATER else self.start

    def tables(self) -> Tables:
        """The tables with every edit."""
        made = tables(self.world)
        for edit in self.edits:
            made = edit(made)
        return made

    def shape(self, now: datetime) -> Callable[[str, pl.DataFrame], pl.DataFrame]:
        """How the files that come at ``now`` are changed as they are written."""

        def shaped(name: str, frame: pl.DataFrame) -> pl.DataFrame:
            for change in self.shapes if now > self.begin(name) else []:
                frame = change(name, frame)
            return frame

        return shaped

    def system_at(self, now: datetime) -> System:
        return self.later(self.system) if self.later is not None and now > self.start else self.system

    @property
    def arrives(self) -> datetime:
        """From when on something of the fault can be in a file or in the traffic."""
        return min((self.begin(table) for table in self.touched), default=self.start)

    # ------------------------------------------------------------------------------------------------------- helpers

    def edit(self, table: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Changes the rows of a table that arrive from ``begin`` on."""

        def edited(made: Tables) -> Tables:
            frame, begin = made[table], self.begin(table)
            late = change(frame.filter(pl.col(AT) > begin))
            return made | {table: pl.concat([frame.filter(pl.col(AT) <= begin), late.select(frame.columns)])}

        self.edits.append(edited)
        self.touched.append(table)

    def reshape(self, table: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Changes a table's files as they are written: their columns and types."""
        self.shapes.append(lambda name, frame: change(frame) if name == table else frame)
        self.touched.append(table)

    def some(self, n: int, share: float) -> NDArray[np.bool_]:
        """A random part of ``n`` rows."""
        return np.asarray(self.random.random(n) < share)

    def rewrite(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Changes the predicted rows asked from ``start`` on, and with them everything that follows from them."""
        rows = self.world.rows
        late = change(rows.filter(pl.col("asked") > self.start)).select(rows.columns)
        kept = pl.concat([rows.filter(pl.col("asked") <= self.start), late]).sort("asked", "id")
        self.world = World(self.world.history, kept, self.world.weather)


@dataclass(frozen=True)
class Fault:
    """A fault. ``seen`` says where it can first be seen: in the ``traffic``, or only in the ``labels`` once they are closed."""

    name: str
    about: str
    seen: Literal["traffic", "labels"]
    causes: tuple[str, ...]
    steps: tuple[str, ...]
    plant: Callable[[Stage, str], None]
    histories: tuple[str, ...] = ("flights", "elec2")
    gate: bool = False
    length: int = 8


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, about: str, seen: Literal["traffic", "labels"], *causes: str, steps: tuple[str, ...], **more: Any
) -> Callable[[Callable[[Stage, str], None]], Callable[[Stage, str], None]]:
    """Registers a planting function; ``causes`` are the right names, the first the truest."""

    def registered(plant: Callable[[Stage, str], None]) -> Callable[[Stage, str], None]:
        FAULTS[name] = Fault(name, about, seen, causes or (name,), steps, plant, **more)
        return plant

    return registered


def pick(size: str, *values: Any) -> Any:
    """The value of a size."""
    return values[SIZES.index(size)]


from loopbench import plant_data, plant_gate, plant_labels, plant_purpose, plant_software, plant_world  # noqa: E402, F401  they register
