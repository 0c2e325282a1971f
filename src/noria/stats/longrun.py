"""How uncertain the mean of a few autocorrelated blocks is: what every interval of Noria rests on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LARGEST = 0.9


def block_sums(blocks: Ints, *columns: Floats) -> tuple[Floats, ...]:
    """The sums of each column (length rows) by block, blocks in ascending order.

    >>> block_sums(np.array([3, 1, 1]), np.array([5.0, 1.0, 2.0]))
    (array([3., 5.]),)
    """
    _, places = np.unique(blocks, return_inverse=True)
    return tuple(np.asarray(np.bincount(places, weights=column), float) for column in columns)


def inflation(deviations: Floats) -> float:
    """By how much autocorrelation multiplies the variance of the mean: (1+r)/(1-r), with r the lag-one autocorrelation.

    Sample autocorrelation is biased towards -1 in short series; r gets the first-order correction (1+4r)/n of Marriott and
    Pope (1954, Biometrika 41), is cut at 0 from below (negative autocorrelation is not trusted to narrow an interval) and at
    0.9 from above. ``deviations`` are in time order and sum to about 0.
    """
    n = len(deviations)
    total = float(deviations @ deviations)
    if n < 3 or total <= 0:
        return 1.0
    raw = float(deviations[1:] @ deviations[:-1]) / total
    r = min(max(raw + (1 + 4 * raw) / n, 0.0), _LARGEST)
    return min((1 + r) / (1 - r), n / 2)


def mean_error(deviations: Floats) -> tuple[float, float]:
    """The standard error of the mean behind these deviations, and the degrees of freedom of its t-distribution.

    The variance of the mean is inflated for first-order autocorrelation and for the part of it that centring on the sample's
    own mean hides; the degrees of freedom are the effective number of blocks (n / inflation) less one (Zwiers and von Storch
    1995, J. Climate 8). Simulated coverage of nominal 95 % intervals, AR(1) blocks (4,000 runs each)::

        blocks          10     14     20     30     60       plain t, 10..60
        normal   r=0    .965   .967   .964   .964   .957     .951 .. .948
        normal   r=.3   .928   .937   .934   .939   .942     .862 .. .850
        normal   r=.5   .897   .917   .922   .934   .939     .758 .. .735
        t3       r=0    .975   .970   .969   .970   .959     .962 .. .950
        t3       r=.3   .935   .935   .938   .952   .945     .869 .. .850
        t3       r=.5   .905   .918   .927   .943   .945     .747 .. .725
        lognorm. r=0    .882   .886   .884   .900   .909     .840 .. .899
        lognorm. r=.3   .847   .848   .853   .872   .885     .765 .. .823
        lognorm. r=.5   .818   .823   .829   .851   .868     .672 .. .730

    Newey-West with fixed-b critical values covers less at every length here (.829 at r=.5, 10 blocks); equal-weighted cosines
    (Lazarus et al. 2018) cover 1 to 5 points more with intervals up to twice as wide. The remaining shortfall for lognormal
    blocks is skewness, which no variance estimate mends; the mean of hundreds of rows a day is far less skewed.
    """
    n = len(deviations)
    if n < 2:
        return float("nan"), 0.0
    k = inflation(deviations)
    variance = float(deviations @ deviations) / max(n - k, 0.3 * n)
    return float(np.sqrt(variance * k / n)), max(n / k - 1, 2.0) if n > 2 else 1.0
