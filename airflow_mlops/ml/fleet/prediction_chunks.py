"""The rows of a shard of a batch inference, some thousand at a time, with the models that can serve each key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.ml.fleet.serving import Part, ServingPlan, choices
from airflow_mlops.store import get_blob_file
from airflow_mlops.store.base import Store

_CHUNK_ROWS, _CHUNK_KEYS = 20_000, 512
"""Most rows, and keys, that are predicted at a time: one-hot encoded, a row can have thousands of columns."""


@dataclass(frozen=True)
class Stretch:
    """Rows of one key in a chunk, one after the other.

    :param first: where they begin in it. :param rows: how many.
    :param asked: keys of the models that can serve them, the first choice first.
    """

    key: str
    first: int
    rows: int
    asked: tuple[str, ...]

    @property
    def place(self) -> slice:
        """Where they lie."""
        return slice(self.first, self.first + self.rows)


def chunks_of(store: Store, part: Part, plan: ServingPlan, folder: Path) -> Iterator[tuple[pa.Table, list[Stretch]]]:
    """Yield the rows of a shard with their keys; those of a key are together, but for a key with very many."""
    rows = _tables(store, part, folder)
    for keys in _cut(part):
        stretches, at = [], 0
        for key, count, group in keys:
            stretches.append(Stretch(key, at, count, tuple(choices(key, group, plan.champions))))
            at += count
        yield rows(at), stretches


def _cut(part: Part) -> Iterator[list[tuple[str, int, str]]]:
    """Cut the keys of a shard into chunks, in their order."""
    chunk: list[tuple[str, int, str]] = []
    size = 0
    for key, rows, group in part.keys:
        if chunk and (size + rows > _CHUNK_ROWS or len(chunk) == _CHUNK_KEYS):
            yield chunk
            chunk, size = [], 0
        for _ in range((rows - 1) // _CHUNK_ROWS):
            yield [(key, _CHUNK_ROWS, group)]
        rest = (rows - 1) % _CHUNK_ROWS + 1
        chunk.append((key, rest, group))
        size += rest
    if chunk:
        yield chunk


def _tables(store: Store, part: Part, folder: Path) -> Callable[[int], pa.Table]:
    """A function that returns the next so many rows."""

    def batches() -> Iterator[pa.RecordBatch]:
        path = folder / "rows.parquet"
        for digest in part.files:
            get_blob_file(store, digest, path)
            with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
                yield from file.iter_batches(2**16)

    stream = batches()
    rest: list[pa.RecordBatch] = []

    def take(rows: int) -> pa.Table:
        found: list[pa.RecordBatch] = []
        while rows:
            batch = rest.pop() if rest else next(stream)
            found.append(batch.slice(0, rows))
            if batch.num_rows > rows:
                rest.append(batch.slice(rows))
            rows -= found[-1].num_rows
        return pa.Table.from_batches(found)

    return take
