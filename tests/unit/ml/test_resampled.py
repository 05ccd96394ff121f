from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from airflow_mlops.ml.resampled import corrected_t


def test_it_is_the_published_formula():
    first, second = [0.8, 0.7, 0.9, 0.75], [0.7, 0.72, 0.8, 0.7]
    d = np.subtract(first, second)
    found = corrected_t(first, second, train_rows=30, test_rows=10)
    assert found.value == pytest.approx(d.mean())
    assert found.se == pytest.approx(np.sqrt((1 / 4 + 10 / 30) * d.var(ddof=1)))
    low, high = found.bounds(0.95)
    assert high - found.value == pytest.approx(found.value - low) == pytest.approx(student.ppf(0.95, 3) * found.se)
    with pytest.raises(ValueError, match="at least two"):
        corrected_t([0.5], [0.4], train_rows=9, test_rows=1)


def splits_of_two_equal_learners(rng, n=100, splits=30, test=10):
    """Losses of two regressions, each on one of two equally useful columns, over random splits of one data set."""
    x = rng.normal(size=(n, 2))
    y = x.sum(axis=1) + rng.normal(size=n)
    losses = np.empty((splits, 2))
    for i in range(splits):
        order = rng.permutation(n)
        held, kept = order[:test], order[test:]
        slope = (x[kept] * y[kept, None]).sum(axis=0) / (x[kept] ** 2).sum(axis=0)
        losses[i] = ((y[held, None] - x[held] * slope) ** 2).mean(axis=0)
    return -losses[:, 0], -losses[:, 1]


def test_error_rate_of_the_corrected_and_the_plain_t():
    """Both learners are equally good: one-sided at 5 %, the plain t test over splits errs many times as often."""
    rng = np.random.default_rng(0)
    plain = corrected = 0
    runs = 400
    for _ in range(runs):
        first, second = splits_of_two_equal_learners(rng)
        d = first - second
        plain += d.mean() / (d.std(ddof=1) / np.sqrt(len(d))) > student.ppf(0.95, len(d) - 1)
        corrected += corrected_t(first, second, train_rows=90, test_rows=10).bounds(0.95)[0] > 0
    # 400 runs of a 5 % error: standard deviation 1.1 points.
    assert corrected / runs <= 0.08
    assert plain / runs > 0.2
