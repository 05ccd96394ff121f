"""People to score, versions to score them with, and the task that does it on SageMaker: fixtures and helpers."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
from airflow.sdk.exceptions import TaskDeferred
from sklearn.datasets import load_breast_cancer

from airflow_mlops.config.models import Data, Train
from airflow_mlops.ml.candidate import train_candidate
from airflow_mlops.ml.data import read_batches, take_snapshot
from airflow_mlops.ml.files import Files
from airflow_mlops.operators.sagemaker_prediction import SageMakerPredictOperator
from airflow_mlops.registry.artifacts import fetch_model, store_model
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore, S3Store, layout
from airflow_mlops.triggers.sagemaker import TransformJobTrigger
from airflow_mlops.window import Window
from tests.integration.sagemaker_server import SageMaker
from tests.unit.ml.transform_job import run_job

ROLE = "arn:aws:iam::123456789012:role/predictor"
JOB: dict[str, Any] = {"image": "registry/predictor:1", "role": ROLE}
DATA = {"source": "people.csv", "target": "target", "id": "id"}
WINDOW = Window.of("2026-01-01", "2026-01-02")


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    frame = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 2, 3, -1]]
    frame.columns = ["radius", "perimeter", "area", "target"]
    frame.insert(0, "id", np.arange(len(frame)) + 2**53 + 1)
    frame["ward"] = ["north", "south", "east"] * (len(frame) // 3) + ["north"] * (len(frame) % 3)
    return frame


@pytest.fixture
def lake(people: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data root, with people to train on and people to score."""
    root = tmp_path / "lake"
    root.mkdir()
    people.to_csv(root / "people.csv", index=False)
    people.drop(columns="target").iloc[:300].to_csv(root / "new.csv", index=False)
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(root))
    return root


@pytest.fixture(scope="module")
def trained(people: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Any, Any]]:
    """Record and model of a version, by its number; trained once for all tests."""
    root = tmp_path_factory.mktemp("trained")
    people.to_csv(root / "people.csv", index=False)
    store, data = LocalStore(root / "store"), Data.model_validate(DATA)
    batches = read_batches(data, files=Files(str(root)), window=None)
    snapshot = take_snapshot(store, "people", batches, data=data, window=None).to_ref()

    @functools.cache
    def made(number: int) -> tuple[Any, Any]:
        record = train_candidate(
            store,
            snapshot,
            data=data,
            train_config=Train(
                estimator="sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 5}, seed=number
            ),
            features=None,
            metrics=[],
            task=None,
            allowed_imports=(),
            trusted_types=(),
            log=lambda *_: None,
            pipeline="people",
        )
        return record, fetch_model(store, record["model"])

    return made


@pytest.fixture
def train(trained: Any, lake: Path, s3_store: S3Store) -> Callable[[], int]:
    """Register a version and make it champion; its number."""

    def made() -> int:
        registry = Registry(s3_store, "people")
        before = len(registry.versions())
        record, model = trained(before + 1)
        made = record | {"model": store_model(s3_store, model)}
        number = registry.register(made, op_id=f"register {before}").number
        registry.promote(number, expected=before or None, op_id=f"promote {before}", reason="test")
        return number

    return made


def operator(**job: Any) -> SageMakerPredictOperator:
    return SageMakerPredictOperator(
        task_id="predict.batch",
        pipeline="people",
        data=DATA,
        batch={"source": "new.csv", "sagemaker": JOB | job},
        poll_interval=0.05,
        replay_rows=20,
    )


def context(task: Any) -> Any:
    ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "xcom_pull", "try_number"])
    ti.dag_id, ti.run_id, ti.task_id, ti.map_index = "people__predict", "manual__1", task.task_id, -1
    run = SimpleNamespace(run_type="manual", data_interval_start=WINDOW.start, data_interval_end=WINDOW.end)
    return {"ti": ti, "task": task, "params": {}, "dag_run": run}


def submit(task: SageMakerPredictOperator) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as waiting:
        task.execute(context(task))
    assert waiting.value.method_name == "execute_complete"
    return waiting.value


def resume(task: SageMakerPredictOperator, waiting: TaskDeferred) -> tuple[Any, Any]:
    """Run the trigger as the triggerer does, from its serialized form, then the task's second half."""
    path, arguments = waiting.trigger.serialize()
    assert path == "airflow_mlops.triggers.sagemaker.TransformJobTrigger"
    trigger = TransformJobTrigger(**arguments)

    async def first() -> Any:
        return await anext(trigger.run())

    event = asyncio.run(first())
    here = context(task)
    return task.execute_complete(here, event.payload, **waiting.kwargs), here


def left(store: S3Store) -> list[str]:
    return list(store.list(layout.jobs_prefix("people")))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What task and trigger say in the log."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.Logger("task")
    logger.addHandler(handler)
    for kind in (SageMakerPredictOperator, TransformJobTrigger):
        monkeypatch.setattr(kind, "log", logger)
    return said


def run(store: S3Store, service: SageMaker, name: str, folder: Path, **more: Any) -> None:
    """As :func:`predict_there`, in this process."""
    run_job(store, "people", name, folder, **more)
    service.end_transform(name)
