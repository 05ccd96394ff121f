"""What the champions of a shard's keys say of their holdouts: loaded pack by pack, prepared all at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.fleet.judging import predictions_of
from airflow_mlops.ml.fleet.prepare import matrix
from airflow_mlops.ml.fleet.training import Asked
from airflow_mlops.ml.holdout import predict
from airflow_mlops.ml.metrics import Predictions
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
    tolerant: bool,
) -> tuple[dict[str, Asked], dict[str, Asked]]:
    """Return the champions of the ``wanted`` keys that have one, with what they say of their key's holdout.

    And the references, the versions that losses are counted from, of the keys that have another one than the champion.

    :param frame: the shard's rows as they come, before any feature code.
    :param holdout: shape (rows,), True where the row is held out.
    :param labels: whether predicted classes are needed too.
    :param tolerant: whether any gate accepts a loss, so that it matters what losses are counted from.
    """
    made = cache(lambda code: featured(frame, data, code, allowed_imports))
    champions = registry.champions(wanted)
    references = registry.references(champions) if tolerant else {}
    ask = partial(
        _ask,
        store,
        made=made,
        bounds=bounds,
        holdout=holdout,
        classes=classes,
        labels=labels,
        trusted_types=trusted_types,
        verifier=verifier,
    )
    numbers = {str(key): version.number for key, version in champions.items()}
    older = {str(key): v.number for key, v in references.items() if v.number != numbers[str(key)]}
    # With their records, of which each commit is read once.
    return ask(registry.get_many(numbers).values()), ask(registry.get_many(older).values())


def _ask(
    store: Store,
    versions: Iterable[Version],
    *,
    made: Callable[[str | None], pd.DataFrame],
    bounds: Mapping[str, slice],
    holdout: np.ndarray,
    classes: tuple[Any, ...] | None,
    labels: bool,
    trusted_types: Sequence[str],
    verifier: Verifier | None,
) -> dict[str, Asked]:
    """Ask one version of each of some keys, by key."""
    found: dict[str, Asked] = {}

    def answer(version: Version, said: Predictions | None, problem: str | None = None) -> None:
        asked = Asked(version.number, version.model or "", said, problem, version.promoted_at)
        found[str(version.key)] = asked

    def failed(version: Version, error: MLOpsError) -> None:
        answer(version, None, error.message)

    groups: dict[tuple[str | None, str | None], list[Version]] = {}
    for version in versions:
        record = version.record
        # One taken in from elsewhere is a model that prepares its own rows.
        prepare = record["model"]["prepare"]["digest"] if "of" in record else None
        groups.setdefault((recorded_code(record), prepare), []).append(version)
    for (code, prepare), of_group in groups.items():
        asked = _HeldOut(made(code), [bounds[str(version.key)] for version in of_group], holdout)
        of_key = {version.key: (version, place) for version, place in zip(of_group, asked.places, strict=True)}
        models = fetch_models(store, of_group, trusted=trusted_types, verifier=verifier, failed=failed)
        for key, model in models:
            version, place = of_key[key]
            try:
                rows: pd.DataFrame | np.ndarray
                if prepare is None:
                    rows = FeatureSchema.from_dict(version.record["schema"]).check(asked.frame.iloc[place])
                else:
                    model, rows = model[-1], asked.matrix(version, model)[place]
                columns = predict("champion", model, rows, ordered=classes, labels=labels)
            except MLOpsError as e:
                failed(version, e)
            else:
                answer(version, predictions_of(columns, "champion"))
    return found


class _HeldOut:
    """The held out rows of keys whose champions share code and preprocessing, which run over them all at once.

    After many trainings of some keys each, the champions of a shard have as many preprocessings: so the rows of one of
    them are in memory at a time, and only those that somebody is asked about.

    :ivar frame: rows after feature code.
    :ivar places: the rows of each key.
    """

    def __init__(self, made: pd.DataFrame, bounds: Sequence[slice], holdout: np.ndarray) -> None:
        rows = [place.start + np.flatnonzero(holdout[place]) for place in bounds]
        ends = np.cumsum([len(part) for part in rows])
        self.frame = made.iloc[np.concatenate(rows)]
        self.places = [slice(int(end) - len(part), int(end)) for part, end in zip(rows, ends, strict=True)]
        self._matrix: np.ndarray | None = None

    def matrix(self, version: Version, model: Any) -> np.ndarray:
        """The rows as the estimators take them, by the preprocessing of ``model``."""
        if self._matrix is None:
            self._matrix = matrix(FeatureSchema.from_dict(version.record["schema"]), model[0], self.frame)
        return self._matrix
