"""Fit and judge the models of some keys: the inner loop of a fleet."""

from __future__ import annotations

import copy
import hashlib
import logging
import random
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from airflow_mlops.config.models import Evaluate, Search
from airflow_mlops.exceptions import DataError, EvaluationError, MLOpsError, TargetError, TrainingError
from airflow_mlops.ml.estimators import readable
from airflow_mlops.ml.evaluation import Reference
from airflow_mlops.ml.fleet.judging import Judge, predictions_of
from airflow_mlops.ml.fleet.result import Row
from airflow_mlops.ml.holdout import predict
from airflow_mlops.ml.metrics import Predictions, Task
from airflow_mlops.ml.privacy import told
from airflow_mlops.ml.search import search as find_params
from airflow_mlops.ml.wear import Wear
from airflow_mlops.registry.kinds import KindWriter

FAILED = "failed"


@dataclass(frozen=True)
class Settings:
    """What all keys of a run have in common.

    :param estimator: unfitted; each key gets a copy.
    :param task: ``classification`` or ``regression``.
    :param classes: in the order of their codes, the positive one of two last; ``None`` for regression.
    :param metrics: names of what is printed.
    :param blocks: what blocks of rows are called; ``None`` where rows are independent.
    :param private: columns that no error may quote.
    :param search: parameters of the estimator that each key chooses on its own training rows.
    """

    estimator: BaseEstimator
    task: Task
    classes: tuple[Any, ...] | None
    metrics: tuple[str, ...]
    evaluate: Evaluate
    seed: int
    blocks: str | None = None
    wear: Wear | None = None
    private: tuple[str, ...] = ()
    search: Search | None = None


@dataclass(frozen=True)
class Asked:
    """A version of a key, and what it says of the key's holdout.

    :param problem: why it cannot be asked, where it cannot.
    :param since: when it became champion, ISO 8601.
    """

    version: int
    digest: str
    said: Predictions | None
    problem: str | None = None
    since: str | None = None


@dataclass(frozen=True)
class Chunk:
    """Some keys with their rows, as arrays.

    :param inputs: float64, shape (rows, columns after preprocessing).
    :param target: labels or numbers as they are fitted, shape (rows,).
    :param y: class codes (−1: unknown or missing) or numbers (NaN: missing), shape (rows,).
    :param holdout: shape (rows,), True where the row is held out.
    :param bounds: the rows of each key.
    :param problems: keys that cannot be trained, and why.
    :param blocks: shape (rows,); ``None`` where rows are independent.
    """

    number: int
    bounds: Mapping[str, slice]
    inputs: np.ndarray
    target: np.ndarray
    y: np.ndarray
    holdout: np.ndarray
    blocks: np.ndarray | None = None
    champions: Mapping[str, Asked] = field(default_factory=dict)
    references: Mapping[str, Asked] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What a chunk came to.

    :param rows: one for each key.
    :param models: key and bytes of those that have a model, as :func:`~airflow_mlops.registry.artifacts.store_models`
        takes them.
    :param kinds: of those bytes that are entries, by sha256.
    """

    rows: list[Row]
    models: list[tuple[str, bytes]]
    kinds: dict[str, bytes]


def train_chunk(settings: Settings, chunk: Chunk) -> Trained:
    """Fit, score and judge the models of a chunk, key by key; a key that fails is a row that says why.

    Seeds ``random`` and ``numpy.random`` before each key, so that none depends on the ones before it.

    :return: a row for each key (``key, status, reason, champion, train_rows, holdout_rows, metrics, champion_metrics,
        p_value, seconds``, and ``params`` where each key searches), and the models.
    """
    judge = Judge(
        settings.evaluate.gates,
        settings.metrics,
        task=settings.task,
        classes=settings.classes,
        blocks=settings.blocks,
        wear=settings.wear,
    )
    done = Trained([], [], {})
    writer = KindWriter(done.kinds)
    for key, place in chunk.bounds.items():
        started = time.perf_counter()
        champion = chunk.champions.get(key)
        row: Row = {"key": key, "champion": champion.version if champion else None}
        try:
            if key in chunk.problems:
                raise DataError(chunk.problems[key])
            model, more = _train(settings, judge, writer, chunk, key, place, champion, chunk.references.get(key))
        except Exception as e:  # one bad key never fails its shard; what it was is in the result, key by key
            row |= {"status": FAILED, "reason": _why(e, settings.private), "train_rows": 0, "holdout_rows": 0}
            if not isinstance(e, MLOpsError):
                logging.getLogger(__name__).warning("Key %s failed", key, exc_info=None if settings.private else e)
        else:
            done.models.append((key, model))
            row |= more
        done.rows.append(row | {"seconds": round(time.perf_counter() - started, 4)})
    return done


def _why(error: Exception, private: Sequence[str]) -> str:
    return str(error) if isinstance(error, MLOpsError) else told(error, private)


def _train(
    settings: Settings,
    judge: Judge,
    writer: KindWriter,
    chunk: Chunk,
    key: str,
    place: slice,
    champion: Asked | None,
    reference: Asked | None,
) -> tuple[bytes, Row]:
    held, y, inputs = chunk.holdout[place], chunk.y[place], chunk.inputs[place]
    fitted, target = ~held, chunk.target[place]
    _check(settings, y, fitted)
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    model = copy.deepcopy(settings.estimator)  # it is not fitted: the same as a clone, sooner
    with warnings.catch_warnings():
        # Of thousands of fits, each would say the same.
        warnings.simplefilter("ignore")
        try:
            model, chosen = _fit(settings, model, inputs[fitted], target[fitted])
        except MLOpsError:
            raise
        except Exception as e:  # noqa: BLE001 - raised as our own; its own words may quote what is private
            raise TrainingError(f"{type(model).__name__} failed: {told(e, settings.private)}") from (
                None if settings.private else e
            )
        said = predictions_of(
            predict("candidate", model, inputs[held], ordered=settings.classes, labels=judge.needs_labels), "candidate"
        )
    data = writer.dump(model)
    unasked = champion if champion is not None and champion.problem is not None else None
    if unasked is not None:
        champion = reference = None
    try:
        judged = judge.judge(
            y[held],
            said,
            champion.said if champion is not None else None,
            blocks=chunk.blocks[place][held] if chunk.blocks is not None else None,
            same_model=champion is not None and champion.digest == hashlib.sha256(data).hexdigest(),
            reference=Reference(reference.version, reference.since, reference.problem)
            if reference is not None
            else None,
            before=reference.said if reference is not None else None,
            counted_from=(reference or champion).version if champion is not None else None,
        )
    except EvaluationError as e:
        undecided = judge.undecided(y[held], e)
        if undecided is None:
            raise
        judged = undecided
    if unasked is not None:
        judged = judge.without_champion(judged, f"v{unasked.version} cannot be asked: {unasked.problem}")
    return data, {
        "status": judged.verdict,
        "reason": judged.sentence,
        "train_rows": int(fitted.sum()),
        "holdout_rows": int(held.sum()),
        "metrics": judged.metrics,
        "champion_metrics": judged.champion,
        "p_value": judged.p_value,
        **({"reference": judged.reference} if judged.reference is not None else {}),
        **({"params": chosen} if settings.search is not None else {}),
    }


def _fit(
    settings: Settings, model: BaseEstimator, inputs: np.ndarray, target: np.ndarray
) -> tuple[BaseEstimator, dict[str, Any]]:
    """Fit the model of a key; return it with the parameters that its search has chosen.

    :raises TrainingError: the key has fewer rows in a class than folds, or no trial worked.
    """
    search = settings.search
    if search is None:
        model.fit(inputs, target)
        return model, {}
    positive = settings.classes[-1] if settings.classes is not None and len(settings.classes) == 2 else None
    found, _ = find_params(
        Pipeline([("model", model)]),
        pd.DataFrame(inputs),
        pd.Series(target),
        search,
        search.metric or next(iter(settings.metrics), None),
        settings.task,
        positive,
        settings.seed,
        lambda line: None,
        settings.private,
    )
    params = found[-1].get_params()
    return found[-1], readable({name: params[name] for name in sorted(search.space)})


def _check(settings: Settings, y: np.ndarray, fitted: np.ndarray) -> None:
    """Refuse labels that nothing can be learned from.

    :raises TargetError: some are missing, infinite or of a class that the fleet does not have, or all are the same.
    """
    bad = (y < 0) if settings.classes is not None else ~np.isfinite(y)
    if bad.any():
        what = (
            "missing, or of a class that the sample of the fleet does not have"
            if settings.classes
            else "missing or infinite"
        )
        raise TargetError(f"the target is {what} in {int(bad.sum()):,} of {len(y):,} rows")
    of_part = y[fitted]
    if (of_part == of_part[0]).all():
        only = settings.classes[of_part[0]] if settings.classes is not None else float(of_part[0])
        raise TargetError(f"the target is {only!r} in all {len(of_part):,} training rows: there is nothing to learn")


def labels(target: pd.Series, task: Task, classes: Sequence[Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the target as it is fitted and as it is judged (codes, or numbers), both of shape (rows,)."""
    if task == "regression":
        numbers = pd.to_numeric(target, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers, numbers
    places = {c: i for i, c in enumerate(classes or ())}
    codes, values = pd.factorize(target)
    of_value = np.array([places.get(v.item() if isinstance(v, np.generic) else v, -1) for v in values] + [-1])
    y = of_value[codes]
    known = np.array([*(classes or ())], dtype=object)
    if all(isinstance(c, bool) for c in known):
        known = known.astype(bool)
    elif all(isinstance(c, int) for c in known):
        known = known.astype(np.int64)
    return known[y], y
