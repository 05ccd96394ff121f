"""Make a candidate: a scikit-learn estimator by name, a callable, a script by command line, or a job elsewhere."""

from __future__ import annotations

import inspect
import logging
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor

from airflow_mlops.config.models import Train
from airflow_mlops.exceptions import MLOpsError, TargetError, TrainingError, UntrustedArtifact
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.command import run_command
from airflow_mlops.ml.estimators import build_estimator, check_params, pipeline, readable
from airflow_mlops.ml.features import FeatureSchema, plain, positive_class
from airflow_mlops.ml.privacy import cause, told
from airflow_mlops.ml.search import search
from airflow_mlops.registry.artifacts import dump_model, load_model

Log = Callable[[str], None]
_MOST_CLASSES = 200
ELSEWHERE = (
    "run the pipeline in Airflow; to try it here, give another environment a `train` of its own "
    "(`sagemaker: null` beside an `estimator`, `callable` or `command`)"
)
"""What to do where a SageMaker job cannot be started."""


@dataclass(frozen=True)
class Trained:
    """A fitted candidate.

    :param model: takes the columns of ``schema`` as a DataFrame; for ``train.estimator`` a Pipeline with everything.
    :param seconds: wall-clock time of fitting, the search included.
    :param trials: one dict per trial of the search (params, mean, std, seconds, error); None without a search.
    :param classes: labels in the order of ``predict_proba``'s columns; None for regression.
    :param warnings: what the libraries warned of, each once.
    :param schema: the given schema with the classes learned, and only the columns the model reads.
    :param task: ``classification`` or ``regression``.
    :param params: the estimator's parameters as set, the best trial's included.
    """

    model: BaseEstimator
    seconds: float
    trials: list[dict[str, Any]] | None
    classes: tuple[Any, ...] | None
    warnings: tuple[str, ...]
    schema: FeatureSchema
    task: str
    params: dict[str, Any]


def train(
    frame: pd.DataFrame,
    y: pd.Series,
    schema: FeatureSchema,
    config: Train,
    task: str | None = None,
    metrics: Sequence[str] = (),
    allowed_imports: Sequence[str] = (),
    seed: int | None = None,
    log: Log | None = None,
    *,
    trusted_types: Sequence[str] = (),
    timeout: float | None = None,
    cwd: Path | None = None,
    function: Callable[..., Any] | None = None,
    model_file: Path | None = None,
) -> Trained:
    """Fit a candidate on the training part.

    Seeds ``random`` and ``numpy.random`` of this process: user code may draw from them.

    :param frame: training rows × columns; only the columns of ``schema`` are used.
    :param y: shape (rows,): the labels, or numbers for regression.
    :param task: ``classification`` or ``regression``; default: what the estimator is.
    :param metrics: scorer names; the first steers a search that names none.
    :param seed: default ``config.seed``.
    :param timeout: seconds after which a command is stopped; None: never.
    :param cwd: where a command runs; default: the current folder.
    :param function: the code that ``config.callable`` names, where it is at hand.
    :param model_file: what ``config.sagemaker`` left for these rows; only its job makes it.
    :raises TargetError: missing, infinite or single-valued labels.
    :raises TrainingError: whatever keeps a model from being made, with the part of ``train`` to change.
    :raises CodeNotAllowed: for code outside ``allowed_imports``.
    :raises EvaluationError: when the search's metric does not exist or does not suit the task.
    """
    say = log or logging.getLogger(__name__).info
    seed = config.seed if seed is None else seed
    y = checked_labels(y, schema.target)
    features = schema.check(frame, error=TrainingError)
    say(f"Training on {len(features):,} rows and {len(schema.features)} columns, seed {seed}")
    for name, why in schema.excluded:
        say(f"Not a feature: {name} ({why})")
    random.seed(seed)
    np.random.seed(seed)
    kind, trials, params, started = "", None, readable(config.params), time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if config.estimator:
            estimator = build_estimator(config.estimator, config.params, allowed_imports, seed)
            kind = task_of(estimator, task, config.estimator)
            y = _fit_for(kind, y, schema.target, config.estimator)
            model = pipeline(schema, estimator)
            if config.search:
                metric = config.search.metric or (metrics[0] if metrics else None)
                find = partial(
                    search, model, features, y, config.search, metric, kind, schema.positive, seed, say, schema.private
                )
                model, trials = _guard("the best trial", find, schema.private)
            else:
                model = _guard(config.estimator, partial(model.fit, features, y), schema.private)
            params = readable(model[-1].get_params(deep=False))
        elif config.callable:
            code: Any = function or resolve(config.callable, allowed_imports)
            model = _call(code, config, features, y, seed, schema.private)
        elif config.command:
            with tempfile.TemporaryDirectory(prefix="mlops-train-") as folder:
                path = run_command(
                    config.command, features, y.rename(schema.target), seed, Path(folder), say, timeout, cwd
                )
                model = load_model(path, trusted=trusted_types)
        elif model_file:
            model = load_model(model_file, trusted=trusted_types)
        else:
            raise TrainingError("train.sagemaker trains on SageMaker, not in this process", hint=ELSEWHERE)
    seconds = time.monotonic() - started
    if not config.estimator:
        made_by = f"the model of {config.callable or ('train.command' if config.command else 'train.sagemaker')}"
        kind = task_of(model, task, made_by)
        y = _fit_for(kind, y, schema.target, made_by)
        schema = _schema_of(model, schema, features, made_by)
    if config.callable:
        model = _round_trip(model, features[schema.names], made_by, trusted_types, schema.private)
    classes = tuple(plain(c) for c in model.classes_) if kind == "classification" else None
    positive = positive_class(classes, schema.positive, schema.target) if classes is not None else None
    # A library's warning tells of settings; code of one's own may quote rows.
    hidden = schema.private if config.callable else []
    said = tuple(dict.fromkeys(_warned(w.category.__name__, str(w.message), hidden) for w in caught))
    for text in said:
        say(f"Warning: {text}")
    say(f"Trained {type(getattr(model, 'steps', [(0, model)])[-1][1]).__name__} in {seconds:.1f} s")
    schema = replace(schema, classes=classes, positive=positive)
    return Trained(model, seconds, trials, classes, said, schema, kind, params)


def _warned(kind: str, message: str, private: Collection[str]) -> str:
    return f"{kind}: {'left out, as it may quote data.private' if private else ' '.join(message.split())}"


def checked_labels(y: pd.Series, target: str) -> pd.Series:
    """The labels in types that estimators know.

    :raises TargetError: missing, infinite or single-valued labels.
    """
    missing = int(y.isna().sum())
    if missing:
        raise TargetError(
            f"the target {target!r} is missing in {missing:,} of {len(y):,} training rows",
            hint="drop these rows at the source, or expect_column_values_to_not_be_null with on_failure: quarantine",
        )
    if y.nunique() < 2:
        only = f"only the value {plain(y.iloc[0])!r}" if len(y) else "no value"
        raise TargetError(
            f"the target {target!r} has {only} in {len(y):,} training rows: there is nothing to learn",
            hint="take more data (data.window), or look at how the target is made",
        )
    if pd.api.types.is_float_dtype(y) and not np.isfinite(y.to_numpy(dtype=float)).all():
        raise TargetError(f"the target {target!r} is infinite in some rows", hint="repair or drop these rows")
    if isinstance(y.dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(y):
        return y.astype(object)
    # Arrow and nullable types become NumPy's, which is what estimators know.
    return pd.Series(y.to_numpy(), index=y.index, name=y.name)


def task_of(model: Any, wanted: str | None, what: str) -> str:
    """What an estimator is for: ``classification`` or ``regression``.

    :param what: what a message calls it.
    :raises TrainingError: it is for neither, cannot predict, or is not for the ``wanted`` task.
    """
    if not hasattr(model, "predict"):
        raise TrainingError(
            f"{what} is of type {type(model).__name__}, which cannot predict",
            hint="return a fitted scikit-learn estimator or Pipeline",
        )
    is_what = "classification" if is_classifier(model) else "regression" if is_regressor(model) else None
    if is_what is None:
        raise TrainingError(f"{what} is neither a classifier nor a regressor", hint="use one of the two")
    if wanted is not None and wanted != is_what:
        raise TrainingError(
            f"the pipeline's task is {wanted}, but {what} is for {is_what}",
            hint=f"name a {'classifier' if wanted == 'classification' else 'regressor'}, or change `task`",
        )
    return is_what


def _fit_for(task: str, y: pd.Series, target: str, what: str) -> pd.Series:
    numeric = pd.api.types.is_numeric_dtype(y) and not pd.api.types.is_bool_dtype(y)
    if task == "regression":
        if not numeric:
            raise TrainingError(
                f"{what} is a regressor, but the target {target!r} holds labels like {y.iloc[0]!r}",
                hint="use a classifier, or a target of numbers",
            )
        return y
    if numeric and pd.api.types.is_float_dtype(y):
        if (y % 1 != 0).any():
            raise TrainingError(
                f"{what} is a classifier, but the target {target!r} holds numbers like {float(y[y % 1 != 0].iloc[0])}",
                hint="use a regressor, or make classes of the target",
            )
        y = y.astype("int64")
    if y.nunique() > _MOST_CLASSES:
        raise TrainingError(
            f"{what} is a classifier, but the target {target!r} has {y.nunique():,} different values",
            hint=f"use a regressor, or a target of at most {_MOST_CLASSES} classes",
        )
    return y


def _guard(what: str, fit: Callable[[], Any], private: Collection[str] = ()) -> Any:
    try:
        return fit()
    except MLOpsError:
        raise
    except Exception as e:  # noqa: BLE001 - raised as our own; its own words may quote what is private
        raise TrainingError(
            f"{what} failed: {told(e, private)}",
            hint="its own traceback is in the log, after this one"
            if what.startswith("the callable ")
            else "check train.params against the documentation",
        ) from cause(e, private)


def _call(
    function: Any, config: Train, features: pd.DataFrame, y: pd.Series, seed: int, private: Collection[str]
) -> Any:
    arguments = inspect.signature(function).parameters
    if not any(a.kind is a.VAR_KEYWORD for a in arguments.values()):
        check_params([*config.params, "seed"], list(arguments), str(config.callable), "train.params")
    call = partial(function, features, y, seed=seed, **config.params)
    return _guard(f"the callable {config.callable}", call, private)


def _round_trip(model: Any, features: pd.DataFrame, what: str, trusted: Sequence[str], private: Collection[str]) -> Any:
    """Save and load the callable's model as the registry will: what cannot be stored is said now, not at promotion."""
    with tempfile.TemporaryDirectory(prefix="mlops-train-") as folder:
        file = Path(folder) / "model.skops"
        try:
            dump_model(model, file)
            loaded = load_model(file, trusted=trusted)
        except UntrustedArtifact:
            raise
        except Exception as e:
            raise TrainingError(
                f"{what} cannot be stored as skops: {type(e).__name__}: {e}",
                hint="build it of scikit-learn classes; lambdas and local functions cannot be stored",
            ) from e
    few = features.head(20)
    before, after = (_guard(what, partial(m.predict, few), private) for m in (model, loaded))
    if not np.array_equal(before, after):
        raise TrainingError(
            f"{what} predicts differently after saving and loading",
            hint="keep everything it needs in its attributes",
        )
    return loaded


def _schema_of(model: Any, schema: FeatureSchema, features: pd.DataFrame, what: str) -> FeatureSchema:
    """Narrow the schema to what a model made elsewhere reads, and see that it predicts."""
    names = [str(n) for n in getattr(model, "feature_names_in_", schema.names)]
    strange = [n for n in names if n not in schema.names]
    if strange:
        raise TrainingError(
            f"{what} reads columns that are not features: {', '.join(strange)}",
            hint=f"train on the columns given: {', '.join(schema.names)}",
        )
    narrowed = schema.narrowed(names, "not read by the model")
    few = features.loc[:, names].head(5)
    predicted = _guard(what, partial(model.predict, few), schema.private)
    if np.shape(predicted) != (len(few),):
        raise TrainingError(
            f"{what} gave {np.shape(predicted)} predictions for {len(few)} rows", hint="predict must give one per row"
        )
    if is_classifier(model) and not hasattr(model, "classes_"):
        raise TrainingError(f"{what} is a classifier without classes_", hint="set classes_ in fit")
    return narrowed
