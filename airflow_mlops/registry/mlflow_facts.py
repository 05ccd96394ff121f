"""What MLflow is told about a version: params, metrics and tags, taken from its record and notes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from airflow_mlops.registry.version import Version

TAG = "airflow-mlops"
"""What our tags begin with."""

# MLflow's servers before 2.9 take 500 characters.
_LONGEST = 500
_STRANGE = re.compile(r"[^\w./ -]")


def params(version: Version) -> dict[str, str]:
    """The estimator's parameters by their own names, and what else decided what came out of training."""
    record = version.record
    snapshot = record.get("snapshot") or {}
    window, rows = snapshot.get("window") or {}, record.get("rows") or {}
    ours = {
        "train.estimator": record.get("estimator"),
        "train.seed": record.get("seed"),
        "train.rows": rows.get("train"),
        "holdout.rows": rows.get("holdout"),
        "window.start": window.get("start"),
        "window.end": window.get("end"),
        "snapshot.fingerprint": snapshot.get("fingerprint"),
        "config.hash": record.get("config_hash"),
    }
    own = {name: value for name, value in (record.get("params") or {}).items() if name not in ours}
    return {_name(n): _text(v) for n, v in (own | ours).items() if v is not None}


def metrics(version: Version) -> Iterator[tuple[str, float, int]]:
    """Yield (name, value, step): each metric, the ends of its interval, and the champion's; a step per evaluation."""
    seconds = version.record.get("seconds")
    if seconds is not None and _is_number(seconds):
        yield "train.seconds", float(seconds), 0
    parts = {"candidate": "", "candidate_low": ".low", "candidate_high": ".high", "champion": ".champion"}
    latest: dict[str, tuple[float, int]] = {}
    for step, evaluation in enumerate(version.notes.get("evaluation", [])):
        for name, values in (evaluation.get("metrics") or {}).items():
            for part, suffix in parts.items():
                if _is_number(values.get(part)):
                    latest[_name(name) + suffix] = float(values[part]), step
    for name, (value, step) in latest.items():
        yield name, value, step


def tags(version: Version) -> dict[str, str]:
    """Which version of what this is, whose, and what was decided about it."""
    record, gates = version.record, version.notes.get("gates", [])
    about, run = record.get("about") or {}, record.get("run") or {}
    verdict = gates[-1] if gates else {}
    ours = {
        "pipeline": version.pipeline,
        "key": version.key,
        "version": version.number,
        "digest": version.model,
        "level": about.get("level"),
        "owner": about.get("owner"),
        "dag_id": run.get("dag_id"),
        "run_id": run.get("run_id"),
        "rehearsal": True if run.get("rehearsal") else None,
        "verdict": verdict.get("verdict"),
        "verdict.reason": verdict.get("sentence"),
        "retired": True if version.status == "retired" else None,
    }
    found = {f"{TAG}.{name}": _text(value) for name, value in ours.items() if value is not None}
    # MLflow's own names, which its pages show.
    shown = {"mlflow.user": about.get("owner"), "mlflow.note.content": about.get("description")}
    return found | {name: _text(value) for name, value in shown.items() if value}


def _name(name: str) -> str:
    """A name that every MLflow takes."""
    return _STRANGE.sub("_", name)[:200]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
