"""Rows of two frames that speak of the same thing: ids in one form, one row for each."""

from __future__ import annotations

import pandas as pd

from airflow_mlops.ml.features import plain


def same_keys(left: pd.Series, right: pd.Series) -> tuple[pd.Index, pd.Index]:
    """Ids of both sides in one form: 7, 7.0 and "7" are the same id."""
    if left.dtype == right.dtype:
        return pd.Index(left), pd.Index(right)
    if pd.api.types.is_numeric_dtype(left) and pd.api.types.is_numeric_dtype(right):
        return pd.Index(left), pd.Index(right)
    first, second = (pd.Index([str(plain(v)) for v in side.tolist()], dtype=object) for side in (left, right))
    return first, second


def last_of_each(frame: pd.DataFrame, keys: pd.Index) -> tuple[pd.DataFrame, int]:
    """``frame`` by ``keys``, of rows with one key the last; and how many rows were left out."""
    frame = frame.set_axis(keys, axis=0)
    doubled = frame.index.duplicated(keep="last")
    return frame[~doubled], int(doubled.sum())
