"""Labels of a run are compared with those that the champion learned from."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.operators.validation import ValidateOperator

OF: dict[str, Any] = {"pipeline": "people", "data": {"source": "people.csv", "target": "target", "id": "id"}}
LIMITS = {"labels": {"max_conflicts": 0.02, "max_rate_change": 0.1}, "schema": "off"}


def test_a_jump_and_a_contradiction_stop_the_run(lake, people: pd.DataFrame, execute) -> None:
    def validated(run_id: str) -> Any:
        ref = execute(SnapshotOperator(task_id="snapshot", **OF), run_id)
        return execute(ValidateOperator(task_id="validate", snapshot=ref, validate=LIMITS, **OF), run_id)

    first = validated("r1")
    assert first["validation"]["labels"]["reference"] is None
    train = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 3000}}
    made = execute(TrainOperator(task_id="fit", snapshot=first, train=train, **OF), "r1")
    registry = MLOpsHook().registry("people")
    registry.promote(made["version"], expected=None, op_id="p", reason="test")
    again = validated("r2")["validation"]["labels"]
    assert again["reference"] == "the champion's training rows"
    assert abs(again["classes"][0]["share"] - again["classes"][0]["reference"]) < 0.05
    people.assign(target=(people.index % 4 == 0).astype(int)).to_csv(lake / "people.csv", index=False)
    with pytest.raises(AirflowFailException, match="the label rate has not jumped"):
        validated("r3")
    twins = people.iloc[:20].assign(id=range(1000, 1020), target=lambda f: 1 - f.target)
    pd.concat([people, twins]).to_csv(lake / "people.csv", index=False)
    with pytest.raises(AirflowFailException, match=r"equal rows have equal labels on target: 40 unexpected \(6.79 %\)"):
        validated("r4")
