"""A run whose data has a private column: its values are in no XCom, no log, no report, and no error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import ProfileOperator, SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import HandoverOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.operators.validation import ValidateOperator

DATA: dict[str, Any] = {"source": "people.csv", "target": "target", "id": "id", "private": ["name", "fee"]}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 2000}}
CANARIES = ("CANARY", "777123")


@pytest.fixture
def named(lake: Path, people: pd.DataFrame) -> pd.DataFrame:
    people["name"] = [f"CANARY-{i}" for i in range(len(people))]
    people["fee"] = 777123000 + people.index * 1.5
    people.to_csv(lake / "people.csv", index=False)
    return people


def test_from_snapshot_to_prediction(lake, named, execute, capsys, caplog) -> None:
    caplog.set_level("DEBUG")
    said: list[Any] = []

    def run(operator: Any) -> Any:
        result = execute(operator)
        said.append([result, execute.pushed])
        return result

    of = {"pipeline": "people", "data": DATA}
    ref = run(SnapshotOperator(task_id="snapshot", **of))
    run(ProfileOperator(task_id="profile", snapshot=ref, **of))
    expectations = [
        {"expect_column_values_to_not_match_regex": {"column": "name", "regex": "-1.$"}},
        {"expect_column_values_to_be_between": {"column": "fee", "max_value": 1, "severity": "warning"}},
    ]
    checks = {"expectations": expectations, "on_failure": "quarantine"}
    ref = run(ValidateOperator(task_id="validate", snapshot=ref, validate=checks, **of))
    assert ref["validation"]["quarantined"] == 10
    candidate = run(TrainOperator(task_id="fit", snapshot=ref, train=LOGISTIC, **of))
    evaluation = run(EvaluateOperator(task_id="score", candidate=candidate, **of))
    gates = {"gates": [{"metric": "roc_auc", "at_least": 0.5}]}
    decision = run(GateOperator(task_id="gates", pipeline="people", evaluation=evaluation, evaluate=gates))
    run(HandoverOperator(task_id="hand", pipeline="people", decision=decision))
    run(BatchPredictOperator(task_id="predict", **of))
    out = capsys.readouterr()
    told = [json.dumps(said, default=str), out.out, out.err, caplog.text]
    store = MLOpsHook().store()
    told += [store.get(key).decode() for key in store.list("reports/")]
    assert len(told) > 7
    assert [text for text in told if any(canary in text for canary in CANARIES)] == []
    assert "fee" in told[-1] or any("fee" in text for text in told)


def test_errors_of_a_task_do_not_quote(lake, named, execute, capsys, caplog) -> None:
    text = named.astype({"fee": str})
    text.loc[7, "fee"] = "CANARY"
    text.to_csv(lake / "people.csv", index=False)
    with pytest.raises(AirflowFailException, match="column 'fee': a value is not a number") as e:
        execute(SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA))
    error: BaseException | None = e.value
    while error is not None:
        assert "CANARY" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    out = capsys.readouterr()
    assert "CANARY" not in out.out + out.err + caplog.text
