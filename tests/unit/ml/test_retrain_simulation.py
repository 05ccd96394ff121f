"""False retrains by simulation, at a size for CI; ``benchmarks/bench_ledger.py`` is the full size."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlops_bench_ledger", ROOT / "benchmarks" / "bench_ledger.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_confirmation_by_the_same_column_holds_back_nearly_every_false_alarm(bench: ModuleType) -> None:
    """Eight pipelines of 200 days at exactly alpha: 80 false alarms are expected, and 0.4 confirmed by their column."""
    alarms, at_once = bench.simulate(bench.at_alpha, 8, 200, bench.AT_ONCE)
    assert at_once == alarms
    assert 80 - 3 * 8.7 <= alarms <= 80 + 3 * 8.7
    assert bench.simulate(bench.at_alpha, 8, 200, bench.CONFIRMED)[1] <= 2
    # Without names two alarms of three are two false alarms: 0.05 × 0.0975 a day, so 7.4 are expected.
    assert 1 <= bench.simulate(partial(bench.at_alpha, named=False), 8, 200, bench.CONFIRMED)[1] <= 16


def test_the_real_check_asks_for_nothing_on_data_that_does_not_change(bench: ModuleType) -> None:
    alarms, granted = bench.simulate(partial(bench.real, rows=500, reference=5_000), 2, 40, bench.CONFIRMED)
    assert alarms <= 8  # alpha, and two standard errors
    assert granted == 0
