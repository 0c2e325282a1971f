"""Which runs there are: two splits that share neither days nor seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

DAYS = {
    ("tune", "flights"): ("2013-01-01", "2013-07-01"),
    ("report", "flights"): ("2013-07-01", "2014-01-01"),
    ("tune", "elec2"): ("1997-05-12", "1998-02-23"),
    ("report", "elec2"): ("1998-02-23", "1998-12-05"),
    ("tune", "openbandit"): ("random", ""),
    ("report", "openbandit"): ("bts", ""),
}
SEEDS: dict[str, dict[str, tuple[int, ...]]] = {
    "tune": {"flights": (1, 2), "elec2": (1,), "openbandit": (1,)},
    "report": {"flights": (11, 12), "elec2": (11, 12), "openbandit": (11,)},
}
CLEAN = {"tune": 6, "report": 10}
CLEAN_LENGTH = 26
DRAWS = 3
BEFORE = (1, 3, 5)


@dataclass(frozen=True)
class Spec:
    """One run: the history and its days, the seed of the prefix, the draw of the days after it, the fault and its size.

    The fault begins ``before`` days after the prefix and lasts ``length`` days. Without a fault the run is clean: the clean run of the same
    draw is a faulted run's *twin*, with the same days and everything else alike.
    """

    split: str
    history: str
    days: tuple[str, str]
    seed: int
    draw: int
    fault: str
    size: str
    before: int
    length: int

    @property
    def key(self) -> str:
        what = f"{self.fault or 'clean'}/{self.size}" if self.fault else f"clean/{self.draw}"
        return f"{self.split}/{self.history}/{self.seed}/{what}/{self.before}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def planned(
    split: str,
    *,
    only: Sequence[str] = (),
    faults: Sequence[str] = (),
    sizes: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Spec]:
    """The runs of a split, clean ones first, then by seed: cut short, it still has every fault once."""
    from loopbench.faults import FAULTS, SIZES

    made: list[Spec] = []
    for history, numbers in SEEDS[split].items():
        if only and history not in only:
            continue
        days = DAYS[split, history]
        for place, seed in enumerate(numbers):
            if seeds and seed not in seeds:
                continue
            if (not faults or "clean" in faults) and history != "openbandit":
                for draw in range(CLEAN[split]):
                    made.append(Spec(split, history, days, seed, draw, "", "", 0, CLEAN_LENGTH))
            for k, (name, fault) in enumerate(FAULTS.items()):
                if history not in fault.histories or (faults and name not in faults):
                    continue
                for j, size in enumerate(SIZES):
                    if (sizes and size not in sizes) or (place and size == "small"):
                        continue
                    if history == "openbandit" and size != "large":
                        continue  # its clicks are as few as they are
                    before = 0 if fault.gate else BEFORE[(k + 2 * j + place) % len(BEFORE)]
                    made.append(Spec(split, history, days, seed, (k + j) % DRAWS, name, size, before, fault.length))
    return sorted(made, key=lambda spec: (bool(spec.fault), SEEDS[split][spec.history].index(spec.seed)))
