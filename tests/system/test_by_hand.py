"""The hand-written DAG that ships in ``dags/``, run to its end in an Airflow of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from airflow_mlops.demo.data import prepare_breast_cancer
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

DAG_FILE = Path(__file__).parents[2] / "dags" / "by_hand.py"
HEAVY = ["pandas", "numpy", "sklearn", "scipy", "pyarrow", "skops", "great_expectations", "evidently", "boto3"]


def run(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout


def airflow(tmp_path: Path) -> dict[str, str]:
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(DAG_FILE, dags)
    own = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
    return own | {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__MLOPS__STORE": (tmp_path / "store").as_uri(),
        "AIRFLOW__MLOPS__DATA_ROOT": str(tmp_path / "data"),
    }


def test_it_trains_promotes_and_predicts(tmp_path: Path) -> None:
    prepare_breast_cancer(tmp_path / "data", say=lambda text: None)
    env = airflow(tmp_path)
    run([sys.executable, "-m", "airflow", "db", "migrate"], env)
    printed = run([sys.executable, "-m", "airflow", "dags", "test", "breast_cancer_by_hand"], env)
    assert "state=success" in printed

    champion = Registry(LocalStore(tmp_path / "store"), "breast_cancer_by_hand").champion()
    assert champion is not None
    assert champion.number == 1
    judged = champion.notes["gates"][-1]
    assert {r["name"]: r["verdict"] for r in judged["results"]} == {
        "roc_auc at_least 0.97": "passed",
        "misses_few": "passed",
    }
    (file,) = (tmp_path / "data/predictions/by_hand").glob("*.parquet")
    predictions = pd.read_parquet(file)
    assert len(predictions) == 100
    assert set(predictions["prediction"]) == {"malignant", "benign"}


def test_parsing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import importlib.util, json, sys; spec = importlib.util.spec_from_file_location('by_hand', sys.argv[1]);"
        "spec.loader.exec_module(importlib.util.module_from_spec(spec));"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    assert json.loads(run([sys.executable, "-c", code, str(DAG_FILE)], airflow(tmp_path)).splitlines()[-1]) == []
