"""Join what the shards of a batch inference predicted, in the order of the rows: output, capture and outcome."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_mlops.exceptions import CorruptObject, DataError, PredictionError
from airflow_mlops.ml.batch_inference import output_uri
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.fleet.partition import Log
from airflow_mlops.ml.fleet.serving import NO_KEY, ROW, ServingPlan
from airflow_mlops.ml.outputs import MODEL_KEY, PREDICTION, VERSION, is_output
from airflow_mlops.ml.prediction import CaptureWriter, write_predictions
from airflow_mlops.ml.spool import Spool
from airflow_mlops.store import get_blob, get_blob_file, get_json, put_blob
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window

OWN, PARENT, FAILED, NO_MODEL = "own", "parent", "failed", "no_model"
"""What became of a key's rows."""

_SPAN = 2**18
_TABLE = {
    "key": pa.string(),
    "status": pa.string(),
    "rows": pa.int64(),
    "model_key": pa.string(),
    "model_version": pa.int32(),
    "reason": pa.string(),
}

Row = dict[str, Any]


def publish(
    store: Store,
    plan: ServingPlan,
    shards: Sequence[Mapping[str, Any]],
    *,
    id_column: str | None,
    output: str,
    name: str,
    window: Window | None,
    files: Files,
    rehearsal: bool,
    log: Log,
) -> dict[str, Any]:
    """Write the predictions of all shards as one Parquet file below ``output``, whole or not at all.

    A row for each row that was read, in their order: the id, ``prediction`` and so on as for one model, ``model_key``
    and ``model_version``; all but the id are null where no model could predict. What was predicted of a window is
    captured, with the inputs and the ``key`` of each row.

    :param shards: what :func:`~airflow_mlops.ml.fleet.predicting.predict_shard` returned.
    :param name: names the output file; the same name is replaced whole.
    :param rehearsal: what is captured stands beside the real capture of the window, not in its place.
    :return: ``{"rows", "output", "capture": digest or None, "newest", "sentence", "counts", "table"}``; ``rows`` are
        those that were predicted, ``table`` is the digest of the outcome, :func:`put_outcome`.
    :raises DataError: a shard has no result. :raises PredictionError: nothing could be predicted.
    """
    if missing := sorted(set(range(len(plan.parts))) - {shard["shard"] for shard in shards}):
        raise DataError(f"shard {missing[0]} has no result", hint="clear its task to run it again")
    rows = outcome_rows(store, plan, shards)
    counts = count(rows)
    if not counts["rows"]:
        told = next((f"{row['key']}: {row['reason']}" for row in rows if row["status"] == FAILED), "no model")
        raise PredictionError(
            f"none of {plan.rows:,} rows could be predicted, the first key for this reason: {told}",
            hint="mend what is wrong with this key; the others may have the same",
        )
    for row in [row for row in rows if row["status"] == FAILED][:10]:
        log("%s rows of %s not predicted: %s", f"{row['rows']:,}", row["key"], row["reason"])
    uri = output_uri(output, name)
    digests = [*plan.unserved_files, *(digest for shard in shards for digest in shard["files"])]
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        joined = _Joined(store, digests, plan.rows, Path(folder))
        capture = (
            CaptureWriter(store, plan.pipeline, window, model_version=None, rehearsal=rehearsal) if window else None
        )
        with capture or nullcontext():
            written = write_predictions(_outputs(joined, id_column, capture), files, uri)
    return {
        "rows": counts["rows"],
        "output": written["uri"],
        "capture": capture.ref["capture"] if capture else None,
        "newest": plan.newest,
        "sentence": sentence(counts),
        "counts": counts,
        "table": put_outcome(store, rows),
    }


def _outputs(joined: _Joined, id_column: str | None, capture: CaptureWriter | None) -> Iterator[pa.RecordBatch]:
    names = joined.schema.names
    said = [PREDICTION, *(c for c in names if is_output(c) and c != PREDICTION), MODEL_KEY, VERSION]
    seen = [c for c in names if c not in (*said, ROW, id_column)]
    named = [id_column] if id_column is not None else []
    for table in joined:
        if capture is not None:
            predicted = table.filter(pc.is_valid(table[PREDICTION])).select([*named, *seen, *said])
            for batch in predicted.combine_chunks().to_batches():
                capture.write(batch)
        yield from table.select([*named, *said]).combine_chunks().to_batches()


class _Joined:
    """Rows of several Parquet files in their order, some hundred thousand in memory at a time; iterate it once.

    :raises CorruptObject: a row is missing, or there twice.
    """

    def __init__(self, store: Store, digests: Sequence[str], rows: int, folder: Path) -> None:
        paths = [folder / f"{n}.parquet" for n in range(len(digests))]
        for digest, path in zip(digests, paths, strict=True):
            get_blob_file(store, digest, path)
        self._rows = rows
        self.schema = unified([pq.read_schema(path) for path in paths])
        spool = Spool(folder, -(-rows // _SPAN))
        with spool:
            for path in paths:
                with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
                    for batch in file.iter_batches(2**16):
                        fitted = fit(batch, self.schema)
                        row = fitted.column(ROW).to_numpy()
                        spool.add(fitted, row // _SPAN, row % _SPAN)
                path.unlink()
        self._spool = spool

    def __iter__(self) -> Iterator[pa.Table]:
        for number in range(-(-self._rows // _SPAN)):
            wanted = min(_SPAN, self._rows - number * _SPAN)
            table, places = self._spool.table(number)
            if len(places) != wanted or (np.bincount(places, minlength=wanted) != 1).any():
                raise CorruptObject(
                    "the shards have not predicted each row once", hint="start the run again, from its first task"
                )
            yield table


def unified(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Columns of all schemas; where the types of one do not go together, it is text.

    Models of different trainings can differ in their features, their outputs, and the types of both.
    """
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            if types.setdefault(field.name, field.type) == field.type:
                continue
            try:
                both = [pa.schema([pa.field(field.name, kind)]) for kind in (types[field.name], field.type)]
                types[field.name] = pa.unify_schemas(both, promote_options="permissive").field(0).type
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                types[field.name] = pa.string()
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])


def fit(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the columns of ``schema``, null where it does not have them."""
    there = set(batch.schema.names)
    columns = [
        batch.column(f.name).cast(f.type) if f.name in there else pa.nulls(batch.num_rows, f.type) for f in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


# --- outcome -----------------------------------------------------------------------------------------


def outcome_rows(store: Store, plan: ServingPlan, shards: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What became of each key, ordered by key: ``key`` (None: rows without one), ``status``, ``rows``, ``model_key``,
    ``model_version``, ``reason``. A key has several rows where some of its rows were served otherwise than others.
    """  # fmt: skip
    found: list[Row] = []
    for shard in shards:
        for key, model, version, reason, rows in get_json(store, shard["outcome"]):
            status = FAILED if model is None else OWN if model == key else PARENT
            found.append(_row(key, status, rows, model, version, reason))
    for key, rows in plan.unserved.items():
        found.append(
            _row(None if key == NO_KEY else key, NO_MODEL, rows, None, None, "neither it nor a parent has one")
        )
    return sorted(found, key=lambda row: (row["key"] or "", row["status"], row["reason"] or ""))


def _row(key: str | None, status: str, rows: int, model: str | None, version: int | None, reason: str | None) -> Row:
    return {
        "key": key, "status": status, "rows": rows, "model_key": model, "model_version": version, "reason": reason,
    }  # fmt: skip


def count(rows: Sequence[Row]) -> dict[str, int]:
    """Count rows (``rows``: predicted ones), models and keys; keys that nothing became of in this way are left out."""
    found = {
        "rows": sum(row["rows"] for row in rows if row["model_key"] is not None),
        "models": len({row["model_key"] for row in rows if row["model_key"] is not None}),
    }
    for status in (PARENT, NO_MODEL, FAILED):
        of_status = [row for row in rows if row["status"] == status]
        if of_status:
            found[f"{status}_rows"] = sum(row["rows"] for row in of_status)
            found[f"{status}_keys"] = len({row["key"] for row in of_status})
    return found


def sentence(counts: Mapping[str, int]) -> str:
    """``12,040 rows predicted by 15,982 models; 12 rows of 2 keys not predicted: no model``."""
    told = [f"{_many(counts['rows'], 'row')} predicted by {_many(counts['models'], 'model')}"]
    for status, words in (
        (PARENT, "by a parent"),
        (NO_MODEL, "not predicted: no model"),
        (FAILED, "not predicted: an error"),
    ):
        if counts.get(f"{status}_keys"):
            told.append(f"{_many(counts[f'{status}_rows'], 'row')} of {_many(counts[f'{status}_keys'], 'key')} {words}")
    return "; ".join(told)


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def put_outcome(store: Store, rows: Sequence[Row]) -> str:
    """Store :func:`outcome_rows` as a Parquet file; return its digest."""
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in _TABLE.items()})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return put_blob(store, sink.getvalue())


def read_outcome(store: Store, digest: str) -> list[Row]:
    """Read what :func:`put_outcome` stored."""
    try:
        rows: list[Row] = pq.read_table(
            io.BytesIO(get_blob(store, digest)), page_checksum_verification=True
        ).to_pylist()
    except pa.ArrowException as e:
        raise CorruptObject(f"the outcome {digest} cannot be read: {e}", hint="predict this window again") from e
    return rows
