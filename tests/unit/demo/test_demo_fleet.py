from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.config import load_pipeline
from airflow_mlops.demo import fleet
from airflow_mlops.demo.__main__ import REPOSITORY, main
from airflow_mlops.demo.story import StoryError
from airflow_mlops.factory.levels import dag_specs

FILE = REPOSITORY / "examples" / "flight_fleet" / "pipelines" / "route_delays.yaml"


def test_the_pipeline_file_makes_the_dags_that_the_demo_runs() -> None:
    config = load_pipeline(FILE)
    assert {f"{config.pipeline}__{spec.suffix}" for spec in dag_specs(config)} == set(fleet.DAGS)
    assert config.fleet is not None
    assert config.fleet.columns == ["dest", "carrier"]
    # What the demo reads and writes lies below its data folder.
    assert not str(config.deploy.batch.output).startswith("/")


def test_a_fleet_is_of_level_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fleet", "--level", "2"]) == 2
    assert "FLEET=1 without LEVEL=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"promoted": 20, "rejected": 30, "fallback": 90}, "only 50 of 281 keys have a model"),
        ({"rejected": 210, "fallback": 71}, "no model was promoted"),
        ({"promoted": 210}, "no key is served by a parent"),
        ({"promoted": 150, "failed": 40, "fallback": 91}, "40 of 281 keys failed"),
    ],
)
def test_a_training_that_is_no_fleet_is_told(counts: dict[str, int], message: str) -> None:
    good = {"keys": 281, "sentence": "…", "counts": {"promoted": 190, "fallback": 91}}
    fleet.check_training(good, 100)
    with pytest.raises(StoryError, match=message):
        fleet.check_training(good | {"counts": counts}, 100)


@pytest.fixture
def month(tmp_path: Path) -> pd.DataFrame:
    """400 flights that the models tell apart well, as scored; schedule and outcomes lie below ``tmp_path``."""
    rng = np.random.default_rng(0)
    ids = [f"f{n}" for n in range(400)]
    late = rng.random(400) < 0.3
    columns = {"schedule": {"flight_id": ids}, "outcomes": {"flight_id": ids[:-10], "delayed": late[:-10]}}
    for name, given in columns.items():
        (tmp_path / name).mkdir()
        pd.DataFrame(given).to_parquet(tmp_path / name / "2013-07.parquet")
    return pd.DataFrame(
        {
            "flight_id": ids,
            "prediction": late.astype(float),
            "probability": 0.3 * late + rng.random(400),
            "model_key": ["ATL/DL", "ATL/*"] * 200,
        }
    )


def scored(predicted: pd.DataFrame, root: Path) -> dict[str, Any]:
    predicted.to_parquet(root / "out.parquet")
    return {"output": "out.parquet"}


def test_predictions_are_held_against_what_came(month: pd.DataFrame, tmp_path: Path) -> None:
    told = fleet.check_predictions(scored(month, tmp_path), tmp_path, "2013-07")
    assert told.startswith("2013-07: 390 flights landed; 2 models told late ones by roc_auc 0.7")


def test_predictions_that_are_wrong_are_told(month: pd.DataFrame, tmp_path: Path) -> None:
    for wrong, message in (
        (month.iloc[1:], "has 399 rows, and 400 flights"),
        (month.assign(probability=0.5), "know nothing: roc_auc 0.500"),
        (month.assign(model_key="ATL/DL"), "0 of 390 flights were predicted by a parent"),
    ):
        with pytest.raises(StoryError, match=message):
            fleet.check_predictions(scored(wrong, tmp_path), tmp_path, "2013-07")
