"""How many blocks a decision takes: the days that `noria check` prints."""

from __future__ import annotations

import math

from scipy import special

from noria.stats.sequential import PRIOR, half_width


def blocks_needed(
    sd: float,
    effect: float,
    *,
    error: float = 0.05,
    power: float = 0.8,
    autocorrelation: float = 0.0,
    sequential: bool = True,
    prior: float = PRIOR,
    most: int = 100_000,
) -> int | None:
    """Blocks until a true difference of ``effect`` is decided with chance ``power``.

    Parameters
    ----------
    sd:
        Standard deviation of a block's mean difference, in the units of ``effect``.
    error:
        Two-sided error rate.
    autocorrelation:
        Of neighbouring blocks, -1 to 1; negative counts as 0.
    sequential:
        For ``sequential.mean_sequence`` with this ``prior``, looked at after every block (default), or for one t-test at the end.

    Returns ``None`` when it takes more than ``most`` blocks or the effect is 0.

    >>> blocks_needed(1.0, 0.4, sequential=False), blocks_needed(1.0, 0.4)
    (51, 102)
    """
    if not effect or sd < 0 or not math.isfinite(sd):
        return None
    size = abs(effect) / sd if sd > 0 else math.inf
    r = min(max(autocorrelation, 0.0), 0.9)
    k = (1 + r) / (1 - r)
    beta = float(special.ndtri(power))

    def decided(blocks: int) -> bool:
        n = blocks / k
        if n <= 2:
            return False
        width = half_width(n, error, prior) if sequential else float(special.stdtrit(n - 1, 1 - error / 2)) / math.sqrt(n)
        return size >= width + beta / math.sqrt(n)

    low, high = 2, 4
    while not decided(high):
        low, high = high, high * 2
        if high > 2 * most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high if high <= most else None
