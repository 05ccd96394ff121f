"""A change that no column shows alone, found by a classifier; none where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from airflow_mlops.config.models import Drift
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.domain import domain_signal
from airflow_mlops.ml.drift import TOGETHER, check_drift
from airflow_mlops.ml.drift_profile import make_profile

KINDS = {"x": "number", "y": "number", "z": "number", "c": "category", "b": "boolean"}


def rows(rng: np.random.Generator, count: int, correlation: float = 0.0) -> pd.DataFrame:
    x, y = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], count).T
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "z": np.where(rng.random(count) < 0.1, np.nan, rng.normal(size=count)),
            "c": rng.choice(np.array(["u", "v", None], dtype=object), count),
            "b": rng.random(count) < 0.3,
        }
    )


def test_what_goes_together_differently_is_found_and_named() -> None:
    rng = np.random.default_rng(1)
    a, b = rows(rng, 2000), rows(rng, 2000, 0.8)
    assert check_drift(a, b, KINDS, Drift()).verdict == "no_drift"
    report = check_drift(a, b, KINDS, Drift(multivariate=True))
    (found,) = report.drifted
    assert (found.name, found.statistic) == (TOGETHER, "AUC")
    assert found.effect > 0.6
    named = found.sentence.partition(", by ")[2]
    assert "x" in named
    assert "y" in named
    assert "z" not in named.partition(" (limit")[0]
    assert report.sentence.startswith("drift in 1 of 6 columns: all columns together (AUC 0.")


def test_alarms_without_drift_stay_below_alpha() -> None:
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(16):
        signal = domain_signal(rows(rng, 150), rows(rng, 120), KINDS, 0.1, 30)
        assert signal is not None
        alarms += signal.p_value <= 0.05 and signal.effect >= signal.threshold
    assert alarms <= 3  # 4 or more of 16 come in 1 % of cases


def test_rows_that_hang_together_are_not_told_apart() -> None:
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(5):
        a, b = (pd.DataFrame({"x": np.repeat(rng.normal(size=25), 40)}) for _ in range(2))
        signal = domain_signal(a, b, {"x": "number"}, 0.1, 30)
        assert signal is not None
        alarms += signal.p_value <= 0.05 and signal.effect >= signal.threshold
    assert alarms <= 1


def test_threshold_samples_and_bounds() -> None:
    rng = np.random.default_rng(4)
    a = rows(rng, 100)
    signal = domain_signal(a, a, KINDS, 0.2, 30)
    assert signal is not None
    assert signal.threshold == pytest.approx(norm.cdf(0.2 / np.sqrt(2)))
    assert domain_signal(a, a.head(20), KINDS, 0.1, 30) is None
    nulls = pd.DataFrame({"x": [None] * 100, "c": [None] * 100})
    assert domain_signal(nulls, nulls, {"x": "number", "c": "category"}, 0.1, 30) is None
    half = pd.DataFrame({"x": [None] * 100, "c": ["a"] * 100})
    signal = domain_signal(half, half, {"x": "number", "c": "category"}, 0.1, 30)
    assert signal is not None
    assert signal.effect == 0.5
    with pytest.raises(DataError, match="needs rows of both sides"):
        check_drift(make_profile(a, KINDS), a, KINDS, Drift(multivariate=True))
    report = check_drift(
        make_profile(a, KINDS), [a], KINDS, Drift(multivariate=True), samples=lambda: (a[["x", "c"]], a[["x", "c"]])
    )
    assert report.verdict == "no_drift"
    assert report.columns[-1].name == TOGETHER


def test_a_column_that_is_filled_at_the_end_only_is_no_error() -> None:
    rng = np.random.default_rng(4)
    reference = pd.DataFrame({"x": rng.normal(size=400), "late": np.nan})
    current = pd.DataFrame({"x": rng.normal(size=400), "late": [np.nan] * 350 + [1.0] * 50})
    signal = domain_signal(reference, current, {"x": "number", "late": "number"}, 0.1, 30)
    assert signal is not None
    assert 0 <= signal.p_value <= 1
