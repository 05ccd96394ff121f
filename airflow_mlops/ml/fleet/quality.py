"""Data quality of what a fleet was asked: the pipeline's expectations on captured inputs, each key by its own rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

from airflow_mlops.config.models import Data, Fleet, Validate
from airflow_mlops.ml import expectations as gx
from airflow_mlops.ml.expectations_report import expectations_html
from airflow_mlops.ml.fleet.broken import BY, broken_keys
from airflow_mlops.ml.outputs import KEY, MODEL_KEY, VERSION, is_output
from airflow_mlops.ml.prediction import capture_columns
from airflow_mlops.ml.quality import captured_rows, those_that_can_be_checked
from airflow_mlops.ml.schema import family
from airflow_mlops.ml.validation import mentions, validate
from airflow_mlops.store import LocalStore, put_json
from airflow_mlops.store.base import Store

_NAMED = 5


def fleet_quality(
    store: Store, pipeline: str, capture: Mapping[str, Any], config: Validate, data: Data
) -> tuple[dict[str, Any], str]:
    """Run the pipeline's expectations on the rows of a window, whichever model served them.

    A key fails where it breaks an expectation about rows by its own rows, see
    :mod:`~airflow_mlops.ml.fleet.broken`; expectations on private or uncaptured columns wait.

    :returns: ``{"verdict": "passed" or "failed", "sentence", "rows", "failed", "failed_keys", "why"}``: names of the
        expectations that failed on all rows, how many keys fail, and the digest of the reasons by key or None; and the
        report's page.
    """
    inputs = [c for c in capture_columns(store, dict(capture)) if not is_output(c) and c not in (MODEL_KEY, VERSION)]
    entries, unchecked = those_that_can_be_checked(config, inputs, data.private)
    entries = [e for e in entries if not mentions(e, data.target)]
    checked = config.model_copy(update={"expectations": entries, "schema_": "off", "on_failure": "warn"})
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        scratch = LocalStore(folder)
        snapshot = captured_rows(store, dict(capture), inputs, scratch, pipeline)
        result = validate(snapshot, scratch, checked, data, target_optional=True)
        suite = gx.build(entries, {name: family(kind) for name, kind in snapshot.columns.items()})
        of_suite = result.checks[len(result.checks) - len(suite) :]
        pairs = [(check, e) for check, e in zip(of_suite, suite, strict=True) if check.severity == "critical"]
        broken = broken_keys(snapshot, scratch, Fleet(key=KEY), pairs)
    told = result.sentence
    if broken.keys:
        named = "; ".join(f"{key}: {why.removeprefix(BY)}" for key, why in [*broken.keys.items()][:_NAMED])
        more = f"; and {len(broken.keys) - _NAMED:,} more" if len(broken.keys) > _NAMED else ""
        together = f": {told}" if result.failed else f" pass all {len(result.checks):,} checks"
        fail = "fails" if len(broken.keys) == 1 else "fail"
        told = f"{len(broken.keys):,} of {broken.of:,} keys {fail}: {named}{more}; all rows together{together}"
    if unchecked:
        told += f"; not checked, because private: {', '.join(unchecked)}"
    page = expectations_html(
        pipeline, snapshot.digest, str(snapshot.window), success=result.success and not broken.keys, sentence=told,
        checks=result.checks, skipped=[], statistics=result.statistics, broken=broken.keys,
    )  # fmt: skip
    return {
        "verdict": "passed" if result.success and not broken.keys else "failed",
        "sentence": told,
        "rows": snapshot.rows,
        "failed": [f"{c.expectation} on {c.column}" if c.column else c.expectation for c in result.failed],
        "failed_keys": len(broken.keys),
        "why": put_json(store, {"kind": "broken keys", "keys": broken.keys}) if broken.keys else None,
    }, page
