"""Checks of what was served: each takes a capture and the version that made it, and gives plain evidence."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from airflow_mlops.config.models import Data, Drift, Features, Labels, Performance, Validate
from airflow_mlops.exceptions import ConfigError, EvaluationError
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.data import Snapshot, read_batches, write_snapshots
from airflow_mlops.ml.drift import check_drift, join_reports
from airflow_mlops.ml.drift_report import drift_html
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.metrics import default_metrics
from airflow_mlops.ml.performance import check_performance
from airflow_mlops.ml.prediction import PREDICTION, VERSION, capture_kinds, predict_batches, read_capture
from airflow_mlops.ml.splitting import split_mask
from airflow_mlops.ml.validation import validate
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.registry import Version
from airflow_mlops.store import LocalStore, layout
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window

_SEED = 7


def reference_frame(
    store: Store, version: Version, *, allowed_imports: Sequence[str], trusted_types: Sequence[str]
) -> pd.DataFrame:
    """What drift is measured against: the version's snapshot, rows × (features, what the version predicts).

    Predictions are given for the holdout only and missing elsewhere: on rows that it was trained on a
    model is surer of itself than on any new row, which would look like drift.
    """
    record = version.record
    config = record["config"]
    data = Data.model_validate(config["data"])
    features = Features.model_validate(config["features"]) if config["features"] else None
    frame = Snapshot.load(store, record["snapshot"]).to_pandas(store)
    holdout = split_mask(frame, data, record["seed"])
    schema = FeatureSchema.from_dict(record["schema"])
    inputs = schema.check(featured(frame, data, features, allowed_imports))
    model = fetch_model(store, record["model"], trusted=trusted_types)
    rows = pa.Table.from_pandas(inputs[holdout], preserve_index=False).to_batches()
    said = pa.Table.from_batches(predict_batches(model, schema, rows, model_version=version.number)).to_pandas()
    said.index = inputs.index[holdout]
    return inputs.join(said.drop(columns=VERSION))


def drift(
    store: Store,
    capture: dict[str, Any],
    version: Version,
    config: Drift,
    *,
    allowed_imports: Sequence[str] = (),
    trusted_types: Sequence[str] = (),
) -> tuple[dict[str, Any], bytes]:
    """Compare captured inputs and predictions with the version's training data.

    Inputs are compared with the whole snapshot, predictions with those on its holdout; each gets its
    share of ``alpha``.

    :returns: ``{"verdict", "sentence", "version", "rows", "columns": […]}`` and the report's page.
    """
    current = read_capture(store, capture)
    reference = reference_frame(store, version, allowed_imports=allowed_imports, trusted_types=trusted_types)
    schema = FeatureSchema.from_dict(version.record["schema"])
    kinds = capture_kinds(schema, [c for c in reference.columns if c in current.columns])
    outputs = {n: k for n, k in kinds.items() if n not in schema.names}
    inputs = {n: k for n, k in kinds.items() if n in schema.names}
    reports = [
        check_drift(rows, current, part, config.model_copy(update={"alpha": config.alpha * len(part) / len(kinds)}))
        for part, rows in ((inputs, reference), (outputs, reference.dropna(subset=[PREDICTION])))
        if part
    ]
    report = join_reports(reports)
    page = drift_html(reference[list(kinds)], current[list(kinds)], report, seed=_SEED)
    result = {
        "verdict": report.verdict,
        "sentence": report.sentence,
        "version": version.number,
        "rows": len(current),
        "columns": report.to_dict()["columns"],
    }
    return result, page


def labelled_capture(
    store: Store, pipeline: str, window: Window, delay: timedelta | None, capture: dict[str, Any]
) -> dict[str, Any] | None:
    """The newest capture whose outcomes are complete at the window's end; ``None`` while there is none.

    Without a delay that is the window's own ``capture``.
    """
    if not delay:
        return capture
    prefix = layout.captures_prefix(pipeline)
    limit = Window.of(window.end - delay - timedelta(seconds=1), window.end - delay).key.partition("-")[2]
    known = [k for k in store.list(prefix) if k.removeprefix(prefix).removesuffix(".json").partition("-")[2] <= limit]
    newest = max(known, key=lambda k: k.removesuffix(".json").rpartition("-")[2], default=None)
    found: dict[str, Any] | None = json.loads(store.get(newest)) if newest else None
    return found


def performance(
    store: Store,
    capture: dict[str, Any],
    version: Version,
    *,
    data: Data,
    labels: Labels,
    config: Performance,
    metrics: Sequence[str],
    files: Files,
) -> dict[str, Any]:
    """Score captured predictions by their outcomes, against the score at promotion.

    :returns: ``{"verdict", "sentence", "metric", "value", "baseline", "rows", "coverage", "version", "window"}``.
    :raises ConfigError: ``data.id`` is not set, so that nothing can be joined.
    :raises EvaluationError: the metric was not measured at promotion.
    """
    if data.id is None:
        raise ConfigError("monitor.labels needs data.id: the column that names a row", hint="set data.id")
    schema = FeatureSchema.from_dict(version.record["schema"])
    task = version.record["task"]
    metric = config.metric or (metrics[0] if metrics else default_metrics(task, len(schema.classes or ()) or None)[0])
    measured = version.notes["evaluation"][-1]["metrics"]
    if metric not in measured:
        raise EvaluationError(
            f"{metric!r} was not measured when v{version.number} was promoted",
            hint=f"name it in evaluate.metrics, or watch one of {', '.join(measured)}",
        )
    source = Data(source=labels.source, target=data.target)
    outcomes = read_batches(source, files=files, window=None, columns=[labels.join_on, data.target])
    report = check_performance(
        read_capture(store, capture),
        pd.concat([batch.to_pandas() for batch in outcomes], ignore_index=True),
        metric=metric,
        baseline=measured[metric]["candidate"],
        config=config,
        schema=schema,
        id_column=data.id,
        join_on=labels.join_on,
    )
    return {**report.to_dict(), "version": version.number, "window": capture["window"]}


def quality(
    store: Store, capture: dict[str, Any], version: Version, config: Validate, data: Data
) -> tuple[dict[str, Any], str]:
    """Run the pipeline's expectations on captured inputs; those on columns that were not captured wait.

    :returns: ``{"verdict": "passed" or "failed", "sentence", "version", "rows"}`` and the report's page.
    """
    frame = read_capture(store, capture)
    names = [f.name for f in FeatureSchema.from_dict(version.record["schema"]).features]
    columns = [c for c in ([data.id] if data.id else []) + names if c in frame]
    known = [e for e in config.expectations if _column(e) is None or _column(e) in columns]
    checked = config.model_copy(update={"expectations": known, "schema_": "off", "on_failure": "warn"})
    table = pa.Table.from_pandas(frame[columns], preserve_index=False)
    window = Window.from_dict(capture["window"])
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        # The capture is already in the store; its form as a snapshot is needed only here.
        scratch = LocalStore(folder)
        (snapshot,) = write_snapshots(
            scratch,
            version.pipeline,
            ((batch,) for batch in table.to_batches()),
            table.schema,
            window=window,
            sources=[{"kind": "capture", "capture": capture["capture"]}],
        )
        result = validate(snapshot, scratch, checked, data, target_optional=True)
    verdict = "passed" if result.success else "failed"
    return {"verdict": verdict, "sentence": result.sentence, "version": version.number, "rows": len(frame)}, result.html


def _column(expectation: dict[str, dict[str, Any]]) -> str | None:
    column: str | None = next(iter(expectation.values())).get("column")
    return column
