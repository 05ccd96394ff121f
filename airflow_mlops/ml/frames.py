"""A snapshot's rows as DataFrames, a batch at a time, of the types that the whole would have.

Converted by itself, a batch of integers without a gap stays integers where another batch of the column has gaps and
becomes floats; what is computed of the batches would then not be what is computed of all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_mlops.ml.snapshot import Snapshot, file_batches, frame_of
from airflow_mlops.store.base import Store

BATCH_ROWS = 2**18
"""Rows of a batch: about 2 MB a column of numbers, 20 MB of texts."""


class Frames:
    """The rows of a snapshot whose files are at ``paths``; may be read again and again.

    :param rows: of a batch, at least 1; the last one is shorter.
    """

    def __init__(self, snapshot: Snapshot, paths: Sequence[Path], rows: int = BATCH_ROWS) -> None:
        self.snapshot, self.rows = snapshot, rows
        self._paths = paths
        self._gaps: dict[str, bool] = {}

    @property
    def single(self) -> bool:
        """Whether one batch holds all rows."""
        return self.snapshot.rows <= self.rows

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Yield the rows in order; the index goes on from batch to batch, from 0.

        :raises DataError: for a column the snapshot does not have. :raises CorruptObject: for changed bytes.
        """
        names = self.snapshot.names(columns)
        gappy = [n for n in names if self._has_gaps(n)]
        first = 0
        for table in self._tables(names):
            frame = frame_of(table, gappy)
            frame.index = pd.RangeIndex(first, first + len(frame))
            first += len(frame)
            yield frame

    def whole(self, columns: Sequence[str] | None = None, keep: np.ndarray[Any, Any] | None = None) -> pd.DataFrame:
        """All rows, or those that ``keep`` marks, shape (rows,); the index is their place in the snapshot.

        One column is read after the other, so that there is never more than the frame and one of its columns.
        """
        names = self.snapshot.names(columns)
        rows = self.snapshot.rows
        index = pd.RangeIndex(rows) if keep is None else pd.Index(np.flatnonzero(keep))
        read = {}
        for name in names:
            gappy = [name] if keep is not None and self._has_gaps(name) else []
            batches = list(self._read([name], keep))
            table = pa.Table.from_batches(batches) if batches else None
            del batches
            values = frame_of(table, gappy)[name] if table is not None else pd.Series([], dtype=object)
            read[name] = values.set_axis(index[: len(values)], axis=0)
            del table, values
        return pd.DataFrame(read, index=index, copy=False)

    def _has_gaps(self, name: str) -> bool:
        """Whether a column of integers or booleans, which then changes its type, has a null anywhere."""
        if name not in self._gaps:
            kind = self.snapshot.columns[name]
            changes = kind.startswith(("int", "uint")) or kind == "bool"
            self._gaps[name] = changes and any(b.column(0).null_count for b in self._read([name]))
        return self._gaps[name]

    def _read(self, names: Sequence[str], keep: np.ndarray[Any, Any] | None = None) -> Iterator[pa.RecordBatch]:
        first = 0
        for path, file in zip(self._paths, self.snapshot.files, strict=True):
            for batch in file_batches(path, file.digest, names):
                last = first + batch.num_rows
                yield batch if keep is None else batch.filter(pa.array(keep[first:last]))
                first = last

    def _tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Cut and join what is read to tables of ``rows`` rows."""
        waiting: list[pa.RecordBatch] = []
        held = 0
        for batch in self._read(names):
            while held + batch.num_rows >= self.rows:
                head = batch.slice(0, self.rows - held)
                yield pa.Table.from_batches([*waiting, head])
                batch, waiting, held = batch.slice(head.num_rows), [], 0
            if batch.num_rows:
                waiting.append(batch)
                held += batch.num_rows
        if held:
            yield pa.Table.from_batches(waiting)


def joined(parts: Iterable[pd.Series], rows: int) -> pd.Series:
    """A column of ``rows`` numbers or texts that comes in parts; each text is there once, so that a row takes 8 bytes.

    Texts become a column of objects, and missing ones NaN.
    """
    values: np.ndarray[Any, Any] | None = None
    known: dict[Any, Any] = {}
    first = 0
    for part in parts:
        textual = part.dtype == object or isinstance(part.dtype, pd.StringDtype)
        if values is None:
            values = np.empty(rows, dtype=object if textual else part.dtype)
        last = first + len(part)
        if textual:
            codes, found = pd.factorize(part)
            texts = np.array([*(known.setdefault(v, v) for v in found), np.nan], dtype=object)
            values[first:last] = texts[codes]  # a missing value has the code -1
        else:
            values[first:last] = part.to_numpy()
        first = last
    return pd.Series(values, dtype=None if values is None else values.dtype)


@contextmanager
def frames(snapshot: Snapshot, store: Store, rows: int = BATCH_ROWS) -> Iterator[Frames]:
    """Hold verified local copies of the snapshot's files while the block runs, and read them."""
    with snapshot.download(store) as paths:
        yield Frames(snapshot, paths, rows)
