from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_mlops.config.models import System
from airflow_mlops.ml.fleet.result import save_result
from airflow_mlops.ml.system_metrics import check_figures, system
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

USUAL = [{"wall_seconds": 10.0 + 0.1 * i, "peak_mb": 300.0} for i in range(10)]


def test_an_alarm_is_both_rare_and_large() -> None:
    def alarms(seconds: float, before: Any = USUAL, **config: Any) -> list[bool]:
        return [f.alarm for f in check_figures("prediction", {"wall_seconds": seconds}, before, System(**config))]

    assert alarms(10.5) == [False]
    assert alarms(14.0) == [False]  # far outside the spread, and yet no half more than usual
    assert alarms(16.0) == [True]
    assert alarms(14.0, factor=1.3) == [True]
    wild = [{"wall_seconds": s} for s in (2, 30, 4, 25, 10, 18, 6, 28)]
    assert alarms(20.0, wild) == [False]  # half more than usual, and as usual here
    same = [{"wall_seconds": 10.0}] * 8
    assert alarms(15.1, same) == [True]
    assert alarms(10.0, same) == [False]
    assert alarms(99.0, USUAL[:7]) == []
    assert alarms(99.0, USUAL[:4], min_runs=4) == [True]


def test_what_is_told() -> None:
    slow, large = check_figures("prediction", {"wall_seconds": 31.35, "peak_mb": 900, "?": 1}, USUAL, System())
    assert slow.sentence == "prediction took 31.4 s, 3.0 times the usual 10.4"
    assert (slow.usual, slow.runs, slow.alarm) == (10.45, 10, True)
    assert large.sentence == "prediction needed 900 MB of memory, 3.0 times the usual 300"
    json.dumps([slow.to_dict(), large.to_dict()], allow_nan=False)


@pytest.mark.parametrize("noise", [0.05, 0.15])
def test_runs_of_one_kind_alarm_rarely(noise: float) -> None:
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(1000):
        runs = [{"wall_seconds": float(s)} for s in 10 * np.exp(rng.normal(0, noise, 13))]
        (figure,) = check_figures("prediction", runs[-1], runs[:-1], System())
        alarms += figure.alarm
    assert alarms <= 10


def test_predictions_and_trainings_are_compared_with_earlier_ones(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    registry = Registry(store, "p")
    start = Window.of("2013-01-01", "2013-01-02")
    windows = [Window.of(start.start + timedelta(days=i), start.end + timedelta(days=i)) for i in range(12)]
    nothing = system(store, registry, windows[9], System())
    assert nothing["verdict"] == "not_enough_data"
    assert "0 earlier predictions and 0 earlier trainings" in nothing["sentence"]
    for i, window in enumerate(windows):
        cost = {"wall_seconds": 10.0 + i % 3, "cpu_seconds": 5.0, "peak_mb": 400.0}
        if i == 9:
            cost |= {"wall_seconds": 60.0, "price_per_hour": 6.0, "currency": "EUR"}
        write_check(store, "p", window, "prediction", {"rows": 1000 * (i == 9) + 1000, "cost": cost})
    result = system(store, registry, windows[9], System())
    assert result["verdict"] == "alarm"
    assert "prediction took 60 s, 5.5 times the usual 11" in result["sentence"]
    assert "took 30 s for 1,000 rows" in result["sentence"]
    assert "it cost 0.10 EUR" in result["sentence"]
    assert all(f["runs"] == 9 for f in result["figures"])
    assert system(store, registry, windows[8], System())["verdict"] == "normal"
    assert system(store, registry, windows[7], System())["verdict"] == "not_enough_data"
    for n in range(1, 10):
        registry.register({}, op_id=f"r{n}")
        for task in ("data.snapshot", "train.fit"):
            note = {"task": task, "wall_seconds": 20.0 * (1 + 3 * (n == 9)), "cpu_seconds": 9.0, "peak_mb": 500.0}
            registry.annotate(n, "cost", note, op_id=f"c{n}{task}")
    trained = system(store, registry, windows[8], System())
    assert "training took 160 s, 4.0 times the usual 40" in trained["sentence"]
    json.dumps([nothing, result, trained], allow_nan=False)


def test_a_fleets_trainings_of_all_keys_are_compared(tmp_path: Path) -> None:
    store, registry = LocalStore(tmp_path), Registry(LocalStore(tmp_path), "routes")
    window = Window.of("2013-01-01", "2013-01-02")
    for n in range(12):
        seconds = 400.0 if n == 11 else 3.0 if n == 10 else 100.0 + n
        save_result(
            store,
            "routes",
            f"{n:064x}",
            {
                "dag_id": "routes__train", "run_id": f"r{n}", "started_at": f"2026-01-{n + 1:02d}T00:00:00+00:00",
                "sentence": "", "counts": {"promoted": 9}, "table": "0" * 64,
                "report": None, "keys": 99, "tests": 0, "limit": None, "window": None, "rows": 9, "rehearsal": n == 5,
                "partial": n == 10,
                "absent": {}, "cost": {"wall_seconds": seconds, "cpu_seconds": 50.0, "peak_mb": 700.0},
            },
        )  # fmt: skip
    found = system(store, registry, window, System())
    assert found["verdict"] == "alarm"
    assert "training took 400 s, 3.8 times the usual 104" in found["sentence"]
    # Neither the rehearsal nor the training of nine keys is among the usual ones.
    assert {figure["runs"] for figure in found["figures"]} == {9}
