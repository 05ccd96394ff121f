"""Error rates of the gates' intervals at the boundary, at CI size; ``benchmarks/bench_gates.py`` has the full one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import clopper_pearson, estimate, tango


def exact_error(rows: int, gained: float, lost: float) -> float:
    """Probability that Tango's lower bound lies above the true difference ``gained - lost``: no simulation."""
    truth, total = gained - lost, 0.0
    counts = np.arange(rows + 1)
    weights = binom.pmf(counts, rows, gained + lost)
    for k in counts[weights > 1e-6]:
        first, last = 0, k + 1
        while first < last:  # the more were gained, the higher the bound
            middle = (first + last) // 2
            if k and tango(middle, k - middle, rows, 0.95)[0] > truth:
                last = middle
            else:
                first = middle + 1
        total += weights[k] * binom.sf(first - 1, k, gained / (gained + lost))
    return total


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("discordant", [0.002, 0.01, 0.05])
def test_paired_counts_never_err_more_often_than_said(margin, discordant):
    for rows in (60, 200):
        assert exact_error(rows, discordant + margin, discordant) <= 0.06
        assert exact_error(rows, discordant, discordant + margin) <= 0.06


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_single_share_is_exact(share):
    rows = 100
    right = np.arange(rows + 1)
    bounds = [clopper_pearson(k, rows, 0.95) for k in right]
    weights = binom.pmf(right, rows, share)
    assert sum(w for w, (low, _) in zip(weights, bounds, strict=True) if low > share) <= 0.05
    assert sum(w for w, (_, high) in zip(weights, bounds, strict=True) if high < share) <= 0.05


def error_rates(draw, metric, truth, n_classes, runs):
    low_errors = high_errors = 0
    for seed in range(runs):
        y, a, b, blocks = draw(np.random.default_rng(seed))
        low, high = estimate(Metric(metric), y, a, b, n_classes=n_classes, blocks=blocks).bounds(0.95)
        low_errors += low > truth
        high_errors += high < truth
    return low_errors / runs, high_errors / runs


def test_blocks_hold_their_error_rate_where_rows_would_not():
    def draw(rng, blocked=True):
        block = np.repeat(np.arange(12), 30)
        y = rng.normal(size=360)
        said = [Predictions(labels=y + rng.normal(size=360) + 0.7 * rng.normal(size=12)[block]) for _ in range(2)]
        return y, *said, block if blocked else None

    assert max(error_rates(draw, "mse", 0.0, None, 500)) <= 0.075
    assert max(error_rates(lambda rng: draw(rng, blocked=False), "mse", 0.0, None, 500)) > 0.15


def test_a_long_tail_is_on_the_side_of_the_wider_bound():
    """Rare large losses: the plain t bound errs on one side; see Hall (1992)."""

    def draw(rng):
        y = np.zeros(150)
        worse = np.where(rng.random(150) < 0.04, 3.0, 0.0)
        return y, Predictions(labels=worse), Predictions(labels=np.full(150, 0.6)), None

    truth = 0.36 - 0.04 * 9
    passed, _ = error_rates(draw, "mse", truth, None, 1000)
    assert passed <= 0.1
    rows = [draw(np.random.default_rng(seed)) for seed in range(1000)]
    plain = 0
    for y, a, b, _ in rows:
        d = (b.labels - y) ** 2 - (a.labels - y) ** 2
        plain += d.mean() - 1.655 * d.std(ddof=1) / np.sqrt(150) > truth
    assert plain / 1000 > passed


def test_one_point_of_accuracy_is_found_on_ten_thousand_rows():
    found = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 2, 10_000)
        kind = rng.choice(4, size=10_000, p=[0.75, 0.055, 0.045, 0.15])
        said = [Predictions(labels=np.where(right, y, 1 - y)) for right in (kind <= 1, (kind == 0) | (kind == 2))]
        found += estimate(Metric("accuracy"), y, *said, n_classes=2).bounds(0.95)[0] > 0
    assert found >= 85
