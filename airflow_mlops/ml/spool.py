"""Rows divided over files on disk, so that what belongs together can be looked at without all the rest."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.exceptions import DataError

_PLACE = "airflow_mlops.place"
_BUFFERED_ROWS = 2**20


class Spool:
    """Files of rows, each row with its place in its file; rows are buffered in memory, up to a million of them."""

    def __init__(self, folder: Path, files: int) -> None:
        self._folder, self._files = folder, files
        self._pending: list[list[pa.RecordBatch]] = [[] for _ in range(files)]
        self._pending_rows = 0
        self._writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._flush()
        self._open.close()

    def add(self, batch: pa.RecordBatch, files: np.ndarray, places: np.ndarray) -> None:
        """Take the rows that belong to a file.

        :param files: number of each row's file, shape (rows,); −1: it is left out.
        :param places: where the row goes in its file; rows of one place stay in their order.
        """
        order = np.argsort(files, kind="stable")
        batch = batch.append_column(_PLACE, pa.array(places.astype(np.int32))).take(pa.array(order))
        bounds = np.searchsorted(files[order], np.arange(self._files + 1))
        for number in range(self._files):
            if bounds[number] < bounds[number + 1]:
                self._pending[number].append(batch.slice(bounds[number], bounds[number + 1] - bounds[number]))
        self._pending_rows += batch.num_rows
        if self._pending_rows >= _BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        for number, batches in enumerate(self._pending):
            if not batches:
                continue
            table = pa.Table.from_batches(batches).combine_chunks()
            if number not in self._writers:
                path = self._folder / f"{number}.arrow"
                self._writers[number] = self._open.enter_context(pa.ipc.new_file(str(path), table.schema))
            self._writers[number].write_table(table)
            batches.clear()
        self._pending_rows = 0

    def __contains__(self, number: int) -> bool:
        """Whether a file has any rows, once all are added and the block is left."""
        return number in self._writers

    def ordered(self, number: int, keys: int) -> tuple[Path, np.ndarray]:
        """Write a file's rows in the order of their places; return its path, and how many rows each place has."""
        table, place = self.table(number)
        path = self._folder / f"{number}.parquet"
        pq.write_table(
            table.replace_schema_metadata(None),
            path,
            compression="zstd",
            # Nobody looks for rows in it, and a dictionary of numbers costs more than it saves.
            use_dictionary=[field.name for field in table.schema if not pa.types.is_primitive(field.type)],
            write_statistics=False,
            write_page_checksum=True,
        )
        return path, np.bincount(place, minlength=keys)

    def table(self, number: int) -> tuple[pa.Table, np.ndarray]:
        """Return a file's rows in the order of their places, and those places as they came; then the file is gone.

        :raises DataError: it has no rows.
        """
        if number not in self:
            raise DataError(f"no row belongs to file {number}")
        spooled = self._folder / f"{number}.arrow"
        with pa.memory_map(str(spooled)) as source:
            table = pa.ipc.open_file(source).read_all()
        place = table[_PLACE].to_numpy()
        table = table.drop_columns([_PLACE]).take(pa.array(np.argsort(place, kind="stable")))
        spooled.unlink()
        return table, place
