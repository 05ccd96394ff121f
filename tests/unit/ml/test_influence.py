from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from airflow_mlops.ml.influence import average_precision_influence, influence
from airflow_mlops.ml.metrics import Metric, Predictions


def jackknife(score, n):
    """Influence values by leaving out one row after the other (Efron 1982)."""
    whole = score(np.arange(n))
    return np.array([(whole - score(np.delete(np.arange(n), i))) * (n - 1) for i in range(n)])


@pytest.mark.parametrize("levels", [4, None])
def test_average_precision_equals_scikit_learn_and_its_influence_the_jackknife(levels):
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.3).astype(int)
    score = rng.normal(size=400) + y
    if levels:
        score = np.round(score * levels) / levels
    value, found = average_precision_influence(y == 1, score)
    assert value == pytest.approx(average_precision_score(y, score), abs=1e-12)
    assert found.mean() == pytest.approx(0, abs=1e-12)
    slow = jackknife(lambda rows: average_precision_score(y[rows], score[rows]), 400)
    assert np.corrcoef(found, slow)[0, 1] > 0.999
    assert found.std() == pytest.approx(slow.std(), rel=0.02)


@pytest.mark.parametrize("name", ["precision", "recall", "f1", "balanced_accuracy", "matthews_corrcoef", "f1_macro"])
def test_scores_of_counts_agree_with_the_jackknife(name):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    labels = np.where(rng.random(300) < 0.8, y, 1 - y)
    metric = Metric(name)
    value, found = influence(metric, y, Predictions(labels=labels), 2)
    slow = jackknife(lambda rows: metric.score(y[rows], Predictions(labels=labels[rows]), n_classes=2), 300)
    assert value == metric.score(y, Predictions(labels=labels), n_classes=2)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found, slow - slow.mean(), atol=0.02)


@pytest.mark.parametrize("name", ["rmse", "r2", "roc_auc_ovr", "roc_auc"])
def test_other_formulas_agree_with_the_jackknife(name):
    rng = np.random.default_rng(2)
    metric, n_classes = Metric(name), {"roc_auc_ovr": 3, "roc_auc": 2}.get(name)
    if n_classes is None:
        y = rng.normal(size=300)
        said = Predictions(labels=y + rng.normal(size=300))
    else:
        y = rng.integers(0, n_classes, 300)
        proba = rng.dirichlet(np.ones(n_classes), size=300) + 0.3 * np.eye(n_classes)[y]
        said = Predictions(proba=proba / 1.3)
    value, found = influence(metric, y, said, n_classes)
    slow = jackknife(lambda rows: metric.score(y[rows], said.take(rows), n_classes=n_classes), 300)
    assert value == pytest.approx(metric.score(y, said, n_classes=n_classes), abs=1e-12)
    assert np.corrcoef(found, slow)[0, 1] > 0.999
    assert found.std() == pytest.approx(slow.std(), rel=0.03)


def test_too_many_different_rows_have_no_formula(monkeypatch):
    monkeypatch.setattr("airflow_mlops.ml.influence.MOST_CELLS", 3)
    y = np.arange(100) % 2
    value, found = influence(Metric("f1"), y, Predictions(labels=(np.arange(100) // 2) % 2), 2)
    assert value == 0.5
    assert found is None


def test_ranking_of_two_classes_needs_no_scikit_learn():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 200)
    p = rng.random(200)
    value, _ = influence(Metric("roc_auc"), y, Predictions(proba=np.column_stack([1 - p, p])), 2)
    assert value == pytest.approx(roc_auc_score(y, p), abs=1e-12)
