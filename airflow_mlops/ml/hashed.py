"""Rows and values by 128 bits of a hash, sorted on disk: which are equal, however many there are.

Two different rows of ten million have the same 128 bits with a probability below 1e-24, so that nobody needs to look at
the rows themselves again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.ml.splitting import scramble

BUCKET_ROWS = 2**20
_KEYS = ("airflow-mlops/0/", "airflow-mlops/1/")
_START = np.array([0x243F6A8885A308D3, 0x13198A2E03707344], dtype=np.uint64)
_MISSING = np.uint64(0x7FF8DEADBEEF0001)
"""A NaN that no computation gives."""


def hashed(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Hash rows over all columns of ``frame``: shape (n, 2), uint64.

    Rows are equal where all values are; missing values are equal to each other, 0.0 is equal to -0.0, and numbers are
    compared as what the column holds, so that batches must be of one type. Columns hold numbers, booleans, times or
    text.
    """
    rows = np.empty((len(frame), 2), dtype=np.uint64)
    rows[:] = _START
    for position in range(frame.shape[1]):
        rows = scramble(rows ^ scramble(_bits(frame.iloc[:, position])))
    return rows


def _bits(values: pd.Series) -> np.ndarray[Any, Any]:
    """What stands for the values in either half of the hash: shape (n, 1) where they are at most 64 bits, or (n, 2)."""
    kind = values.dtype
    if kind.kind == "f":
        numbers = values.to_numpy(dtype=np.float64) + 0.0
        return np.where(np.isnan(numbers), _MISSING, numbers.view(np.uint64))[:, None]
    if kind.kind in "iub":
        return values.to_numpy().astype(np.int64 if kind.kind != "u" else np.uint64).view(np.uint64)[:, None]
    if kind.kind in "mM":
        return values.astype(np.int64).to_numpy().view(np.uint64)[:, None]
    codes, found = pd.factorize(values)
    texts = found.to_numpy(dtype=object) if isinstance(kind, pd.StringDtype) else found.astype(str).to_numpy(object)
    hashes = [np.append(pd.util.hash_array(texts, hash_key=key, categorize=False), _MISSING) for key in _KEYS]
    return np.column_stack(hashes)[codes]


class Buckets:
    """Records by the hash of what they are about, spread over files so that equal hashes meet in one of them.

    ::

        with Buckets(rows, {"row": "i8", "count": "i8"}) as buckets:
            buckets.add(hashed(frame), row=frame.index)
            for records in buckets.sorted(): …

    :param rows: how many are added at most, about.
    :param fields: of a record beside the hash: name → NumPy type. ``count`` is there always.
    """

    def __init__(self, rows: int, fields: Mapping[str, str]) -> None:
        self.kind = np.dtype([("a", "u8"), ("b", "u8"), *fields.items()])
        self._count = 1 << max(0, (rows // BUCKET_ROWS).bit_length())
        self._held: list[np.ndarray[Any, Any]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Buckets:
        if self._count > 1:
            self._folder = tempfile.TemporaryDirectory(prefix="mlops-buckets-")
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, hashes: np.ndarray[Any, Any], *same: str, **fields: Any) -> None:
        """Take a batch: ``hashes`` of shape (n, 2), fields of shape (n,).

        Those with one hash, and one value in the fields ``same``, become one record: of the first of them, with their
        ``count``. So a value that fills a column does not fill a file.
        """
        records = np.empty(len(hashes), dtype=self.kind)
        records["a"], records["b"] = hashes[:, 0], hashes[:, 1]
        for name, values in fields.items():
            records[name] = values
        records = _ordered(records, same)
        first = firsts(records, *same)
        counts = np.diff(np.append(first, len(records)))
        records = records[first]
        records["count"] = counts
        if self._folder is None:
            self._held.append(records)
            return
        place = records["a"] & np.uint64(self._count - 1)
        order = np.argsort(place, kind="stable")
        ends = np.searchsorted(place[order], np.arange(self._count + 1, dtype=np.uint64))
        for number in range(self._count):
            if ends[number] < ends[number + 1]:
                with self._path(number).open("ab") as file:
                    records[order[ends[number] : ends[number + 1]]].tofile(file)

    def sorted(self, *fields: str) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the records, at most about 2**20 at a time, ordered by hash and ``fields``, then as they came."""
        for number in range(self._count):
            if self._folder is None:
                records = np.concatenate([np.empty(0, self.kind), *self._held])
            elif self._path(number).exists():
                records = np.fromfile(self._path(number), dtype=self.kind)
            else:
                continue
            if len(records):
                yield _ordered(records, fields)

    def _path(self, number: int) -> Path:
        return Path(self._folder.name if self._folder else "", f"{number:06d}")


def _ordered(records: np.ndarray[Any, Any], fields: Sequence[str]) -> np.ndarray[Any, Any]:
    return records[np.lexsort([records[name] for name in (*reversed(fields), "b", "a")])]


def firsts(records: np.ndarray[Any, Any], *fields: str) -> np.ndarray[Any, Any]:
    """Where in ordered records a new hash, or a new value of ``fields``, begins: positions, shape (k,)."""
    new = np.ones(len(records), dtype=bool)
    new[1:] = np.any([records[name][1:] != records[name][:-1] for name in ("a", "b", *fields)], axis=0)
    return np.flatnonzero(new)


class Repeats:
    """Which rows, over all their columns, occur more than once, and how many different ones there are.

    :param rows: how many there are at most. Memory does not grow with them, but by 16 bytes with each that repeats.
    """

    def __init__(self, rows: int) -> None:
        self._buckets = Buckets(rows, {"count": "i8"})
        self.different = 0
        self._repeated = np.empty((0, 2), dtype=np.uint64)

    def __enter__(self) -> Repeats:
        self._buckets.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._buckets.__exit__(*error)

    def add(self, rows: pd.DataFrame) -> None:
        """Take the next rows; all batches have the same columns and types."""
        self._buckets.add(hashed(rows))

    def finish(self) -> None:
        """All rows have come; ``different`` is known afterwards."""
        found = [self._repeated]
        for records in self._buckets.sorted():
            places = firsts(records)
            self.different += len(places)
            many = places[np.add.reduceat(records["count"], places) > 1]
            found.append(np.column_stack([records["a"][many], records["b"][many]]))
        repeated = np.concatenate(found)
        self._repeated = repeated[np.lexsort((repeated[:, 1], repeated[:, 0]))]

    def mask(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Which of these rows occur more than once among all that were added, shape (n,)."""
        out = np.zeros(len(rows), dtype=bool)
        if not len(self._repeated):
            return out
        hashes = hashed(rows)
        first = np.searchsorted(self._repeated[:, 0], hashes[:, 0], "left")
        ends = np.searchsorted(self._repeated[:, 0], hashes[:, 0], "right")
        for step in range(int((ends - first).max(initial=0))):  # one, but for values that share half of their hash
            place = np.minimum(first + step, len(self._repeated) - 1)
            out |= (first + step < ends) & (self._repeated[place, 1] == hashes[:, 1])
        return out
