"""The values of a column as a drift check takes them: numbers and times as float64, the rest as text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from airflow_mlops.ml.categories import label

NUMBER_KINDS = ("number", "datetime")
NUMERIC_MAX = 1e150
"""Larger magnitudes, infinities too, count as this: squares and differences stay finite."""

_TAIL = 0.01  # the fence of the Wasserstein distance starts from these reference quantiles


def to_numbers(values: pd.Series, kind: str = "number") -> np.ndarray:
    """Return float64 of the same length; what is not a number is NaN, magnitudes end at NUMERIC_MAX.

    :param kind: ``datetime`` gives seconds since 1970; what is no time is missing, naive times count as UTC.
    """
    if kind == "datetime":
        if isinstance(values.dtype, pd.PeriodDtype):
            values = values.dt.to_timestamp()
        text = pd.api.types.infer_dtype(values, skipna=True) == "string"
        times = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601" if text else None)
        seconds = times.to_numpy(dtype="datetime64[us]").astype("int64") / 1e6
        return np.where(times.isna().to_numpy(), np.nan, seconds)
    if values.dtype != np.float64:
        values = pd.to_numeric(values, errors="coerce")
    return np.clip(values.to_numpy(dtype="float64", na_value=np.nan), -NUMERIC_MAX, NUMERIC_MAX)


def core(ordered: np.ndarray) -> tuple[float, float]:
    """The 1 % and 99 % quantiles of sorted values; both are values that occur."""
    last = len(ordered) - 1
    return float(ordered[int(np.floor(_TAIL * last))]), float(ordered[int(np.ceil((1 - _TAIL) * last))])


def coded(values: pd.Series, *, boolean: bool = False) -> tuple[np.ndarray, list[str]]:
    """Codes of shape (n,), -1 where missing, and their texts; two codes may have one text."""
    try:
        codes, found = pd.factorize(values, use_na_sentinel=True)
    except TypeError:  # a column of lists or dicts: compare them by their text
        codes, found = pd.factorize(values.map(str, na_action="ignore"), use_na_sentinel=True)
    return codes, [label(v, boolean=boolean) for v in found]
