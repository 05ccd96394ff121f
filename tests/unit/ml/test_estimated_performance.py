from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.estimated_performance import estimate_performance
from airflow_mlops.ml.metrics import Predictions


def world(
    n: int, seed: int, *, shift: float = 0.0, turned: float = 1.0, harsh: float = 1.0
) -> tuple[np.ndarray, Predictions]:
    """Inputs moved by ``shift``, outcomes that follow them ``turned`` as much, a model ``harsh`` times too sure."""
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, 1.2, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-(turned * x - 0.5)))).astype(int)
    p = 1 / (1 + np.exp(-harsh * (x - 0.5)))
    return y, Predictions(labels=(p > 0.5).astype(int), proba=np.column_stack([1 - p, p]))


@pytest.mark.parametrize("shift", [0.0, 1.5])
@pytest.mark.parametrize(
    ("metric", "of"),
    [
        ("roc_auc", lambda y, p: roc_auc_score(y, p.proba[:, 1])),
        ("accuracy", lambda y, p: accuracy_score(y, p.labels)),
        ("log_loss", lambda y, p: log_loss(y, p.proba)),
    ],
)
def test_the_estimate_meets_what_comes_true_also_where_inputs_moved(metric, of, shift) -> None:
    holdout_y, holdout = world(6000, 1, harsh=1.7)
    y, said = world(4000, 2, shift=shift, harsh=1.7)
    found = estimate_performance(metric, said, holdout_y, holdout)
    assert found.low < found.value < found.high
    assert found.low - 0.01 <= of(y, said) <= found.high + 0.01
    assert "cannot see concept drift" in found.sentence
    json.dumps(found.to_dict(), allow_nan=False)
    assert estimate_performance(metric, said, holdout_y, holdout) == found


def test_its_interval_holds_what_comes_true_19_times_in_20() -> None:
    hit = 0
    for seed in range(20):
        holdout_y, holdout = world(1500, 1000 + seed)
        y, said = world(1000, 2000 + seed, shift=0.5)
        found = estimate_performance("accuracy", said, holdout_y, holdout, seed=seed)
        hit += found.low <= accuracy_score(y, said.labels) <= found.high
    assert hit >= 20 * 0.95 - 3 * (20 * 0.95 * 0.05) ** 0.5


def test_it_does_not_see_concept_drift() -> None:
    holdout_y, holdout = world(4000, 1)
    y, said = world(4000, 2, turned=0.0)
    found = estimate_performance("roc_auc", said, holdout_y, holdout)
    assert roc_auc_score(y, said.proba[:, 1]) < 0.55
    assert found.low > 0.7


def test_many_classes_and_few_rows() -> None:
    rng = np.random.default_rng(3)
    proba = rng.dirichlet([2, 1, 1], 2400)
    y = np.array([rng.choice(3, p=p) for p in proba])
    both = Predictions(labels=proba.argmax(axis=1), proba=proba)
    half = np.arange(2400) < 1200
    found = estimate_performance("accuracy", both.take(~half), y[half], both.take(half))
    assert found.low <= accuracy_score(y[~half], both.labels[~half]) <= found.high
    small = estimate_performance("accuracy", both.take(~half), y[:200], both.take(np.arange(200)))
    assert small.high - small.low > found.high - found.low
    assert (small.rows, small.calibrated_on) == (1200, 200)


def test_what_cannot_be_estimated_is_refused_with_the_reason() -> None:
    y, said = world(500, 1)
    with pytest.raises(EvaluationError, match="no probabilities"):
        estimate_performance("accuracy", Predictions(labels=said.labels), y, said)
    with pytest.raises(EvaluationError, match="a class that the holdout does not have"):
        estimate_performance("accuracy", said, np.zeros(500, dtype=int), said)
    with pytest.raises(EvaluationError, match="no rows"):
        estimate_performance("accuracy", said.take(np.arange(0)), y, said)
    with pytest.raises(EvaluationError, match="is for regression"):
        estimate_performance("r2", said, y, said)
