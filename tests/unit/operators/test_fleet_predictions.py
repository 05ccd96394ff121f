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
from airflow_mlops.pipeline import Pipeline
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


def champions(lake: Path, store: LocalStore, text: str, number: int = 1, **more: Any) -> None:
    """Train the pipeline of ``text`` on ``routes.parquet`` and promote what passes; ``number`` names the training."""
    (lake / "routes.yaml").write_text(text)
    pipeline = Pipeline.from_yaml(lake / "routes.yaml", data_root=lake, allowed_imports=["route_features"])
    found = pipeline.run_fleet(store=store, register=True, say=lambda line: None, **more)
    going = {row["key"]: (row["version"], row["champion"]) for row in found.rows if "version" in row}
    Registry(store, "routes").promote_many(going, op_id=str(number) * 64, reason="test", by=None, window=None)


PIPELINE = """
pipeline: routes
level: 0
data: {source: routes.parquet, target: late, id: id}
train: {estimator: %s}
fleet: {key: route, parent: line}
"""


def test_classes_and_probabilities_of_each_key(execute: Run, store: LocalStore, lake: Path) -> None:
    frame = rows()
    frame["late"] = np.select([frame["late"] < -1, frame["late"] > 1], ["early", "late"], "on time")
    # One route is never early: its model knows two of the three classes.
    frame.loc[(frame["route"] == "r03") & (frame["late"] == "early"), "late"] = "on time"
    frame.to_parquet(lake / "routes.parquet")
    metric = "evaluate: {metrics: [log_loss]}\n"  # roc_auc_ovr, the default, needs every class in each holdout
    champions(lake, store, PIPELINE % "sklearn.linear_model.LogisticRegression" + metric)
    rows(7).drop(columns="late").to_parquet(lake / "new.parquet")
    result = publish(execute, shards(execute, partition(execute)))

    out = written(lake)
    names = [c for c in out.columns if c.startswith("probability")]
    assert sorted(names) == ["probability_early", "probability_late", "probability_on time"]
    assert set(out["prediction"]) == {"early", "late", "on time"}
    np.testing.assert_allclose(out[names].fillna(0.0).sum(axis=1), 1.0)
    two = out["model_key"] == "r03"
    assert two.sum() == 220
    assert set(out["prediction"][two]) <= {"on time", "late"}
    assert out.loc[two, "probability_early"].fillna(0.0).eq(0.0).all()
    assert out.loc[~two & out["model_key"].str.startswith("r"), names].notna().all(axis=None)
    assert "probability_late" in read_capture(store, result["capture"]).columns


def test_models_of_several_trainings_and_feature_codes_in_one_capture(
    execute: Run, store: LocalStore, registry: Registry, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "route_features")
    (tmp_path / "route_features.py").write_text(
        "def squared(frame):\n    return frame.assign(square=frame['hour'] ** 2)\n"
    )
    champions(lake, store, PIPELINE % "sklearn.linear_model.Ridge")
    more = PIPELINE % "sklearn.linear_model.Ridge" + "features: {callable: 'route_features:squared'}\n"
    champions(lake, store, more, 2, keys=["r01", "r07"])
    new = rows(7).drop(columns="late")
    new.to_parquet(lake / "new.parquet")
    result = publish(execute, shards(execute, partition(execute)))

    out, capture = written(lake), read_capture(store, result["capture"])
    newer = out["model_version"] == 2
    assert set(out["model_key"][newer]) == {"r01", "r07"}
    version = registry.champion("r07")
    model = fetch_model(store, version.record["model"], pipeline="routes", key="r07")
    of_key = new[new["route"] == "r07"].assign(square=lambda f: f["hour"] ** 2)
    expected = model.predict(of_key[[f["name"] for f in version.record["schema"]["features"]]])
    np.testing.assert_allclose(out["prediction"][out["model_key"] == "r07"], expected)
    # Each row is captured as its own model saw it: the others know no squares.
    assert capture["square"].notna().tolist() == newer.tolist()
    np.testing.assert_allclose(capture["square"][newer], new["hour"][newer.to_numpy()] ** 2)
    assert capture["model_version"].tolist() == out["model_version"].tolist()


def test_a_key_with_more_rows_than_one_chunk(execute: Run, store: LocalStore, registry: Registry, lake: Path) -> None:
    champions(lake, store, PIPELINE % "sklearn.linear_model.Ridge")
    one = rows(7).drop(columns="late")
    large = pd.concat([one[one["route"] == "r05"]] * 191, ignore_index=True)
    new = pd.concat([large, one[one["route"] == "r06"]], ignore_index=True).sample(frac=1, random_state=1)
    new = new.assign(id=range(len(new)))
    assert (new["route"] == "r05").sum() == 42_020
    new.to_parquet(lake / "new.parquet")
    result = publish(execute, shards(execute, partition(execute)))
    assert result["rows"] == len(new)
    out, version = written(lake), registry.champion("r05")
    assert out["id"].tolist() == new["id"].tolist()
    model = fetch_model(store, version.record["model"], pipeline="routes", key="r05")
    of_key = (new["route"] == "r05").to_numpy()
    expected = model.predict(new.loc[of_key, [f["name"] for f in version.record["schema"]["features"]]])
    np.testing.assert_allclose(out["prediction"][of_key], expected)
    assert outcome(store, result)["r05"]["rows"] == 42_020
