"""Batch inference from source to output: what a prediction task does, without Airflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from airflow_mlops.config.models import Data
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.prediction import CaptureWriter, predict_batches, write_predictions
from airflow_mlops.ml.sampling import RowsById
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window


def score(
    store: Store,
    version: Version,
    *,
    data: Data,
    source: str | None,
    output: str,
    name: str,
    window: Window | None,
    files: Files,
    sql: Any = None,
    allowed_imports: Sequence[str] = (),
    trusted_types: Sequence[str] = (),
    log: Callable[..., None],
    rehearsal: bool = False,
    verifier: Verifier | None = None,
    replay_rows: int = 0,
) -> dict[str, Any]:
    """Score the rows of ``source`` (default: the pipeline's own) and write one Parquet file below ``output``.

    Inputs and predictions of a window are captured for monitoring; a run without a window is not.

    :param rehearsal: what is captured stands beside the real capture of the window, not in its place.
    :param name: names the output file; the same name is replaced whole.
    :param verifier: whose signatures count where the version's model is loaded.
    :param replay_rows: how many rows the capture keeps as they came, without private columns, for the check of
        feature skew; needs ``data.id``.
    :returns: ``{"version", "rows", "output", "capture": digest or None, "newest": time of the newest row or None}``.
    """
    if source is not None:
        data = data.model_copy(update={"source": source, "sql": None, "callable": None})
    model = fetch_model(
        store,
        version.record["model"],
        trusted=trusted_types,
        verifier=verifier,
        pipeline=version.pipeline,
        key=version.key,
    )
    schema = FeatureSchema.from_dict(version.record["schema"])
    batches = read_batches(
        data, files=files, window=window, sql=sql, allowed_imports=allowed_imports, target_optional=True
    )
    uri = f"{output.rstrip('/')}/{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.parquet"
    log("Scoring %s with v%d into %s", source or data.callable or "the query", version.number, uri)
    capture = None
    if window:
        hidden = schema.hiding(data.private).private
        raw = RowsById(replay_rows, data.id, drop=[*data.private, *hidden]) if replay_rows and data.id else None
        capture = CaptureWriter(
            store, version.pipeline, window, model_version=version.number, rehearsal=rehearsal, raw=raw
        )
    with capture or nullcontext():
        scored = predict_batches(
            model,
            schema,
            batches,
            model_version=version.number,
            id_column=data.id,
            features=recorded_code(version.record),
            allowed_imports=allowed_imports,
            on_chunk=capture.write if capture else None,
            on_rows=capture.keep_rows if capture else None,
            # Which rows may depend on each other, when their outcomes are judged.
            keep=[c for c in (data.timestamp, data.split.column) if c and c not in data.private],
            private=data.private,
        )
        written = write_predictions(scored, files, uri)
    newest = batches.newest.isoformat() if batches.newest else None
    return {
        "version": version.number,
        "rows": written["rows"],
        "output": written["uri"],
        "capture": capture.ref["capture"] if capture else None,
        "newest": newest,
    }
