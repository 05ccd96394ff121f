"""The README's loader, byte for byte, through a dag processor in safe mode; a bad file beside good ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    blocks = re.findall(r"^```(python|yaml)\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (loader,) = [text for language, text in blocks if language == "python" and "load_dags" in text]
    smallest = next(text for language, text in blocks if language == "yaml")
    dags = tmp_path / "dags"
    (dags / "pipelines").mkdir(parents=True)
    (dags / "loader.py").write_text(loader)
    (dags / "pipelines" / "churn.yaml").write_text(smallest)
    (dags / "pipelines" / "bad.yaml").write_text("pipeline: bad\nlevel: zero\n")
    return tmp_path


def _airflow(home: Path, *words: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
    env |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "True",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "airflow", *words]
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=True, timeout=150).stdout


def test_the_readmes_loader_is_found_and_shows_the_bad_file(home: Path) -> None:
    _airflow(home, "db", "migrate")
    _airflow(home, "dag-processor", "--num-runs", "1")
    listed = _airflow(home, "dags", "list", "--output", "json")
    dags = {row["dag_id"] for row in json.loads(listed[listed.index("[{") :])}
    assert dags == {"churn__train", "churn__predict", "churn__registry", "bad__invalid"}
    assert "No data found" in _airflow(home, "dags", "list-import-errors")
