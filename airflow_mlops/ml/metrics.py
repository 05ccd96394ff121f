"""Metrics by scikit-learn's scorer names, computed from stored predictions instead of predicting again.

Inside the package a *score* is what the scorer returns: higher is better. What people read is the
*printed* value: an alias such as ``log_loss`` or ``rmse`` prints positive and lower is better, while
``neg_log_loss``, written out, stays negative as scikit-learn gives it.
"""

from __future__ import annotations

import difflib
import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.utils.metaestimators import available_if

from airflow_mlops.exceptions import EvaluationError

Task = Literal["classification", "regression"]

_SHORT = {
    "rmse": "neg_root_mean_squared_error",
    "mae": "neg_mean_absolute_error",
    "mse": "neg_mean_squared_error",
    "mape": "neg_mean_absolute_percentage_error",
    "brier": "neg_brier_score",
}
_MULTILABEL = frozenset({"f1_samples", "jaccard_samples", "precision_samples", "recall_samples"})
_BINARY_ONLY = {
    "roc_auc": "roc_auc_ovr",
    "f1": "f1_macro",
    "precision": "precision_macro",
    "recall": "recall_macro",
    "jaccard": "jaccard_macro",
    "average_precision": "roc_auc_ovr",
    "positive_likelihood_ratio": "recall_macro",
    "neg_negative_likelihood_ratio": "recall_macro",
}
# Scores that are means over rows and need neither the whole sample nor both classes.
_ROW_MEANS = frozenset(
    {"accuracy", "neg_log_loss", "neg_brier_score", "neg_mean_squared_error", "neg_mean_absolute_error"}
)


def _r2(y: np.ndarray, said: np.ndarray, weight: np.ndarray | None) -> float:
    if len(y) < 2:
        return math.nan
    left = float(np.average((y - said) ** 2, weights=weight))
    spread = float(np.average((y - np.average(y, weights=weight)) ** 2, weights=weight))
    return 1 - left / spread if spread else float(left == 0)


def _neg_rmse(y: np.ndarray, said: np.ndarray, weight: np.ndarray | None) -> float:
    return -math.sqrt(np.average((y - said) ** 2, weights=weight))


# A fleet asks for these thousands of times a night, and a bootstrap a thousand times a gate.
_OF_ERRORS = {"r2": _r2, "neg_root_mean_squared_error": _neg_rmse}
"""Scores that are computed here, as scikit-learn does, for a small part of its time."""


def default_metrics(task: Task, n_classes: int | None = None) -> list[str]:
    """Metrics used when ``evaluate.metrics`` is empty."""
    if task == "regression":
        return ["r2", "rmse"]
    return ["roc_auc_ovr" if n_classes is not None and n_classes > 2 else "roc_auc", "log_loss"]


@dataclass(frozen=True)
class Predictions:
    """What one model said about ``n`` rows.

    :param labels: shape (n,): class codes, or predicted numbers; ``None`` when nobody asked for them.
    :param proba: shape (n, classes), columns in the order of the codes; ``None`` for regression.
    :param decision: shape (n,) or (n, classes): ``decision_function``, when there is no ``predict_proba``.
    :param values: by name, shape (n,): what each row is worth (:mod:`airflow_mlops.ml.value`).
    """

    labels: np.ndarray | None = None
    proba: np.ndarray | None = None
    decision: np.ndarray | None = None
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> Predictions:
        """Return the predictions of the given rows (indices or mask)."""
        labels, proba, decision = (None if a is None else a[rows] for a in (self.labels, self.proba, self.decision))
        return Predictions(labels, proba, decision, {name: v[rows] for name, v in self.values.items()})

    def same_as(self, other: Predictions) -> bool:
        """Whether both models said exactly the same about every row."""
        pairs = ((self.labels, other.labels), (self.proba, other.proba), (self.decision, other.decision))
        return all(
            (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs
        )

    @property
    def ranking(self) -> np.ndarray | None:
        """Scores that rank rows by the positive class (code 1); binary only, else ``None``."""
        if self.proba is not None:
            return self.proba[:, 1] if self.proba.shape[1] == 2 else None
        return self.decision if self.decision is not None and self.decision.ndim == 1 else None


class _Replay(BaseEstimator):
    """Repeats stored predictions, so that any scorer works on them; ``X`` is ignored.

    A method exists only where the prediction is stored: scorers pick the first method they find.
    """

    def __init__(self, stored: Predictions, classes: np.ndarray | None) -> None:
        self.stored = stored
        self.classes = classes
        if classes is not None:
            self.classes_ = classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @available_if(lambda self: self.stored.labels is not None)
    def predict(self, X: Any) -> np.ndarray | None:
        return self.stored.labels

    @available_if(lambda self: self.stored.proba is not None)
    def predict_proba(self, X: Any) -> np.ndarray | None:
        return self.stored.proba

    @available_if(lambda self: self.stored.decision is not None)
    def decision_function(self, X: Any) -> np.ndarray | None:
        return self.stored.decision


class _ReplayClassifier(ClassifierMixin, _Replay):
    pass


class _ReplayRegressor(RegressorMixin, _Replay):
    pass


class Metric:
    """One scikit-learn scorer, by its name or an alias.

    :param name: a scorer's name, the name without ``neg_``, or one of rmse, mae, mse, mape, brier.
    :raises EvaluationError: for a name nobody knows, with the nearest known ones.
    """

    def __init__(self, name: str) -> None:
        known = set(get_scorer_names())
        scorer_name = _SHORT.get(name, name)
        if scorer_name not in known and f"neg_{scorer_name}" in known:
            scorer_name = f"neg_{scorer_name}"
        if scorer_name not in known:
            plain = {n.removeprefix("neg_") for n in known} | known | set(_SHORT)
            near = difflib.get_close_matches(name, sorted(plain), n=3, cutoff=0.5)
            raise EvaluationError(
                f"there is no metric {name!r}",
                hint=(f"did you mean {' or '.join(near)}? " if near else "")
                + "Metrics are scikit-learn scorers: sklearn.metrics.get_scorer_names() lists them.",
            )
        self.name = name
        self.scorer_name = scorer_name
        self.lower_is_better = scorer_name != name and scorer_name.startswith("neg_")
        self._scorer = get_scorer(scorer_name)
        self._module = self._scorer._score_func.__module__.removeprefix("sklearn.metrics.")

    def __repr__(self) -> str:
        return f"Metric({self.name!r})"

    @property
    def needs_labels(self) -> bool:
        """Whether it is computed from ``predict`` (classification: from predicted classes)."""
        return self._scorer._response_method == "predict"

    @property
    def is_ranking(self) -> bool:
        """Whether it has no meaning on a sample with a single class."""
        return self._module == "_ranking"

    @property
    def is_row_mean(self) -> bool:
        """Whether the score is a plain mean over rows."""
        return self.scorer_name in _ROW_MEANS

    def limited(self, value: float) -> float:
        """Bring the end of an interval back into the metric's range: no area or share is above one."""
        shares = ("roc_auc", "accuracy", "average_precision", "precision", "recall", "f1", "jaccard", "balanced_acc")
        return min(max(value, 0.0), 1.0) if self.scorer_name.startswith(shares) else value

    def printed(self, score: float) -> float:
        """Turn a score into the value people read, and back."""
        return -score if self.lower_is_better else score

    def check_task(self, task: Task, n_classes: int | None) -> None:
        """Refuse a metric that has no meaning for this task.

        :raises EvaluationError: with a metric that would fit.
        """
        suited = ", ".join(default_metrics(task, n_classes))
        if self._module.startswith("cluster") or self.scorer_name in _MULTILABEL:
            raise EvaluationError(
                f"metric {self.name!r} is for clustering or several labels a row, and this is {task}",
                hint=f"use for example {suited}",
            )
        if (self._module == "_regression") != (task == "regression"):
            other = "regression" if task == "classification" else "classification"
            raise EvaluationError(
                f"metric {self.name!r} is for {other}, and this is {task}", hint=f"use for example {suited}"
            )
        if n_classes is not None and n_classes > 2 and self.scorer_name in _BINARY_ONLY:
            raise EvaluationError(
                f"metric {self.name!r} is for two classes, and the target has {n_classes}",
                hint=f"use {_BINARY_ONLY[self.scorer_name]}",
            )

    def row_scores(self, y: np.ndarray, predictions: Predictions) -> np.ndarray | None:
        """Per-row scores whose mean is the score, shape (n,); ``None`` when it is no mean over rows.

        Log loss clips probabilities at the machine epsilon and the Brier score of more than two
        classes sums over classes, both as scikit-learn does. Unlike scikit-learn's functions these
        also work when a class does not occur among the rows.
        """
        if not self.is_row_mean:
            return None
        if self.scorer_name in ("neg_log_loss", "neg_brier_score"):
            proba = self._stored(predictions.proba)
            if self.scorer_name == "neg_log_loss":
                eps = np.finfo(np.float64).eps
                return np.log(np.clip(proba[np.arange(len(y)), y], eps, 1 - eps))
            if proba.shape[1] == 2:
                return -((proba[:, 1] - y) ** 2)
            return -((proba - np.eye(proba.shape[1])[y]) ** 2).sum(axis=1)
        labels = self._stored(predictions.labels)
        if self.scorer_name == "accuracy":
            return (labels == y).astype(float)
        error = labels - y
        return -(error**2) if self.scorer_name == "neg_mean_squared_error" else -np.abs(error)

    def score(
        self,
        y: np.ndarray,
        predictions: Predictions,
        *,
        n_classes: int | None,
        weight: np.ndarray | None = None,
    ) -> float:
        """The scorer's value (higher is better) on these rows; finite.

        :param y: shape (n,): class codes 0 … n_classes-1 (two classes: 1 is the positive one), or numbers.
        :param n_classes: ``None`` for regression.
        :param weight: shape (n,), how often each row counts; ``None``: once.
        :raises EvaluationError: no rows, a single class for a ranking metric, predictions that the metric needs and the
            model does not give, a value that is not finite, or whatever scikit-learn refuses.
        """
        if len(y) == 0:
            raise EvaluationError(f"metric {self.name!r} has no rows", hint="the holdout or slice is empty")
        if self.is_ranking and (y == y[0]).all():
            raise EvaluationError(
                f"metric {self.name!r} needs at least two classes among the {len(y)} rows, and there is one",
                hint="use more rows (a longer data.window or a larger data.split.test) or another metric",
            )
        rows = self.row_scores(y, predictions)
        if rows is not None:
            value = float(np.average(rows, weights=weight))
        elif self.scorer_name in _OF_ERRORS:
            value = _OF_ERRORS[self.scorer_name](y, self._stored(predictions.labels), weight)
        else:
            value = self._replayed(y, predictions, n_classes, weight)
        if not math.isfinite(value):
            raise EvaluationError(
                f"metric {self.name!r} is {value} on {len(y)} rows, which no gate can judge",
                hint="look for a constant target, a single class, or predictions that are out of range",
            )
        return value

    def _replayed(
        self, y: np.ndarray, predictions: Predictions, n_classes: int | None, weight: np.ndarray | None
    ) -> float:
        replay: _Replay
        if n_classes is None:
            replay = _ReplayRegressor(predictions, None)
        else:
            replay = _ReplayClassifier(predictions, np.arange(n_classes))
        if self.needs_labels:
            self._stored(predictions.labels)
        try:
            # Our own arrays are known to be finite and of the right kind; a bootstrap asks a thousand times.
            with warnings.catch_warnings(), config_context(assume_finite=True, skip_parameter_validation=True):
                # What scikit-learn warns about here is either counted as it documents or not finite.
                warnings.simplefilter("ignore")
                weighted = {} if weight is None else {"sample_weight": weight}
                return float(self._scorer(replay, np.zeros((len(y), 1)), y, **weighted))
        except (ValueError, TypeError, AttributeError) as e:
            raise EvaluationError(
                f"metric {self.name!r} cannot be computed on {len(y)} rows: {e}",
                hint="see what this scorer of scikit-learn needs from the model and the target",
            ) from e

    def _stored(self, values: np.ndarray | None) -> np.ndarray:
        if values is None:
            what = "predicted labels" if self.needs_labels else "predict_proba"
            raise EvaluationError(
                f"metric {self.name!r} needs {what}, which the model does not give or the evaluation did not store",
                hint="use an estimator with predict_proba, or a metric that needs only predict"
                if not self.needs_labels
                else "name the metric in evaluate.metrics or a gate before the evaluation runs",
            )
        return values
