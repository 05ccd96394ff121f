"""What the operators write is what an assessment reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import HandoverOperator
from airflow_mlops.operators.retrain import ClaimRetrainOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.operators.validation import ValidateOperator
from airflow_mlops.registry.evidence import Assessment, assess

DATA = {"source": "people.csv", "target": "target", "id": "id"}
FEB = {"window_start": "2013-02-01", "window_end": "2013-03-01"}
COMMON = {"pipeline": "people"}


def train(execute: Any, **params: Any) -> dict[str, Any]:
    """From the claim to the verdict."""
    if params:
        execute(ClaimRetrainOperator(task_id="claim", retrain={"schedule": "@weekly"}, **COMMON), **params)
    snapshot = execute(SnapshotOperator(task_id="snapshot", data=DATA, **COMMON), **params)
    snapshot = execute(ValidateOperator(task_id="validate", snapshot=snapshot, data=DATA, **COMMON), **params)
    estimator = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 3000}}
    fit = TrainOperator(task_id="fit", snapshot=snapshot, data=DATA, train=estimator, **COMMON)
    score = EvaluateOperator(task_id="score", candidate=execute(fit, **params), data=DATA, **COMMON)
    gates = {"gates": [{"metric": "roc_auc", "at_least": 0.5}]}
    gate = GateOperator(task_id="gates", evaluation=execute(score, **params), evaluate=gates, **COMMON)
    verdict: dict[str, Any] = execute(gate, **params)
    return verdict


def found() -> Assessment:
    return assess(MLOpsHook().store(), "people", None, datetime.now(UTC), 1)


@pytest.mark.usefixtures("lake")
def test_a_life_by_hand_and_without_windows_reaches_level_0(execute: Any) -> None:
    decision = train(execute)
    answer = {"chosen_options": ["Approve"], "responded_by_user": {"id": "1", "name": "ann"}}
    execute(HandoverOperator(task_id="handover", decision=decision, approval=answer, **COMMON))
    assert found().level is None
    predict = BatchPredictOperator(task_id="predict", data=DATA, batch={"output": "out"}, **COMMON)
    for _ in range(2):
        execute(predict)
    assert len(MLOpsHook().registry("people").champion().notes["prediction"]) == 1
    assert found().level == 0
    assert found().missing(1) != []


@pytest.mark.usefixtures("lake")
def test_a_rehearsal_leaves_nothing_to_count(execute: Any) -> None:
    train(execute, promote=False, reason="schedule", **FEB)
    assert not any(s.used for s in found().states)
    train(execute, run_id="replay__year__1", promote=True, reason="schedule", replay="year", **FEB)
    used = {s.capability.name for s in found().states if s.replay}
    assert used == {
        "training recorded with its data", "data validated before training", "gates judge a candidate",
        "training started by its schedule",
    }  # fmt: skip
