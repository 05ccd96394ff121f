"""A champion that was trained elsewhere has no rows and no evaluation: the checks say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from airflow.sdk.exceptions import AirflowFailException
from sklearn.linear_model import LogisticRegression

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.ml.foreign import take_in
from airflow_mlops.operators.monitoring import DriftCheckOperator, PerformanceCheckOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.registry.artifacts import dump_model

DATA = {"source": "people.csv", "target": "target", "id": "id"}
MONITOR = {"labels": {"source": "people.csv", "join_on": "id"}}
FEB = {"window_start": "2013-02-01", "window_end": "2013-03-01"}


def test_the_checks_of_an_imported_champion(lake: Path, people: pd.DataFrame, execute: Any, tmp_path: Path) -> None:
    columns = ["radius", "texture"]
    model = LogisticRegression(max_iter=3000).fit(people[columns], people["target"])
    dump_model(model, tmp_path / "model.skops")
    registry = MLOpsHook().registry("people")
    take_in(registry, tmp_path / "model.skops", sample=people[[*columns, "target"]], target="target")
    registry.promote(1, expected=None, op_id="promote", reason="it served before")
    common: dict[str, Any] = {"pipeline": "people", "data": DATA}
    execute(BatchPredictOperator(task_id="predict", batch={"output": "out"}, **common), **FEB)
    found = execute(DriftCheckOperator(task_id="drift", monitor=MONITOR, **common), **FEB)
    assert (found["verdict"], found["sentence"]) == (
        "not_enough_data", "v1 was trained elsewhere: there are no rows here to compare with",
    )  # fmt: skip
    with pytest.raises(AirflowFailException, match="v1 was promoted without an evaluation"):
        execute(PerformanceCheckOperator(task_id="performance", monitor=MONITOR, **common), **FEB)
