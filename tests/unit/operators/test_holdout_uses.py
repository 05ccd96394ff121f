"""Decisions on one holdout are counted by what they are, not by the tries of a task."""

from __future__ import annotations

from typing import Any

from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.training import TrainOperator

OF: dict[str, Any] = {"pipeline": "people", "data": {"source": "people.csv", "target": "target", "id": "id"}}
GATES = {"metric": "accuracy", "versus": "champion", "not_worse_by": 0.9}, {"metric": "accuracy", "at_least": 0.5}
JUDGED = {"gates": [*GATES], "holdout_uses": 2, "metrics": ["accuracy"]}


def test_a_retry_counts_once_and_another_candidate_counts(lake, execute) -> None:
    def candidate(run_id: str, c: float) -> Any:
        ref = execute(SnapshotOperator(task_id="snapshot", **OF), run_id)
        train = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 3000, "C": c}}
        made = execute(TrainOperator(task_id="fit", snapshot=ref, train=train, **OF), run_id)
        return execute(EvaluateOperator(task_id="score", candidate=made, evaluate=JUDGED, **OF), run_id)

    def judge(run_id: str, evaluation: Any) -> Any:
        gates = GateOperator(task_id="gates", pipeline="people", evaluation=evaluation, evaluate=JUDGED)
        return execute(gates, run_id)

    first = judge("r1", candidate("r1", 1.0))
    assert first["holdout"]["use"] == 1
    assert first["verdict"] == "no_baseline"
    execute(PromoteOperator(task_id="promote", pipeline="people", decision=first), "r1")
    scored = candidate("r2", 0.01)
    second = judge("r2", scored)
    assert (second["verdict"], second["holdout"]["use"]) == ("passed", 2)
    assert "use 2 of 2 of this holdout" in second["sentence"]
    assert judge("r2", scored)["holdout"] == second["holdout"]
    third = judge("r3", candidate("r3", 0.001))
    assert (third["verdict"], third["go"]) == ("inconclusive", False)
    assert "a fresh holdout is due" in third["sentence"]
