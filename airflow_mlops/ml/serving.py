"""Ask a model file, loaded in a fresh process, to predict: does it work, agree, and answer in time?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Serving
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.registry.lineage import compare_environment

_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Artifact)\b")

TIMEOUT = 120.0
"""Seconds for starting Python, loading the model and all predictions."""


def predictions(model: Any, frame: pd.DataFrame) -> np.ndarray:
    """What is compared between processes: probabilities, shape (n, classes), or else ``predict``, shape (n,)."""
    return np.asarray(model.predict_proba(frame) if hasattr(model, "predict_proba") else model.predict(frame))


def check_serving(
    model_path: str | Path,
    sample: pd.DataFrame,
    expected_predictions: Any,
    serving: Serving,
    trusted: Sequence[str] = (),
    *,
    timeout: float = TIMEOUT,
    registered: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Load the model in a fresh Python process and let it predict, row by row and in one batch.

    :param model_path: the model file.
    :param sample: holdout rows in the model's schema; the first ``serving.rows`` are asked one by one, all of them in
        one batch.
    :param expected_predictions: :func:`predictions` of the same rows in this process.
    :param trusted: types the model file may hold beside scikit-learn's.
    :param timeout: seconds until the process is stopped and the check failed.
    :param registered: what the file is verified against before it is loaded: ``{"info", "verifier", "pipeline",
        "key"}``, plain JSON; default: a skops file that is not registered.
    :return: ``{"load_ms", "p50_ms", "p95_ms", "rows", "rows_per_second", "batch_rows", "memory_mb", "size_mb", "equal",
        "environment", "error"}``; plain JSON. ``error`` is ``None`` or what went wrong, and what was measured then is
        ``None``. Latency is that of one row, after one call to warm up; the batch is the median of three; memory is
        the peak of the process. ``equal``: both ways of asking give what the training process predicted.
        ``environment`` names what differs from the environment of training, ``None`` where that is not recorded.
    :raises EvaluationError: when there are no rows, or not as many predictions as rows.
    """
    rows = min(len(sample), serving.rows)
    expected = np.asarray(expected_predictions)
    if rows == 0:
        raise EvaluationError("a serving check needs at least one row", hint="the holdout is empty")
    if len(expected) != len(sample):
        raise EvaluationError(f"the serving check has {len(sample)} rows and {len(expected)} expected predictions")
    result: dict[str, Any] = {
        "load_ms": None,
        "p50_ms": None,
        "p95_ms": None,
        "rows": rows,
        "rows_per_second": None,
        "batch_rows": len(sample),
        "memory_mb": None,
        "size_mb": Path(model_path).stat().st_size / 1e6,
        "equal": False,
        "environment": None,
        "error": None,
    }
    with tempfile.TemporaryDirectory(prefix="mlops-serving-") as folder:
        data = Path(folder) / "sample.parquet"
        sample.reset_index(drop=True).to_parquet(data)
        probe = [sys.executable, "-m", "airflow_mlops.ml.serving_probe"]
        command = [*probe, str(model_path), str(data), str(rows), json.dumps(registered), *trusted]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout, check=False, env=_environment()
            )
        except subprocess.TimeoutExpired:
            return result | {"error": f"the model gave no {rows} predictions within {timeout:g} s"}
    if done.returncode != 0:
        return result | {"error": f"the model does not work in a fresh process: {_reason(done)}"}
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        return result | {"error": f"the model does not load in a fresh process: {answer['error']}"}
    times = np.asarray(answer["times_ms"])
    asked = ((answer["predictions"], expected[:rows]), (answer["batch"], expected))
    then = (registered or {}).get("info", {}).get("environment")
    return result | {
        "load_ms": answer["load_ms"],
        "p50_ms": float(np.quantile(times, 0.5)),
        "p95_ms": float(np.quantile(times, 0.95)),
        "rows_per_second": len(sample) / answer["batch_seconds"],
        "memory_mb": answer["memory_mb"],
        "equal": all(same_predictions(np.asarray(got), wanted) for got, wanted in asked),
        "environment": _differences(then, answer["environment"]),
    }


def _differences(then: dict[str, Any] | None, now: dict[str, Any]) -> list[str] | None:
    """What differs from the environment of training; another machine alone is no difference."""
    # How many threads the fresh process has is set here, for the measurement.
    answer, _, details = compare_environment(then, {k: v for k, v in now.items() if k != "threads"})
    return None if answer == "unknown" else list(details) if answer == "different" else []


def same_predictions(got: np.ndarray, expected: np.ndarray) -> bool:
    """Whether numbers agree to the rounding of another batch size (1e-6 relative), and labels exactly."""
    if got.shape != expected.shape:
        return False
    if np.issubdtype(expected.dtype, np.floating) and np.issubdtype(got.dtype, np.number):
        return bool(np.allclose(got, expected, rtol=1e-6, atol=1e-9))
    return got.tolist() == expected.tolist()


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The exception that ended the process, on one line; else its exit code."""
    lines = done.stderr.splitlines()
    for i in range(len(lines) - 1, -1, -1):
        if _EXCEPTION.match(lines[i]):
            return " ".join(line.strip() for line in lines[i:] if line.strip())[:500]
    return f"exit code {done.returncode}"


def _environment() -> dict[str, str]:
    """This process's import path, so that the same code is found; user code may live in the DAGs folder.

    One thread: with more, one row's time on a busy machine is that of waiting for the threads.
    """
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
