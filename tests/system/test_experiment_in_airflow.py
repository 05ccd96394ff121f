"""An experiment as Airflow runs it: mapped trials, one that fails, rungs, and the winner through the gates."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer

from airflow_mlops.ml.experiment_records import ExperimentRecords
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore, layout

LOADER = Path(__file__).parents[2] / "dags" / "loader.py"
CELLS = """\
pipeline: cells
level: 2
data: {source: cells.csv, target: target, id: id}
train: {estimator: sklearn.linear_model.LogisticRegression, params: {max_iter: 500}}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, at_least: 0.8}]}
retrain: {schedule: "@yearly"}
experiment:
  strategy: halving
  n_trials: 4                   # all of the space; lbfgs knows no l1
  space: {solver: [lbfgs, liblinear], penalty: [l1, l2]}
"""


def test_mapped_trials_find_a_challenger(tmp_path: Path) -> None:
    pipelines, data, store = tmp_path / "dags/pipelines", tmp_path / "data", tmp_path / "store"
    pipelines.mkdir(parents=True)
    data.mkdir()
    shutil.copy(LOADER, tmp_path / "dags")
    (pipelines / "cells.yaml").write_text(CELLS)
    frame = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 1, 2, -1]]
    frame.insert(0, "id", range(len(frame)))
    frame.to_csv(data / "cells.csv", index=False)
    own = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
    env = own | {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__MLOPS__STORE": store.as_uri(),
        "AIRFLOW__MLOPS__DATA_ROOT": str(data),
    }
    printed = ""
    for command in (["db", "migrate"], ["dags", "test", "cells__experiment"]):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *command], env=env, capture_output=True, text=True, check=False
        )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed[-5000:]
    assert "state=success" in printed

    kept = LocalStore(store)
    (plan,) = (k for k in kept.list(layout.experiments_prefix("cells")) if k.endswith("plan.json"))
    records = ExperimentRecords(kept, "cells", plan.split("/")[-2])
    first, second = ([r for r in records.trials() if r["rung"] == rung] for rung in (1, 2))
    assert len(first) == 4
    assert [r["error"] is None for r in first].count(False) == 1
    assert [r["number"] for r in second] == [max((r for r in first if r["score"]), key=lambda r: r["score"])["number"]]
    result = records.result()
    assert result is not None
    assert result["winner"]["number"] == second[0]["number"]
    assert kept.exists(layout.report("cells__experiment", result["report"]))
    version = Registry(kept, "cells").get(1)
    assert version.record["experiment"]["experiment"] == records.experiment
    assert version.notes["gates"][-1]["verdict"] == "passed"
    assert version.status in ("champion", "challenger")
