from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.metrics import Metric, Predictions, default_metrics


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def classified(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, Predictions]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    proba = softmax(rng.normal(size=(n, k)) + 1.5 * np.eye(k)[y])
    return y, Predictions(labels=proba.argmax(axis=1), proba=proba)


class Regressor(RegressorMixin, BaseEstimator):
    """A model that scikit-learn's own scorers accept, to compare with."""

    def __init__(self, said=None):
        self.said = said

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        return self.said.labels


class Classifier(ClassifierMixin, Regressor):
    @property
    def classes_(self):
        return np.arange(self.said.proba.shape[1])

    def predict_proba(self, X):
        return self.said.proba


@pytest.mark.parametrize("k", [2, 3])
def test_every_classification_scorer_gives_scikit_learns_value(k):
    y, predictions = classified(300, k)
    agreed = []
    for name in get_scorer_names():
        metric = Metric(name)
        try:
            metric.check_task("classification", k)
        except EvaluationError:
            continue
        expected = get_scorer(name)(Classifier(predictions), np.zeros((300, 1)), y)
        assert metric.score(y, predictions, n_classes=k) == pytest.approx(expected, abs=1e-12), name
        agreed.append(name)
    assert len(agreed) >= 18


def test_every_regression_scorer_gives_scikit_learns_value():
    rng = np.random.default_rng(1)
    y = rng.uniform(1, 9, 200)
    predictions = Predictions(labels=y + rng.uniform(-0.5, 0.5, 200))
    for name in get_scorer_names():
        metric = Metric(name)
        try:
            metric.check_task("regression", None)
        except EvaluationError:
            continue
        expected = get_scorer(name)(Regressor(predictions), np.zeros((200, 1)), y)
        assert metric.score(y, predictions, n_classes=None) == pytest.approx(expected, abs=1e-12), name


def test_aliases_print_positive_and_know_their_direction():
    y, predictions = classified(100, 2)
    for alias, scorer in {
        "log_loss": "neg_log_loss",
        "brier": "neg_brier_score",
        "brier_score": "neg_brier_score",
    }.items():
        metric = Metric(alias)
        assert metric.scorer_name == scorer
        assert metric.lower_is_better
        score = metric.score(y, predictions, n_classes=2)
        assert score < 0 < metric.printed(score)
    for alias in ("rmse", "mae", "mse", "mape", "max_error", "mean_absolute_error"):
        assert Metric(alias).lower_is_better
    written_out = Metric("neg_log_loss")
    assert not written_out.lower_is_better
    assert written_out.printed(-0.4) == -0.4


def test_unknown_metric_suggests_near_ones():
    with pytest.raises(EvaluationError, match="roc_auk") as e:
        Metric("roc_auk")
    assert "roc_auc" in (e.value.hint or "")


@pytest.mark.parametrize(
    ("name", "task", "k", "hint"),
    [
        ("r2", "classification", 2, "roc_auc"),
        ("rmse", "classification", 2, "log_loss"),
        ("roc_auc", "regression", None, "rmse"),
        ("f1", "regression", None, "r2"),
        ("adjusted_rand_score", "classification", 3, "roc_auc_ovr"),
        ("f1_samples", "classification", 3, "log_loss"),
        ("roc_auc", "classification", 3, "roc_auc_ovr"),
        ("f1", "classification", 4, "f1_macro"),
    ],
)
def test_metric_that_does_not_fit_names_one_that_does(name, task, k, hint):
    with pytest.raises(EvaluationError, match=name) as e:
        Metric(name).check_task(task, k)
    assert hint in (e.value.hint or "")


def test_defaults_fit_their_task():
    for task, k in (("classification", 2), ("classification", 5), ("regression", None)):
        for name in default_metrics(task, k):
            Metric(name).check_task(task, k)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_one_class_is_an_error_for_ranking_metrics(name):
    _, predictions = classified(50, 2)
    with pytest.raises(EvaluationError, match="at least two classes"):
        Metric(name).score(np.zeros(50, dtype=int), predictions, n_classes=2)


def test_not_finite_is_an_error():
    with pytest.raises(EvaluationError, match="nan"):
        Metric("r2").score(np.array([1.0]), Predictions(labels=np.array([1.0])), n_classes=None)
    with pytest.raises(EvaluationError, match="nan"):
        Metric("mse").score(np.array([1.0]), Predictions(labels=np.array([np.nan])), n_classes=None)


def test_no_rows_and_missing_predictions_are_errors():
    with pytest.raises(EvaluationError, match="no rows"):
        Metric("mse").score(np.array([]), Predictions(labels=np.array([])), n_classes=None)
    y, predictions = classified(50, 2)
    with pytest.raises(EvaluationError, match="predicted labels"):
        Metric("accuracy").score(y, Predictions(proba=predictions.proba), n_classes=2)
    with pytest.raises(EvaluationError, match="predict_proba"):
        Metric("log_loss").score(y, Predictions(labels=y), n_classes=2)


def test_what_scikit_learn_refuses_is_our_error():
    with pytest.raises(EvaluationError, match="neg_mean_squared_log_error"):
        Metric("neg_mean_squared_log_error").score(
            np.array([-5.0, 1.0]), Predictions(labels=np.array([1.0, 2.0])), n_classes=None
        )


def test_row_means_work_when_a_class_is_absent():
    _, predictions = classified(40, 3)
    y = np.array([0, 1] * 20)
    value = Metric("log_loss").score(y, predictions, n_classes=3)
    assert value == pytest.approx(np.log(predictions.proba[np.arange(40), y]).mean())


def test_an_interval_ends_where_the_metric_ends() -> None:
    assert Metric("roc_auc").limited(1.003) == 1.0
    assert Metric("recall").limited(-0.01) == 0.0
    assert Metric("rmse").limited(1.5) == 1.5
    assert Metric("r2").limited(-2.0) == -2.0
