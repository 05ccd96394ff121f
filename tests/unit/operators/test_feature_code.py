"""Feature code goes with the version that was trained with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.delivery.bundle import laid_out
from airflow_mlops.delivery.tree import write_tree
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.training import TrainOperator
from tests.unit.delivery.deliveries import COMMIT, bundle

DATA: dict[str, Any] = {"source": "people.csv", "target": "target", "id": "id"}
TRAIN = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 2000}}
CODE = """
def old(frame):
    return frame.assign(ratio=frame.area / frame.perimeter).drop(columns=["area", "perimeter"])

def new(frame):
    return frame.assign(size=frame.area * frame.perimeter).drop(columns=["area", "perimeter"])
"""


@pytest.fixture(autouse=True)
def _own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ward_features.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "ward_features")
    monkeypatch.delitem(sys.modules, "ward_features", raising=False)


def _train(execute, run_id: str, code: str) -> tuple[dict[str, Any], dict[str, Any]]:
    ref = execute(SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA), run_id=run_id)
    fit = TrainOperator(
        task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=TRAIN, features={"callable": code}
    )
    candidate = execute(fit, run_id=run_id)
    score = EvaluateOperator(task_id="score", pipeline="people", candidate=candidate, data=DATA)
    return candidate, execute(score, run_id=run_id)


def test_champion_and_candidate_each_get_their_own_features(lake, execute) -> None:
    first, alone = _train(execute, "manual__1", "ward_features:old")
    decision = {"version": first["version"], "champion": None, "sentence": "for the test"}
    execute(PromoteOperator(task_id="promote", pipeline="people", decision=decision))
    _, beside = _train(execute, "manual__2", "ward_features:new")
    # The champion scores the same holdout as when it was the candidate, and gets the same number.
    assert beside["metrics"]["roc_auc"]["champion"] == pytest.approx(alone["metrics"]["roc_auc"]["candidate"])
    scored = execute(BatchPredictOperator(task_id="predict", pipeline="people", data=DATA))
    assert (scored["version"], scored["rows"]) == (1, 569)


def test_a_model_of_deployed_code_says_which(lake, execute, tmp_path: Path) -> None:
    made = bundle("a")
    write_tree(laid_out(made), tmp_path / "version")
    ref = execute(SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA))
    for folder, wanted in (
        (tmp_path / "version" / "pipelines", {"project": "crm", "commit": COMMIT, "bundle": made.digest}),
        (tmp_path, None),
    ):
        fit = TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=TRAIN, folder=str(folder))
        version = execute(fit, run_id=f"manual__{folder.name}")["version"]
        found = MLOpsHook().registry("people").get(version).record["code"].get("delivered")
        assert found == (wanted and wanted | {"deployment": None})  # no bundle of Airflow's stands behind this task
