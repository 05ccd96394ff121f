"""Snapshots: the immutable, fingerprinted copy of the data a run works on."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.config.models import Data, length
from airflow_mlops.exceptions import CorruptObject, DataError, DataStale, DataTruncated
from airflow_mlops.ml.parts import BATCH_ROWS
from airflow_mlops.ml.reading import SourceBatches
from airflow_mlops.ml.snapshot_writer import SnapshotFile, SnapshotWriter
from airflow_mlops.ml.target import TargetCheck
from airflow_mlops.store import get_blob_file, get_json, layout, put_blob_file, put_json
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window


@dataclass(frozen=True)
class Snapshot:
    """Rows that never change again, named by the sha256 of their manifest.

    ``fingerprint`` covers the data files' digests and the schema: the same rows in the same order have the same
    fingerprint, wherever they were read from. ``columns`` maps names to Arrow types as text, in order.
    """

    pipeline: str
    digest: str
    fingerprint: str
    rows: int
    columns: dict[str, str]
    files: tuple[SnapshotFile, ...]
    window: Window | None
    source: dict[str, Any]
    store_uri: str = ""

    def to_ref(self) -> dict[str, Any]:
        """A small dict of plain JSON that names this snapshot, fit for XCom; :meth:`load` takes it back."""
        return {
            "pipeline": self.pipeline,
            "snapshot": self.digest,
            "fingerprint": self.fingerprint,
            "rows": self.rows,
            "columns": len(self.columns),
            "window": self.window.to_dict() if self.window else None,
            "uri": f"{self.store_uri}/{layout.blob(self.digest)}",
        }

    @classmethod
    def load(cls, store: Store, ref: dict[str, Any] | str) -> Snapshot:
        """Read the manifest named by a reference or digest.

        :raises ObjectNotFound: when the store does not have it. :raises CorruptObject: when it was changed.
        """
        digest = ref.get("snapshot") if isinstance(ref, dict) else ref
        if not isinstance(digest, str):
            raise DataError(f"not a reference to a snapshot: {ref!r}", hint="pass on what data.snapshot returned")
        try:
            key = layout.blob(digest)
        except ValueError as e:
            raise DataError(f"not a reference to a snapshot: {e}", hint="pass on what data.snapshot returned") from e
        manifest = get_json(store, digest)
        if not isinstance(manifest, dict) or manifest.get("kind") != "snapshot":
            raise DataError(f"{store.uri}/{key} is not a snapshot")
        return cls(
            pipeline=manifest["pipeline"],
            digest=digest,
            fingerprint=manifest["fingerprint"],
            rows=manifest["rows"],
            columns=dict(manifest["columns"]),
            files=tuple(SnapshotFile(**f) for f in manifest["files"]),
            window=Window.from_dict(manifest["window"]) if manifest["window"] else None,
            source=manifest["source"],
            store_uri=store.uri,
        )

    @contextmanager
    def download(self, store: Store) -> Iterator[list[Path]]:
        """Hold verified local copies of all files while the block runs."""
        with tempfile.TemporaryDirectory(prefix="mlops-snapshot-") as folder:
            paths = []
            for number, file in enumerate(self.files):
                paths.append(Path(folder) / f"{number:06d}.parquet")
                get_blob_file(store, file.digest, paths[-1])
            yield paths

    def batches(self, store: Store, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, one file on disk at a time; each file's digest and pages are verified.

        :raises DataError: for a column the snapshot does not have. :raises CorruptObject: for changed bytes.
        """
        names = self.names(columns)
        with tempfile.TemporaryDirectory(prefix="mlops-snapshot-") as folder:
            path = Path(folder) / "part.parquet"
            for file in self.files:
                get_blob_file(store, file.digest, path)
                yield from file_batches(path, file.digest, names)
                path.unlink()

    def to_arrow(self, store: Store, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows as one Arrow table."""
        schema = pa.schema([])
        batches = list(self.batches(store, columns))
        if batches:
            schema = batches[0].schema
        return pa.Table.from_batches(batches, schema)

    def to_pandas(self, store: Store, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows as a DataFrame with a fresh index: dates become datetime64, decimals float64.

        Integers with nulls become float64, as pandas has it.
        """
        return frame_of(self.to_arrow(store, columns))

    def names(self, columns: Sequence[str] | None) -> list[str]:
        """The columns asked for, all of them for ``None``.

        :raises DataError: for one that the snapshot does not have.
        """
        if columns is None:
            return list(self.columns)
        missing = [c for c in columns if c not in self.columns]
        if missing:
            raise DataError(
                f"the snapshot has no column {', '.join(map(repr, missing))}", hint="it has: " + ", ".join(self.columns)
            )
        return list(columns)


def file_batches(path: Path, digest: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one file of a snapshot, its pages verified.

    :raises CorruptObject: for changed bytes.
    """
    names = list(columns)
    with _opened(path, digest) as parquet:
        for batch in _guarded(parquet.iter_batches(BATCH_ROWS, columns=names), digest):
            # Parquet returns columns in the file's order, whatever order was asked for.
            yield batch.select(names)


def frame_of(table: pa.Table, gappy: Collection[str] = ()) -> pd.DataFrame:
    """A snapshot's rows as a DataFrame with a fresh index; ``table`` is used up.

    :param gappy: columns of integers or booleans that get the type they have with gaps, whether there is one here or
        not.
    """
    for i, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) or (field.name in gappy and not pa.types.is_boolean(field.type)):
            table = table.set_column(i, field.name, table.column(i).cast(pa.float64(), safe=False))
    objects = [f.name for f in table.schema if f.name in gappy and pa.types.is_boolean(f.type)]
    frame = table.to_pandas(date_as_object=False, split_blocks=True, self_destruct=True)
    return frame.astype(dict.fromkeys(objects, object)) if objects else frame


@contextmanager
def _opened(path: Path, digest: str) -> Iterator[pq.ParquetFile]:
    try:
        parquet = pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as e:
        raise CorruptObject(f"snapshot file {digest} cannot be read: {e}") from e
    with parquet:
        yield parquet


def _guarded(batches: Iterator[pa.RecordBatch], digest: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except (pa.ArrowException, OSError) as e:
        raise CorruptObject(f"snapshot file {digest} cannot be read: {e}") from e


def write_snapshots(
    store: Store,
    pipeline: str,
    batches: Iterable[tuple[pa.RecordBatch, ...]],
    schema: pa.Schema,
    *,
    window: Window | None,
    sources: Sequence[dict[str, Any]],
    check: Callable[[], None] | None = None,
) -> tuple[Snapshot, ...]:
    """Write one snapshot per source from a stream of batches for each; nothing enters the store before the end.

    :param batches: tuples with one batch per snapshot.
    :param check: called when all rows are on local disk; what it raises leaves the store untouched.
    """
    schema = schema.remove_metadata()
    with tempfile.TemporaryDirectory(prefix="mlops-snapshot-") as folder:
        writers = []
        for number in range(len(sources)):
            (Path(folder) / str(number)).mkdir()
            writers.append(SnapshotWriter(Path(folder) / str(number), schema))
        for parts in batches:
            for writer, batch in zip(writers, parts, strict=True):
                if batch.num_rows:
                    writer.add(batch)
        for writer in writers:
            writer.finish()
        if check is not None:
            check()
        return tuple(
            _publish(store, pipeline, writer, schema, window, source)
            for writer, source in zip(writers, sources, strict=True)
        )


def _publish(
    store: Store,
    pipeline: str,
    writer: SnapshotWriter,
    schema: pa.Schema,
    window: Window | None,
    source: dict[str, Any],
) -> Snapshot:
    files = []
    for path, file in writer.files:
        stored = put_blob_file(store, path)
        if stored != file.digest:
            raise CorruptObject(f"a snapshot file changed between disk and store: {file.digest} became {stored}")
        path.unlink()
        files.append(file)
    columns = [[f.name, str(f.type)] for f in schema]
    content = json.dumps([columns, [f.digest for f in files]]).encode()
    manifest = {
        "kind": "snapshot",
        "format": 1,
        "pipeline": pipeline,
        "fingerprint": hashlib.sha256(content).hexdigest(),
        "rows": writer.rows,
        "columns": columns,  # a list: canonical JSON sorts the keys of objects, and columns have an order
        "files": [vars(f) for f in files],
        "window": window.to_dict() if window else None,
        "source": source,
    }
    return Snapshot.load(store, put_json(store, manifest))


def take_snapshot(
    store: Store,
    pipeline: str,
    batches: SourceBatches,
    *,
    data: Data,
    window: Window | None,
    previous_rows: int | None = None,
    gaps: bool = False,
    log: Callable[[str], None] | None = None,
) -> Snapshot:
    """Copy the rows into the store and check them; on any error the store is left as it was.

    Memory stays flat: rows go to local disk in row groups (≤ 64 MB), hashed while written, then to the store.
    Row numbers in messages count from 1 among the rows of the snapshot. The target is not looked at when
    ``batches`` was read with ``target_optional``, nor is ``data.min_rows``: rows to score may be few.

    :param previous_rows: rows of the last snapshot, for ``data.max_row_drop``.
    :param gaps: whether some rows may lack the target: in a fleet validation judges each key by its own rows.
    :raises DataNotFound: no rows. :raises DataTruncated: too many rows fewer than last time.
    :raises DataStale: newest row too old at the window's end (without a window: now).
    :raises TargetError: target missing, constant, null, or without ``data.positive``.
    """
    say = log or (lambda message: None)
    for warning in batches.warnings:
        say(f"Warning: {warning}")
    target = None if batches.target_optional else TargetCheck(data, gaps=gaps)

    def stream() -> Iterator[tuple[pa.RecordBatch]]:
        for batch in batches:
            if target is not None:
                target.see(batch)
            yield (batch,)

    def check() -> None:
        rows = batches.rows_read - batches.rows_outside
        dropped = (
            f" ({batches.rows_outside} of {batches.rows_read} lie outside {window})" if batches.rows_outside else ""
        )
        if target is not None and rows < data.min_rows:
            raise DataError(
                f"{rows} rows, data.min_rows is {data.min_rows}{dropped}",
                hint="check the source and the window, or lower data.min_rows",
            )
        if previous_rows and data.max_row_drop is not None and rows < previous_rows * (1 - data.max_row_drop):
            lost = 1 - rows / previous_rows
            raise DataTruncated(
                f"{rows} rows, {previous_rows} last time: {lost:.1%} fewer; "
                f"data.max_row_drop is {data.max_row_drop:.1%}",
                hint="check that the source is complete, or raise data.max_row_drop",
            )
        _fresh(batches.newest, data, window)
        if target is not None:
            target.check()

    source = dict(batches.source)
    if batches.warnings:
        source["warnings"] = list(batches.warnings)
    (snapshot,) = write_snapshots(
        store, pipeline, stream(), batches.schema, window=window, sources=[source], check=check
    )
    say(
        f"Snapshot {snapshot.digest[:12]} of {snapshot.rows:,} rows × {len(snapshot.columns)} columns, "
        f"fingerprint {snapshot.fingerprint[:12]}, "
        f"{sum(f.bytes for f in snapshot.files)} bytes in {len(snapshot.files)} files; "
        f"{batches.rows_outside} of {batches.rows_read} rows lay outside the window"
    )
    return snapshot


def _fresh(newest: datetime | None, data: Data, window: Window | None) -> None:
    limit = length(data.fresh_within)
    if limit is None:
        return
    if data.timestamp is None or newest is None:
        raise DataError("data.fresh_within needs data.timestamp", hint="name the column with the row's time")
    end: datetime = window.end if window is not None else datetime.now(UTC)
    if end - newest > limit:
        age = (end - newest) / timedelta(hours=1)
        raise DataStale(
            f"the newest row is of {newest.isoformat()}, {age:.1f} h before "
            f"{'the window ends' if window else 'now'} ({end.isoformat()}); data.fresh_within is {data.fresh_within}",
            hint="check that the source is still being filled, or raise data.fresh_within",
        )
