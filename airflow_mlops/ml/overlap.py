"""Rows of a holdout that an earlier version has learned from: on these it looks better than it is.

A random or grouped split with the seed of before keeps a champion's training rows out of later holdouts, and so does
time where windows move on. Another seed, another kind of split, another id, or a window that goes back do not: then the
rows themselves are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from airflow_mlops.config.models import Data, Train, length
from airflow_mlops.exceptions import CorruptObject, DataError, ObjectNotFound
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.ml.splitting import draws, recent, split_mask
from airflow_mlops.store.base import Store


def learned_rows(
    store: Store, record: dict[str, Any], holdout: pd.DataFrame, *, data: Data, seed: int, snapshot: str
) -> int | None:
    """Count the rows of ``holdout`` (rows × columns of the source) that a version was trained on.

    Rows are the same where id and time are, if they name a row of the holdout, or else where all shared columns are.

    :param record: the version's.
    :param data: how the holdout was read and split, with this ``seed``, out of the snapshot with this digest.
    :return: ``None`` where nobody can tell: an imported version, or one whose rows are gone.
    """
    try:
        before = Data.model_validate(record["config"]["data"])
        train = Train.model_validate(record["config"]["train"])
        its_seed, its_snapshot = int(record["seed"]), record["snapshot"]
    except (KeyError, TypeError, ValidationError):
        return None
    alike = (before.split, before.id, its_seed) == (data.split, data.id, seed)
    if alike and (data.id or data.split.column) and data.split.by != "time":
        return 0
    try:
        rows = Snapshot.load(store, its_snapshot)
        if _ended_before(rows, holdout, data):
            return 0
        # Without an id the whole row is drawn, so that a further column draws anew.
        if alike and (rows.digest == snapshot or (data.split.by == "random" and list(rows.columns) == list(holdout))):
            return 0
        known = rows.to_pandas(store)
        known = known[~split_mask(known, before, its_seed)]
        if newest := length(train.window):
            known = known[recent(known, before, newest)]
    except (ObjectNotFound, CorruptObject, DataError):
        return None
    shared = [c for c in holdout.columns if c in known.columns]
    named = [c for c in dict.fromkeys((data.id, data.timestamp)) if c is not None and c in shared]
    columns = named if data.id in named and not holdout.duplicated(named).any() else shared
    if not columns:
        return None
    return int(np.isin(draws(holdout[columns], 0), draws(known[columns], 0)).sum())


def _ended_before(rows: Snapshot, holdout: pd.DataFrame, data: Data) -> bool:
    """Whether a version's rows end before the holdout begins, as its window says."""
    if rows.window is None or data.timestamp is None or data.timestamp not in holdout.columns:
        return False
    first = pd.to_datetime(holdout[data.timestamp], utc=True, errors="coerce").min()
    return bool(pd.notna(first) and first >= pd.Timestamp(rows.window.end))
