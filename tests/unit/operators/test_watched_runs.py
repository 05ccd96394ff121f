"""From training to a confirmed drift: what the operators hand on to each other, and what they send as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pandas as pd
import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.observability import stats

from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.monitoring import DriftCheckOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.retrain import RequestRetrainOperator
from airflow_mlops.operators.training import TrainOperator

DATA = {"source": "people.csv", "target": "target", "id": "id"}
COMMON: dict[str, Any] = {"pipeline": "people"}


@pytest.fixture
def sent() -> Iterator[list[tuple[str, float, dict[str, str]]]]:
    """Every metric that Airflow's backend is given: name, value, tags."""
    found: list[tuple[str, float, dict[str, str]]] = []
    backend = MagicMock(spec=NoStatsLogger)
    backend.incr.side_effect = lambda name, count, tags: found.append((name, count, tags))
    backend.gauge.side_effect = lambda name, value, tags: found.append((name, value, tags))
    stats.initialize(factory=lambda: backend, export_legacy_names=True)
    yield found
    stats.initialize(factory=NoStatsLogger, export_legacy_names=True)


def month(number: int) -> dict[str, str]:
    return {"window_start": f"2013-{number:02d}-01", "window_end": f"2013-{number + 1:02d}-01"}


def test_drift_of_one_column_is_confirmed_in_the_second_month(
    lake: Path, people: pd.DataFrame, execute: Any, sent: list[tuple[str, float, dict[str, str]]]
) -> None:
    snapshot = execute(SnapshotOperator(task_id="snapshot", data=DATA, **COMMON), **month(1))
    estimator = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 3000}}
    fit = execute(TrainOperator(task_id="fit", snapshot=snapshot, data=DATA, train=estimator, **COMMON), **month(1))
    score = execute(EvaluateOperator(task_id="score", candidate=fit, data=DATA, **COMMON), **month(1))
    gates = {"gates": [{"metric": "roc_auc", "at_least": 0.5}]}
    decision = execute(GateOperator(task_id="gates", evaluation=score, evaluate=gates, **COMMON), **month(1))
    execute(PromoteOperator(task_id="promote", decision=decision, **COMMON), **month(1))
    assert sent == [("mlops.gate.verdict", 1, {"pipeline": "people", "verdict": decision["verdict"]})]

    people.assign(radius=people["radius"] * 2).to_csv(lake / "bigger.csv", index=False)
    retrain = {"when": ["drift"], "confirm": "2 of 2"}
    for number in (2, 3):
        sent.clear()
        run = {"run_id": f"run {number}", **month(number)}
        predict = BatchPredictOperator(
            task_id="predict", data=DATA, batch={"source": "bigger.csv", "output": "out"}, **COMMON
        )
        execute(predict, **run)
        drift = execute(DriftCheckOperator(task_id="drift", data=DATA, monitor={}, **COMMON), **run)
        assert "radius" in drift["drifted"]
        assert "columns" not in drift
        request = RequestRetrainOperator(task_id="request", checks={"drift": drift}, retrain=retrain, **COMMON)
        if number == 2:
            with pytest.raises(AirflowSkipException, match="drift 1 of 2 confirmations"):
                execute(request, **run)
        else:
            assert execute(request, **run)["reasons"] == ["drift"]
    assert sent[0] == ("mlops.champion.age_days", 59.0, {"pipeline": "people"})
    assert sent[1] == ("mlops.check.verdict", 1, {"pipeline": "people", "check": "drift", "verdict": "drift"})
    effects = {tags["column"]: value for name, value, tags in sent if name == "mlops.drift.effect"}
    assert effects.keys() >= {"radius", "texture", "ward"}
    assert effects["radius"] > 1 > 0.1 > effects["texture"]
    assert sent[-1] == ("mlops.retrain.granted", 1, {"pipeline": "people", "reason": "drift"})
