"""Fits at the same time, each on one thread.

Gradient boosting adds up gradients over its threads, so its last digits depend on how many there are. A fit here has one thread
always; what uses the machine is that several fits run at once. Results come back in the order they were asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


def run(jobs: Sequence[Callable[[], R]], threads: int) -> list[R]:
    """The results of all jobs, in order; the first error is raised.

    >>> run([lambda: 1, lambda: 2], 2)
    [1, 2]
    """
    import sklearn.ensemble  # noqa: F401  only a library that is loaded already can be limited
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # it has no stubs

    controller = ThreadpoolController()

    def one(job: Callable[[], R]) -> R:
        with controller.limit(limits=1, user_api="openmp"):  # openmp's limit belongs to the thread that sets it
            return job()

    with (
        warnings.catch_warnings(),  # here, not in the jobs: what a thread filters, another thread's exit takes back
        controller.limit(limits=1, user_api="blas"),
        ThreadPoolExecutor(max(1, min(threads, len(jobs) or 1))) as pool,
    ):
        # a solution that is still moving in the fourth digit is as good a model, and the search sees its score
        warnings.simplefilter("ignore", ConvergenceWarning)
        return [future.result() for future in [pool.submit(one, job) for job in jobs]]
