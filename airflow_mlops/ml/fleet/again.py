"""Train one model of a fleet again, from the rows of its key in the snapshot and what its training shared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from airflow_mlops.config.models import Data, Evaluate, Fleet
from airflow_mlops.exceptions import DataError, TrainingError
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.estimators import build_estimator
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.fleet.keys import ALL, is_parent
from airflow_mlops.ml.fleet.partition import Counts, frame_of, key_columns, keyed, parent_share, present, row_draws
from airflow_mlops.ml.fleet.prepare import matrix
from airflow_mlops.ml.fleet.shard import search_of
from airflow_mlops.ml.fleet.training import FAILED, Chunk, Settings, labels, train_chunk
from airflow_mlops.ml.preprocessing import categorical_positions
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.ml.splitting import Splitter
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.registry.version import Version
from airflow_mlops.store.base import Store


@dataclass(frozen=True)
class KeyAgain:
    """What came of training a key's model again.

    :param digest: sha256 of the model, as it lies in a pack.
    :param metrics: of its holdout, rounded as records are.
    :param rows: how many it was trained on, and how many were held out.
    """

    digest: str
    metrics: dict[str, float]
    rows: dict[str, int]


def train_key_again(
    store: Store,
    version: Version,
    data: Data,
    *,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    verifier: Verifier | None = None,
) -> KeyAgain:
    """Train the model of one key as :func:`~airflow_mlops.ml.fleet.training.train_chunk` did.

    The preparation that it shares with the other models of its training is taken as it was recorded; rows, split and
    estimator are made anew.

    :raises DataError: the snapshot has no rows of the key, or they cannot be split.
    :raises TrainingError: the model cannot be trained or scored.
    """
    record, key = version.record, str(version.key)
    frame = _rows_of(store, record, key)
    schema, seed = FeatureSchema.from_dict(record["schema"]), record["seed"]
    steps = fetch_model(
        store, record["model"]["prepare"], trusted=trusted_types, verifier=verifier, pipeline=version.pipeline
    )
    estimator = build_estimator(record["estimator"], record["params"], allowed_imports, seed)
    if positions := categorical_positions(schema, estimator):
        estimator.set_params(categorical_features=positions)
    classes = tuple(record["ordered"]) if record["ordered"] is not None else None
    made = featured(frame, data, recorded_code(record), allowed_imports)
    target, y = labels(frame[data.target], record["task"], classes)
    every = slice(0, len(frame))
    done = train_chunk(
        Settings(
            estimator,
            record["task"],
            classes,
            tuple(record["printed"]),
            Evaluate(),
            seed,
            private=tuple(data.private),
            search=search_of(record),
        ),
        Chunk(0, {key: every}, matrix(schema, steps, made), target, y, Splitter(frame, data, seed).mask(every)),
    )
    (row,) = done.rows
    if row["status"] == FAILED:
        raise TrainingError(str(row["reason"]))
    ((_, model),) = done.models
    return KeyAgain(
        hashlib.sha256(model).hexdigest(),
        {name: float(f"{value:.6g}") for name, value in row["metrics"].items()},
        {"train": row["train_rows"], "holdout": row["holdout_rows"]},
    )


def _rows_of(store: Store, record: dict[str, Any], key: str) -> pd.DataFrame:
    """The rows that the key's model was made from, in the order of the snapshot; of a parent its even sample."""
    snapshot, fleet = Snapshot.load(store, record["snapshot"]), Fleet.model_validate(record["config"]["fleet"])
    columns, share, rows = present(snapshot.columns, key_columns(fleet), fleet), 1.0, 0
    if is_parent(key):
        counts = Counts(store, snapshot, fleet)
        share = parent_share(sum(counts.keys.values()) if key == ALL else counts.groups[key])
    parts: list[pa.RecordBatch] = []
    for batch in snapshot.batches(store):
        keys, groups = keyed(batch.select(columns), fleet)
        if not is_parent(key):
            chosen = keys == key
        else:
            chosen = row_draws(rows, batch.num_rows, record["seed"]) < share
            chosen &= (groups == key) if key != ALL and groups is not None else True
        parts.append(batch.filter(pa.array(chosen)))
        rows += batch.num_rows
    table = pa.Table.from_batches(parts)
    if not table.num_rows:
        raise DataError(f"the snapshot has no row of the key {key!r}", hint="it was trained on other rows")
    return frame_of(table)
