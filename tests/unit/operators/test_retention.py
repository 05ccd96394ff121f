"""Old rows are given up by the window of the run, on the record."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.retention import RetentionOperator
from airflow_mlops.operators.training import TrainOperator

DATA = {"source": "people.csv", "target": "target", "id": "id"}
COMMON = {"pipeline": "people"}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 3000}}
KEEP = RetentionOperator(task_id="expire", retention={"snapshots": "30d"}, **COMMON)


def window(month: int) -> dict[str, str]:
    return {"window_start": f"2013-{month:02}-01", "window_end": f"2013-{month + 1:02}-01"}


def train(execute: Any, month: int) -> int:
    snapshot = execute(SnapshotOperator(task_id="snapshot", data=DATA, **COMMON), **window(month), run_id=f"r{month}")
    fit = TrainOperator(task_id="fit", snapshot=snapshot, data=DATA, train=LOGISTIC, **COMMON)
    return int(execute(fit, run_id=f"r{month}", **window(month))["version"])


@pytest.mark.usefixtures("lake")
def test_what_is_older_than_the_runs_window_allows(execute: Any) -> None:
    registry = MLOpsHook().registry("people")
    champion = train(execute, 1)
    registry.promote(champion, expected=None, op_id="x", reason="test")
    old, new = train(execute, 2), train(execute, 5)
    assert execute(KEEP, promote=False, **window(5)) == {"snapshots": 0, "captures": 0, "kept": 0}
    assert execute(KEEP, **window(2))["snapshots"] == 0
    done = execute(KEEP, **window(5))
    assert (done["snapshots"], done["kept"]) == (1, 1)
    notes = {number: registry.get(number).notes.get("retention") for number in (champion, old, new)}
    assert notes[champion] is None
    assert notes[new] is None
    assert notes[old]
    assert execute(KEEP, **window(5))["snapshots"] == 0


def test_nothing_to_keep_is_a_mistake() -> None:
    with pytest.raises((ValueError, MLOpsError), match="needs `snapshots` or `captures`"):
        RetentionOperator(task_id="expire", retention={}, **COMMON)
