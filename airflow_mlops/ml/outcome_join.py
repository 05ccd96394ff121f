"""Predictions and their outcomes, joined by id on disk: however many they are, a million rows are in memory at a time.

Both sides are divided by a hash of the id into files, which are joined one after the other (a Grace hash join:
Kitsuregawa, Tanaka & Moto-oka 1983, *New Generation Computing* 1, 63-74). What comes is what
:func:`~airflow_mlops.ml.joining.same_keys` and :func:`~airflow_mlops.ml.joining.last_of_each` say of all rows at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from airflow_mlops.ml.joining import as_text, comparable, same_keys
from airflow_mlops.ml.splitting import scramble
from airflow_mlops.ml.spool import Spool

ID, ROW, OUTCOME = "airflow_mlops.id", "airflow_mlops.row", "airflow_mlops.outcome"
_PART_ROWS = 2**19


class Outcomes:
    """Outcomes on disk, in the order in which they came; those without an id or a value are left out.

    :ivar rows: how many.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], join_on: str, target: str, folder: Path) -> None:
        """Read them.

        :param batches: with the columns ``join_on`` and ``target``, all of one schema.
        :param folder: for files in between; nothing else is in it.
        :raises DataNotFound: as the batches do.
        """
        self.folder, self.rows = folder, 0
        self.schema = pa.schema([(ID, pa.null()), (OUTCOME, pa.null())])
        with ExitStack() as opened:
            writer: pa.ipc.RecordBatchStreamWriter | None = None
            for batch in batches:
                columns = [decoded(batch.column(name)) for name in (join_on, target)]
                made = pa.RecordBatch.from_arrays(columns, names=[ID, OUTCOME]).filter(pc.and_(*map(known, columns)))
                if writer is None:
                    self.schema = made.schema
                    writer = opened.enter_context(pa.ipc.new_stream(str(self._path), self.schema))
                writer.write_batch(made)
                self.rows += made.num_rows

    @property
    def _path(self) -> Path:
        return self.folder / "outcomes.arrow"

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read them again."""
        if self.rows:
            with pa.memory_map(str(self._path)) as source, pa.ipc.open_stream(source) as stream:
                yield from stream


class Joined:
    """Predictions with their outcomes, a part of them at a time; iterate it once.

    A part is a table with the columns of the predictions but the id, with :data:`ROW` (the number of the row among all
    that came, from 0, in whose order they are) and :data:`OUTCOME`, null where none is known. Of rows with one id the
    last counts, of predictions as of outcomes.

    :ivar twice: predictions that were left out, as a later one has their id; ``again``: outcomes likewise. Both are
        complete when an iteration has ended.
    """

    def __init__(
        self, outcomes: Outcomes, predictions: Iterable[pa.RecordBatch], id_column: str, *, rows: int
    ) -> None:  # fmt: skip
        """Nothing is read yet.

        :param predictions: all of one schema; those without an id are left out.
        :param rows: about how many there are.
        """
        self._outcomes, self._predictions, self._id = outcomes, predictions, id_column
        self._parts = max(1, -(-(rows + outcomes.rows) // _PART_ROWS))
        self.twice = self.again = 0

    def __iter__(self) -> Iterator[pa.Table]:
        folders = [self._outcomes.folder / name for name in ("predictions", "by-id")]
        for folder in folders:
            folder.mkdir()
        said, theirs = (Spool(folder, self._parts) for folder in folders)
        with said, theirs:
            rows, text = 0, False
            for batch in self._predictions:
                numbered = batch.append_column(ROW, pa.array(np.arange(rows, rows + batch.num_rows)))
                rows += batch.num_rows
                ids = decoded(batch.column(self._id))
                text = _as_text(ids.type, self._outcomes.schema.field(ID).type)
                there = known(ids)
                self._divide(said, numbered.drop_columns([self._id]).filter(there), ids.filter(there), text=text)
            for batch in self._outcomes.batches():
                self._divide(theirs, batch.select([OUTCOME]), batch.column(ID), text=text)
        for number in range(self._parts):
            outcomes = theirs.table(number)[0] if number in theirs else None
            if number in said:
                yield self._joined(said.table(number)[0], outcomes)
            elif outcomes is not None:
                self.again += int(pd.Index(outcomes[ID].to_pandas()).duplicated().sum())

    def _divide(self, spool: Spool, batch: pa.RecordBatch, ids: pa.Array, *, text: bool) -> None:
        values = ids.to_pandas()
        if text:
            ids = pa.array(texts := as_text(values), pa.string())
            values = pd.Series(texts)
        batch = batch.append_column(ID, ids)
        spool.add(batch, _part_of(values, self._parts), np.zeros(len(values), dtype=np.int32))

    def _joined(self, said: pa.Table, outcomes: pa.Table | None) -> pa.Table:
        if outcomes is None:
            outcomes = pa.table(
                {ID: said[ID].slice(0, 0), OUTCOME: pa.nulls(0, self._outcomes.schema.field(OUTCOME).type)}
            )
        left, right = same_keys(said[ID].to_pandas(), outcomes[ID].to_pandas())
        last, latest = (~side.duplicated(keep="last") for side in (left, right))
        self.twice += int((~last).sum())
        self.again += int((~latest).sum())
        place = right[latest].get_indexer(left[last])
        found = outcomes[OUTCOME].filter(pa.array(latest)).take(pa.array(place, mask=place < 0))
        return said.drop_columns([ID]).filter(pa.array(last)).append_column(OUTCOME, found)


def known(column: pa.Array) -> pa.Array:
    """Which values are there; NaN is none."""
    return pc.invert(pc.is_null(column, nan_is_null=True))


def decoded(column: pa.Array) -> pa.Array:
    """A column without a dictionary: those of two batches may differ, and a file has one."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _as_text(left: pa.DataType, right: pa.DataType) -> bool:
    return not comparable(*(pa.array([], kind).to_pandas().dtype for kind in (left, right)))


def _part_of(ids: pd.Series, parts: int) -> np.ndarray:
    """The file of each id, shape (rows,): of ids that are equal the same one."""
    if pd.api.types.is_numeric_dtype(ids.dtype):
        bits = (ids.to_numpy(np.float64) + 0.0).view(np.uint64)  # -0.0 is 0.0
    else:
        bits = np.fromiter(map(hash, ids.tolist()), np.int64, len(ids)).view(np.uint64)
    return (scramble(bits) % np.uint64(parts)).astype(np.int64)
