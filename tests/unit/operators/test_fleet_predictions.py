# ruff: noqa: F811
"""A fleet's batch inference by its operators: each row by the model of its key, in the order of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.ml.fleet.predictions import read_outcome
from airflow_mlops.ml.prediction import find_capture, read_capture
from airflow_mlops.operators.fleet_prediction import (
    PredictPartitionOperator,
    PredictShardOperator,
    PublishPredictionsOperator,
)
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window
from tests.unit.operators.test_fleet_runs import DATA, FLEET, Fleet, Run, fleet, registry, rows, store  # noqa: F401

BATCH = {"source": "new.parquet", "output": "out"}
FEB = {"window_start": "2013-02-01", "window_end": "2013-03-01"}


def partition(execute: Run, data: dict[str, Any] = DATA, run_id: str = "p", **more: Any) -> list[dict[str, Any]]:
    operator = PredictPartitionOperator(
        task_id="predict.partition", pipeline="routes", fleet=FLEET, data=data, batch=BATCH, **more
    )
    return execute(operator, run_id, **FEB)


def shards(execute: Run, items: list[dict[str, Any]], data: dict[str, Any] = DATA) -> list[dict[str, Any]]:
    return [
        execute(PredictShardOperator(task_id=f"shard_{i['shard']}", pipeline="routes", shard=i, data=data), "p", **FEB)
        for i in items
    ]


def publish(execute: Run, made: list[dict[str, Any]], data: dict[str, Any] = DATA) -> dict[str, Any]:
    operator = PublishPredictionsOperator(
        task_id="predict.publish", pipeline="routes", shards=made, data=data, batch=BATCH
    )
    return execute(operator, "p", **FEB)


def written(lake: Path) -> pd.DataFrame:
    (file,) = (lake / "out").glob("*.parquet")
    return pq.read_table(file).to_pandas()


def outcome(store: LocalStore, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in read_outcome(store, result["table"])}


def test_each_row_by_the_model_of_its_key(
    execute: Run,
    fleet: Fleet,
    store: LocalStore,
    registry: Registry,
    lake: Path,
) -> None:
    fleet.run("one")
    new = rows(7).drop(columns="late")
    new.loc[3, "route"] = "never seen"
    new.loc[5, "route"] = None
    new.to_parquet(lake / "new.parquet")
    made = shards(execute, partition(execute))
    result = publish(execute, made)

    out = written(lake)
    assert out["id"].tolist() == new["id"].tolist()
    assert list(out.columns) == ["id", "prediction", "model_key", "model_version"]
    own = new["route"].str.fullmatch(r"r\d\d").fillna(False)
    assert (out["model_key"][own] == new["route"][own]).all()
    assert set(out["model_key"][~own]) == {"A/*", "B/*", "*"}
    assert out["model_key"][3] == ("A/*" if new["line"][3] == "A" else "B/*")
    assert out["model_key"][5] == "*"
    for key in ("r04", "B/*"):
        version = registry.champion(key)
        model = fetch_model(store, version.record["model"], pipeline="routes", key=key)
        of_key = out["model_key"] == key
        expected = model.predict(new.loc[of_key, [f["name"] for f in version.record["schema"]["features"]]])
        np.testing.assert_allclose(out["prediction"][of_key], expected)
        assert (out["model_version"][of_key] == version.number).all()

    parents = int((~own).sum())
    assert result["sentence"] == f"{len(new):,} rows predicted by 15 models; {parents:,} rows of 4 keys by a parent"
    found = outcome(store, result)
    assert (found["tiny"]["status"], found["tiny"]["model_key"]) == ("parent", "B/*")
    assert found["tiny"]["reason"] == "it has no champion of its own"
    capture = read_capture(store, find_capture(store, "routes", Window.of(FEB["window_start"], FEB["window_end"])))
    assert capture["key"].fillna("none").tolist() == new["route"].fillna("none").tolist()
    assert capture["prediction"].tolist() == out["prediction"].tolist()
    np.testing.assert_allclose(capture["hour"], new["hour"])
    # A second try finds nothing to change.
    assert shards(execute, partition(execute)) == made
    assert publish(execute, made) | {"output": ""} == result | {"output": ""}


def test_one_bad_key_and_one_damaged_model_fail_nothing_else(
    execute: Run,
    fleet: Fleet,
    store: LocalStore,
    registry: Registry,
    lake: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet.run("one")
    new = rows(7).drop(columns="late")
    new["hour"] = new["hour"].astype(str).where(new["route"] != "r02", "soon")
    new.to_parquet(lake / "new.parquet")
    version = registry.champion("r09")
    pack = Path(store.uri.removeprefix("file://"), "blobs", version.record["model"]["pack"][:2])
    (pack / version.record["model"]["pack"]).write_bytes(b"PAR1 damaged PAR1")
    result = publish(execute, shards(execute, partition(execute)))

    out, found = written(lake), outcome(store, result)
    assert out["id"].tolist() == new["id"].tolist()
    assert out["prediction"].isna().equals(new["route"] == "r02")
    assert found["r02"]["status"] == "failed"
    assert "hour must be a number" in found["r02"]["reason"]
    assert (found["r09"]["status"], found["r09"]["model_key"]) == ("parent", "B/*")
    assert "routes[r09] v1 cannot be loaded" in found["r09"]["reason"]
    assert (found["r00"]["status"], found["r00"]["reason"]) == ("own", None)
    assert result["sentence"].endswith("220 rows of 1 key not predicted: an error")
    capture = read_capture(store, result["capture"])
    assert "r02" not in set(capture["key"])
    assert len(capture) == result["rows"]


def test_private_columns_are_not_captured(
    execute: Run,
    fleet: Fleet,
    store: LocalStore,
    lake: Path,
) -> None:
    fleet.run("one")
    new = rows(7).drop(columns="late")
    new["hour"] = new["hour"].astype(str).where(new["route"] != "r02", "secret word")
    new.to_parquet(lake / "new.parquet")
    data = DATA | {"private": ["hour"]}
    result = publish(execute, shards(execute, partition(execute, data), data), data)
    assert "hour" not in read_capture(store, result["capture"]).columns
    assert "secret" not in outcome(store, result)["r02"]["reason"]


def test_without_a_champion(execute: Run, store: LocalStore, lake: Path) -> None:
    rows(7).to_parquet(lake / "new.parquet")
    with pytest.raises(AirflowFailException, match="routes has no champion yet"):
        partition(execute)
    with pytest.raises(AirflowSkipException, match="routes has no champion yet"):
        partition(execute, skip_without_champion=True)
