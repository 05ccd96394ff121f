"""What all models of a fleet have in common: the schema of their rows, and one preprocessing for all of them.

Both are learned once, from the training rows of the whole fleet (of large ones an even sample), not from the few rows
of a key: a key of 50 rows then knows every category, and a night's 16,000 models share one preprocessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer

from airflow_mlops.config.models import Data, Features, Fleet, Train
from airflow_mlops.exceptions import DataError, TrainingError
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.estimators import build_estimator
from airflow_mlops.ml.features import FeatureSchema, infer_schema
from airflow_mlops.ml.fleet.keys import is_parent
from airflow_mlops.ml.fleet.partition import bounds_of, key_columns, read_shard
from airflow_mlops.ml.fleet.plan import Shard
from airflow_mlops.ml.preprocessing import categorical_positions, preprocessor
from airflow_mlops.ml.splitting import Splitter, draws
from airflow_mlops.store.base import Store

SAMPLE_ROWS = 200_000
"""Most training rows that schema and preprocessing are learned from."""


def model_data(data: Data, fleet: Fleet) -> Data:
    """The ``data`` section as a key's model sees it: the columns of the key, the same in each of its rows, excluded."""
    known = {data.target, data.id, data.timestamp, *data.exclude}
    more = [c for c in key_columns(fleet) if c not in known]
    return data.model_copy(update={"exclude": [*data.exclude, *more]})


def _why(name: str, why: str, data: Data, fleet: Fleet) -> str:
    """Why a column is no feature: of a key, that, where the file does not exclude it itself."""
    if name in {data.target, data.id, data.timestamp, data.split.column, *data.exclude}:
        return why
    if name in fleet.columns:
        return "makes the key (fleet.key)"
    return "names the group of the key (fleet.parent)" if name == fleet.parent else why


def sample_rows(
    store: Store,
    shards: Sequence[Shard],
    data: Data,
    *,
    features: Features | None,
    allowed_imports: Sequence[str],
    seed: int,
    split: bool = True,
) -> tuple[pd.DataFrame, list[str]]:
    """Return training rows of all keys (rows × columns, feature code applied), and the columns before that code.

    A key whose rows cannot be split gives none; its own training says why.

    :param split: the shards hold all rows of their keys; False: training rows alone, as
        :func:`~airflow_mlops.ml.fleet.partition.training_rows` says. Of some rows of a key it could not be told which
        of them are held out.
    """
    own = [s for s in shards if not is_parent(next(iter(s.counts)))] or list(shards)
    share = min(1.0, SAMPLE_ROWS / max(sum(sum(s.counts.values()) for s in own), 1))
    parts: list[pd.DataFrame] = []
    columns: list[str] = []
    for number, shard in enumerate(own):
        frame = read_shard(store, shard)
        columns = [str(c) for c in frame.columns]
        chosen = draws(pd.Series(np.arange(len(frame))), f"{seed} {number}") < share
        if split:
            splitter = Splitter(frame, data, seed)
            for rows in bounds_of(shard).values():
                try:
                    chosen[rows] &= ~splitter.mask(rows)
                except DataError:
                    chosen[rows] = False
        parts.append(featured(frame, data, features.callable if features else None, allowed_imports)[chosen])
    sample = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if sample.empty:
        raise DataError(
            "no key has rows to learn from",
            hint="bring more rows, lower fleet.min_rows, or change data.split, which must leave rows on both sides",
        )
    return sample, columns


def prepare(
    sample: pd.DataFrame, columns: Sequence[str], data: Data, fleet: Fleet, train: Train, allowed: Sequence[str]
) -> tuple[FeatureSchema, ColumnTransformer, BaseEstimator]:
    """Learn schema and preprocessing; return them with the estimator that each key gets a copy of, unfitted.

    :raises TargetError, DataError: as :func:`~airflow_mlops.ml.features.infer_schema`.
    :raises TrainingError: the estimator cannot be built, or the preprocessing not be fitted.
    """
    if train.estimator is None:
        raise TrainingError("a fleet trains an estimator", hint="name one in train.estimator")
    schema = infer_schema(sample, model_data(data, fleet), source_columns=columns)
    schema = replace(schema, excluded=tuple((name, _why(name, why, data, fleet)) for name, why in schema.excluded))
    estimator = build_estimator(train.estimator, train.params, allowed, train.seed)
    if positions := categorical_positions(schema, estimator):
        estimator.set_params(categorical_features=positions)
    steps = preprocessor(schema, estimator)
    if "category__sparse_output" in steps.get_params():
        # Slices of one dense matrix for all keys of a shard cost nothing.
        steps.set_params(category__sparse_output=False)
    try:
        steps.fit(schema.check(sample, error=TrainingError))
    except (ValueError, TypeError) as e:
        raise TrainingError(f"the preprocessing cannot be fitted: {e}", hint="look at the columns of the data") from e
    return schema, steps, estimator


def matrix(schema: FeatureSchema, steps: Any, frame: pd.DataFrame) -> np.ndarray:
    """Rows as the estimators take them, float64, shape (rows, columns after preprocessing)."""
    made: np.ndarray = np.asarray(steps.transform(schema.check(frame)), dtype=np.float64)
    return made
