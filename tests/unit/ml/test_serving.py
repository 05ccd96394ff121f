from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from airflow_mlops.config.models import Serving
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.serving import check_serving, predictions, same_predictions
from airflow_mlops.registry.artifacts import dump_model, store_model
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store import LocalStore, layout

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(60, 2)), columns=["a", "b"])
Y = np.where(FRAME.a > 0, "late", "ok")


def saved(tmp_path, model):
    path = tmp_path / "model.skops"
    dump_model(model, path)
    return path


@pytest.mark.parametrize(
    ("model", "y"), [(LogisticRegression(), Y), (LinearSVC(), Y), (LinearRegression(), FRAME.a + FRAME.b)]
)
def test_fresh_process_predicts_the_same(tmp_path, model, y):
    model.fit(FRAME, y)
    path = saved(tmp_path, model)
    result = check_serving(path, FRAME, predictions(model, FRAME), Serving(rows=20))
    assert result["error"] is None
    assert result["equal"] is True
    assert result["rows"] == 20
    assert 0 < result["p50_ms"] <= result["p95_ms"]
    assert result["load_ms"] > 0
    assert result["size_mb"] == path.stat().st_size / 1e6
    assert result["batch_rows"] == 60
    assert result["rows_per_second"] > 60
    assert 50 < result["memory_mb"] < 2000
    assert result["environment"] is None  # nobody recorded that of training
    json.dumps(result, allow_nan=False)


def test_other_predictions_are_noticed(tmp_path):
    model = LogisticRegression().fit(FRAME, Y)
    other = predictions(model, FRAME) + np.array([1e-4, -1e-4])
    assert check_serving(saved(tmp_path, model), FRAME, other, Serving(rows=5))["equal"] is False


def test_a_model_that_cannot_be_loaded_is_a_reason_not_a_crash(tmp_path):
    path = tmp_path / "model.skops"
    path.write_bytes(b"no model")
    result = check_serving(path, FRAME, np.zeros(60), Serving(rows=5))
    assert "does not load in a fresh process" in result["error"]
    assert "Traceback" not in result["error"]
    assert result["equal"] is False


def test_a_model_that_fails_on_these_rows_is_a_reason(tmp_path):
    path = saved(tmp_path, LogisticRegression().fit(FRAME, Y))
    result = check_serving(path, FRAME[["a"]], np.zeros(60), Serving(rows=5))
    assert "does not work in a fresh process: ValueError: The feature names should match" in result["error"]
    assert "\n" not in result["error"]


def test_a_slow_model_is_stopped(tmp_path):
    path = saved(tmp_path, LogisticRegression().fit(FRAME, Y))
    result = check_serving(path, FRAME, np.zeros(60), Serving(rows=5), timeout=0.05)
    assert result["error"] == "the model gave no 5 predictions within 0.05 s"


def test_rows_that_are_only_in_the_batch_are_compared_too(tmp_path):
    model = LogisticRegression().fit(FRAME, Y)
    said = predictions(model, FRAME)
    said[-1] = said[-1][::-1]
    assert check_serving(saved(tmp_path, model), FRAME, said, Serving(rows=5))["equal"] is False


def test_memory_is_that_of_the_fresh_process(tmp_path):
    ballast = np.ones(100_000_000)  # 800 MB here, and not there
    model = LogisticRegression().fit(FRAME, Y)
    result = check_serving(saved(tmp_path, model), FRAME, predictions(model, FRAME), Serving(rows=1))
    assert result["memory_mb"] < 700
    del ballast


def test_another_environment_is_told(tmp_path):
    model = LogisticRegression().fit(FRAME, Y)
    store = LocalStore(tmp_path / "store")
    info = store_model(store, model)
    path = tmp_path / "model"
    path.write_bytes(store.get(layout.blob(info["digest"])))
    registered = {"info": info, "verifier": Verifier().to_dict(), "pipeline": "p", "key": None}

    def differs():
        return check_serving(path, FRAME, predictions(model, FRAME), Serving(rows=1), registered=registered)

    assert differs()["environment"] == []
    info["environment"]["python"] = "3.0.1"
    info["environment"]["packages"]["pandas"] = "1.0"
    told = differs()["environment"]
    assert told[0].startswith("Python 3.0.1 → 3.")
    assert told[1].startswith("pandas 1.0 → ")
    assert len(told) == 2


def test_rows_and_predictions_must_fit(tmp_path):
    with pytest.raises(EvaluationError, match="at least one row"):
        check_serving(tmp_path, FRAME.iloc[:0], [], Serving())
    with pytest.raises(EvaluationError, match="60 rows and 3"):
        check_serving(tmp_path, FRAME, [1, 2, 3], Serving())


def test_same_predictions():
    assert same_predictions(np.array([1.0, 2.0]), np.array([1.0, 2.0 + 1e-9]))
    assert not same_predictions(np.array([1.0]), np.array([1.0, 1.0]))
    assert not same_predictions(np.array([np.nan]), np.array([np.nan]))
    assert same_predictions(np.array(["a"]), np.array(["a"], dtype=object))
    assert not same_predictions(np.array(["a"]), np.array(["b"]))
    assert not same_predictions(np.array(["1"]), np.array([1]))


def test_probe_imports_neither_airflow_nor_the_heavy_libraries():
    code = (
        "import sys, airflow_mlops.ml.serving_probe as p;"
        "print([m for m in ('airflow', 'great_expectations', 'evidently', 'boto3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
