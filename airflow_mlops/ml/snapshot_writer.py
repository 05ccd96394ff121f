"""Parquet files whose bytes depend on the rows alone, hashed while they are written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FILE_ROWS = 2**20


FILE_BYTES = 128 * 10**6


@dataclass(frozen=True)
class SnapshotFile:
    """One Parquet blob of a snapshot; ``bytes`` is its size."""

    digest: str
    rows: int
    bytes: int


class _HashingFile:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = hashlib.sha256()
        self._file = path.open("wb")
        self.closed = False

    def write(self, data: Any) -> int:
        """Write and hash."""
        self.sha256.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def flush(self) -> None:
        """Hand all bytes to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self.closed = True


class SnapshotWriter:
    """Writes batches into Parquet files whose bytes depend on the rows alone, not on how they were batched."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self.files: list[tuple[Path, SnapshotFile]] = []
        self.rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._file_rows = 0
        self._sink: _HashingFile | None = None
        self._parquet: pq.ParquetWriter | None = None
        # About 64 MB a row group, so that wide tables stay flat in memory too.
        self._group = max(1024, min(2**17, 2**23 // max(1, len(schema)))) // 1024 * 1024

    def finish(self) -> None:
        """Write what is left; ``files`` is complete afterwards."""
        self._write(self._pending_rows)
        self._finish()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next rows."""
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self.rows += batch.num_rows
        while self._pending_rows >= self._group:
            self._write(self._group)

    def _write(self, rows: int) -> None:
        if not rows:
            return
        table = pa.Table.from_batches(self._pending, self._schema)
        group, rest = table.slice(0, rows), table.slice(rows)
        self._pending, self._pending_rows = rest.to_batches(), rest.num_rows
        if self._parquet is None:
            self._sink = _HashingFile(self._folder / f"{len(self.files):06d}.parquet")
            self._parquet = pq.ParquetWriter(
                self._sink,
                self._schema,
                write_page_checksum=True,
                # Measures hardly repeat: looking for repeats costs more than all the rest.
                use_dictionary=[f.name for f in self._schema if not pa.types.is_floating(f.type)] or False,
            )
        self._parquet.write_table(group.combine_chunks(), row_group_size=self._group)
        self._file_rows += rows
        if self._sink is not None and (self._file_rows >= FILE_ROWS or self._sink.tell() >= FILE_BYTES):
            self._finish()

    def _finish(self) -> None:
        if self._parquet is None or self._sink is None:
            return
        self._parquet.close()
        size = self._sink.tell()
        self._sink.close()
        self.files.append((self._sink.path, SnapshotFile(self._sink.sha256.hexdigest(), self._file_rows, size)))
        self._parquet, self._sink, self._file_rows = None, None, 0
