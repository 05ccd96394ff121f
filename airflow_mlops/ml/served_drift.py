"""Drift of what was served against what its version was trained on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa

from airflow_mlops.config.models import Data, Drift
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.data import Snapshot
from airflow_mlops.ml.drift import check_drift, join_reports
from airflow_mlops.ml.drift_report import drift_html
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.prediction import PREDICTION, VERSION, capture_kinds, predict_batches, read_capture
from airflow_mlops.ml.splitting import split_mask
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store.base import Store

_SEED = 7


def reference_frame(
    store: Store,
    version: Version,
    *,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    verifier: Verifier | None = None,
) -> pd.DataFrame:
    """What drift is measured against: the version's snapshot, rows × (features, what the version predicts).

    Predictions are given for the holdout only and missing elsewhere: on rows that it was trained on a
    model is surer of itself than on any new row, which would look like drift.
    """
    record = version.record
    data = Data.model_validate(record["config"]["data"])
    frame = Snapshot.load(store, record["snapshot"]).to_pandas(store)
    holdout = split_mask(frame, data, record["seed"])
    schema = FeatureSchema.from_dict(record["schema"])
    inputs = schema.check(featured(frame, data, recorded_code(record), allowed_imports))
    model = fetch_model(
        store,
        record["model"],
        trusted=trusted_types,
        verifier=verifier,
        pipeline=version.pipeline,
        key=version.key,
    )
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
    private: Collection[str] = (),
    verifier: Verifier | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Compare captured inputs and predictions with the version's training data.

    Inputs are compared with the whole snapshot, predictions with those on its holdout; each gets its
    share of ``alpha``.

    :param verifier: whose signatures count where the version's model is loaded.
    :param private: columns that are left out, beside those private when the version was trained; the sentence and
        ``private`` name them.
    :returns: ``{"verdict", "sentence", "version", "rows", "columns": […], "private": […]}`` and the report's page.
    """
    current = read_capture(store, capture)
    reference = reference_frame(
        store, version, allowed_imports=allowed_imports, trusted_types=trusted_types, verifier=verifier
    )
    schema = FeatureSchema.from_dict(version.record["schema"]).hiding(private)
    kinds = capture_kinds(schema, [c for c in reference.columns if c in current.columns])
    outputs = {n: k for n, k in kinds.items() if n not in schema.names}
    inputs = {n: k for n, k in kinds.items() if n in schema.names}
    reports = [
        check_drift(rows, current, part, config.model_copy(update={"alpha": config.alpha * len(part) / len(kinds)}))
        for part, rows in ((inputs, reference), (outputs, reference.dropna(subset=[PREDICTION])))
        if part
    ]
    report = join_reports(reports)
    if schema.private:
        unchecked = f"not checked, because private: {', '.join(schema.private)}"
        report = replace(report, sentence=f"{report.sentence}; {unchecked}")
    page = drift_html(reference[list(kinds)], current[list(kinds)], report, seed=_SEED)
    result = {
        "verdict": report.verdict,
        "sentence": report.sentence,
        "version": version.number,
        "rows": len(current),
        "columns": report.to_dict()["columns"],
        "private": schema.private,
    }
    return result, page
