"""The matrix that linear models and foreign estimators read: standardised numbers, missing indicators, one column a category.

A missing number takes the training part's mean (0 after standardising) and sets its indicator. Standardised numbers are clipped
at ``CLIP`` standard deviations, so that a wild input cannot carry a linear score to where nothing was ever seen.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.model.encoder import Encoder

CLIP = 8.0


class Design(msgspec.Struct, frozen=True):
    """``numbers`` and ``texts`` are places in the encoder's matrix; ``mean`` and ``scale`` belong to ``numbers``; ``sizes`` counts codes."""

    numbers: tuple[int, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    texts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def width(self) -> int:
        return 2 * len(self.numbers) + sum(self.sizes)

    def dense(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """All columns: numbers, their missing indicators, then a block per text column."""
        made = np.zeros((len(matrix), self.width), dtype=np.float64)
        n = len(self.numbers)
        for j in range(n):
            made[:, j], made[:, n + j] = self.number(matrix, j)
        start = 2 * n
        for place, size in zip(self.texts, self.sizes, strict=True):
            made[np.arange(len(matrix)), start + matrix[:, place].astype(np.int64)] = 1.0
            start += size
        return made

    def sparse(self, matrix: NDArray[np.float64]) -> Any:
        """The same as a scipy CSR matrix, without making the dense one."""
        from scipy import sparse

        n, rows = len(self.numbers), len(matrix)
        blocks = []
        if n:
            both = [self.number(matrix, j) for j in range(n)]
            blocks.append(sparse.csr_matrix(np.column_stack([z for z, _ in both])))
            blocks.append(sparse.csr_matrix(np.column_stack([missing for _, missing in both])))
        for place, size in zip(self.texts, self.sizes, strict=True):
            codes = matrix[:, place].astype(np.int64)
            blocks.append(sparse.csr_matrix((np.ones(rows), codes, np.arange(rows + 1)), shape=(rows, size)))
        return sparse.hstack(blocks, format="csr") if blocks else sparse.csr_matrix((rows, 0))

    def number(self, matrix: NDArray[np.float64], j: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The j-th number standardised, with 0 where it is missing; and where it is missing."""
        standard = (matrix[:, self.numbers[j]] - self.mean[j]) / self.scale[j]
        missing = np.isnan(standard)
        return np.clip(np.where(missing, 0.0, standard), -CLIP, CLIP), missing.astype(np.float64)


def fit_design(encoder: Encoder, matrix: NDArray[np.float64]) -> Design:
    """Learns means and standard deviations from the training part's matrix.

    >>> from noria.model.encoder import Column
    >>> design = fit_design(Encoder((Column("x", "number"),)), np.array([[1.0], [3.0], [np.nan]]))
    >>> design.dense(np.array([[3.0], [np.nan]])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    numbers = tuple(place for place, column in enumerate(encoder.columns) if column.kind == "number")
    mean, scale = [], []
    for place in numbers:
        values = matrix[:, place]
        values = values[np.isfinite(values)]
        spread = float(values.std()) if values.size else 0.0
        mean.append(float(values.mean()) if values.size else 0.0)
        scale.append(spread if spread > 1e-12 * max(1.0, abs(mean[-1])) else 1.0)
    sizes = tuple(len(encoder.columns[place].categories) + 1 for place in encoder.texts)
    return Design(numbers, tuple(mean), tuple(scale), encoder.texts, sizes)
