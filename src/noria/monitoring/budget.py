"""How the declared budget of false alarms is shared: every threshold of monitoring that is no fixed number is set from its part of it.

``system.alerts`` says how many false alarms there may be in how much time, over all that is watched together. The budget is divided
among groups of monitors in fixed parts, and within a group among its rules. Alarms that come together count once for every rule,
so the sum bounds the alarms of all (a union bound), however the monitors hang together. What is outside: bounds that are fixed numbers
(operations, sources), and a single window that is grossly beyond its bound (``facts``).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from noria.core import duration
from noria.system import System

SHARES: dict[str, float] = {
    "drift": 0.22,
    "score": 0.06,
    "inputs": 0.06,
    "label": 0.06,
    "label shift": 0.03,
    "harm slow": 0.14,
    "harm fast": 0.16,
    "calibration": 0.04,
    "concept": 0.04,
    "slice": 0.04,
    "diversity": 0.02,
}
"""A tenth is verification's (``data.verify.PART``), and what is left over is for the rules with fixed bounds: operations, expected performance."""
RUNNING = 0.3
RULE, CLEAR = (2, 2), 5
"""When a fact becomes an alert: two windows in a row beyond their bound. When it is over: five within."""


def per_window(system: System) -> float:
    """How many false alarms one window may raise on average, over everything that is watched.

    >>> from types import SimpleNamespace
    >>> import noria as nr
    >>> round(per_window(SimpleNamespace(every="1d", alerts=nr.Alerts(false_alarms=1, per="28d"))), 4)
    0.0357
    """
    return system.alerts.false_alarms * (duration(system.every) / duration(system.alerts.per))


def share(system: System, group: str) -> float:
    """The expected false alarms in one window that a group of monitors may raise: its part of ``per_window``.

    ``group`` is one of ``SHARES``; any other raises ``KeyError``. A group with several rules divides its part among them.
    """
    return per_window(system) * SHARES[group]


def sequence_error(rate: float, every: int, sides: int = 1) -> float:
    """The error of confidence sequences of which one is begun at every ``every``-th window, for ``rate`` false alarms in a window.

    A sequence of error e is ever beyond its bound on one side with a chance of at most e / 2, and raises one alarm then: e / 2 for
    every ``every`` windows and side.

    >>> round(sequence_error(0.001, 7), 4)
    0.014
    """
    return min(0.2, 2 * every * rate / sides)


@lru_cache(maxsize=256)
def window_error(rate: float, rule: tuple[int, int], running: float = RUNNING) -> float:
    """How often one ordinary window may be beyond its threshold, so that "k of the last m" begins at most ``rate`` times in a window.

    Parameters
    ----------
    rate:
        False alarms in a window that the rule may raise.
    rule:
        (k, m).
    running:
        How much windows follow one another: the correlation of "beyond" from one window to the next (a Markov chain of two states,
        of which the rule's rate is computed exactly).

    >>> round(window_error(0.01, (1, 1), 0.0), 3), round(window_error(0.01, (2, 2), 0.0), 3), round(window_error(0.01, (2, 2), 0.3), 3)
    (0.01, 0.106, 0.045)
    """
    low, high = 0.0, 0.5
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if begins(middle, rule, running) <= rate else (low, middle)
    return float(f"{low:.6g}")


def begins(p: float, rule: tuple[int, int], running: float = RUNNING) -> float:
    """How often in a window "k of the last m beyond" becomes true, when a window is beyond with chance ``p``; see ``window_error``."""
    k, m = rule
    stay, come = p + (1 - p) * running, p * (1 - running)
    total = 0.0
    for bits in range(2 ** (m + 1)):  # the windows m ago … now: not yet k among the m before, k among the last m
        beyond = [bits >> place & 1 for place in range(m + 1)]
        if sum(beyond[:m]) >= k or sum(beyond[1:]) < k:
            continue
        chance = p if beyond[0] else 1 - p
        for before, after in pairwise(beyond):
            up = stay if before else come
            chance *= up if after else 1 - up
        total += chance
    return total
