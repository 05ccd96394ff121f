"""What SageMaker does in a batch transform job, with the container's program in this process or behind HTTP."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from airflow_mlops.ml.transform_server import Transformer
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store


def unpack(store: Store, pipeline: str, job: str, folder: Path) -> None:
    """Put the model where the container finds it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(store.get(layout.job_model(pipeline, job)))) as archive:
        archive.extractall(folder, filter="data")


def run_job(
    store: Store, pipeline: str, job: str, folder: Path, change: Callable[[int, bytes], bytes | None] | None = None
) -> None:
    """Answer each part, and leave the answers where SageMaker does.

    :param change: of the number of a part and its answer makes what is left; None: nothing.
    """
    unpack(store, pipeline, job, folder)
    transformer = Transformer(folder, json.loads(store.get(layout.job_plan(pipeline, job)))["contract"])
    prefix = layout.job_prefix(pipeline, job)
    for number, key in enumerate(list(store.list(f"{prefix}input/"))):
        _, answer = transformer.answer(store.get(key))
        left = change(number, answer) if change else answer
        if left is not None:
            store.put(f"{prefix}output/{key.rpartition('/')[2]}.out", left)
