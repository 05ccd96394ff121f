"""The fresh process of a serving check: ``python -m airflow_mlops.ml.serving_probe MODEL SAMPLE ROWS JSON [TYPE …]``.

The first ``ROWS`` rows of the sample are asked one by one, then all of them in one batch. ``JSON`` is what the model
is verified against: ``null``, or ``{"info", "verifier", "pipeline", "key"}``. Prints one line of JSON: ``{"load_ms",
"times_ms": [per row], "predictions": [per row], "batch": [per row], "batch_seconds", "memory_mb", "environment"}`` or
``{"error": "…"}``. Imports what serving needs and nothing else; Airflow is not among it.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.ml.serving import predictions
from airflow_mlops.registry.artifacts import environment, load_model, open_model
from airflow_mlops.registry.signing import Verifier

BATCHES = 3


def main(arguments: list[str]) -> None:
    """Load, warm up, then predict one row after the other, and all at once."""
    model_path, sample_path, rows, registered, *trusted = arguments
    sample = pd.read_parquet(sample_path)
    started = time.perf_counter()
    try:
        model = load(Path(model_path), json.loads(registered), trusted)
    except MLOpsError as e:
        answer({"error": f"{e.message} ({e.hint})" if e.hint else e.message})
        return
    load_ms = 1000 * (time.perf_counter() - started)
    predictions(model, sample.iloc[:1])
    times, found = [], []
    for i in range(int(rows)):
        row = sample.iloc[i : i + 1]
        seconds, value = timed(model, row)
        times.append(1000 * seconds)
        found.append(value[0].tolist() if hasattr(value[0], "tolist") else value[0])
    batches = [timed(model, sample) for _ in range(BATCHES)]
    answer(
        {
            "load_ms": load_ms,
            "times_ms": times,
            "predictions": found,
            "batch": batches[-1][1].tolist(),
            "batch_seconds": statistics.median(seconds for seconds, _ in batches),
            "memory_mb": peak_mb(),
            "environment": environment(),
        }
    )


def timed(model: Any, rows: pd.DataFrame) -> tuple[float, Any]:
    """How many seconds the predictions of ``rows`` took, and what they are."""
    started = time.perf_counter()
    value = predictions(model, rows)
    return time.perf_counter() - started, value


def peak_mb() -> float:
    """Largest resident set of this process, MB (10^6 bytes)."""
    try:
        # What getrusage says of a child on Linux includes its parent's memory at the fork.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def load(path: Path, registered: dict[str, Any] | None, trusted: list[str]) -> Any:
    """Load the model; one that is registered is verified first."""
    if registered is None:
        return load_model(path, trusted=trusted)
    verifier = Verifier.from_dict(registered["verifier"])
    info, pipeline, key = registered["info"], registered["pipeline"], registered["key"]
    return open_model(path, info, trusted=trusted, verifier=verifier, pipeline=pipeline, key=key)


def answer(result: dict[str, Any]) -> None:
    """Print one line of JSON on the real stdout."""
    print(json.dumps(result), file=sys.__stdout__)


if __name__ == "__main__":
    # Models and their libraries may print; the answer must be alone on stdout.
    sys.stdout = sys.stderr
    main(sys.argv[1:])
