"""Batch inference: Arrow batches in, Arrow batches out, a bounded number of rows in memory at a time.

What a model saw and said is captured for monitoring: one Parquet blob per window, and a pointer to
the newest one, which a repeated run of the window replaces.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_mlops.exceptions import CorruptObject, DataError, DataNotFound, ObjectNotFound, PredictionError
from airflow_mlops.ml.features import FeatureSchema, apply_features
from airflow_mlops.ml.files import Files, io_errors
from airflow_mlops.ml.model_outputs import Outputs as Outputs
from airflow_mlops.ml.model_outputs import likeliest as likeliest
from airflow_mlops.ml.outputs import PREDICTION as PREDICTION
from airflow_mlops.ml.outputs import PROBABILITY as PROBABILITY
from airflow_mlops.ml.outputs import SCORE as SCORE
from airflow_mlops.ml.outputs import VERSION as VERSION
from airflow_mlops.ml.privacy import cause, told
from airflow_mlops.ml.sampling import RowsById
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json, get_blob_file, get_json, put_blob_file, put_json
from airflow_mlops.window import Window

CHUNK_ROWS = 100_000

Batches = Iterable[pa.RecordBatch | pa.Table]


def predict_batches(
    model: Any,
    schema: FeatureSchema,
    batches: Batches,
    *,
    model_version: int,
    id_column: str | None = None,
    features: str | None = None,
    allowed_imports: Sequence[str] = (),
    chunk_rows: int = CHUNK_ROWS,
    on_chunk: Callable[[pa.RecordBatch], None] | None = None,
    on_rows: Callable[[pa.Table], None] | None = None,
    keep: Sequence[str] = (),
    private: Collection[str] = (),
) -> Iterator[pa.RecordBatch]:
    """Score ``batches`` and yield one batch per chunk of at most ``chunk_rows`` rows, in their order.

    Columns out: the id (if any), ``prediction``, then for classifiers ``probability`` (of the positive
    class of two) or ``probability_<class>`` (more than two), or ``score`` (two classes, decision
    function only), and ``model_version``. Types do not depend on a chunk's values.

    :param model: fitted estimator on the columns of ``schema``.
    :param features: the user's feature code, ``module:function``; runs on each chunk by itself.
    :param on_chunk: called with id, features and predictions of each chunk, see :class:`CaptureWriter`; private
        features are left out.
    :param keep: columns of the source, beside the id, that ``on_chunk`` gets as they are; those that are not there are
        left out.
    :param on_rows: called with the rows of each chunk as they were read, before any feature code.
    :param private: columns, beside those private in ``schema``, whose values are neither captured nor quoted.
    :raises PredictionError: a column is missing (named), does not fit, or the model fails or gives NaN.
    :raises DataNotFound: there is not a single row.
    """
    schema = schema.hiding(private)
    outputs = Outputs(model, schema)
    outputs.check_names([*schema.names, *([id_column] if id_column else [])])
    chunks = prepared_chunks(
        batches,
        schema,
        id_column=id_column,
        features=features,
        allowed_imports=allowed_imports,
        chunk_rows=chunk_rows,
        on_rows=on_rows,
        private=private,
    )
    yield from told_batches(
        outputs.of, schema, chunks, model_version=model_version, id_column=id_column, on_chunk=on_chunk, keep=keep
    )


def prepared_chunks(
    batches: Batches,
    schema: FeatureSchema,
    *,
    id_column: str | None = None,
    features: str | None = None,
    allowed_imports: Sequence[str] = (),
    chunk_rows: int = CHUNK_ROWS,
    on_rows: Callable[[pa.Table], None] | None = None,
    private: Collection[str] = (),
) -> Iterator[tuple[pa.Table, pd.DataFrame]]:
    """Yield the rows in chunks: as they were read, and as the model takes them.

    The second has the columns of ``schema``; its index is each row's number, from 0. For the rest see
    :func:`predict_batches`.

    :raises PredictionError: the id column is missing, or a feature is, or does not fit.
    """
    rows = 0
    for chunk in _chunks(batches, chunk_rows):
        if id_column is not None and id_column not in chunk.column_names:
            raise PredictionError(
                f"the id column {id_column!r} is missing",
                hint=f"data.id names it; the columns are: {', '.join(chunk.column_names)}",
            )
        if on_rows is not None:
            on_rows(chunk)
        frame = chunk.to_pandas()
        frame.index = pd.RangeIndex(rows, rows + len(frame))
        if features is not None:
            frame = apply_features(
                features, frame, allowed_imports, target=schema.target, private=[*private, *schema.private]
            )
        rows += len(frame)
        yield chunk, schema.check(frame)


def told_batches(
    said_of: Callable[[pd.DataFrame], dict[str, pa.Array]],
    schema: FeatureSchema,
    chunks: Iterable[tuple[pa.Table, pd.DataFrame]],
    *,
    model_version: int,
    id_column: str | None = None,
    on_chunk: Callable[[pa.RecordBatch], None] | None = None,
    keep: Sequence[str] = (),
) -> Iterator[pa.RecordBatch]:
    """Put what is said of rows beside their ids: one batch for each of ``chunks``; see :func:`predict_batches`.

    :param said_of: what a model says of rows as it takes them: the columns ``prediction`` and so on.
    :param chunks: rows as they were read, and as the model takes them.
    :raises DataNotFound: there is not a single row.
    """
    rows = 0
    for chunk, inputs in chunks:
        said = said_of(inputs)
        said[VERSION] = pa.array(np.full(len(inputs), model_version), pa.int32())
        # The id keeps the type it has in the source: through pandas an integer with gaps becomes a float.
        named = {id_column: chunk.column(id_column).combine_chunks()} if id_column is not None else {}
        if on_chunk is not None:
            seen = {
                f.name: to_arrow(inputs[f.name], f.kind)
                for f in schema.features
                if f.name not in named and not f.private
            }
            kept = {c: chunk.column(c).combine_chunks() for c in keep if c in chunk.column_names and c not in seen}
            on_chunk(_batch({**named, **kept, **seen, **said}))
        rows += len(inputs)
        yield _batch({**named, **said})
    if rows == 0:
        raise DataNotFound("there is no row to score", hint="check deploy.batch.source and the window of this run")


def _chunks(batches: Batches, chunk_rows: int) -> Iterator[pa.Table]:
    """Cut and join batches to tables of ``chunk_rows`` rows; the last one is shorter."""
    waiting: list[pa.Table] = []
    rows = 0
    for batch in batches:
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        while rows + table.num_rows >= chunk_rows:
            head = table.slice(0, chunk_rows - rows)
            yield pa.concat_tables([*waiting, head])
            table, waiting, rows = table.slice(head.num_rows), [], 0
        if table.num_rows:
            waiting.append(table)
            rows += table.num_rows
    if rows:
        yield pa.concat_tables(waiting)


def _batch(columns: dict[str, Any]) -> pa.RecordBatch:
    table = pa.table(columns).combine_chunks()
    return table.to_batches()[0]


def to_arrow(values: pd.Series, kind: str) -> pa.Array:
    """A feature as captures keep it: text, float64, or boolean."""
    if kind == "category":
        return pa.array(values, pa.string(), from_pandas=True)
    numbers = pa.array(values, pa.float64(), from_pandas=True)
    return pc.not_equal(numbers, 0.0) if kind == "boolean" else numbers


# --- output and capture ------------------------------------------------------------------------


def write_predictions(batches: Iterable[pa.RecordBatch], files: Files, uri: str) -> dict[str, Any]:
    """Write ``batches`` as one Parquet file at ``uri``, which appears whole or not at all.

    :return: ``{"rows": …, "uri": …}``.
    :raises DataNotFound: there is no batch; nothing is written.
    """
    stream = iter(batches)
    first = next(stream, None)
    if first is None:
        raise DataNotFound("there is no prediction to write", hint="check deploy.batch.source and the run's window")
    rows = 0
    with files.open_output(uri) as out, pq.ParquetWriter(out, first.schema, write_page_checksum=True) as writer:
        batch: pa.RecordBatch | None = first
        while batch is not None:
            with io_errors(uri):
                writer.write_batch(batch)
            rows += batch.num_rows
            batch = next(stream, None)
    return {"rows": rows, "uri": uri}


class CaptureWriter:
    """Collects scored inputs of one window on local disk and publishes them when its block ends well.

    ::

        with CaptureWriter(store, pipeline, window, model_version=3) as capture:
            write_predictions(predict_batches(..., on_chunk=capture.write), files, uri)
        capture.ref

    :param model_version: ``None`` for a fleet, whose rows say themselves which model made them.
    :param raw: chooses the rows, as they came before any feature code, that are kept for
        :mod:`~airflow_mlops.ml.skew`; give :meth:`keep_rows` as ``on_rows``.
    :param publish: whether the capture becomes the window's. One that does not is found by its reference only, and
        garbage collection takes it.
    """

    def __init__(
        self,
        store: Store,
        pipeline: str,
        window: Window,
        *,
        model_version: int | None,
        rehearsal: bool = False,
        raw: RowsById | None = None,
        publish: bool = True,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._window = window
        self._version = model_version
        self._rehearsal = rehearsal
        self._raw = raw
        self._publishes = publish
        self._rows = 0
        self._writer: pq.ParquetWriter | None = None
        self.ref: dict[str, Any] = {}
        """Small plain JSON, after the block: ``pipeline``, ``capture`` (digest), ``rows``, ``columns`` (how many),
        ``version``, ``window``."""

    def __enter__(self) -> CaptureWriter:
        self._folder = tempfile.TemporaryDirectory(prefix="mlops-capture-")
        self._path = Path(self._folder.name, "capture.parquet")
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; all batches have one schema."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, batch.schema, compression="zstd", write_page_checksum=True)
        self._writer.write_batch(batch)
        self._rows += batch.num_rows

    def keep_rows(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Look at rows as they came; ``raw`` chooses which of them are kept."""
        if self._raw is not None:
            self._raw.add(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._folder:
            if self._writer is not None:
                self._writer.close()
            if error is None:
                self._publish()

    def _publish(self) -> None:
        if self._writer is None:
            raise DataNotFound(f"no row was scored for {self._window}, so there is nothing to capture")
        schema = self._writer.schema
        manifest = {
            "pipeline": self._pipeline,
            "window": self._window.to_dict(),
            "version": self._version,
            "rows": self._rows,
            "columns": {f.name: str(f.type) for f in schema},
            "file": put_blob_file(self._store, self._path),
        }
        raw = self._raw.table() if self._raw is not None else None
        if raw is not None:
            path = Path(self._folder.name, "raw.parquet")
            pq.write_table(raw, path, compression="zstd", write_page_checksum=True)
            manifest["raw"] = {"file": put_blob_file(self._store, path), "rows": raw.num_rows}
        self.ref = {
            "pipeline": self._pipeline,
            "capture": put_json(self._store, manifest),
            "rows": self._rows,
            "columns": len(schema),
            "version": self._version,
            "window": self._window.to_dict(),
        }
        # Last, so that the pointer never names what is not there.
        if self._publishes:
            self._store.put(
                layout.capture(self._pipeline, self._window.key, rehearsal=self._rehearsal), canonical_json(self.ref)
            )


def write_capture(
    store: Store,
    pipeline: str,
    window: Window,
    batches: Iterable[pa.RecordBatch],
    *,
    model_version: int,
    raw: Iterable[pa.RecordBatch] = (),
    id_column: str | None = None,
    raw_rows: int = 500,
    publish: bool = True,
) -> dict[str, Any]:
    """Store ``batches`` (id, features, predictions) as the capture of ``window`` and return its reference.

    A second call for the window replaces the pointer atomically; the blobs of the first one stay. A server of your
    own calls this with what it was asked and what it said; then every check of the window works as after a batch
    inference.

    :param batches: the id, the features as the model was given them, ``prediction``, and ``probability`` and the
        like as :func:`predict_batches` names them. Leave private columns out.
    :param raw: the same requests as they came, before any feature code: the id and the columns of the training
        data, without private ones. At most ``raw_rows`` of them are kept, chosen by a hash of ``id_column``, and
        replayed by the check of feature skew.
    :param publish: see :class:`CaptureWriter`.
    """
    rows = RowsById(raw_rows, id_column) if id_column is not None else None
    with CaptureWriter(store, pipeline, window, model_version=model_version, raw=rows, publish=publish) as capture:
        for batch in batches:
            capture.write(batch)
        for batch in raw:
            capture.keep_rows(batch)
    return capture.ref


def capture_rows(
    store: Store,
    pipeline: str,
    window: Window,
    rows: Any,
    *,
    model_version: int,
    private: Collection[str] = (),
) -> dict[str, Any]:
    """Keep ``rows`` as a capture that is found by its reference only, and return it; the window's own stays.

    :param rows: a DataFrame or an Arrow table.
    :param private: columns that are left out.
    :raises DataError: ``rows`` is something else, or cannot be made a table.
    """
    if isinstance(rows, pd.DataFrame):
        try:
            rows = pa.Table.from_pandas(rows, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
            raise DataError(
                f"the rows to check: {told(e, private)}", hint="give every column one type"
            ) from cause(e, private)  # fmt: skip
    if not isinstance(rows, pa.Table):
        raise DataError(f"the rows to check are a {type(rows).__name__}", hint="return a DataFrame or an Arrow table")
    if not rows.num_rows:
        raise DataNotFound("there is no row to check", hint="see what the function returns for this window")
    table = rows.drop_columns([c for c in rows.column_names if c in private]).combine_chunks()
    return write_capture(store, pipeline, window, table.to_batches(), model_version=model_version, publish=False)


def find_capture(store: Store, pipeline: str, window: Window, *, rehearsal: bool = False) -> dict[str, Any]:
    """Return the reference of the newest capture of ``window``.

    :raises DataNotFound: nothing was captured for it.
    """
    try:
        ref: dict[str, Any] = json.loads(store.get(layout.capture(pipeline, window.key, rehearsal=rehearsal)))
    except ObjectNotFound as e:
        raise DataNotFound(
            f"nothing was captured for {pipeline} in {window}", hint=f"run {pipeline}__predict for this window first"
        ) from e
    return ref


def read_capture(store: Store, ref: dict[str, Any] | str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a capture, verified, as a frame of rows × columns.

    :param ref: what :class:`CaptureWriter` or :func:`find_capture` gave, or its digest.
    :param columns: only these.
    :raises CorruptObject: digest, page checksums or row count do not agree.
    """
    digest = ref if isinstance(ref, str) else ref["capture"]
    manifest = get_json(store, digest)
    return _read(store, digest, manifest["file"], manifest["rows"], columns).to_pandas()


def read_raw(store: Store, ref: dict[str, Any] | str) -> pa.Table | None:
    """Return the rows that a capture keeps as they came, before any feature code; ``None`` where it keeps none.

    :raises CorruptObject: digest, page checksums or row count do not agree.
    """
    digest = ref if isinstance(ref, str) else ref["capture"]
    kept = get_json(store, digest).get("raw")
    return _read(store, digest, kept["file"], kept["rows"]) if kept else None


def _read(store: Store, digest: str, file: str, rows: int, columns: Sequence[str] | None = None) -> pa.Table:
    with tempfile.TemporaryDirectory(prefix="mlops-capture-") as folder:
        path = Path(folder, "capture.parquet")
        get_blob_file(store, file, path)
        try:
            table = pq.read_table(
                path, columns=None if columns is None else [*columns], page_checksum_verification=True
            )
        except (OSError, pa.ArrowInvalid) as e:
            raise CorruptObject(f"the capture {digest} cannot be read: {e}", hint="score this window again") from e
    if table.num_rows != rows:
        raise CorruptObject(f"the capture {digest} has {table.num_rows} rows, {rows} were written")
    return table


def capture_batches(store: Store, ref: dict[str, Any] | str) -> Iterator[pd.DataFrame]:
    """Yield a capture's rows in their order, verified, at most 65,536 of them in memory at a time.

    :raises CorruptObject: digest, page checksums or row count do not agree; what was yielded before is sound.
    """
    for batch in arrow_batches(store, ref):
        yield batch.to_pandas()


def arrow_batches(
    store: Store, ref: dict[str, Any] | str, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """:func:`capture_batches` as Arrow has them; at least one, which may be empty.

    :param columns: only these, in this order.
    """
    digest = ref if isinstance(ref, str) else ref["capture"]
    manifest = get_json(store, digest)
    rows = 0
    with tempfile.TemporaryDirectory(prefix="mlops-capture-") as folder:
        path = Path(folder, "capture.parquet")
        get_blob_file(store, manifest["file"], path)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as parquet:
                names = parquet.schema_arrow.names if columns is None else [*columns]
                for batch in parquet.iter_batches(2**16, columns=names):
                    rows += batch.num_rows
                    yield batch.select(names)
                if not rows:
                    yield pa.RecordBatch.from_pylist([], parquet.schema_arrow).select(names)
        except (OSError, pa.ArrowInvalid) as e:
            raise CorruptObject(f"the capture {digest} cannot be read: {e}", hint="score this window again") from e
    if rows != manifest["rows"]:
        raise CorruptObject(f"the capture {digest} has {rows} rows, {manifest['rows']} were written")


def capture_columns(store: Store, ref: dict[str, Any] | str) -> list[str]:
    """Names of a capture's columns."""
    return list(get_json(store, ref if isinstance(ref, str) else ref["capture"])["columns"])


def capture_kinds(schema: FeatureSchema, columns: Iterable[str]) -> dict[str, str]:
    """Kinds of a capture's columns for :func:`~airflow_mlops.ml.drift.check_drift`: features and predictions.

    Private features have none: what was captured before they were private is not looked at.

    :param columns: those present on both sides; others are left out.
    """
    kinds = {f.name: f.kind for f in schema.features if not f.private}
    kinds[PREDICTION] = "number" if schema.classes is None else "category"
    present = [*columns]
    kinds |= {c: "number" for c in present if c in (PROBABILITY, SCORE) or c.startswith(f"{PROBABILITY}_")}
    return {name: kind for name, kind in kinds.items() if name in present}
