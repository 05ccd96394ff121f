"""Drift of what was served against what its version was trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_mlops.config.models import Data, Drift
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.data import Snapshot
from airflow_mlops.ml.drift import TOGETHER_ROWS, DriftReport, check_drift
from airflow_mlops.ml.drift_evidently import check_by_evidently
from airflow_mlops.ml.drift_report import SAMPLE_ROWS, drift_html
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.prediction import VERSION, capture_batches, capture_kinds, predict_batches
from airflow_mlops.ml.reference import Reference, load_reference, make_reference
from airflow_mlops.ml.splitting import split_mask
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store import get_json
from airflow_mlops.store.base import Store

_SEED = 7


def snapshot_reference(
    store: Store,
    version: Version,
    *,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    verifier: Verifier | None = None,
) -> Reference:
    """The reference of a version that was evaluated before references were kept: from its snapshot and model."""
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
    times = frame[data.timestamp] if data.timestamp in frame.columns else None
    return make_reference(inputs.join(said.drop(columns=VERSION)), schema, times)


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
    log: Callable[..., None] | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Compare captured inputs and predictions with the version's reference.

    Inputs are compared with the whole snapshot, predictions with those on its holdout; of both only the
    profile is read that was kept when the version was evaluated, and the capture in batches.

    :param verifier: whose signatures count where the version's model is loaded.
    :param private: columns that are left out, beside those private when the version was trained; the sentence and
        ``private`` name them.
    :returns: ``{"verdict", "sentence", "skew", "version", "rows", "columns": […], "private": […]}`` and the report's
        page; ``skew`` is ``{"data": […], "prediction": […]}``, the columns that drifted.
    """
    reference = load_reference(store, version)
    if reference is None:
        if log is not None:
            log("%s has no drift reference of its own: making it from its snapshot", version.name)
        reference = snapshot_reference(
            store, version, allowed_imports=allowed_imports, trusted_types=trusted_types, verifier=verifier
        )
    schema = FeatureSchema.from_dict(version.record["schema"]).hiding(private)
    manifest = get_json(store, capture["capture"])
    kinds = capture_kinds(schema, [c for c in reference.profile.columns if c in manifest["columns"]])
    drawn = _Sampled(manifest["rows"], [*kinds])
    batches = drawn.of(capture_batches(store, capture))
    if config.engine == "evidently":
        for _ in batches:  # to draw the sample
            pass
        rows = (reference.profile.rows, manifest["rows"])
        report = check_by_evidently(reference.sample, drawn.frame(), kinds, config, rows)
    else:
        inputs = [n for n in kinds if n in schema.names]
        report = check_drift(
            reference.profile,
            batches,
            kinds,
            config,
            lambda: (reference.sample[inputs], drawn.frame(TOGETHER_ROWS)[inputs]),
        )
    predictions = {*kinds} - {*schema.names}
    skew = {
        "data": [c.name for c in report.drifted if c.name not in predictions],
        "prediction": [c.name for c in report.drifted if c.name in predictions],
    }
    lost = [n for n in schema.names if n not in manifest["columns"] and n not in schema.private]
    report = _told(report, skew, schema.private, lost)
    page = drift_html(reference.sample[list(kinds)], drawn.frame(), report, seed=_SEED)
    result = {
        "verdict": report.verdict,
        "sentence": report.sentence,
        "skew": skew,
        "version": version.number,
        "rows": manifest["rows"],
        "columns": report.to_dict()["columns"],
        "private": schema.private,
    }
    return result, page


def _told(report: DriftReport, skew: dict[str, list[str]], private: Sequence[str], lost: Sequence[str]) -> DriftReport:
    """The report with the skew called by its name, and with what was not looked at."""
    sentence = report.sentence
    if report.verdict == "drift":
        names = " and ".join(f"{kind} drift" for kind, columns in skew.items() if columns)
        sentence = f"distribution skew ({names}): {sentence}"
    if private:
        sentence = f"{sentence}; not checked, because private: {', '.join(private)}"
    if lost:
        sentence = f"{sentence}; not captured, so not checked: {', '.join(lost)}"
    return replace(report, sentence=sentence)


class _Sampled:
    """Draws some of the rows of a stream while they go by, in their order; the same rows for the same stream."""

    def __init__(self, rows: int, columns: Sequence[str]) -> None:
        self._columns = [*columns]
        chosen = np.random.default_rng(_SEED).choice(rows, min(rows, SAMPLE_ROWS), replace=False)
        self._chosen = np.sort(chosen)
        self._kept: list[pd.DataFrame] = []

    def of(self, batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        first = 0
        for batch in batches:
            here = slice(*np.searchsorted(self._chosen, [first, first + len(batch)]))
            self._kept.append(batch[self._columns].iloc[self._chosen[here] - first])
            first += len(batch)
            yield batch

    def frame(self, most: int = SAMPLE_ROWS) -> pd.DataFrame:
        """The rows drawn so far, or ``most`` of them at equal distances."""
        rows = pd.concat(self._kept, ignore_index=True)
        return rows.iloc[np.arange(most) * len(rows) // most] if len(rows) > most else rows
