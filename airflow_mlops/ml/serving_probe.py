"""The fresh process of a serving check: ``python -m airflow_mlops.ml.serving_probe MODEL SAMPLE JSON [TRUSTED …]``.

``JSON`` is what the model is verified against: ``null``, or ``{"info", "verifier", "pipeline", "key"}``.
Prints one line of JSON: ``{"load_ms", "times_ms": [per row], "predictions": [per row]}`` or
``{"error": "…"}``. Imports what serving needs and nothing else; Airflow is not among it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.ml.serving import predictions
from airflow_mlops.registry.artifacts import load_model, open_model
from airflow_mlops.registry.signing import Verifier


def main(arguments: list[str]) -> None:
    """Load, warm up, then predict one row after the other."""
    model_path, sample_path, registered, *trusted = arguments
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
    for i in range(len(sample)):
        row = sample.iloc[i : i + 1]
        started = time.perf_counter()
        value = predictions(model, row)
        times.append(1000 * (time.perf_counter() - started))
        found.append(value[0].tolist() if hasattr(value[0], "tolist") else value[0])
    answer({"load_ms": load_ms, "times_ms": times, "predictions": found})


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
