"""A gate on recorded behaviour in a run: the file lies beside the pipeline file, and is read before training."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.store import layout

OF: dict[str, Any] = {"pipeline": "people", "data": {"source": "people.csv", "target": "target", "id": "id"}}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 3000}}
JUDGED = {"gates": [{"behaviours": "people.behaviours.yaml"}]}
FILE = """\
base: {radius: 14, texture: 19, perimeter: 92, area: 650, ward: north}
outputs:
  - {name: a small one is benign, row: {radius: 8, perimeter: 50, area: 200}, expect: 1}
invariances:
  - {name: the ward says little, change: ward, to: [north, south, east], within: 0.5}
directions:
  - {name: larger is worse, increase: radius, by: 10, must_not: rise, min_share: 0.01, class: 1, within: 1.0}
"""


def test_from_file_to_verdict(lake, tmp_path, execute) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    here = {"evaluate": JUDGED, "folder": str(folder), **OF}
    ref = execute(SnapshotOperator(task_id="snapshot", **OF))
    with pytest.raises(AirflowFailException, match="there is no such file"):
        execute(TrainOperator(task_id="fit", snapshot=ref, train=LOGISTIC, **here))
    file = folder / "people.behaviours.yaml"
    file.write_text(FILE.replace("expect: 1", "expect: 0"))
    candidate = execute(TrainOperator(task_id="fit", snapshot=ref, train=LOGISTIC, **here))
    evaluation = execute(EvaluateOperator(task_id="score", candidate=candidate, **here))
    gates = GateOperator(task_id="gates", pipeline="people", evaluation=evaluation, evaluate=JUDGED)
    decision = execute(gates)
    assert decision["verdict"] == "rejected"
    assert "a small one is benign (line 3): expected 0, predicted 1" in decision["sentence"]
    assert decision["holdout"] is None  # nothing was decided by the holdout
    file.write_text(FILE)
    evaluation = execute(EvaluateOperator(task_id="score", candidate=candidate, **here), "again")
    note = MLOpsHook().registry("people").get(1).notes["evaluation"][-1]
    assert MLOpsHook().store().exists(layout.blob(note["behaviours"]))
    gates = GateOperator(task_id="gates", pipeline="people", evaluation=evaluation, evaluate=JUDGED)
    decision = execute(gates, "again")
    assert decision["verdict"] == "passed", decision["sentence"]
    assert decision["results"][0]["behaviours"]["held"] == 3
