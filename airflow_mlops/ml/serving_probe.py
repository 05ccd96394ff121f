"""The fresh process of a serving check: ``python -m airflow_mlops.ml.serving_probe MODEL SAMPLE [TRUSTED …]``.

Prints one line of JSON: ``{"load_ms", "times_ms": [per row], "predictions": [per row]}``. Imports
what serving needs and nothing else; Airflow is not among it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pandas as pd

from airflow_mlops.ml.serving import predictions
from airflow_mlops.registry.artifacts import load_model


def main(arguments: list[str]) -> None:
    """Load, warm up, then predict one row after the other."""
    model_path, sample_path, *trusted = arguments
    sample = pd.read_parquet(sample_path)
    started = time.perf_counter()
    model = load_model(Path(model_path), trusted=trusted)
    load_ms = 1000 * (time.perf_counter() - started)
    predictions(model, sample.iloc[:1])
    times, found = [], []
    for i in range(len(sample)):
        row = sample.iloc[i : i + 1]
        started = time.perf_counter()
        value = predictions(model, row)
        times.append(1000 * (time.perf_counter() - started))
        found.append(value[0].tolist() if hasattr(value[0], "tolist") else value[0])
    print(json.dumps({"load_ms": load_ms, "times_ms": times, "predictions": found}), file=sys.__stdout__)


if __name__ == "__main__":
    # Models and their libraries may print; the answer must be alone on stdout.
    sys.stdout = sys.stderr
    main(sys.argv[1:])
