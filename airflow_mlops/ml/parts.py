"""What a source is made of: one Parquet file, or one chunk of a query's or callable's result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from airflow_mlops.exceptions import DataError, DataNotFound, DataTruncated
from airflow_mlops.ml.files import FileInfo, io_errors

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


BATCH_ROWS = 65536


class Part(Protocol):
    """One file, or one chunk of a query's or callable's result."""

    name: str
    schema: pa.Schema
    rows: int
    warnings: list[str]

    def scan(
        self, columns: Sequence[str], bounds: tuple[str, datetime, datetime] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows; with ``bounds`` (column, start, end) it may leave out rows outside, but none without a time."""


def utc_microseconds(column: pa.Array, name: str, where: str) -> pa.Array:
    """Return times as int64 microseconds since 1970 in UTC; naive times and dates are taken as in UTC.

    :raises DataError: when the column holds no times; text must be ISO 8601.
    """
    kind = column.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            try:
                column = column.cast(pa.timestamp("us"))
            except pa.ArrowInvalid:
                column = column.cast(pa.timestamp("us", "UTC"))
        elif not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)):
            raise DataError(
                f"{where}: column {name!r} (data.timestamp) holds {kind}, not times", hint="deliver dates or timestamps"
            )
        return column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False).cast(pa.int64())
    except pa.ArrowInvalid as e:
        raise DataError(f"{where}: column {name!r} (data.timestamp): {e}", hint="write times as ISO 8601") from e


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type a snapshot stores: encodings of the same values (dictionary, large, view) become one."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    if pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return pa.binary()
    return pa.float32() if pa.types.is_float16(kind) else kind


class ParquetPart:
    """One Parquet file; only the row groups and columns that are needed are read, pages are verified."""

    def __init__(self, filesystem: pafs.FileSystem, info: FileInfo) -> None:
        self.name = info.uri
        self.warnings: list[str] = []
        self._filesystem, self._path = filesystem, info.path
        if info.size == 0:
            raise DataNotFound(f"{self.name} is empty (0 bytes)", hint="check what writes it")
        file_format = pads.ParquetFileFormat()
        try:
            with io_errors(self.name):
                self._fragment = file_format.make_fragment(info.path, filesystem=filesystem)
                self.schema: pa.Schema = self._fragment.physical_schema
                self.rows: int = self._fragment.metadata.num_rows
        except (pa.ArrowException, OSError) as e:
            raise DataTruncated(
                f"{self.name} ({info.size} bytes) is cut or damaged: its Parquet footer cannot be read: {e}",
                hint="deliver the file again, whole",
            ) from e

    def scan(
        self, columns: Sequence[str], bounds: tuple[str, datetime, datetime] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows with ``columns``; a filter by ``bounds`` is a help, not a promise."""
        try:
            with io_errors(self.name):
                condition = self._filter(bounds)
                groups = [g.id for f in self._fragment.split_by_row_group(condition) for g in f.row_groups]
                # Read one row group after the other: a dataset scan runs ahead of a slow consumer without a bound.
                with (
                    self._filesystem.open_input_file(self._path) as raw,
                    pq.ParquetFile(raw, page_checksum_verification=True, pre_buffer=False) as parquet,
                ):
                    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(columns)):
                        yield batch.select(list(columns))
        except (pa.ArrowException, OSError) as e:
            raise DataError(f"{self.name} is damaged: {e}", hint="deliver the file again") from e

    def _filter(self, bounds: tuple[str, datetime, datetime] | None) -> pads.Expression | None:
        """A filter that skips row groups outside the window; the exact half-open test is made on the rows."""
        if bounds is None:
            return None
        name, start, end = bounds
        kind = self.schema.field(name).type
        if not pa.types.is_timestamp(kind):
            return None
        try:
            first, last = (pa.scalar(t.astimezone(UTC), pa.timestamp("us", "UTC")) for t in (start, end))
            first, last = (
                t.cast(pa.int64()).cast(pa.timestamp("us")).cast(pa.timestamp(kind.unit)) for t in (first, last)
            )
            first, last = (t.cast(pa.int64()).cast(kind) for t in (first, last))
        except pa.ArrowInvalid:  # the window's bounds have no exact form in the column's unit: rows decide alone
            return None
        field = pads.field(name)
        return ((field >= first) & (field < last)) | field.is_null()


class ChunkPart:
    """A chunk spooled to disk, because the columns' types are known only when all chunks have been seen."""

    def __init__(self, table: pa.Table, name: str, path: Path) -> None:
        self.name, self.schema, self.rows, self._path = name, table.schema, table.num_rows, path
        self.warnings: list[str] = []
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=BATCH_ROWS)

    def scan(
        self, columns: Sequence[str], bounds: tuple[str, datetime, datetime] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows with ``columns``; a filter by ``bounds`` is a help, not a promise."""
        with pa.memory_map(str(self._path)) as source:
            reader = pa.ipc.open_file(source)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i).select(list(columns))
