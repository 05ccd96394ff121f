from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from airflow_mlops.exceptions import CorruptObject, DataNotFound, PredictionError
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.prediction import (
    CaptureWriter,
    capture_kinds,
    find_capture,
    predict_batches,
    read_capture,
    write_capture,
    write_predictions,
)
from airflow_mlops.store import layout
from airflow_mlops.store.local import LocalStore
from airflow_mlops.window import Window

WINDOW = Window.of("2013-02-01", "2013-03-01")
FEATURES = (Feature("x", "number"), Feature("c", "category", ("a", "b")), Feature("b", "boolean"))


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"id": np.arange(n), "x": rng.normal(size=n), "c": rng.choice(["a", "b"], n), "b": rng.random(n) < 0.5, "z": 1}
    )


def trained(estimator, classes, positive=None, n=300):
    frame = rows(n, 1)
    schema = FeatureSchema(FEATURES, "y", classes, positive)
    steps = make_column_transformer((SimpleImputer(), ["x", "b"]), (OneHotEncoder(handle_unknown="ignore"), ["c"]))
    y = np.array(classes, dtype=object)[(frame.x.rank() * len(classes) // (n + 1)).astype(int)] if classes else frame.x
    y = np.array(y.tolist()) if classes else y
    return make_pipeline(steps, estimator).fit(schema.check(frame), y), schema


def batches(frame, size=37):
    return [
        pa.RecordBatch.from_pandas(frame.iloc[i : i + size], preserve_index=False) for i in range(0, len(frame), size)
    ]


def score(model, schema, data, **kw):
    kw = {"model_version": 3, "id_column": "id"} | kw
    return pa.Table.from_batches(predict_batches(model, schema, data, **kw)).to_pandas()


def test_two_classes_report_the_positive_one():
    model, schema = trained(LogisticRegression(), ("no", "yes"), "no")
    frame = rows(100)
    out = score(model, schema, batches(frame))
    assert out.columns.tolist() == ["id", "prediction", "probability", "model_version"]
    assert out.id.tolist() == list(range(100))
    np.testing.assert_allclose(out.probability, model.predict_proba(schema.check(frame))[:, 0])
    assert (out.prediction == model.predict(schema.check(frame))).all()
    assert (out.model_version == 3).all()


def test_more_classes_scores_and_numbers():
    model, schema = trained(LogisticRegression(), (0, 1, 2))
    out = score(model, schema, batches(rows(50)))
    assert out.columns.tolist()[1:-1] == ["prediction", "probability_0", "probability_1", "probability_2"]
    assert out.prediction.dtype == "int64"
    model, schema = trained(RidgeClassifier(), (False, True), False)
    out = score(model, schema, batches(rows(50)), id_column=None)
    assert out.columns.tolist() == ["prediction", "score", "model_version"]
    assert ((out.score > 0) == (~out.prediction)).all()
    model, schema = trained(DummyRegressor(), None)
    assert score(model, schema, batches(rows(50))).columns.tolist() == ["id", "prediction", "model_version"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 50))
def test_chunks_do_not_change_the_result(sizes, chunk_rows):
    frame = rows(sum(sizes))
    parts, at = [], 0
    for size in sizes:
        parts.append(pa.RecordBatch.from_pandas(frame.iloc[at : at + size], preserve_index=False))
        at += size
    if not len(frame):
        with pytest.raises(DataNotFound):
            score(MODEL, SCHEMA, parts, chunk_rows=chunk_rows)
        return
    made = list(predict_batches(MODEL, SCHEMA, parts, model_version=1, id_column="id", chunk_rows=chunk_rows))
    assert max(b.num_rows for b in made) <= chunk_rows
    assert all(b.num_rows == chunk_rows for b in made[:-1])
    assert len({b.schema for b in made}) == 1
    out = pa.Table.from_batches(made).to_pandas()
    assert out.id.tolist() == frame.id.tolist()
    np.testing.assert_allclose(out.probability, MODEL.predict_proba(SCHEMA.check(frame))[:, 1])


MODEL, SCHEMA = trained(LogisticRegression(), (0, 1), 1)


def test_it_streams():
    pulled = []

    def source():
        for i, batch in enumerate(batches(rows(400), 40)):
            pulled.append(i)
            yield batch

    stream = predict_batches(MODEL, SCHEMA, source(), model_version=1, chunk_rows=40)
    next(stream)
    assert len(pulled) == 1


def test_new_categories_and_gaps_pass():
    frame = rows(60).astype({"c": object})
    frame.loc[:9, "c"] = "new"
    frame.loc[10:19, ["c", "x"]] = None
    assert score(MODEL, SCHEMA, batches(frame)).probability.notna().all()


def test_missing_columns_are_named():
    with pytest.raises(PredictionError, match="c"):
        score(MODEL, SCHEMA, batches(rows(50).drop(columns="c")))
    with pytest.raises(PredictionError, match="id column 'id' is missing"):
        score(MODEL, SCHEMA, batches(rows(50).drop(columns="id")))
    clash = FeatureSchema((Feature("prediction", "number"),), "y")
    with pytest.raises(PredictionError, match="prediction would be both"):
        score(DummyRegressor(), clash, batches(rows(50)))
    with pytest.raises(PredictionError, match="the model knows the classes"):
        score(MODEL, FeatureSchema(FEATURES, "y", (0, 2)), batches(rows(50)))


@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, RandomForestClassifier, ExtraTreesClassifier])
@pytest.mark.parametrize("classes", [("b", "a"), (0, 1, 2), (False, True)])
def test_the_likeliest_class_is_what_predict_says(kind, classes):
    model, schema = trained(kind(random_state=0), classes)
    frame = rows(300, 4)
    assert (score(model, schema, batches(frame)).prediction == model.predict(schema.check(frame))).all()


def test_a_threshold_of_its_own_is_kept():
    model, schema = trained(FixedThresholdClassifier(LogisticRegression(), threshold=0.9), (0, 1))
    out = score(model, schema, batches(rows(300)))
    assert (out.prediction == (out.probability >= 0.9)).all()


class _Broken(LogisticRegression):
    def predict(self, X):
        raise ValueError("boom")


class _NaN:
    def predict(self, X):
        return np.full(len(X), np.nan)


def test_a_failing_model_is_a_prediction_error():
    model, schema = trained(_Broken(), (0, 1))
    with pytest.raises(PredictionError, match="ValueError: boom"):
        score(model, schema, batches(rows(50)))
    with pytest.raises(PredictionError, match="50 values that are NaN"):
        score(_NaN(), FeatureSchema(FEATURES, "y"), batches(rows(50)))


def test_output_is_whole_or_absent(tmp_path):
    files = Files(str(tmp_path))
    frame = rows(200)
    result = write_predictions(
        predict_batches(MODEL, SCHEMA, batches(frame), model_version=1, id_column="id", chunk_rows=50),
        files,
        "out/p.parquet",
    )
    assert result == {"rows": 200, "uri": "out/p.parquet"}
    assert pq.read_metadata(tmp_path / "out/p.parquet").num_rows == 200
    before = (tmp_path / "out/p.parquet").read_bytes()

    bad = [*batches(frame, 50), *batches(frame.drop(columns="x"), 50)]
    with pytest.raises(PredictionError):
        write_predictions(predict_batches(MODEL, SCHEMA, bad, model_version=1, chunk_rows=50), files, "out/p.parquet")
    assert (tmp_path / "out/p.parquet").read_bytes() == before
    with pytest.raises(DataNotFound):
        write_predictions(predict_batches(MODEL, SCHEMA, [], model_version=1), files, "out/q.parquet")
    assert os.listdir(tmp_path / "out") == ["p.parquet"]


def test_capture_holds_inputs_and_predictions(tmp_path):
    store, files = LocalStore(tmp_path / "store"), Files(str(tmp_path))
    frame = rows(120)
    with CaptureWriter(store, "p", WINDOW, model_version=1) as capture:
        stream = predict_batches(
            MODEL, SCHEMA, batches(frame), model_version=1, id_column="id", chunk_rows=50, on_chunk=capture.write
        )
        write_predictions(stream, files, "p.parquet")
    ref = json.loads(json.dumps(capture.ref))
    assert ref == find_capture(store, "p", WINDOW)
    assert (ref["rows"], ref["version"], ref["window"]) == (120, 1, WINDOW.to_dict())
    back = read_capture(store, ref)
    assert back.columns.tolist() == ["id", "x", "c", "b", "prediction", "probability", "model_version"]
    pd.testing.assert_series_equal(back.x, frame.x)
    assert back.b.tolist() == frame.b.tolist()
    assert capture_kinds(SCHEMA, back.columns) == {
        "x": "number", "c": "category", "b": "boolean", "prediction": "category", "probability": "number",
    }  # fmt: skip
    assert read_capture(store, ref["capture"], ["id"]).columns.tolist() == ["id"]


def test_columns_that_are_kept_are_captured_as_they_are_and_predicted_from_never(tmp_path):
    seen = []
    frame = rows(20).assign(at=pd.date_range("2013-02-01", periods=20, freq="h"))
    out = score(MODEL, SCHEMA, batches(frame), on_chunk=seen.append, keep=["at", "x", "gone"])
    assert "at" not in out
    captured = pa.Table.from_batches(seen).to_pandas()
    assert captured.columns.tolist()[:3] == ["id", "at", "x"]
    assert captured["at"].tolist() == frame["at"].tolist()


def _failing():
    yield batches(rows(10))[0]
    raise RuntimeError("lost the source")


def test_a_repeated_window_replaces_the_pointer_and_a_failure_leaves_it(tmp_path):
    store = LocalStore(tmp_path)
    with pytest.raises(DataNotFound, match="nothing was captured"):
        find_capture(store, "p", WINDOW)
    first = write_capture(store, "p", WINDOW, batches(rows(30)), model_version=1)
    assert write_capture(store, "p", WINDOW, batches(rows(30)), model_version=1) == first
    second = write_capture(store, "p", WINDOW, batches(rows(40)), model_version=2)
    assert find_capture(store, "p", WINDOW) == second
    with pytest.raises(RuntimeError):
        write_capture(store, "p", WINDOW, _failing(), model_version=3)
    with pytest.raises(DataNotFound):
        write_capture(store, "p", WINDOW, [], model_version=3)
    assert find_capture(store, "p", WINDOW) == second
    assert len(read_capture(store, first)) == 30


def test_a_damaged_capture_is_found(tmp_path):
    store = LocalStore(tmp_path)
    ref = write_capture(store, "p", WINDOW, batches(rows(30)), model_version=1)
    manifest = json.loads(store.get(layout.blob(ref["capture"])))
    path = tmp_path / layout.blob(manifest["file"])
    os.chmod(path, 0o600)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptObject):
        read_capture(store, ref)
