"""Which rows are held out. The answer depends on the row (or its group, or time), not on its position."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.frames import Frames, frames
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.store.base import Store

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Batches = Callable[[list[str] | None], Iterable[pd.DataFrame]]
"""Column names, or None for all → the rows, in one or more frames."""


def split_mask(frame: pd.DataFrame, data: Data, seed: int) -> Mask:
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


def snapshot_mask(snapshot: Snapshot, store: Store, data: Data, seed: int) -> Mask:
    """:func:`split_mask` of a snapshot's rows, of which only the columns that decide are read, in batches.

    Memory grows by about 25 bytes a row.
    """
    with frames(snapshot, store) as rows:
        return frames_mask(rows, data, seed)


def frames_mask(rows: Frames, data: Data, seed: int) -> Mask:
    """:func:`snapshot_mask` of a snapshot that is being read."""
    if not rows.snapshot.rows:
        raise DataError("there are no rows to split")
    return Splitter(rows, data, seed).mask(slice(None))


class Splitter:
    """Splits parts of the same rows, each by itself as :func:`split_mask` would; what all need is computed once.

    :raises DataError: for a missing column, null ids, times or groups.
    """

    def __init__(self, rows: pd.DataFrame | Frames, data: Data, seed: int) -> None:
        self._by, self._test, self._column = data.split.by, data.split.test, data.split.column
        batches: Batches
        if isinstance(rows, pd.DataFrame):
            frame = rows
            batches, columns = lambda names: [frame if names is None else frame[names]], list(frame.columns)
        else:
            batches, columns = rows.batches, list(rows.snapshot.columns)
        self._values: np.ndarray[Any, Any]
        if self._by == "time":
            name = _complete(batches, columns, data.timestamp, "data.timestamp")
            self._values = np.concatenate([_times(batch[name]) for batch in batches([name])])
        elif self._by == "group":
            name = _complete(batches, columns, self._column, "data.split.column")
            self._values = _draws(batches, [name], seed)
        else:
            key = None if data.id is None else [_complete(batches, columns, data.id, "data.id")]
            self._values = _draws(batches, key, seed)

    def mask(self, rows: slice | np.ndarray) -> Mask:
        """Return a boolean array, True where a row of the part ``rows`` belongs to its holdout.

        :param rows: where they are, or their numbers.
        :raises DataError: for a split that leaves one side empty.
        """
        values = self._values[rows]
        mask = _latest(values, self._test) if self._by == "time" else values < self._test
        if self._by == "group":
            groups = np.unique(values)
            if len(groups) < 2:
                raise DataError(f"column {self._column!r} has one group only", hint="split by another column")
            # With few groups chance could leave a side empty: the smallest draw is held out, the largest never.
            mask[values == groups[0]], mask[values == groups[-1]] = True, False
        if mask.all() or not mask.any():
            raise DataError(
                f"the split by {self._by} puts {int(mask.sum())} of {len(mask)} rows into the holdout",
                hint="both sides need rows: bring more rows, or change data.split",
            )
        return mask


def _complete(batches: Batches, columns: Sequence[str], name: str | None, key: str) -> str:
    """The column's name, once it is there and has a value in every row."""
    if name is None or name not in columns:
        raise DataError(f"the split needs {key}: " + (f"there is no column {name!r}" if name else "it is not set"))
    missing = np.concatenate([batch[name].isna().to_numpy() for batch in batches([name])])
    if count := int(missing.sum()):
        rows = ", ".join(str(i + 1) for i in np.flatnonzero(missing)[:5])
        raise DataError(f"{count} rows have no value in {name!r} ({key}); rows {rows}", hint="drop or repair them")
    return name


def _latest(values: np.ndarray[Any, np.dtype[np.datetime64]], test: float) -> Mask:
    held = min(max(round(len(values) * test), 1), len(values) - 1)
    cut = np.partition(values, len(values) - held)[len(values) - held]
    mask = values >= cut
    return mask if not mask.all() else values > cut


def _times(column: pd.Series) -> np.ndarray[Any, np.dtype[np.datetime64]]:
    try:
        # Mixed text such as dates and times in one column is told apart value by value.
        times = pd.to_datetime(
            column, utc=True, format="ISO8601" if not pd.api.types.is_numeric_dtype(column) else None
        )
    except (ValueError, TypeError) as e:
        raise DataError(f"column {str(column.name)!r} does not hold times: {e}") from e
    return times.to_numpy(dtype="datetime64[ns]")


def recent(frame: pd.DataFrame, data: Data, window: timedelta) -> Mask:
    """Return a boolean array, True where the row's time is at most ``window`` before the newest one of ``frame``.

    :raises DataError: for a missing column, null times, or no times at all.
    """
    name = _complete(lambda names: [frame], list(frame.columns), data.timestamp, "data.timestamp")
    values = _times(frame[name])
    return values >= values.max() - np.timedelta64(window)


def draws(source: pd.Series | pd.DataFrame, seed: int | str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One draw in [0, 1) per row from a keyed hash of its value; the same value and seed give the same draw."""
    frame = source.to_frame() if isinstance(source, pd.Series) else source
    return _draws(lambda names: [frame], None, seed)


def _draws(batches: Batches, names: list[str] | None, seed: int | str) -> np.ndarray[Any, np.dtype[np.float64]]:
    key = hashlib.sha256(f"airflow-mlops split {seed}".encode()).digest()
    whole = _whole(batches, names)
    drawn = []
    for batch in batches(names):
        mixed = np.full(len(batch), int.from_bytes(key[:8], "little"), dtype=np.uint64)
        for position in range(batch.shape[1]):
            mixed = scramble(mixed ^ _hash(batch.iloc[:, position], key.hex()[:16], whole[position]))
        drawn.append((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)
    return np.concatenate(drawn)


def _whole(batches: Batches, names: list[str] | None) -> list[bool]:
    """By position, whether a column of floats holds whole numbers in every row: then it is hashed as integers.

    Ids that passed through a float column (one null in another window) keep their side.
    """
    whole: list[bool] = []
    for batch in batches(names):
        floats = [pd.api.types.is_float_dtype(kind) for kind in batch.dtypes]
        whole = whole or floats
        if not any(whole):
            break
        for position, so_far in enumerate(whole):
            if so_far:
                numbers = batch.iloc[:, position].to_numpy(dtype=np.float64, na_value=np.nan)
                each = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**53)
                whole[position] = bool(each.all())
    return whole


def _hash(column: pd.Series, key: str, whole: bool) -> np.ndarray[Any, np.dtype[np.uint64]]:
    if whole:
        column = pd.Series(column.to_numpy(dtype=np.float64).astype(np.int64))
    if pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        return scramble(column.to_numpy().astype(np.int64, copy=False).view(np.uint64))
    if pd.api.types.is_numeric_dtype(column.dtype) or column.dtype.kind in "mM":
        return scramble(pd.util.hash_array(column.to_numpy()))
    text = column.astype(object)
    return pd.util.hash_array(text.where(text.isna(), text.astype(str)).fillna("").to_numpy(object), hash_key=key)


def scramble(x: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
