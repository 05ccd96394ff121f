"""What the champions of a shard's keys say of their holdouts: loaded pack by pack, prepared all at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.fleet.judging import predictions_of
from airflow_mlops.ml.fleet.prepare import matrix
from airflow_mlops.ml.fleet.training import Champion
from airflow_mlops.ml.holdout import predict
from airflow_mlops.registry.artifacts import fetch_models
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store.base import Store


def ask_champions(
    store: Store,
    registry: Registry,
    frame: pd.DataFrame,
    bounds: Mapping[str, slice],
    holdout: np.ndarray,
    *,
    data: Data,
    classes: tuple[Any, ...] | None,
    labels: bool,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    verifier: Verifier | None,
    wanted: Collection[str],
) -> dict[str, Champion]:
    """Return the champions of the ``wanted`` keys that have one, with what they say of their key's holdout.

    :param frame: the shard's rows as they come, before any feature code.
    :param holdout: shape (rows,), True where the row is held out.
    :param labels: whether predicted classes are needed too.
    """
    versions = registry.champions(wanted)
    inputs = _Inputs(frame, data, allowed_imports)
    found: dict[str, Champion] = {}

    def failed(version: Version, error: MLOpsError) -> None:
        found[str(version.key)] = Champion(version.number, version.model or "", None, str(error))

    models = fetch_models(store, versions.values(), trusted=trusted_types, verifier=verifier, failed=failed)
    for key, model in models:
        version, place = versions[key], bounds[str(key)]
        try:
            asked, rows = inputs.of(version, model, place)
            columns = predict("champion", asked, rows[holdout[place]], ordered=classes, labels=labels)
        except MLOpsError as e:
            failed(version, e)
        else:
            found[str(key)] = Champion(version.number, version.model or "", predictions_of(columns, "champion"))
    return found


class _Inputs:
    """A shard's rows as champions take them: each feature code, and each preprocessing, runs once over all rows."""

    def __init__(self, frame: pd.DataFrame, data: Data, allowed: Sequence[str]) -> None:
        self._made = cache(lambda code: featured(frame, data, code, allowed))
        self._matrices: dict[tuple[str | None, str], np.ndarray] = {}

    def of(self, version: Version, model: Any, place: slice) -> tuple[Any, Any]:
        """The estimator to ask, and all rows of its key as it takes them."""
        record, code = version.record, recorded_code(version.record)
        if "of" not in record:
            # Taken in from elsewhere: a model that prepares its own rows.
            return model, FeatureSchema.from_dict(record["schema"]).check(self._made(code).iloc[place])
        name = (code, record["model"]["prepare"]["digest"])
        if name not in self._matrices:
            schema = FeatureSchema.from_dict(record["schema"])
            self._matrices[name] = matrix(schema, model[0], self._made(code))
        return model[-1], self._matrices[name][place]
