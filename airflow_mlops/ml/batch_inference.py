"""Batch inference from source to output: what a prediction task does, without Airflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from airflow_mlops.config.models import Data
from airflow_mlops.ml.canary import Beside, Tried, TriedFailed
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.frozen_rows import Frozen
from airflow_mlops.ml.prediction import CaptureWriter, predict_batches, told_batches, write_predictions
from airflow_mlops.ml.rollout_evidence import write_evidence
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
    tried: Tried | None = None,
    frozen: Frozen | None = None,
) -> dict[str, Any]:
    """Score the rows of ``source`` (default: the pipeline's own) and write one Parquet file below ``output``.

    Inputs and predictions of a window are captured for monitoring; a run without a window is not.

    :param rehearsal: what is captured stands beside the real capture of the window, not in its place.
    :param name: names the output file; the same name is replaced whole.
    :param verifier: whose signatures count where the version's model is loaded.
    :param replay_rows: how many rows the capture keeps as they came, without private columns, for the check of
        feature skew; needs ``data.id``.
    :param tried: the version that is rolling out: it scores the same rows, serves its share of them, and what it said
        of a window is kept. Where it fails, ``version`` scores and serves all rows.
    :param frozen: the rows of ``source`` as they were frozen, and what a job elsewhere said of them, by ``version``;
        nothing is read or predicted here. Not with ``tried``.
    :returns: ``{"version", "rows", "output", "capture": digest or None, "newest": time of the newest row or None}``,
        and with ``tried`` its ``rollout``: ``{"version", "step", "served": rows, "failed": why or None}``.
    """
    run = _Run(
        store, version, scored_data(data, source), output, name, window, files, sql, allowed_imports, trusted_types,
        log, rehearsal, verifier, replay_rows, frozen,
    )  # fmt: skip
    if tried is None:
        return run.score(None)
    try:
        return run.score(tried)
    except TriedFailed as e:
        log("v%d, which is rolling out, failed: %s. v%d serves all rows", tried.version.number, e, version.number)
        return run.score(None) | {"rollout": run.failed(tried, str(e))}


def scored_data(data: Data, source: str | None) -> Data:
    """The ``data`` section for rows to score: those of ``source``, or (None) the pipeline's own."""
    if source is None:
        return data
    return data.model_copy(update={"source": source, "sql": None, "callable": None})


def output_uri(output: str, name: str) -> str:
    """Where the predictions of a run with this name are written below ``output``."""
    return f"{output.rstrip('/')}/{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.parquet"


@dataclass(frozen=True)
class _Run:
    """What one batch inference works with."""

    store: Store
    version: Version
    data: Data
    output: str
    name: str
    window: Window | None
    files: Files
    sql: Any
    allowed_imports: Sequence[str]
    trusted_types: Sequence[str]
    log: Callable[..., None]
    rehearsal: bool
    verifier: Verifier | None
    replay_rows: int
    frozen: Frozen | None

    def score(self, tried: Tried | None) -> dict[str, Any]:
        """Score and write; keep what monitoring reads.

        :raises TriedFailed: as its methods do; then nothing was written.
        """
        store, version, data = self.store, self.version, self.data
        schema = FeatureSchema.from_dict(version.record["schema"])
        rows = _Here(self, schema) if self.frozen is None else _Elsewhere(self, schema, self.frozen)
        uri = output_uri(self.output, self.name)
        what = data.source or data.callable or "the query"
        self.log("%s %s with v%d into %s", rows.verb, what, version.number, uri)
        beside = None
        if tried is not None:
            beside = Beside(
                store,
                tried,
                schema,
                data,
                allowed_imports=self.allowed_imports,
                trusted_types=self.trusted_types,
                verifier=self.verifier,
            )
        with ExitStack() as stack:
            capture = stack.enter_context(self._capture(schema)) if self.window else None
            if beside is not None and self.window:
                own = CaptureWriter(
                    store, version.pipeline, self.window, model_version=beside.tried.version.number, publish=False
                )
                beside.capture = stack.enter_context(own)
            scored = rows.told(
                on_chunk=_both(beside.chunk if beside else None, capture.write if capture else None),
                on_rows=_both(capture.keep_rows if capture else None, beside.rows if beside else None),
                # Which rows may depend on each other, when their outcomes are judged.
                keep=[c for c in (data.timestamp, data.split.column) if c and c not in data.private],
            )
            written = write_predictions(beside.merged(scored) if beside else scored, self.files, uri)
        result = {
            "version": version.number,
            "rows": written["rows"],
            "output": written["uri"],
            "capture": capture.ref["capture"] if capture else None,
            "newest": rows.newest,
        }
        if beside is None:
            return result
        if beside.capture is not None and capture is not None and self.window is not None:
            # The same rows in the same order, so that the two stand side by side.
            more = {"champion_capture": capture.ref["capture"], "served": beside.served, "seconds": beside.seconds}
            write_evidence(store, beside.tried.rollout, self.window, beside.capture.ref | more | {"failed": None})
        return result | {"rollout": _told(beside.tried, beside.served, None)}

    def _capture(self, schema: FeatureSchema) -> CaptureWriter:
        data = self.data
        hidden = schema.hiding(data.private).private
        raw = None
        if self.replay_rows and data.id:
            raw = RowsById(self.replay_rows, data.id, drop=[*data.private, *hidden])
        return CaptureWriter(
            self.store,
            self.version.pipeline,
            cast(Window, self.window),
            model_version=self.version.number,
            rehearsal=self.rehearsal,
            raw=raw,
        )

    def failed(self, tried: Tried, why: str) -> dict[str, Any]:
        """Keep that the version could not score the window's rows."""
        if self.window is not None:
            said = {
                "pipeline": self.version.pipeline,
                "version": tried.version.number,
                "window": self.window.to_dict(),
                "failed": why,
            }
            write_evidence(self.store, tried.rollout, self.window, said)
        return _told(tried, 0, why)


class _Here:
    """Reads the rows and asks the model, in this process."""

    verb = "Scoring"

    def __init__(self, run: _Run, schema: FeatureSchema) -> None:
        self._run, self._schema = run, schema
        version = run.version
        self._model = fetch_model(
            run.store,
            version.record["model"],
            trusted=run.trusted_types,
            verifier=run.verifier,
            pipeline=version.pipeline,
            key=version.key,
        )
        self._batches = read_batches(
            run.data,
            files=run.files,
            window=run.window,
            sql=run.sql,
            allowed_imports=run.allowed_imports,
            target_optional=True,
        )

    @property
    def newest(self) -> str | None:
        """Time of the newest row, once all were read."""
        return self._batches.newest.isoformat() if self._batches.newest else None

    def told(self, **taps: Any) -> Iterator[pa.RecordBatch]:
        """See :func:`~airflow_mlops.ml.prediction.predict_batches`."""
        run = self._run
        return predict_batches(
            self._model,
            self._schema,
            self._batches,
            model_version=run.version.number,
            id_column=run.data.id,
            features=recorded_code(run.version.record),
            allowed_imports=run.allowed_imports,
            private=run.data.private,
            **taps,
        )


class _Elsewhere:
    """Reads what was frozen, and what a job said of it."""

    verb = "Writing what a job said of"

    def __init__(self, run: _Run, schema: FeatureSchema, frozen: Frozen) -> None:
        self._run, self._frozen, self.newest = run, frozen, frozen.newest
        self._schema = schema.hiding(run.data.private)

    def told(self, *, on_rows: Callable[[pa.Table], None] | None, **taps: Any) -> Iterator[pa.RecordBatch]:
        """See :func:`~airflow_mlops.ml.prediction.told_batches`."""
        run, chunks = self._run, self._frozen.chunks(on_rows)
        return told_batches(
            self._frozen.of,
            self._schema,
            chunks,
            model_version=run.version.number,
            id_column=run.data.id,
            **taps,
        )


def _told(tried: Tried, served: int, failed: str | None) -> dict[str, Any]:
    step = tried.rollout.name
    return {"version": tried.version.number, "step": step, "served": served, "failed": failed}


def _both(*calls: Callable[[Any], None] | None) -> Callable[[Any], None] | None:
    """Call those that there are, one after the other."""
    there = [call for call in calls if call is not None]
    if not there:
        return None

    def every(value: Any) -> None:
        for call in there:
            call(value)

    return every
