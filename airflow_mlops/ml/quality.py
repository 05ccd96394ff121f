"""Data quality of what was served: the pipeline's expectations on captured inputs."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from typing import Any

from airflow_mlops.config.models import Data, Validate
from airflow_mlops.ml.data import Snapshot, write_snapshots
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.prediction import arrow_batches, capture_columns
from airflow_mlops.ml.privacy import columns_of, reads
from airflow_mlops.ml.validation import validate
from airflow_mlops.registry.registry import Version
from airflow_mlops.store import LocalStore
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window


def quality(
    store: Store, capture: dict[str, Any], version: Version, config: Validate, data: Data
) -> tuple[dict[str, Any], str]:
    """Run the pipeline's expectations on captured inputs; those on private or uncaptured columns wait.

    Memory is that of :mod:`~airflow_mlops.ml.expectations_parts`: the rows go from file to file.

    :returns: ``{"verdict": "passed" or "failed", "sentence", "version", "rows", "failed"}``, the last the names of what
        failed, and the report's page.
    """
    there = capture_columns(store, capture)
    schema = FeatureSchema.from_dict(version.record["schema"]).hiding(data.private)
    names = [f.name for f in schema.features if not f.private]
    columns = [c for c in ([data.id] if data.id else []) + names if c in there]
    known, unchecked = those_that_can_be_checked(config, columns, [*data.private, *schema.private])
    checked = config.model_copy(update={"expectations": known, "schema_": "off", "on_failure": "warn"})
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        scratch = LocalStore(folder)
        snapshot = captured_rows(store, capture, columns, scratch, version.pipeline)
        result = validate(snapshot, scratch, checked, data, target_optional=True)
    verdict = "passed" if result.success else "failed"
    sentence = result.sentence + (f"; not checked, because private: {', '.join(unchecked)}" if unchecked else "")
    failed = [f"{c.expectation} on {c.column}" if c.column else c.expectation for c in result.failed]
    found = {
        "verdict": verdict,
        "sentence": sentence,
        "version": version.number,
        "rows": snapshot.rows,
        "failed": failed,
    }
    return found, result.html


def those_that_can_be_checked(
    config: Validate, columns: Sequence[str], hidden: Sequence[str]
) -> tuple[list[dict[str, dict[str, Any]]], list[str]]:
    """The expectations whose columns were captured and are not private; and the private columns that others read."""
    known = [e for e in config.expectations if {*columns_of(e)} <= {*columns} and not reads(e, hidden)]
    return known, sorted({c for e in config.expectations for c in reads(e, hidden)})


def captured_rows(
    store: Store, capture: dict[str, Any], columns: Sequence[str], scratch: Store, pipeline: str
) -> Snapshot:
    """Write captured rows as a snapshot to a store that is needed only for it: the capture is in the pipeline's own."""
    batches = arrow_batches(store, capture, columns)
    first = next(batches)
    (snapshot,) = write_snapshots(
        scratch,
        pipeline,
        ((batch,) for batch in itertools.chain([first], batches)),
        first.schema,
        window=Window.from_dict(capture["window"]),
        sources=[{"kind": "capture", "capture": capture["capture"]}],
    )
    return snapshot
