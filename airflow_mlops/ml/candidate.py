"""A candidate's way from snapshot to version: its feature code, its training, and what is recorded of both.

Here and in :mod:`~airflow_mlops.ml.candidate_verdict` each function reads and writes the store and returns plain
records, so that an operator, a notebook and a local run do the same.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from airflow_mlops.config.models import Data, Features, Train, length
from airflow_mlops.ml.data import Snapshot
from airflow_mlops.ml.features import FeatureSchema, apply_features, infer_schema
from airflow_mlops.ml.frames import frames
from airflow_mlops.ml.seen import seen
from airflow_mlops.ml.splitting import recent, snapshot_mask
from airflow_mlops.ml.training import train
from airflow_mlops.registry.artifacts import store_model
from airflow_mlops.registry.lineage import code_version, config_hash
from airflow_mlops.registry.signing import Signer
from airflow_mlops.store import put_json
from airflow_mlops.store.base import Store

Log = Callable[..., None]


def featured(frame: pd.DataFrame, data: Data, code: str | None, allowed: Sequence[str]) -> pd.DataFrame:
    """Run feature code (``module:function``), where there is some; id, time and target stay as they were."""
    if code is None:
        return frame
    keep = [c for c in (data.id, data.timestamp, data.split.column) if c and c in frame.columns]
    return apply_features(code, frame, allowed, target=data.target, keep=keep, private=data.private)


def _sources(*paths: str | None) -> list[str]:
    """Source files of the user's code named by ``module:function`` paths."""
    modules = [sys.modules.get(path.partition(":")[0]) for path in paths if path]
    return [module.__file__ for module in modules if module is not None and module.__file__]


def _scripts(command: str | None, folder: Path | None) -> list[str]:
    """Files that a training command names: its script, its settings."""
    paths = [(folder or Path()) / word for word in shlex.split(command or "")]
    return [str(path) for path in paths if path.is_file()]


@dataclass(frozen=True)
class TrainingPart:
    """The rows that a candidate learns from, after feature code.

    :param held_out: how many rows it does not see.
    """

    rows: pd.DataFrame
    held_out: int
    schema: FeatureSchema


def training_part(
    store: Store,
    snapshot_ref: dict[str, Any],
    *,
    data: Data,
    train_config: Train,
    features: Features | None,
    allowed_imports: Sequence[str],
    log: Log,
) -> TrainingPart:
    """Read a snapshot, leave out the holdout, and find the features: the same for the same arguments.

    :raises DataError: the snapshot cannot be used; its children say why.
    """
    snapshot = Snapshot.load(store, snapshot_ref)
    holdout = snapshot_mask(snapshot, store, data, train_config.seed)
    if features is None:
        with frames(snapshot, store) as rows:
            part = rows.whole(keep=~holdout)
    else:  # feature code is given all rows, as in evaluation
        part = featured(snapshot.to_pandas(store), data, features.callable, allowed_imports)[~holdout]
    if newest := length(train_config.window):
        part = part[recent(part, data, newest)]
    schema = infer_schema(part, data, source_columns=list(snapshot.columns))
    log("%s rows for training, %s held out", f"{len(part):,}", f"{holdout.sum():,}")
    return TrainingPart(part, int(holdout.sum()), schema)


def made_from(data: Data, train_config: Train, features: Features | None, folder: Path | None = None) -> dict[str, Any]:
    """``config``, ``config_hash`` and ``code`` of a version's record; code that is not imported yet is not in it."""
    settings = {
        "data": data.model_dump(mode="json", exclude={"resources"}),
        "train": train_config.model_dump(mode="json", exclude={"resources"}),
        "features": features.model_dump(mode="json") if features else None,
    }
    sources = _sources(features.callable if features else None, train_config.callable)
    return {
        "config": settings,
        "config_hash": config_hash(settings),
        "code": code_version([*sources, *_scripts(train_config.command, folder)]),
    }


def train_candidate(
    store: Store,
    snapshot_ref: dict[str, Any],
    *,
    data: Data,
    train_config: Train,
    features: Features | None,
    metrics: Sequence[str],
    task: str | None,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    log: Log,
    timeout: float | None = None,
    function: Callable[..., Any] | None = None,
    folder: Path | None = None,
    signer: Signer | None = None,
    pipeline: str = "",
    key: str | None = None,
    model_file: Path | None = None,
) -> dict[str, Any]:
    """Train on the training part of a snapshot, store the model, and return the version's record.

    :param model_file: the model file of a job that was trained elsewhere on the same part.
    :param signer: signs the model as that of ``pipeline``, and of ``key`` within a fleet.
    :raises DataError: the snapshot cannot be used; its children say why.
    :raises TrainingError: no usable model came of it.
    """
    part = training_part(
        store,
        snapshot_ref,
        data=data,
        train_config=train_config,
        features=features,
        allowed_imports=allowed_imports,
        log=log,
    )
    trained = train(
        part.rows,
        part.rows[data.target],
        part.schema,
        train_config,
        task,
        metrics,
        allowed_imports,
        train_config.seed,
        log,
        trusted_types=trusted_types,
        timeout=timeout,
        function=function,
        cwd=folder,
        model_file=model_file,
    )
    return {
        "model": store_model(store, trained.model, signer=signer, pipeline=pipeline, key=key),
        "schema": trained.schema.to_dict(),
        "task": trained.task,
        "snapshot": snapshot_ref,
        "rows": {"train": len(part.rows), "holdout": part.held_out},
        "seen": seen(part.rows, trained.schema),
        **made_from(data, train_config, features, folder),
        "seed": train_config.seed,
        "estimator": train_config.made_by,
        "params": trained.params,
        "trials": put_json(store, trained.trials) if trained.trials else None,
        "seconds": round(trained.seconds, 3),
        "warnings": list(trained.warnings),
    }
