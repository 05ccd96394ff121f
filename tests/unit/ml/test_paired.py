from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import auc_components, estimate


def binary(score: np.ndarray) -> Predictions:
    p = 1 / (1 + np.exp(-score))
    return Predictions(labels=(p > 0.5).astype(int), proba=np.column_stack([1 - p, p]))


def brute_components(positive, score):
    pos, neg = score[positive], score[~positive]
    wins = (pos[:, None] > neg[None, :]) + 0.5 * (pos[:, None] == neg[None, :])
    out = np.empty(len(score))
    out[positive], out[~positive] = wins.mean(axis=1), wins.mean(axis=0)
    return wins.mean(), out


@pytest.mark.parametrize("levels", [2, 5, 50, None])
@pytest.mark.parametrize("n", [2, 7, 200])
def test_auc_and_components_equal_brute_force_and_scikit_learn(levels, n):
    rng = np.random.default_rng(n)
    positive = rng.random(n) < 0.4
    positive[:2] = [True, False]
    score = rng.normal(size=n) + positive
    if levels:
        score = np.round(score * levels) / levels
    auc, components = auc_components(positive, score)
    brute_auc, brute = brute_components(positive, score)
    assert auc == pytest.approx(brute_auc, abs=1e-12)
    assert auc == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    np.testing.assert_allclose(components, brute, atol=1e-12)


def test_delong_standard_error_equals_its_definition_and_the_bootstrap():
    rng = np.random.default_rng(3)
    y = (rng.random(600) < 0.3).astype(int)
    a, b = rng.normal(size=600) + y, rng.normal(size=600) + 0.8 * y
    found = estimate(Metric("roc_auc"), y, binary(a), binary(b), n_classes=2)
    pos = y == 1
    d = brute_components(pos, a)[1] - brute_components(pos, b)[1]
    assert found.se == pytest.approx(np.sqrt(d[pos].var(ddof=1) / pos.sum() + d[~pos].var(ddof=1) / (~pos).sum()))
    draws = []
    for _ in range(300):
        i = rng.integers(0, 600, 600)
        draws.append(roc_auc_score(y[i], a[i]) - roc_auc_score(y[i], b[i]))
    assert found.se == pytest.approx(np.std(draws), rel=0.15)


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "brier"])
def test_row_means_use_paired_differences(name):
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 500)
    a, b = binary(rng.normal(size=500) + y), binary(rng.normal(size=500) + y)
    metric = Metric(name)
    found = estimate(metric, y, a, b, n_classes=2)
    d = metric.row_scores(y, a) - metric.row_scores(y, b)
    assert found.value == pytest.approx(d.mean())
    assert found.se == pytest.approx(d.std(ddof=1) / np.sqrt(500), rel=2e-3)
    assert found.value == pytest.approx(metric.score(y, a, n_classes=2) - metric.score(y, b, n_classes=2))


@pytest.mark.parametrize("name", ["rmse", "r2"])
def test_delta_method_agrees_with_the_bootstrap(name):
    rng = np.random.default_rng(5)
    y = rng.normal(size=800)
    a, b = y + rng.normal(size=800) * 0.5, y + rng.normal(size=800) * 0.55
    metric = Metric(name)
    found = estimate(metric, y, Predictions(labels=a), Predictions(labels=b), n_classes=None)
    draws = []
    for _ in range(400):
        i = rng.integers(0, 800, 800)
        draws.append(
            metric.score(y[i], Predictions(labels=a[i]), n_classes=None)
            - metric.score(y[i], Predictions(labels=b[i]), n_classes=None)
        )
    assert found.se == pytest.approx(np.std(draws), rel=0.15)


def test_one_vs_rest_auc_agrees_with_the_bootstrap():
    rng = np.random.default_rng(11)
    y = rng.choice(3, size=400, p=[0.5, 0.3, 0.2])
    a, b = (rng.dirichlet([1, 1, 1], size=400) + c * np.eye(3)[y] for c in (0.4, 0.3))
    a, b = a / a.sum(axis=1, keepdims=True), b / b.sum(axis=1, keepdims=True)
    metric = Metric("roc_auc_ovr")
    found = estimate(metric, y, Predictions(proba=a), Predictions(proba=b), n_classes=3)
    draws = []
    for _ in range(200):
        i = rng.integers(0, 400, 400)
        mine, theirs = (metric.score(y[i], Predictions(proba=p[i]), n_classes=3) for p in (a, b))
        draws.append(mine - theirs)
    assert found.method == "delta method"
    assert found.se == pytest.approx(np.std(draws), rel=0.2)


@pytest.mark.parametrize("name", ["f1", "balanced_accuracy", "average_precision"])
def test_bootstraps_are_seeded_and_centred(name, monkeypatch):
    monkeypatch.setattr("airflow_mlops.ml.paired.BOOTSTRAP_DRAWS", 100)
    rng = np.random.default_rng(6)
    y = rng.integers(0, 2, 400)
    a, b = binary(rng.normal(size=400) + y), binary(rng.normal(size=400) + y)
    first, second = (estimate(Metric(name), y, a, b, n_classes=2) for _ in range(2))
    assert first.bounds(0.95) == second.bounds(0.95)
    low, high = first.bounds(0.95)
    assert low < first.value < high


def test_table_bootstrap_of_accuracy_agrees_with_the_paired_t():
    rng = np.random.default_rng(7)
    y = rng.integers(0, 2, 2000)
    a, b = binary(rng.normal(size=2000) + y), binary(rng.normal(size=2000) + 0.9 * y)
    # micro-averaged recall of two classes is accuracy, computed by the other method
    by_t = estimate(Metric("accuracy"), y, a, b, n_classes=2).bounds(0.95)
    by_table = estimate(Metric("f1_micro"), y, a, b, n_classes=2).bounds(0.95)
    assert by_table == pytest.approx(by_t, abs=0.2 * (by_t[1] - by_t[0]))


def test_large_samples_are_subsampled_and_rescaled(monkeypatch):
    monkeypatch.setattr("airflow_mlops.ml.paired.BOOTSTRAP_ROWS", 500)
    rng = np.random.default_rng(8)
    y = rng.normal(size=5000)
    a, b = y + rng.normal(size=5000), y + rng.normal(size=5000)
    metric = Metric("explained_variance")
    capped = estimate(metric, y, Predictions(labels=a), Predictions(labels=b), n_classes=None).bounds(0.95)
    r2 = estimate(Metric("r2"), y, Predictions(labels=a), Predictions(labels=b), n_classes=None).bounds(0.95)
    assert capped[1] - capped[0] == pytest.approx(r2[1] - r2[0], rel=0.25)


def test_models_that_score_alike_are_not_called_equal(monkeypatch):
    monkeypatch.setattr("airflow_mlops.ml.paired.BOOTSTRAP_DRAWS", 100)
    y = np.array([0, 1] * 50)
    a, b = binary(np.where(y, 2.0, -2.0)), binary(np.where(y, 1.0, -1.0))
    for name, rows in (("roc_auc", 50), ("accuracy", 100), ("f1", 50)):
        for other in (a, b):
            low, high = estimate(Metric(name), y, a, other, n_classes=2).bounds(0.95)
            assert high == -low == pytest.approx(1 - 0.05 ** (1 / rows))
    numbers = Predictions(labels=y + 0.5)
    assert estimate(Metric("rmse"), y, numbers, numbers, n_classes=None).bounds(0.95) == (0, 0)


def test_tiny_samples_have_no_interval_but_a_value():
    y = np.array([0, 1])
    found = estimate(Metric("roc_auc"), y, binary(np.array([0.0, 1.0])), n_classes=2)
    assert found.value == 1
    assert found.bounds(0.95) is None
    one = estimate(Metric("mse"), np.array([1.0]), Predictions(labels=np.array([2.0])), n_classes=None)
    assert one.bounds(0.95) is None


def test_one_class_raises():
    with pytest.raises(EvaluationError, match="at least two classes"):
        estimate(Metric("roc_auc"), np.ones(50, dtype=int), binary(np.arange(50.0)), n_classes=2)


def test_rare_class_that_resamples_lose_gives_no_interval(monkeypatch):
    monkeypatch.setattr("airflow_mlops.ml.paired.BOOTSTRAP_DRAWS", 100)
    rng = np.random.default_rng(10)
    y = np.r_[np.repeat([0, 1], 50), 2]
    proba = rng.dirichlet([1, 1, 1], size=101)
    found = estimate(Metric("roc_auc_ovr"), y, Predictions(proba=proba), n_classes=3)
    assert found.bounds(0.95) is None


def coverage_errors(metric: str, draw, true_difference: float, runs: int, n_classes) -> tuple[float, float]:
    """Share of runs whose one-sided 95 % lower (upper) bound lies beyond the truth."""
    low_errors = high_errors = 0
    for seed in range(runs):
        y, a, b = draw(np.random.default_rng(seed))
        low, high = estimate(Metric(metric), y, a, b, n_classes=n_classes).bounds(0.95)
        low_errors += low > true_difference
        high_errors += high < true_difference
    return low_errors / runs, high_errors / runs


def test_type_one_error_of_delong_at_the_margin():
    """Binormal scores: AUC = Φ(δ/√2). The candidate is worse by exactly the margin of the gate."""
    n, delta_a, delta_b = 400, 0.8, 1.0

    def draw(rng):
        y = (rng.random(n) < 0.25).astype(int)
        shared = rng.normal(size=n)
        mixed = [np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.normal(size=n) for _ in range(2)]
        return y, binary(mixed[0] + delta_a * y), binary(mixed[1] + delta_b * y)

    truth = norm.cdf(delta_a / np.sqrt(2)) - norm.cdf(delta_b / np.sqrt(2))
    wrongly_passed, wrongly_rejected = coverage_errors("roc_auc", draw, truth, 800, 2)
    # 800 runs of a 5 % error: standard deviation 0.8 points.
    assert wrongly_passed <= 0.075
    assert wrongly_rejected <= 0.075


def test_type_one_error_of_the_paired_t_and_the_delta_method():
    def draw(rng):
        y = rng.normal(size=100)
        return y, Predictions(labels=y + rng.normal(size=100) * 1.1), Predictions(labels=y + rng.normal(size=100))

    for metric, truth in (("mse", 1 - 1.21), ("rmse", 1 - 1.1), ("r2", 1 - 1.21)):
        errors = coverage_errors(metric, draw, truth, 600, None)
        assert max(errors) <= 0.085, metric
