"""Search over hyperparameters by cross-validation, one recorded trial after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import KFold, ParameterGrid, ParameterSampler, StratifiedKFold
from sklearn.pipeline import Pipeline

from airflow_mlops.config.models import Search
from airflow_mlops.exceptions import EvaluationError, TrainingError
from airflow_mlops.ml.estimators import check_params, readable
from airflow_mlops.ml.features import plain, positive_class
from airflow_mlops.ml.metrics import Metric, Predictions, default_metrics
from airflow_mlops.ml.privacy import told
from airflow_mlops.ml.resampled import corrected_t

CONFIDENCE = 0.95
"""At which the best trial is told apart from the others, all of them together."""


def search(
    model: Pipeline,
    features: pd.DataFrame,
    y: pd.Series,
    config: Search,
    metric_name: str | None,
    task: str,
    positive: Any,
    seed: int,
    log: Callable[[str], None],
    private: Collection[str] = (),
) -> tuple[Pipeline, list[dict[str, Any]]]:
    """Try parameters of the last step, refit the best on all rows; returns the model and the trials.

    Draws the parameters that scikit-learn's ``RandomizedSearchCV`` (or ``GridSearchCV``) would draw with the same
    seed, over shuffled, seeded folds (stratified for classes). Its own loop, so that every trial is logged as it
    ends and one that fails is recorded instead of ending the search.

    :param features: training rows × feature columns.
    :param y: shape (rows,).
    :param positive: the class of binary metrics.
    :param private: columns whose values the errors of trials must not quote.
    :raises EvaluationError: the metric does not exist or does not suit the task.
    :raises TrainingError: a parameter the estimator lacks, fewer rows in a class than folds, or no trial worked.
    """
    estimator = model[-1]
    check_params(config.space, list(estimator.get_params()), type(estimator).__name__, "train.search.space")
    classes = None if task == "regression" else _ordered(sorted(y.unique().tolist()), positive)
    n_classes = None if classes is None else len(classes)
    kind: Any = "regression" if classes is None else "classification"
    metric = Metric(metric_name or default_metrics(kind, n_classes)[0])
    metric.check_task(kind, n_classes)
    folds = _folds(features, y, config.cv, classes is not None, seed)
    space = {k: list(v) for k, v in config.space.items()}
    size = math.prod(len(v) for v in space.values())
    if size == 0:
        raise TrainingError("train.search.space holds an empty list", hint="give each parameter at least one value")
    if config.strategy == "grid":
        candidates = list(ParameterGrid(space))
    else:
        # Lists are sampled without replacement: more than there are is all of them.
        candidates = list(ParameterSampler(space, min(config.n_iter, size), random_state=seed))
    log(f"Searching {len(candidates)} of {size} combinations for {metric.name}, {config.cv} folds each")
    trials: list[dict[str, Any]] = []
    best: tuple[float, dict[str, Any]] | None = None
    for number, params in enumerate(candidates, 1):
        started, error, scores = time.monotonic(), None, []
        prefixed = {f"model__{k}": v for k, v in params.items()}
        try:
            for fit_rows, score_rows in folds:
                fitted = clone(model).set_params(**prefixed).fit(features.iloc[fit_rows], y.iloc[fit_rows])
                scores.append(_score(metric, fitted, features.iloc[score_rows], y.iloc[score_rows], classes))
        except EvaluationError:
            raise
        except Exception as e:  # noqa: BLE001 - recorded and logged; the search fails below if no trial worked
            error = " ".join(told(e, private).split())[:300]
        seconds = time.monotonic() - started
        trial: dict[str, Any] = {
            "params": readable(params),
            "mean": None,
            "std": None,
            "seconds": seconds,
            "error": error,
        }
        if error is None:
            mean = float(np.mean(scores))
            trial |= {
                "mean": metric.printed(mean),
                "std": float(np.std(scores)),
                "scores": [metric.printed(float(v)) for v in scores],
            }
            if best is None or mean > best[0]:
                best = mean, prefixed
        trials.append(trial)
        result = error or f"{metric.name} {trial['mean']:.4f} ± {trial['std']:.4f}"
        log(f"Trial {number}/{len(candidates)}: {params}: {result} ({seconds:.1f} s)")
    if best is None:
        raise TrainingError(
            f"none of the {len(trials)} trials could be fitted; the first: {trials[0]['params']}: {trials[0]['error']}",
            hint="check train.params and train.search.space against the estimator's documentation",
        )
    _tell_apart(trials, metric, config.cv, log)
    log(f"Best {metric.name}: {metric.printed(best[0]):.4f}; fitting it on all {len(features):,} rows")
    return clone(model).set_params(**best[1]).fit(features, y), trials


def _tell_apart(trials: list[dict[str, Any]], metric: Metric, folds: int, log: Callable[[str], None]) -> None:
    """Note in each trial how far it is behind the best one, and whether that can be told.

    By the corrected resampled t test, all trials together (Bonferroni). The best one was chosen by these scores, which
    makes it look better than it is: what cannot be told apart here is surely not.
    """
    fitted = [t for t in trials if t["error"] is None]
    best = max(fitted, key=lambda t: metric.printed(t["mean"]))
    others = [t for t in fitted if t is not best]
    alike = 0
    for trial in others:
        scores = ([metric.printed(v) for v in t["scores"]] for t in (best, trial))
        found = corrected_t(*scores, train_rows=folds - 1, test_rows=1)
        low, high = found.bounds(1 - (1 - CONFIDENCE) / len(others))
        trial["behind_best"] = {"value": found.value, "low": low, "high": high, "shown": low > 0}
        alike += low <= 0
    if others:
        log(
            f"{alike} of the {len(others)} other trials cannot be told apart from the best one by {folds} folds "
            f"(corrected resampled t, {CONFIDENCE:.0%})"
        )


def _ordered(classes: list[Any], positive: Any) -> list[Any]:
    """Classes in the order of their codes; of two, the positive one is code 1."""
    if len(classes) == 2 and positive is not None:
        chosen = positive_class(classes, positive, "the target")
        return [c for c in classes if c != chosen] + [chosen]
    return classes


def _folds(
    features: pd.DataFrame, y: pd.Series, n: int, stratified: bool, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    rarest = int(y.value_counts().min()) if stratified else len(y)
    if rarest < n:
        what = (
            f"class {plain(y.value_counts().idxmin())!r} has {rarest} rows"
            if stratified
            else f"there are {len(y)} rows"
        )
        raise TrainingError(
            f"train.search.cv is {n}, but {what} in the training part",
            hint=f"set train.search.cv to at most {max(rarest, 2)}, or take more data",
        )
    splitter: Any = (StratifiedKFold if stratified else KFold)(n, shuffle=True, random_state=seed)
    return list(splitter.split(features, y))


def _score(metric: Metric, model: BaseEstimator, X: pd.DataFrame, y: pd.Series, classes: list[Any] | None) -> float:
    fitted: Any = model
    if classes is None:
        return metric.score(y.to_numpy(dtype=float), Predictions(labels=fitted.predict(X)), n_classes=None)
    code = {c: i for i, c in enumerate(classes)}
    columns = np.argsort([code[c] for c in fitted.classes_.tolist()])
    labels = proba = decision = None
    if metric.needs_labels:
        labels = np.array([code[v] for v in fitted.predict(X).tolist()])
    elif hasattr(fitted, "predict_proba"):
        proba = fitted.predict_proba(X)[:, columns]
    elif hasattr(fitted, "decision_function"):
        decision = fitted.decision_function(X)
        # A binary decision is for the estimator's second class.
        decision = decision[:, columns] if decision.ndim == 2 else decision * (1 if columns[0] == 0 else -1)
    return metric.score(y.map(code).to_numpy(), Predictions(labels, proba, decision), n_classes=len(classes))
