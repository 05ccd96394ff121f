"""Operators run here as a task runs them, with a store and data on local disk and a stand-in for the task instance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from airflow_mlops.operators.base import MLOpsOperator


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data root; ``people.csv`` in it is fit to train on."""
    root = tmp_path / "lake"
    root.mkdir()
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(root))
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    frame = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 1, 2, 3, -1]]
    frame.columns = ["radius", "texture", "perimeter", "area", "target"]
    frame.insert(0, "id", range(len(frame)))
    frame["ward"] = ["north", "south", "east"] * (len(frame) // 3) + ["north"] * (len(frame) % 3)
    frame.to_csv(root / "people.csv", index=False)
    return root


@pytest.fixture
def people(lake: Path) -> pd.DataFrame:
    """What ``people.csv`` holds."""
    return pd.read_csv(lake / "people.csv")


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[], set[str]]:
    """Every key in the store."""
    from airflow_mlops.store import LocalStore

    return lambda: set(LocalStore(tmp_path / "store").list(""))


@pytest.fixture
def execute() -> Callable[..., Any]:
    """``execute(operator, **params)``: run it once and return what it pushed as its result."""
    xcoms: dict[tuple[str, str, str], Any] = {}

    def run(operator: MLOpsOperator, run_id: str = "manual__1", **params: Any) -> Any:
        pushed: dict[str, Any] = {}
        ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "xcom_pull", "try_number"])
        ti.dag_id, ti.run_id, ti.task_id, ti.map_index = "people__train", run_id, operator.task_id, -1

        def push(key: str, value: Any) -> None:
            pushed[key] = value
            xcoms[run_id, operator.task_id, key] = value

        ti.xcom_push.side_effect = push
        ti.xcom_pull.side_effect = lambda task_ids, key: [xcoms.get((run_id, name, key)) for name in task_ids]
        context: dict[str, Any] = {
            "ti": ti,
            "task": operator,
            "params": params,
            "dag_run": SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=None),
            "outlet_events": MagicMock(),
        }
        context["pushed"] = pushed
        run.pushed = pushed  # type: ignore[attr-defined]
        return operator.execute(context)  # type: ignore[arg-type]

    return run
