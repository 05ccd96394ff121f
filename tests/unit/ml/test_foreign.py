"""Models that were trained elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression

from airflow_mlops.exceptions import ConfigError, DataError, TrainingError
from airflow_mlops.ml.foreign import take_in
from airflow_mlops.registry import Registry
from airflow_mlops.registry.artifacts import dump_model
from airflow_mlops.store import LocalStore

ROWS = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0], "new": [True, False, True, False], "left": [0, 1, 0, 1]})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(LocalStore(tmp_path / "store"), "churn")


def saved(tmp_path: Path, model: object) -> Path:
    path = tmp_path / "model.skops"
    dump_model(model, path)
    return path


def test_columns_without_names_are_those_of_the_sample(registry: Registry, tmp_path: Path) -> None:
    path = saved(tmp_path, LogisticRegression().fit(ROWS[["age", "new"]].to_numpy(dtype=float), ROWS["left"]))
    with pytest.raises(ConfigError, match="does not say which columns it reads"):
        take_in(registry, path, target="left")
    with pytest.raises(DataError, match="takes 2 columns, and the sample has 3"):
        take_in(registry, path, sample=ROWS.assign(more=1), target="left")
    version = take_in(registry, path, sample=ROWS, target="left")
    assert [(f["name"], f["kind"]) for f in version.record["schema"]["features"]] == [
        ("age", "number"), ("new", "boolean"),
    ]  # fmt: skip
    assert version.record["schema"]["classes"] == [0, 1]


def test_a_later_file_takes_target_and_kinds_of_the_version_before(registry: Registry, tmp_path: Path) -> None:
    first = saved(tmp_path, LogisticRegression().fit(ROWS[["age", "new"]], ROWS["left"]))
    take_in(registry, first, sample=ROWS, target="left", by="ana")
    version = take_in(registry, saved(tmp_path, LogisticRegression(C=0.1).fit(ROWS[["age", "new"]], ROWS["left"])))
    assert version.number == 2
    assert version.record["schema"] == registry.get(1).record["schema"]
    assert registry.get(1).record["imported"] == {"from": "file", "file": "model.skops", "by": "ana"}


def test_a_regression_has_no_classes(registry: Registry, tmp_path: Path) -> None:
    version = take_in(registry, saved(tmp_path, LinearRegression().fit(ROWS[["age"]], ROWS["left"])), target="left")
    assert (version.record["task"], version.record["schema"]["classes"]) == ("regression", None)


def test_what_cannot_serve_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="neither a classifier nor a regressor"):
        take_in(registry, saved(tmp_path, KMeans(2).fit(ROWS[["age"]])), target="left")
    path = saved(tmp_path, LogisticRegression().fit(ROWS[["age"]], ROWS["left"]))
    with pytest.raises(DataError, match="holds times"):
        take_in(registry, path, sample=ROWS.assign(age=pd.Timestamp("2026-01-01")), target="left")
    two = saved(tmp_path, LinearRegression().fit(ROWS[["age"]], np.c_[ROWS["left"], ROWS["left"]]))
    with pytest.raises(TrainingError, match=r"gave \(4, 2\) predictions for 4 rows"):
        take_in(registry, two, sample=ROWS, target="left")
    assert registry.versions() == []


def test_what_is_private_stays_so_and_text_is_refused(registry: Registry, tmp_path: Path) -> None:
    path = saved(tmp_path, LogisticRegression().fit(ROWS[["age", "new"]], ROWS["left"]))
    first = take_in(registry, path, sample=ROWS, target="left", private=["age"])
    again = take_in(registry, saved(tmp_path, LogisticRegression(C=0.1).fit(ROWS[["age", "new"]], ROWS["left"])))
    for version in (first, again):
        assert [f["name"] for f in version.record["schema"]["features"] if f.get("private")] == ["age"]
    rows = ROWS.assign(age=["secret-1", "secret-2", "secret-3", "secret-4"])
    with pytest.raises(DataError, match="reads age, which is private text") as e:
        take_in(registry, path, sample=rows, target="left")
    assert "secret-1" not in str(e.value)
