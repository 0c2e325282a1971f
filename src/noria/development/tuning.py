"""The search over settings: on the validation part only, the same number of trials for every recipe, several seeds for boosting.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011, Watanabe 2023) with a fixed seed proposes settings, ``BATCH`` at a time.
A trial is fitted on a sample of the training part (each seed its own, at most ``TRIAL_ROWS`` rows and nine tenths) and scored on the
validation part; a setting's score is its mean over the seeds (equal effort, several seeds). The test part is never touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria import stats
from noria.development.frames import Rows, rounded, seed_of, spaced
from noria.development.recipes import DEFAULTS, Task, fit
from noria.development.workers import run
from noria.records import Tuned
from noria.system import Boosting, Candidate, Linear, System

TRIAL_ROWS = 20_000
SCORE_ROWS = 10_000
BATCH = 2


def tunable(recipe: Candidate) -> bool:
    """Whether there are settings to search."""
    return isinstance(recipe, Linear | Boosting)


def trials(system: System) -> int:
    """How many settings each recipe may try: as many as the most that any of them declares, so that effort is equal."""
    return max((recipe.trials for recipe in system.recipes if isinstance(recipe, Linear | Boosting)), default=0)


def defaults(recipe: Candidate) -> dict[str, Any]:
    """The settings of a recipe that was never searched; the first trial of every search."""
    return dict(DEFAULTS.get(type(recipe).__name__, {}))


def search(task: Task, validate: Rows, name: str, recipe: Candidate, *, threads: int) -> Tuned:
    """Searches; the record has the best settings, their score (in the metric's own direction) and its spread over seeds."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    system = task.system
    seed = seed_of("tuned", name, task.train.n, *(str(t) for t in task.train.frame.get_column("_time")[[0, -1]]))
    sign = stats.better(system.objective.metric)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(defaults(recipe))
    seeds = recipe.seeds if isinstance(recipe, Boosting) else 1
    known = validate.known()
    known = known.take(spaced(known.n, SCORE_ROWS))
    samples = [task.sample(_sample(task.train.n, seed + k)) for k in range(seeds)]
    matrix = task.encoder.encode(known.frame)

    def score(settings: dict[str, Any], k: int) -> float:
        model = fit(samples[k], recipe, settings, seed + k)
        predicted = model.predict_matrix(matrix) if model.encoder.names else model.predict(known.frame)
        return sign * stats.compute(
            system.objective.metric, known.label, predicted, weights=known.weights, quantile=task.quantile
        )

    total = trials(system)
    spreads: dict[int, float] = {}
    for begun in range(0, total, BATCH):
        asked = [study.ask() for _ in range(min(BATCH, total - begun))]
        tried = [_suggest(trial, recipe) for trial in asked]
        jobs = [(lambda s=settings, k=k: score(s, k)) for settings in tried for k in range(seeds)]
        found = np.array(run(jobs, threads)).reshape(len(asked), seeds)
        for trial, results in zip(asked, found, strict=True):
            mean = float(results.mean())
            spreads[trial.number] = float(results.std())
            study.tell(trial, mean if np.isfinite(mean) else -1e300)
    best = study.best_trial
    return Tuned(
        recipe=name,
        declaration=system.id,
        best=dict(sorted(best.params.items())),
        score=rounded(sign * float(best.value or 0.0)) or 0.0,
        trials=total,
        spread=rounded(spreads[best.number]),
    )


def _sample(n: int, seed: int) -> NDArray[np.int64]:
    """Places of the rows that a seed fits on, in time order."""
    size = max(1, min(TRIAL_ROWS, n * 9 // 10))
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def _suggest(trial: Any, recipe: Candidate) -> dict[str, Any]:
    if isinstance(recipe, Linear):
        return {"strength": trial.suggest_float("strength", 1e-4, 1e2, log=True)}
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "max_iter": trial.suggest_int("max_iter", 30, 120, step=10),
        "max_leaf_nodes": trial.suggest_categorical("max_leaf_nodes", [7, 15, 31]),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 10, 300, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 1e-3, 30.0, log=True),
        "max_features": trial.suggest_float("max_features", 0.3, 1.0),
    }
