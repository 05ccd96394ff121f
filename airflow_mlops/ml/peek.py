"""A bounded look at data of any size, by the readers that a run uses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import fs as pafs

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError, DataNotFound
from airflow_mlops.ml.csvfiles import CsvPart
from airflow_mlops.ml.files import FileInfo, Files, io_errors
from airflow_mlops.ml.parts import ParquetPart, Part
from airflow_mlops.ml.reading import SourceBatches

MAX_ROWS = 100_000
MAX_CELLS = 20_000_000
MAX_FILES = 20
CSV_BYTES = 64 * 2**20
_CHUNK = 2**20


def peek(uri: str, files: Files) -> tuple[pd.DataFrame, bool]:
    """Return the first rows of each file that ``uri`` names, and whether those are all rows.

    At most 100,000 rows in all, fewer where there are very many columns, of at most 20 files spread evenly; of
    CSV files no more than the first 64 MiB together are read.

    :raises DataNotFound: no file or row. :raises DataError: a file that a run could not read either.
    """
    found = files.expand(uri)
    filesystem = files.resolve(uri)[0]
    count = min(len(found), MAX_FILES)
    picked = [found[i * len(found) // count] for i in range(count)]
    with tempfile.TemporaryDirectory(prefix="mlops-peek-") as folder:
        parts = [_First(filesystem, info, CSV_BYTES // count, Path(folder) / str(i)) for i, info in enumerate(picked)]
        rows = max(1, min(MAX_ROWS, MAX_CELLS // max(1, len(parts[0].schema))) // count)
        for part in parts:
            part.most = rows
        batches = SourceBatches(parts, {}, Data(source=uri, target="-"), None, target_optional=True)
        frame = pa.Table.from_batches(list(batches), batches.schema).to_pandas()
    complete = len(picked) == len(found) and all(part.whole and part.rows <= part.most for part in parts)
    return frame, complete


class _First:
    """At most ``most`` rows of a file; ``whole`` says whether all of it was there to be read."""

    def __init__(self, filesystem: pafs.FileSystem, info: FileInfo, limit: int, scratch: Path) -> None:
        path = info.path.lower()
        self.whole = True
        self._part: Part
        if path.endswith((".parquet", ".pq")):
            self._part = ParquetPart(filesystem, info)
        elif path.endswith((".csv", ".csv.gz")):
            if info.size > limit or path.endswith(".gz"):
                self.whole = _beginning(filesystem, info, limit, scratch)
                filesystem = pafs.LocalFileSystem()
                info = FileInfo(info.uri, str(scratch), scratch.stat().st_size, info.version)
            self._part = CsvPart(filesystem, info)
        else:
            raise DataError(f"{info.uri} is neither CSV nor Parquet by its name", hint="use .csv, .csv.gz or .parquet")
        self.name, self.schema, self.rows = self._part.name, self._part.schema, self._part.rows
        self.warnings: list[str] = self._part.warnings
        self.most = MAX_ROWS

    def scan(self, columns: Sequence[str], bounds: Any = None) -> Iterator[pa.RecordBatch]:
        left = self.most
        with closing(self._part.scan(columns, bounds)) as batches:  # type: ignore[type-var]
            for batch in batches:
                yield batch.slice(0, left)
                left -= batch.num_rows
                if left <= 0:
                    return


def _beginning(filesystem: pafs.FileSystem, info: FileInfo, limit: int, target: Path) -> bool:
    """Write the first complete lines of a CSV file to ``target``; whether that is all of it."""
    packed = "gzip" if info.path.lower().endswith(".gz") else None
    data = bytearray()
    try:
        with io_errors(info.uri), filesystem.open_input_stream(info.path, compression=packed) as stream:
            while len(data) <= limit and (chunk := stream.read(_CHUNK)):
                data += chunk
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{info.uri} is damaged: {e}", hint="deliver the file again") from e
    whole = len(data) <= limit
    if not whole:
        end, quotes = len(data), data.count(b'"')
        while True:
            before = data.rfind(b"\n", 0, end)
            if before < 0:
                raise DataError(f"{info.uri}: no row ends in its first {len(data):,} bytes", hint="is this a CSV file?")
            quotes -= data.count(b'"', before, end)
            end = before
            if quotes % 2 == 0:
                break
        del data[end + 1 :]
    if not data:
        raise DataNotFound(f"{info.uri} is empty", hint="check what writes it")
    target.write_bytes(data)
    return whole
