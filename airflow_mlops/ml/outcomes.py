"""Performance of what was served, once its outcomes are known."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from airflow_mlops.config.models import Data, Evaluate, Labels, Performance
from airflow_mlops.exceptions import ConfigError, DataNotFound, EvaluationError
from airflow_mlops.ml.blocks import block_codes
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.estimated_performance import estimate_performance
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.metrics import default_metrics
from airflow_mlops.ml.outputs import is_output
from airflow_mlops.ml.performance import check_performance, said_of
from airflow_mlops.ml.prediction import capture_columns, read_capture
from airflow_mlops.registry.checks import read_check
from airflow_mlops.registry.registry import Version
from airflow_mlops.store import get_blob_file, layout
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window


def labelled_capture(
    store: Store,
    pipeline: str,
    window: Window,
    delay: timedelta | None,
    capture: dict[str, Any],
    *,
    rehearsal: bool = False,
) -> dict[str, Any] | None:
    """The newest capture whose outcomes are complete at the window's end; ``None`` while there is none.

    Without a delay that is the window's own ``capture``.
    """
    if not delay:
        return capture
    prefix = layout.captures_prefix(pipeline, rehearsal=rehearsal)
    limit = Window.of(window.end - delay - timedelta(seconds=1), window.end - delay).key.partition("-")[2]
    known = [k for k in store.list(prefix) if k.removeprefix(prefix).removesuffix(".json").partition("-")[2] <= limit]
    newest = max(known, key=lambda k: k.removesuffix(".json").rpartition("-")[2], default=None)
    found: dict[str, Any] | None = json.loads(store.get(newest)) if newest else None
    return found


def watched_metric(version: Version, config: Performance, metrics: Sequence[str]) -> str:
    """The metric that performance is told in: of ``monitor.performance``, else the first of ``evaluate.metrics``."""
    classes = FeatureSchema.from_dict(version.record["schema"]).classes
    return config.metric or (metrics or default_metrics(version.record["task"], len(classes or ()) or None))[0]


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
    rehearsal: bool = False,
    evaluate: Evaluate | None = None,
) -> dict[str, Any]:
    """Score captured predictions by their outcomes, against the score at promotion.

    The checks ``drift`` and ``skew`` of the capture's window, where they have a result, tell the cause of a drop.
    Where there is no file or row of outcomes yet, the verdict is ``pending_labels``, and its sentence names the path.

    :param evaluate: its ``block`` says which rows may depend on each other, as on the holdout.
    :param rehearsal: whose checks these are, as in :func:`labelled_capture`.
    :returns: ``{"verdict", "sentence", "metric", "value", "baseline", "rows", "coverage", "version", "window"}``.
    :raises ConfigError: ``data.id`` is not set, so that nothing can be joined.
    :raises EvaluationError: the metric was not measured at promotion.
    """
    if data.id is None:
        raise ConfigError("monitor.labels needs data.id: the column that names a row", hint="set data.id")
    metric = watched_metric(version, config, metrics)
    evaluations = version.notes.get("evaluation")
    if not evaluations:
        raise EvaluationError(
            f"v{version.number} was promoted without an evaluation, so there is no score to compare with",
            hint="train a version here, or look at the predictions' outcomes yourself",
        )
    measured = evaluations[-1]["metrics"]
    if metric not in measured:
        raise EvaluationError(
            f"{metric!r} was not measured when v{version.number} was promoted",
            hint=f"name it in evaluate.metrics, or watch one of {', '.join(measured)}",
        )
    low, high = measured[metric].get("candidate_low"), measured[metric].get("candidate_high")
    window = Window.from_dict(capture["window"])
    found = {name: read_check(store, version.pipeline, name, window, rehearsal=rehearsal) for name in ("drift", "skew")}
    needed = data.split.column if data.split.by == "group" else data.timestamp
    has_id = data.id in capture_columns(store, capture)
    predicted = _said(store, capture, data.id, needed) if has_id else read_capture(store, capture)
    blocked = evaluate is not None and needed is not None and needed in predicted
    source = Data(source=labels.source, target=data.target, private=data.private)
    try:
        outcomes = read_batches(source, files=files, window=None, columns=[labels.join_on, data.target])
        known = [batch.to_pandas() for batch in outcomes]
    except DataNotFound as e:
        # A file that is written when its outcomes are known is not there before: that is no broken run.
        sentence = f"labels are pending: {e.message}"
        return {
            "verdict": "pending_labels",
            "sentence": sentence,
            "version": version.number,
            "window": capture["window"],
        }
    report = check_performance(
        predicted,
        pd.concat(known, ignore_index=True),
        metric=metric,
        baseline=measured[metric]["candidate"],
        config=config,
        schema=FeatureSchema.from_dict(version.record["schema"]),
        id_column=data.id,
        join_on=labels.join_on,
        baseline_bounds=(low, high) if low is not None and high is not None else None,
        blocks=(lambda rows: block_codes(rows, data, evaluate)) if blocked and evaluate else None,
        # A result about another version says nothing about this one's drop.
        others={n: c[n] for n, c in found.items() if c and c[n].get("version", version.number) == version.number},
    )
    return {**report.to_dict(), "version": version.number, "window": capture["window"]}


def _said(store: Store, capture: dict[str, Any], *further: str | None) -> pd.DataFrame:
    """Of a capture what the model said, and ``further`` columns, where they are there: not what it read."""
    return read_capture(store, capture, [c for c in capture_columns(store, capture) if is_output(c) or c in further])


def estimated(
    store: Store, capture: dict[str, Any], version: Version, *, config: Performance, metrics: Sequence[str]
) -> dict[str, Any]:
    """Estimate the metric of captured predictions without their outcomes; see ``ml/estimated_performance.py``.

    :returns: ``{"metric", "value", "low", "high", "rows", "calibrated_on", "sentence", "window"}``.
    :raises EvaluationError: the version has no evaluation to calibrate on, or the metric cannot be estimated.
    """
    evaluations = version.notes.get("evaluation")
    if not evaluations:
        raise EvaluationError(
            f"v{version.number} was promoted without an evaluation: there is nothing to calibrate its probabilities on",
            hint="train a version here, or set monitor.performance.estimate: false",
        )
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "evaluation.parquet")
        get_blob_file(store, evaluations[-1]["evaluation"], path)
        holdout = Evaluation.from_parquet(path)
    schema = FeatureSchema.from_dict(version.record["schema"])
    said = said_of(_said(store, capture), schema)
    metric = watched_metric(version, config, metrics)
    found = estimate_performance(metric, said, holdout.y, holdout.predictions("candidate"))
    return {**found.to_dict(), "window": capture["window"]}
