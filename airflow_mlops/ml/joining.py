"""Rows of two frames that speak of the same thing: ids in one form, one row for each."""

from __future__ import annotations

from typing import Any

import pandas as pd

from airflow_mlops.ml.features import plain


def same_keys(left: pd.Series, right: pd.Series) -> tuple[pd.Index, pd.Index]:
    """Ids of both sides in one form: 7, 7.0 and "7" are the same id."""
    if comparable(left.dtype, right.dtype):
        return pd.Index(left), pd.Index(right)
    return as_text(left), as_text(right)


def comparable(left: Any, right: Any) -> bool:
    """Whether ids of two dtypes can be compared as they are."""
    return bool(left == right or (pd.api.types.is_numeric_dtype(left) and pd.api.types.is_numeric_dtype(right)))


def as_text(ids: pd.Series) -> pd.Index:
    """Ids as text; whole floats as integers."""
    return pd.Index([str(plain(v)) for v in ids.tolist()], dtype=object)


def last_of_each(frame: pd.DataFrame, keys: pd.Index) -> tuple[pd.DataFrame, int]:
    """``frame`` by ``keys``, of rows with one key the last; and how many rows were left out."""
    frame = frame.set_axis(keys, axis=0)
    doubled = frame.index.duplicated(keep="last")
    return frame[~doubled], int(doubled.sum())
