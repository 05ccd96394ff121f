"""Rows that hang together are worth fewer; independent rows are not made fewer."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from airflow_mlops.config.models import Drift
from airflow_mlops.ml.dependence import Dependence, few_runs
from airflow_mlops.ml.drift import check_drift
from airflow_mlops.ml.drift_statistics import share_test


def ar1(rng: np.random.Generator, rows: int, phi: float = 0.9) -> np.ndarray:
    """Standard normal values, each ``phi`` times the one before plus noise."""
    noise = rng.normal(size=rows + 200)
    return signal.lfilter([math.sqrt(1 - phi**2)], [1, -phi], noise)[200:]


def factor(values: np.ndarray, batch: int = 2**16) -> float:
    seen = Dependence()
    for first in range(0, len(values), batch):
        seen.add(values[first : first + batch])
    return seen.factor()


def test_the_factor_of_a_known_process() -> None:
    rng = np.random.default_rng(1)
    found = [factor(ar1(rng, 20_000)) for _ in range(40)]
    # 19 rows are worth one; the upper end of a bound from 32 blocks lies about twice above.
    assert 24 <= np.median(found) <= 50
    assert min(found) > 12


@pytest.mark.parametrize(("rows", "runs"), [(60, 400), (1000, 400), (40_000, 60)])
def test_independent_rows_are_not_made_fewer(rows: int, runs: int) -> None:
    rng = np.random.default_rng(rows)
    touched = sum(factor(rng.normal(size=rows)) > 1 for _ in range(runs))
    assert touched / runs <= 0.04


def test_long_blocks_of_a_small_common_part_are_seen() -> None:
    rng = np.random.default_rng(2)
    days = np.repeat(rng.normal(0, 0.25, 64), 500)
    assert factor(days + rng.normal(size=len(days))) > 10


def test_sorted_and_constant_values_say_nothing_about_order() -> None:
    rng = np.random.default_rng(3)
    values = np.sort(rng.normal(size=5000))
    assert factor(values) == factor(values[::-1]) == factor(np.ones(5000)) == factor(np.zeros(0)) == 1.0
    grouped = pd.Series(np.repeat(["a", "b", "c"], 1000))
    report = check_drift(
        pd.DataFrame({"c": grouped}), pd.DataFrame({"c": grouped.head(1500)}), {"c": "category"}, Drift()
    )
    assert report.verdict == "drift"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40_000), st.integers(1, 9000), st.integers(0, 2**32 - 1))
def test_batches_make_no_difference(rows: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = ar1(rng, rows, 0.5)
    assert factor(values, batch) == pytest.approx(factor(values, 10**6), rel=1e-9)


def test_runs_of_categories_in_a_random_order_are_mistaken_as_seldom_as_is_said() -> None:
    rng = np.random.default_rng(8)
    for rows, categories in ((40, 3), (300, 10), (3000, 50)):
        codes = [rng.integers(0, categories, rows) for _ in range(2000)]
        found = sum(few_runs(int((c[1:] != c[:-1]).sum()), np.bincount(c)) for c in codes)
        assert found <= 12  # 0.002 of 2,000, and four standard errors


@pytest.mark.parametrize("counts", [[], [300], [1] * 300, [15]])
def test_categories_that_have_one_order_alone_are_not_judged(counts: list[int]) -> None:
    assert not few_runs(max(len(counts) - 1, 0), np.array(counts, dtype=np.int64))


def test_a_side_without_gaps_does_not_show_how_gaps_hang_together() -> None:
    alone, together = (share_test((300, 0), (1000, 100), factors) for factors in ((1.0, 1.0), (25.0, 1.0)))
    assert alone < 1e-6 < 0.05 < together


def correlated(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    numbers = {f"n{i}": ar1(rng, rows) for i in range(7)}
    late = ar1(rng, rows)
    texts = {f"c{i}": np.array([*"abcde"])[np.digitize(ar1(rng, rows), [-0.8, -0.2, 0.2, 0.8])] for i in range(2)}
    texts["c2"] = ar1(rng, rows).round(1).astype(str)  # many categories, of which few rows tell little
    return pd.DataFrame(numbers | texts | {"gaps": np.where(late > 1, np.nan, ar1(rng, rows)), "b": late > 0})


KINDS = (
    {f"n{i}": "number" for i in range(7)} | {f"c{i}": "category" for i in range(3)} | {"gaps": "number", "b": "boolean"}
)


@pytest.mark.parametrize(
    ("reference", "current", "runs"), [(300, 300, 100), (10_000, 300, 60), (1000, 1000, 60), (20_000, 2000, 30)]
)
def test_correlated_rows_without_drift_do_not_flood(reference: int, current: int, runs: int) -> None:
    rng = np.random.default_rng(reference)
    alarms = sum(
        check_drift(correlated(rng, reference), correlated(rng, current), KINDS, Drift()).verdict == "drift"
        for _ in range(runs)
    )
    assert alarms / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_a_shift_of_correlated_rows_is_found_and_what_they_are_worth_is_said() -> None:
    rng = np.random.default_rng(4)
    a, b = ar1(rng, 20_000), ar1(rng, 20_000) + 0.5
    (column,) = check_drift(pd.DataFrame({"x": a}), pd.DataFrame({"x": b}), {"x": "number"}, Drift()).columns
    assert column.drifted
    assert "20,000 reference rows are worth " in column.sentence
    few = check_drift(pd.DataFrame({"x": a}), pd.DataFrame({"x": b[:200]}), {"x": "number"}, Drift())
    assert few.verdict == "not_enough_data"
    assert few.sentence == "not enough data; too few independent values to compare: x"


def test_rows_can_be_counted_in_full() -> None:
    rng = np.random.default_rng(5)
    a, b = correlated(rng, 5000), correlated(rng, 5000)
    assert check_drift(a, b, KINDS, Drift()).verdict == "no_drift"
    report = check_drift(a, b, KINDS, Drift(independent_rows=True))
    assert report.verdict == "drift"
    assert not any("are worth" in c.sentence for c in report.columns)
