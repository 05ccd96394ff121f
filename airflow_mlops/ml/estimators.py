"""Build scikit-learn estimators by name, with messages that say what is misspelled."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import all_estimators

from airflow_mlops.exceptions import CodeNotAllowed, TrainingError
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.preprocessing import categorical_positions, preprocessor


def pipeline(schema: FeatureSchema, estimator: BaseEstimator) -> Pipeline:
    """The unfitted model: preprocessing for ``estimator``, and ``estimator``."""
    if positions := categorical_positions(schema, estimator):
        estimator.set_params(categorical_features=positions)
    return Pipeline([("prepare", preprocessor(schema, estimator)), ("model", estimator)])


def build_estimator(path: str, params: dict[str, Any], allowed: Sequence[str], seed: int) -> BaseEstimator:
    """Build the estimator ``path`` with ``params``; ``random_state`` is ``seed`` unless it is set.

    :raises TrainingError: no such estimator or parameter, with the nearest names; or not an estimator.
    :raises CodeNotAllowed: for a path outside ``allowed``.
    """
    try:
        cls: Any = resolve(path, allowed)
    except CodeNotAllowed as e:
        if not path.startswith("sklearn."):
            raise
        raise TrainingError(f"train.estimator: there is no {path}", hint=_nearest_estimator(path)) from e
    if not inspect.isclass(cls) or not all(hasattr(cls, m) for m in ("fit", "get_params", "set_params")):
        raise TrainingError(f"train.estimator: {path} is not an estimator class", hint=_nearest_estimator(path))
    if not hasattr(cls, "predict"):
        raise TrainingError(
            f"train.estimator: {path} cannot predict", hint="name a classifier or regressor, not a transformer"
        )
    arguments = inspect.signature(cls).parameters
    if not any(a.kind is a.VAR_KEYWORD for a in arguments.values()):
        check_params(params, list(arguments), cls.__name__, "train.params")
    if "random_state" in arguments:
        params = {"random_state": seed, **params}
    try:
        return cls(**params)
    except Exception as e:
        raise TrainingError(
            f"train.params: {cls.__name__} cannot be built: {e}", hint="estimators that wrap others need a callable"
        ) from e


def check_params(given: Iterable[str], valid: Sequence[str], owner: str, where: str) -> None:
    """Refuse a parameter that ``owner`` does not have.

    :raises TrainingError: naming it, the nearest and all valid ones.
    """
    for name in given:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, 1)
            raise TrainingError(
                f"{where}: {owner} has no parameter {name!r}",
                hint=(f"did you mean {near[0]!r}? " if near else "") + f"It takes: {', '.join(sorted(valid))}",
            )


def _nearest_estimator(path: str) -> str:
    public = {
        name: ".".join(p for p in cls.__module__.split(".") if not p.startswith("_")) + f".{name}"
        for name, cls in all_estimators(type_filter=["classifier", "regressor"])
    }
    near = difflib.get_close_matches(path.rpartition(".")[2], public, 3, 0.6)
    return f"did you mean {' or '.join(public[n] for n in near)}?" if near else "see scikit-learn's list of estimators"


def readable(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters fit for JSON: what is not plain, or not finite, is written as its repr."""
    return {k: v if _is_plain(v) else repr(v) for k, v in params.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, str | int)
