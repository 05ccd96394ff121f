"""Trials that are models: fitted on one part of the training rows and scored on another, never on the holdout.

The holdout belongs to the gates. A score that chose the winner among many is too good by the choice itself, so the
gates must judge it by rows that chose nothing (Cawley & Talbot 2010, "On over-fitting in model selection and subsequent
selection bias in performance evaluation", *JMLR* 11, 2079-2107).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier

from airflow_mlops.config.models import Data, Evaluate, Train, length
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.estimators import build_estimator, check_params
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.experiment_plan import Candidate
from airflow_mlops.ml.experiment_trials import Scored, digests_of
from airflow_mlops.ml.features import FeatureSchema, infer_schema
from airflow_mlops.ml.holdout import predict, truth
from airflow_mlops.ml.metrics import Metric, Task, default_metrics
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.ml.splitting import draws, recent, split_mask
from airflow_mlops.ml.training import train
from airflow_mlops.store.base import Store

Log = Callable[..., None]

_OTHER_DRAW = 1, 2
"""Added to the seed: validation rows, and the rows of a rung, are drawn apart from the holdout and from each other."""


@dataclass(frozen=True)
class _Part:
    """What trials on the same rows and features have in common.

    :param seen: the rows that are fitted. :param schema: their columns. :param held: the rows that are scored.
    :param inputs: those as a model with this schema takes them.
    """

    seen: pd.DataFrame
    schema: FeatureSchema
    held: pd.DataFrame
    inputs: pd.DataFrame


class ModelRunner:
    """Scores models on the validation rows of one snapshot; rows and features are made once for all trials.

    The same rows for every candidate: drawn from the training part as the holdout is from all rows (``data.split``:
    by hash, by time the latest, whole groups).

    :param metric: name of a scorer. :param task: ``classification`` or ``regression``.
    :param validation: share of the training part.
    """

    def __init__(
        self,
        store: Store,
        snapshot: dict[str, Any],
        *,
        data: Data,
        seed: int,
        metric: str,
        task: str,
        validation: float,
        allowed_imports: Sequence[str] = (),
        trusted_types: Sequence[str] = (),
        log: Log = lambda *_: None,
    ) -> None:
        self.private: Collection[str] = data.private
        self._store = store
        self._snapshot = snapshot
        self._data = data
        self._seed = seed
        self._metric = Metric(metric)
        self._task = task
        self._validation = validation
        self._allowed = allowed_imports
        self._trusted = trusted_types
        self._log = log
        self._featured: dict[str | None, pd.DataFrame] = {}
        self._newest: tuple[Any, _Part] | None = None

    @cached_property
    def _raw(self) -> pd.DataFrame:
        return Snapshot.load(self._store, self._snapshot).to_pandas(self._store)

    @cached_property
    def _masks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the snapshot's rows: those that are fitted, those that are scored; and a draw for each row."""
        training = ~split_mask(self._raw, self._data, self._seed)
        split = self._data.split.model_copy(update={"test": self._validation})
        inner = self._data.model_copy(update={"split": split})
        scored = np.zeros(len(training), dtype=bool)
        scored[training] = split_mask(self._raw[training], inner, self._seed + _OTHER_DRAW[0])
        source = self._raw if self._data.id is None else self._raw[self._data.id]
        return training & ~scored, scored, draws(source, self._seed + _OTHER_DRAW[1])

    @property
    def validation_rows(self) -> np.ndarray:
        """Which of the snapshot's rows trials are scored on: a boolean array."""
        return self._masks[1]

    def _part(self, candidate: Mapping[str, Any], rows: int | None) -> _Part:
        """The candidate's rows; kept for the next trial, which mostly has the same ones."""
        code, data = candidate["features"], self._data
        key = (code, candidate["train"]["window"], rows)
        if self._newest is None or self._newest[0] != key:
            if code not in self._featured:
                self._featured[code] = featured(self._raw, data, code, self._allowed)
            frame, fit = self._featured[code], self._fit_rows(candidate)
            if rows is not None and rows < fit.sum():
                places = np.flatnonzero(fit)
                chosen = places[np.argsort(self._masks[2][places], kind="stable")[:rows]]
                fit = np.zeros(len(fit), dtype=bool)
                fit[chosen] = True
            seen, held = frame[fit], frame[self._masks[1]]
            schema = infer_schema(seen, data, source_columns=[str(c) for c in self._raw.columns])
            self._newest = key, _Part(seen, schema, held, schema.check(held))
        return self._newest[1]

    def _fit_rows(self, candidate: Mapping[str, Any]) -> np.ndarray:
        fit = self._masks[0].copy()
        if window := length(candidate["train"]["window"]):
            fit[fit] = recent(self._raw[fit], self._data, window)
        return fit

    def inputs(self, candidate: Mapping[str, Any]) -> Any:
        """Digests of the rows and of the candidate's own code."""
        code = [p for p in (candidate["features"], candidate["train"]["callable"]) if p]
        files = digests_of(*(resolve(path, self._allowed) for path in code))
        return {"rows": self._snapshot["fingerprint"], "validation": self._validation, "files": files}

    def available(self, candidate: Mapping[str, Any], rung: Mapping[str, Any]) -> int:
        """Rows that the candidate can be fitted on; for a parameter what the plan says."""
        return int(self._fit_rows(candidate).sum()) if rung["resource"] == "rows" else int(rung["most"])

    def score(self, candidate: Mapping[str, Any], params: Mapping[str, Any], rows: int | None) -> Scored:
        """Fit one combination on ``rows`` of its rows and score it on the validation rows.

        Fewer rows are a part of more: a rung sees all that the one before has seen.

        :raises MLOpsError: it cannot be trained or scored.
        """
        part = self._part(candidate, rows)
        held, target = part.held, self._data.target
        config = Train.model_validate({**candidate["train"], "params": {**candidate["train"]["params"], **params}})
        trained = train(
            part.seen,
            part.seen[target],
            part.schema,
            config,
            self._task,
            [self._metric.name],
            self._allowed,
            config.seed,
            self._log,
            trusted_types=self._trusted,
        )
        task: Task = "regression" if trained.task == "regression" else "classification"
        ordered, codes = truth(held[target], task, trained.classes, trained.schema.positive)
        n_classes = len(ordered) if ordered is not None else None
        self._metric.check_task(task, n_classes)
        labels = task == "regression" or self._metric.needs_labels
        # Code of one's own may read fewer columns.
        same = trained.schema.features == part.schema.features
        inputs = part.inputs if same else trained.schema.check(held)
        said = predict("candidate", trained.model, inputs, ordered=ordered, labels=labels)
        predictions = Evaluation(task, ordered, (), pd.DataFrame(said), False).predictions("candidate")
        value = self._metric.score(codes, predictions, n_classes=n_classes)
        return Scored(self._metric.printed(value), {"rows": {"fit": len(part.seen), "validation": len(held)}})


def settle_metric(
    candidates: Sequence[Candidate],
    target: pd.Series,
    *,
    asked: str | None,
    evaluate: Evaluate,
    task: str | None,
    allowed_imports: Sequence[str],
    seed: int,
) -> tuple[Metric, str]:
    """The metric that decides, and what kind of models the candidates are; refuses what no trial could do.

    :param target: the target's values, to know how many classes there are.
    :raises TrainingError: an estimator or parameter that is not there. :raises ConfigError: the kinds differ.
    :raises EvaluationError: the metric does not exist, or does not suit the task.
    """
    kinds = {c.name: found for c in candidates if (found := _check(c, allowed_imports, seed)) is not None}
    if task is not None:
        kinds = {name: made for name, made in kinds.items() if made != task} | {"`task`": task}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{name} is for {made}" for name, made in kinds.items())
        raise ConfigError(f"the candidates cannot be compared: {said}", hint="take candidates of one kind")
    settled = next(iter(kinds.values()), None)
    if settled is None:
        raise ConfigError(
            "whether these candidates are for classification or regression cannot be told", hint="set `task`"
        )
    kind: Task = "regression" if settled == "regression" else "classification"
    n_classes = int(target.nunique()) if kind == "classification" else None
    metric = Metric(asked or (evaluate.metrics or default_metrics(kind, n_classes))[0])
    metric.check_task(kind, n_classes)
    return metric, kind


def _check(candidate: Candidate, allowed: Sequence[str], seed: int) -> str | None:
    """What kind of model a candidate makes; ``None`` where only training can tell."""
    train = candidate.train
    if train is None or not train.estimator:
        if train is not None and train.command and candidate.space:
            raise ConfigError(
                f"the candidate {candidate.name} is a command, which takes no parameters",
                hint="give it an `estimator`, or make `train` a callable",
            )
        return None
    estimator = build_estimator(train.estimator, train.params, allowed, seed)
    check_params(candidate.space, list(estimator.get_params()), type(estimator).__name__, "experiment: the space")
    return "classification" if is_classifier(estimator) else "regression"
