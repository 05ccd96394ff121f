from __future__ import annotations

import resource
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.ml import cost
from airflow_mlops.ml.cost import Meter, amount, price, total


def test_a_meter_counts_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {resource.RUSAGE_SELF: (1.0, 0.5, 1000), resource.RUSAGE_CHILDREN: (2.0, 0.0, 3000)}

    def getrusage(who: int) -> Any:
        user, system, peak = used[who]
        return SimpleNamespace(ru_utime=user, ru_stime=system, ru_maxrss=peak)

    clock = iter([10.0, 14.5])
    monkeypatch.setattr(cost.resource, "getrusage", getrusage)
    monkeypatch.setattr(cost.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(cost, "_RSS_UNIT", 1024)
    meter = Meter()
    used[resource.RUSAGE_SELF] = (2.0, 0.75, 2000)
    used[resource.RUSAGE_CHILDREN] = (5.0, 1.0, 4000)
    assert meter.read() == {"wall_seconds": 4.5, "cpu_seconds": 5.25, "peak_mb": 4.1}


def test_a_real_child_is_counted() -> None:
    meter = Meter()
    subprocess.run([sys.executable, "-c", "sum(i for i in range(3_000_000))"], check=True)
    read = meter.read()
    assert read["cpu_seconds"] > 0.01
    assert read["peak_mb"] > 5


def step(wall: float = 3600.0, **more: Any) -> dict[str, Any]:
    return {"task": "t", "wall_seconds": wall, "cpu_seconds": 2 * wall, "peak_mb": wall / 10, **more}


def test_steps_are_summed_and_the_largest_peak_counts() -> None:
    sums = total([step(10), step(20, price_per_hour=3.6, currency="EUR"), step(30, price_per_hour=3.6, currency="EUR")])
    assert sums == {"wall_seconds": 60, "cpu_seconds": 120, "peak_mb": 3.0, "money": ["0.05 EUR"]}
    assert total([]) == {"wall_seconds": 0, "cpu_seconds": 0, "peak_mb": 0.0, "money": []}


def test_currencies_are_not_mixed() -> None:
    sums = total([step(price_per_hour=1.0, currency="EUR"), step(price_per_hour=2.5, currency="CHF"), step()])
    assert sums["money"] == ["2.50 CHF", "1.00 EUR"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.00 EUR"), (0.00123, "0.0012 EUR"), (1.005, "1.00 EUR"), (12345.6, "12,345.60 EUR")]
)
def test_small_amounts_stay_visible(value: float, text: str) -> None:
    assert amount(value, "EUR") == text


def test_a_price_without_a_currency_is_a_number() -> None:
    assert amount(2, "") == "2.00"
    assert price(step(1800, price_per_hour=4)) == 2.0
    assert price(step()) == 0.0


@given(st.lists(st.floats(0, 1e6), max_size=20), st.floats(0, 1e4))
def test_money_is_the_price_of_the_time(walls: list[float], rate: float) -> None:
    costs = [step(w, price_per_hour=rate, currency="X") for w in walls]
    sums = total(costs)
    assert sums["wall_seconds"] == pytest.approx(sum(walls))
    assert sums["money"] == ([amount(sum(map(price, costs)), "X")] if walls else [])
