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
    on one side. The values of a row decide alone, not the types that its columns get by other rows. A row stays on its
    side when others come or go, which keeps a champion's training rows out of later holdouts. ``time``: the latest
    rows; equal times stay together. ``group``: a keyed hash of the group; at least one group is held out and at least
    one is not.

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
            self._values = _draws(batches, key, seed, gappy=data.id is None)

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


def _draws(
    batches: Batches, names: list[str] | None, seed: int | str, *, gappy: bool = False
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """:param gappy: as :func:`_hash`."""
    key = hashlib.sha256(f"airflow-mlops split {seed}".encode()).digest()
    drawn = []
    for batch in batches(names):
        mixed = np.full(len(batch), int.from_bytes(key[:8], "little"), dtype=np.uint64)
        for position in range(batch.shape[1]):
            mixed = scramble(mixed ^ _hash(batch.iloc[:, position], key.hex()[:16], gappy))
        drawn.append((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)
    return np.concatenate(drawn)


def _hash(column: pd.Series, key: str, gappy: bool) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A hash of each value that the others have no part in: with a gap among them, pandas gives a column another type.

    So an integer and the equal whole float have one hash, and a boolean has one among booleans and among objects.

    :param gappy: the column may have gaps where the same rows are read with others. Integers that a float does not
        hold are then hashed as the nearest one that it does.
    """
    kind = column.dtype.kind
    if kind in "iuf":
        return _hash_numbers(column, gappy)
    if kind in "cmM":
        return scramble(pd.util.hash_array(column.to_numpy()))
    if kind == "b" and not column.isna().any():
        return scramble(pd.util.hash_array(column.to_numpy(dtype=bool)))
    text = column.astype(object)
    values = text.where(text.isna(), text.astype(str)).fillna("").to_numpy(object)
    hashes = pd.util.hash_array(values, hash_key=key)
    if isinstance(column.dtype, pd.StringDtype) or pd.api.types.infer_dtype(text, skipna=True) != "boolean":
        return hashes
    there = text.notna().to_numpy()
    hashes[there] = scramble(pd.util.hash_array(text.to_numpy(object)[there].astype(bool)))
    return hashes


def _hash_numbers(column: pd.Series, gappy: bool) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Whole ones below 2**53 as integers, the others as floats; without gaps, integers are exact however large."""
    if column.dtype.kind != "f" and not column.isna().any():
        integers = column.to_numpy()
        if not gappy or integers.dtype.itemsize < 8:
            return scramble(integers.astype(np.int64, copy=False).view(np.uint64))
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):
        whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**53)
    if whole.all():
        return scramble(numbers.astype(np.int64).view(np.uint64))
    # A column of floats that are not of 64 bits has them in every part of the rows.
    floats = column.to_numpy() if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f" else numbers
    hashes = scramble(pd.util.hash_array(floats))
    hashes[whole] = scramble(numbers[whole].astype(np.int64).view(np.uint64))
    return hashes


def scramble(x: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
