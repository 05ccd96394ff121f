"""Which rows are held out. The answer depends on the row (or its group, or time), not on its position."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError


def split_mask(frame: pd.DataFrame, data: Data, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a boolean array, True where the row of ``frame`` belongs to the holdout.

    ``random``: a keyed hash of ``data.id`` below ``test``. Without an id the whole row is hashed, so equal rows fall
    on one side. A row stays on its side when others come or go, which keeps a champion's training rows out of later
    holdouts. ``time``: the latest rows; equal times stay together. ``group``: a keyed hash of the group; at least one
    group is held out and at least one is not.

    :raises DataError: for a missing column, null ids, times or groups, or a split that leaves one side empty.
    """
    if frame.empty:
        raise DataError("there are no rows to split")
    return Splitter(frame, data, seed).mask(slice(None))


class Splitter:
    """Splits parts of one frame, each by itself as :func:`split_mask` would; what all need is computed once.

    :raises DataError: for a missing column, null ids, times or groups.
    """

    def __init__(self, frame: pd.DataFrame, data: Data, seed: int) -> None:
        self._by, self._test = data.split.by, data.split.test
        if self._by == "time":
            self._values: np.ndarray[Any, Any] = _times(frame, data)
        elif self._by == "group":
            self._column = data.split.column
            self._codes, groups = pd.factorize(_column(frame, data.split.column, "data.split.column"))
            self._values = draws(pd.Series(groups), seed)
        else:
            source = frame if data.id is None else _column(frame, data.id, "data.id")
            self._values = draws(source, seed)

    def mask(self, rows: slice) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return a boolean array, True where a row of the part ``rows`` belongs to its holdout.

        :raises DataError: for a split that leaves one side empty.
        """
        if self._by == "time":
            mask = _latest(self._values[rows], self._test)
        elif self._by == "group":
            mask = self._whole_groups(self._codes[rows])
        else:
            mask = self._values[rows] < self._test
        if mask.all() or not mask.any():
            raise DataError(
                f"the split by {self._by} puts {int(mask.sum())} of {len(mask)} rows into the holdout",
                hint="both sides need rows: bring more rows, or change data.split",
            )
        return mask

    def _whole_groups(self, codes: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        present, places = np.unique(codes, return_inverse=True)
        drawn = self._values[present]
        if len(drawn) < 2:
            raise DataError(f"column {self._column!r} has one group only", hint="split by another column")
        held = drawn < self._test
        # With few groups chance could leave a side empty: the smallest draw is held out, the largest never.
        held[drawn.argmin()], held[drawn.argmax()] = True, False
        return held[places]


def _column(frame: pd.DataFrame, name: str | None, key: str) -> pd.Series:
    if name is None or name not in frame.columns:
        raise DataError(f"the split needs {key}: " + (f"there is no column {name!r}" if name else "it is not set"))
    column = frame[name]
    missing = int(column.isna().sum())
    if missing:
        rows = ", ".join(str(i + 1) for i in np.flatnonzero(column.isna().to_numpy())[:5])
        raise DataError(f"{missing} rows have no value in {name!r} ({key}); rows {rows}", hint="drop or repair them")
    return column


def _latest(values: np.ndarray[Any, np.dtype[np.datetime64]], test: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    held = min(max(round(len(values) * test), 1), len(values) - 1)
    cut = np.partition(values, len(values) - held)[len(values) - held]
    mask = values >= cut
    return mask if not mask.all() else values > cut


def _times(frame: pd.DataFrame, data: Data) -> np.ndarray[Any, np.dtype[np.datetime64]]:
    column = _column(frame, data.timestamp, "data.timestamp")
    try:
        # Mixed text such as dates and times in one column is told apart value by value.
        times = pd.to_datetime(
            column, utc=True, format="ISO8601" if not pd.api.types.is_numeric_dtype(column) else None
        )
    except (ValueError, TypeError) as e:
        raise DataError(f"column {data.timestamp!r} does not hold times: {e}") from e
    return times.to_numpy(dtype="datetime64[ns]")


def recent(frame: pd.DataFrame, data: Data, window: timedelta) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a boolean array, True where the row's time is at most ``window`` before the newest one of ``frame``.

    :raises DataError: for a missing column, null times, or no times at all.
    """
    values = _times(frame, data)
    return values >= values.max() - np.timedelta64(window)


def draws(source: pd.Series | pd.DataFrame, seed: int | str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One draw in [0, 1) per row from a keyed hash of its value; the same value and seed give the same draw."""
    key = hashlib.sha256(f"airflow-mlops split {seed}".encode()).digest()
    if isinstance(source, pd.Series):
        source = source.to_frame()
    mixed = np.full(len(source), int.from_bytes(key[:8], "little"), dtype=np.uint64)
    for position in range(source.shape[1]):
        mixed = _scramble(mixed ^ _hash(source.iloc[:, position], key.hex()[:16]))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hash(column: pd.Series, key: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    if pd.api.types.is_float_dtype(column.dtype):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**53)
        if whole.all():
            # Ids that passed through a float column (one null in another window) keep their side.
            column = pd.Series(numbers.astype(np.int64))
    if pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        return _scramble(column.to_numpy().astype(np.int64, copy=False).view(np.uint64))
    if pd.api.types.is_numeric_dtype(column.dtype) or column.dtype.kind in "mM":
        return _scramble(pd.util.hash_array(column.to_numpy()))
    text = column.astype(object)
    return pd.util.hash_array(text.where(text.isna(), text.astype(str)).fillna("").to_numpy(object), hash_key=key)


def _scramble(x: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
